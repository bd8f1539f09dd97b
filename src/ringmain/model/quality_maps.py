"""The quality of OPC UA, IEC 61850 and IEC 60870-5 in our bits, and back: tables, and functions over columns.

Towards us nothing is lost that a consumer could need; what is left out is said at each function. Back, whatever
the other standard has a place for arrives there; the validity always does. All functions take and give arrays.

Sources
    OPC UA              Part 4 (1.05), 7.39 StatusCode; Part 8, 6.3 status codes of data access; Part 11, 6.4.3
                        historian bits
    IEC 61850-7-3       6.2 Quality; bits in the order of the bit string of 61850-8-1 (bit n of the string is
                        1 << n); time quality as the octet of UtcTime in 61850-8-1
    IEC 60870-5-101     7.2.6.1 SIQ, 7.2.6.2 DIQ, 7.2.6.3 QDS, 7.2.6.4 QDP, 7.2.6.18 CP56Time2a
                        (60870-5-104 takes them over)
"""

from __future__ import annotations

from enum import IntFlag

import numpy as np
from numpy.typing import NDArray

from ringmain.model.quality import ORIGIN_MASK, VALIDITY_MASK, Quality

Bits = NDArray[np.uint16]
"""Our quality, a column of readings."""

_QUESTIONABLE = Quality.QUESTIONABLE
_INVALID = Quality.INVALID
_LOST = Quality.COMMUNICATION_LOST

# --- OPC UA ------------------------------------------------------------------------------------------------

OPCUA_CODES: dict[int, tuple[str, Quality]] = {
    0x00000000: ("Good", Quality.GOOD),
    0x00960000: ("GoodLocalOverride", Quality.SUBSTITUTED),
    0x40000000: ("Uncertain", _QUESTIONABLE),
    0x408F0000: ("UncertainNoCommunicationLastUsableValue", _QUESTIONABLE | _LOST),
    0x40900000: ("UncertainLastUsableValue", _QUESTIONABLE | Quality.OLD_DATA),
    0x40910000: ("UncertainSubstituteValue", _QUESTIONABLE | Quality.SUBSTITUTED),
    0x40920000: ("UncertainInitialValue", _QUESTIONABLE),
    0x40930000: ("UncertainSensorNotAccurate", _QUESTIONABLE | Quality.INACCURATE),
    0x40940000: ("UncertainEngineeringUnitsExceeded", _QUESTIONABLE | Quality.OUT_OF_RANGE),
    0x40950000: ("UncertainSubNormal", _QUESTIONABLE | Quality.INCONSISTENT),
    0x40A40000: ("UncertainDataSubNormal", _QUESTIONABLE | Quality.INCONSISTENT | Quality.CALCULATED),
    0x42080000: ("UncertainTransducerInManual", _QUESTIONABLE | Quality.BLOCKED),
    0x42090000: ("UncertainSimulatedValue", _QUESTIONABLE | Quality.TEST),
    0x420A0000: ("UncertainSensorCalibration", _QUESTIONABLE | Quality.INACCURATE),
    0x80000000: ("Bad", _INVALID),
    0x80050000: ("BadCommunicationError", _INVALID | _LOST),
    0x800A0000: ("BadTimeout", _INVALID | _LOST),
    0x800D0000: ("BadServerNotConnected", _INVALID | _LOST),
    0x80310000: ("BadNoCommunication", _INVALID | _LOST),
    0x803C0000: ("BadOutOfRange", _INVALID | Quality.OUT_OF_RANGE),
    0x808A0000: ("BadNotConnected", _INVALID | _LOST),
    0x808D0000: ("BadOutOfService", _INVALID | Quality.BLOCKED),
    0x80AD0000: ("BadDisconnect", _INVALID | _LOST),
    0x80AE0000: ("BadConnectionClosed", _INVALID | _LOST),
}
"""Status codes that say more than their severity: name and our bits. All others: validity by severity."""

