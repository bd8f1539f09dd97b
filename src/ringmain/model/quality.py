"""The quality of a reading: one uint16 bit field that every protocol's quality maps to.

The bits are part of the log format: a bit never changes its meaning, unused bits are written as zero.
Zero means: good, measured, process value, clock synchronised, live.

    bit  name                 meaning
    0-1  validity             0 good, 1 questionable, 2 invalid (3 is reserved and read as invalid)
    2-3  origin               0 measured, 1 substituted by hand, 2 estimated by rule, 3 calculated
    4    TEST                 produced in test operation, not to be used operationally
    5    BLOCKED              operator blocked the point, the value is frozen
    6    CLOCK_UNSYNCHRONISED the source's clock was not synchronised
    7    CLOCK_FAILED         the source's clock is known to be wrong, or its time lies beyond `max_ahead`
    8    HISTORICAL           sent from a buffer, not live
    9    ARRIVAL_TIME         the source gave no time; `time` is the time of arrival
    10   OVERFLOW             the value exceeds the range that the source can represent
    11   OUT_OF_RANGE         outside the engineering limits
    12   OLD_DATA             not updated within the source's expected interval
    13   INCONSISTENT         the source found the value inconsistent with others
    14   INACCURATE           does not meet the stated accuracy
    15   COMMUNICATION_LOST   the source lost contact with the sensor, and repeats its last value
"""

from enum import IntEnum, IntFlag


class Quality(IntFlag):
    """Bits of the quality field (uint16)."""

    GOOD = 0
    QUESTIONABLE = 0x0001
    INVALID = 0x0002
    SUBSTITUTED = 0x0004
    ESTIMATED = 0x0008
    CALCULATED = 0x000C
    TEST = 0x0010
    BLOCKED = 0x0020
    CLOCK_UNSYNCHRONISED = 0x0040
    CLOCK_FAILED = 0x0080
    HISTORICAL = 0x0100
    ARRIVAL_TIME = 0x0200
    OVERFLOW = 0x0400
    OUT_OF_RANGE = 0x0800
    OLD_DATA = 0x1000
    INCONSISTENT = 0x2000
    INACCURATE = 0x4000
    COMMUNICATION_LOST = 0x8000


VALIDITY_MASK = 0x0003
ORIGIN_MASK = 0x000C


class Validity(IntEnum):
    """Values of the two validity bits."""

    GOOD = 0
    QUESTIONABLE = 1
    INVALID = 2


class Origin(IntEnum):
    """Values of the two origin bits (already shifted down)."""

    MEASURED = 0
    SUBSTITUTED = 1
    ESTIMATED = 2
    CALCULATED = 3