_OPCUA_SEVERITY_SHIFT = 30
_OPCUA_CODE_MASK = np.uint32(0xFFFF0000)
_OPCUA_DATA_VALUE = 0x0400
_OPCUA_DATA_VALUE_MASK = 0x0C00
_OPCUA_LIMIT_MASK = 0x0300
_OPCUA_LIMITS = (0x0100, 0x0200)
_OPCUA_HISTORIAN_MASK = 0x0003
_OPCUA_CALCULATED = 1
_OPCUA_INTERPOLATED = 2
_OPCUA_BACK: tuple[tuple[Quality, int], ...] = (
    (_INVALID | _LOST, 0x80310000),
    (_INVALID | Quality.BLOCKED, 0x808D0000),
    (_INVALID | Quality.OUT_OF_RANGE, 0x803C0000),
    (_INVALID | Quality.OVERFLOW, 0x803C0000),
    (_INVALID, 0x80000000),
    (_QUESTIONABLE | Quality.TEST, 0x42090000),
    (_QUESTIONABLE | _LOST, 0x408F0000),
    (_QUESTIONABLE | Quality.OLD_DATA, 0x40900000),
    (_QUESTIONABLE | Quality.BLOCKED, 0x42080000),
    (_QUESTIONABLE | Quality.INACCURATE, 0x40930000),
    (_QUESTIONABLE | Quality.OUT_OF_RANGE, 0x40940000),
    (_QUESTIONABLE | Quality.OVERFLOW, 0x40940000),
    (_QUESTIONABLE | Quality.INCONSISTENT, 0x40950000),
)
"""In the order of preference: the first whose bits are all set. Substituted values come before and after."""


def from_opcua(status: NDArray[np.uint32]) -> Bits:
    """Quality of OPC UA status codes (uint32).

    Limit bits low and high become OUT_OF_RANGE; historian bits calculated and interpolated become the origins
    CALCULATED and ESTIMATED. Left out: StructureChanged, SemanticsChanged, the queue's overflow bit (it speaks of
    values that were not sent), partial, extra and multiple data.
    """
    status = np.asarray(status, np.uint32)
    codes = np.fromiter(OPCUA_CODES, np.uint32, len(OPCUA_CODES))
    bits = np.fromiter((int(quality) for _, quality in OPCUA_CODES.values()), np.uint16, len(OPCUA_CODES))
    order = np.argsort(codes)
    codes, bits = codes[order], bits[order]
    base = status & _OPCUA_CODE_MASK
    at = np.minimum(np.searchsorted(codes, base), len(codes) - 1)
    severity = np.array([0, int(_QUESTIONABLE), int(_INVALID), int(_INVALID)], np.uint16)
    found = np.where(codes[at] == base, bits[at], severity[status >> np.uint32(_OPCUA_SEVERITY_SHIFT)])
    has_data_bits = (status & np.uint32(_OPCUA_DATA_VALUE_MASK)) == _OPCUA_DATA_VALUE
    limit = status & np.uint32(_OPCUA_LIMIT_MASK)
    found |= np.where(has_data_bits & np.isin(limit, _OPCUA_LIMITS), Quality.OUT_OF_RANGE.value, 0).astype(
        np.uint16
    )
    historian = np.where(has_data_bits, status & np.uint32(_OPCUA_HISTORIAN_MASK), 0)
    measured = (found & ORIGIN_MASK) == 0
    found |= np.where(measured & (historian == _OPCUA_CALCULATED), Quality.CALCULATED.value, 0).astype(
        np.uint16
    )
    found |= np.where(measured & (historian == _OPCUA_INTERPOLATED), Quality.ESTIMATED.value, 0).astype(
        np.uint16
    )
    return found


def to_opcua(quality: Bits) -> NDArray[np.uint32]:
    """The OPC UA status code that says most of what the quality says.

    Of several details one is told, in the order of `_OPCUA_BACK`; limits, calculated and estimated values also in
    the info bits. Clock states have no place in a status code.
    """
    quality = _valid(np.asarray(quality, np.uint16))
    origin = quality & ORIGIN_MASK
    validity = quality & VALIDITY_MASK
    substituted = origin == int(Quality.SUBSTITUTED)
    choices = [(validity == 0) & substituted, (validity == 0)]
    codes = [0x00960000, 0x00000000]
    for bits, code in _OPCUA_BACK:
        wanted = int(bits) & ~VALIDITY_MASK
        choices.append((validity == int(bits) & VALIDITY_MASK) & (quality & wanted == wanted))
        codes.append(code)
    choices.append(substituted)
    codes.append(0x40910000)
    status = np.select(choices, [np.uint32(code) for code in codes], np.uint32(0x40000000))
    historian = np.select(
        [origin == int(Quality.CALCULATED), origin == int(Quality.ESTIMATED)],
        [np.uint32(_OPCUA_CALCULATED), np.uint32(_OPCUA_INTERPOLATED)],
        np.uint32(0),
    )
    limits = np.where(quality & int(Quality.OUT_OF_RANGE) != 0, np.uint32(_OPCUA_LIMITS[1]), np.uint32(0))
    limits = np.where(np.isin(status, (0x803C0000, 0x40940000)), np.uint32(0), limits)
    info = historian | limits
    return np.where(info != 0, status | info | np.uint32(_OPCUA_DATA_VALUE), status).astype(np.uint32)


# --- IEC 61850 -----------------------------------------------------------------------------------------------


class Iec61850Quality(IntFlag):
    """Quality of IEC 61850-7-3, 6.2. The two validity bits: 0 good, 2 invalid, 1 reserved, 3 questionable."""

    RESERVED = 0x0001
    INVALID = 0x0002
    QUESTIONABLE = 0x0003
    OVERFLOW = 0x0004
    OUT_OF_RANGE = 0x0008
    BAD_REFERENCE = 0x0010
    OSCILLATORY = 0x0020
    FAILURE = 0x0040
    OLD_DATA = 0x0080
    INCONSISTENT = 0x0100
    INACCURATE = 0x0200
    SUBSTITUTED = 0x0400
    TEST = 0x0800
    OPERATOR_BLOCKED = 0x1000


class Iec61850TimeQuality(IntFlag):
    """Flags of the time quality octet; the five bits below are the accuracy."""

    LEAP_SECONDS_KNOWN = 0x80
    CLOCK_FAILURE = 0x40
    CLOCK_NOT_SYNCHRONIZED = 0x20


IEC61850_BITS: dict[Iec61850Quality, Quality] = {
    Iec61850Quality.OVERFLOW: Quality.OVERFLOW,
    Iec61850Quality.OUT_OF_RANGE: Quality.OUT_OF_RANGE,
    Iec61850Quality.OLD_DATA: Quality.OLD_DATA,
    Iec61850Quality.INCONSISTENT: Quality.INCONSISTENT,
    Iec61850Quality.INACCURATE: Quality.INACCURATE,
    Iec61850Quality.SUBSTITUTED: Quality.SUBSTITUTED,
    Iec61850Quality.TEST: Quality.TEST,
    Iec61850Quality.OPERATOR_BLOCKED: Quality.BLOCKED,
}
"""Bits that have a bit of ours, in both directions."""

IEC61850_ONE_WAY: dict[Iec61850Quality, Quality] = {
    Iec61850Quality.BAD_REFERENCE: Quality.INACCURATE,
    Iec61850Quality.OSCILLATORY: Quality.INCONSISTENT,
}
"""Bits that come back as another: badReference as inaccurate, oscillatory as inconsistent."""

_IEC61850_VALIDITY = (0, int(_INVALID), int(_INVALID), int(_QUESTIONABLE))
_IEC61850_VALIDITY_BACK = (0, 3, 2, 2)


def from_iec61850(quality: NDArray[np.uint16], time_quality: NDArray[np.uint8] | int = 0) -> Bits:
    """Quality of IEC 61850 quality bits and time quality octets.

    A failure makes a value invalid that is not so already. The accuracy of the time is left out.
    """
    given = np.asarray(quality, np.uint16)
    found = np.array(_IEC61850_VALIDITY, np.uint16)[given & 3]
    failed = given & int(Iec61850Quality.FAILURE) != 0
    found = np.where(failed, np.uint16(_INVALID), found)
    for theirs, ours in (IEC61850_BITS | IEC61850_ONE_WAY).items():
        found |= np.where(given & int(theirs) != 0, np.uint16(ours), np.uint16(0))
    time = np.asarray(time_quality, np.uint8)
    found |= np.where(
        time & int(Iec61850TimeQuality.CLOCK_FAILURE) != 0, np.uint16(Quality.CLOCK_FAILED), np.uint16(0)
    )
    unsynchronised = time & int(Iec61850TimeQuality.CLOCK_NOT_SYNCHRONIZED) != 0
    found |= np.where(unsynchronised, np.uint16(Quality.CLOCK_UNSYNCHRONISED), np.uint16(0))
    return found.astype(np.uint16)


def to_iec61850(quality: Bits) -> tuple[NDArray[np.uint16], NDArray[np.uint8]]:
    """(quality, time quality without accuracy). Estimated and calculated values count as process values;
    a lost communication is oldData."""
    given = _valid(np.asarray(quality, np.uint16))
    found = np.array(_IEC61850_VALIDITY_BACK, np.uint16)[given & VALIDITY_MASK]
    for theirs, ours in IEC61850_BITS.items():
        is_set = given & int(ours) != 0
        if theirs is Iec61850Quality.SUBSTITUTED:
            is_set = given & ORIGIN_MASK == int(Quality.SUBSTITUTED)
        found |= np.where(is_set, np.uint16(theirs), np.uint16(0))
    found |= np.where(given & int(_LOST) != 0, np.uint16(Iec61850Quality.OLD_DATA), np.uint16(0))
    failed = np.where(given & int(Quality.CLOCK_FAILED) != 0, Iec61850TimeQuality.CLOCK_FAILURE.value, 0)
    unsynchronised = np.where(
        given & int(Quality.CLOCK_UNSYNCHRONISED) != 0, Iec61850TimeQuality.CLOCK_NOT_SYNCHRONIZED.value, 0
    )
    return found.astype(np.uint16), (failed | unsynchronised).astype(np.uint8)


# --- IEC 60870-5 ---------------------------------------------------------------------------------------------


class Iec60870Quality(IntFlag):
    """Quality descriptors. OV is in QDS only (measured values), EI in QDP only; the others in SIQ and DIQ too."""

    OV = 0x01
    EI = 0x08
    BL = 0x10
    SB = 0x20
    NT = 0x40
    IV = 0x80


CP56_MINUTE_IV = 0x80
"""The invalid bit of CP56Time2a, in its octet of minutes."""

IEC60870_BITS: dict[Iec60870Quality, Quality] = {
    Iec60870Quality.OV: Quality.OVERFLOW,
    Iec60870Quality.EI: Quality.INACCURATE,
    Iec60870Quality.BL: Quality.BLOCKED,
    Iec60870Quality.SB: Quality.SUBSTITUTED,
    Iec60870Quality.NT: Quality.OLD_DATA,
    Iec60870Quality.IV: Quality.INVALID,
}
"""Bits and ours. OV, EI and NT also make a value questionable that is not invalid."""

_IEC60870_QUESTIONABLE = Iec60870Quality.OV | Iec60870Quality.EI | Iec60870Quality.NT
_POINT_MASK = Iec60870Quality.BL | Iec60870Quality.SB | Iec60870Quality.NT | Iec60870Quality.IV


def from_qds(descriptor: NDArray[np.uint8], minutes: NDArray[np.uint8] | int = 0) -> Bits:
    """Quality of QDS octets, and of the octets of minutes of their CP56Time2a (0: none).

    A time that is marked invalid is CLOCK_UNSYNCHRONISED: in practice the bit says no more.
    """
    return _from_descriptor(descriptor, minutes, _POINT_MASK | Iec60870Quality.OV)


def from_siq(descriptor: NDArray[np.uint8], minutes: NDArray[np.uint8] | int = 0) -> Bits:
    """Quality of SIQ or DIQ octets: as `from_qds`, but the low bits are the state and not OV."""
    return _from_descriptor(descriptor, minutes, _POINT_MASK)


def from_qdp(descriptor: NDArray[np.uint8], minutes: NDArray[np.uint8] | int = 0) -> Bits:
    """Quality of QDP octets (events of protection): as `from_qds`, with EI instead of OV."""
    return _from_descriptor(descriptor, minutes, _POINT_MASK | Iec60870Quality.EI)


def to_qds(quality: Bits) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """(QDS, bit 7 of the octet of minutes). A questionable value without any of these bits is not topical."""
    return _to_descriptor(quality, _POINT_MASK | Iec60870Quality.OV)


def to_siq(quality: Bits) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """(the quality bits of SIQ and DIQ, bit 7 of the octet of minutes)."""
    return _to_descriptor(quality, _POINT_MASK)


def to_qdp(quality: Bits) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """(QDP, bit 7 of the octet of minutes)."""
    return _to_descriptor(quality, _POINT_MASK | Iec60870Quality.EI)


def _from_descriptor(
    descriptor: NDArray[np.uint8], minutes: NDArray[np.uint8] | int, mask: Iec60870Quality
) -> Bits:
    given = np.asarray(descriptor, np.uint8) & np.uint8(mask)
    found = np.zeros(given.shape, np.uint16)
    for theirs, ours in IEC60870_BITS.items():
        found |= np.where(given & int(theirs) != 0, np.uint16(ours), np.uint16(0))
    doubtful = (given & int(_IEC60870_QUESTIONABLE) != 0) & (given & int(Iec60870Quality.IV) == 0)
    found |= np.where(doubtful, np.uint16(_QUESTIONABLE), np.uint16(0))
    bad_time = np.asarray(minutes, np.uint8) & CP56_MINUTE_IV != 0
    found |= np.where(bad_time, np.uint16(Quality.CLOCK_UNSYNCHRONISED), np.uint16(0))
    return found


def _to_descriptor(quality: Bits, mask: Iec60870Quality) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    given = _valid(np.asarray(quality, np.uint16))
    found = np.zeros(given.shape, np.uint8)
    for theirs, ours in IEC60870_BITS.items():
        if not theirs & mask:
            continue
        is_set = given & int(ours) != 0
        if theirs is Iec60870Quality.SB:
            is_set = given & ORIGIN_MASK == int(Quality.SUBSTITUTED)
        elif theirs is Iec60870Quality.NT:
            is_set |= given & int(_LOST) != 0
        found |= np.where(is_set, np.uint8(theirs), np.uint8(0))
    unsaid = (given & VALIDITY_MASK == int(_QUESTIONABLE)) & (found & int(_IEC60870_QUESTIONABLE) == 0)
    found |= np.where(unsaid, np.uint8(Iec60870Quality.NT), np.uint8(0))
    clock = int(Quality.CLOCK_UNSYNCHRONISED | Quality.CLOCK_FAILED)
    return found, np.where(given & clock != 0, np.uint8(CP56_MINUTE_IV), np.uint8(0))


def _valid(quality: Bits) -> Bits:
    """With the reserved validity 3 as invalid."""
    reserved = quality & VALIDITY_MASK == VALIDITY_MASK
    return np.where(reserved, quality & np.uint16(0xFFFE), quality).astype(np.uint16)
