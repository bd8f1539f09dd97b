"""Quality of other standards in our bits and back. The bits are part of the log format: these tables must not move."""

import numpy as np
import pytest

from ringmain.model.quality import ORIGIN_MASK, VALIDITY_MASK, Quality
from ringmain.model.quality_maps import (
    CP56_MINUTE_IV,
    IEC60870_BITS,
    IEC61850_BITS,
    OPCUA_CODES,
    Iec60870Quality,
    Iec61850Quality,
    Iec61850TimeQuality,
    from_iec61850,
    from_opcua,
    from_qdp,
    from_qds,
    from_siq,
    to_iec61850,
    to_opcua,
    to_qdp,
    to_qds,
    to_siq,
)

EVERY = np.arange(65_536, dtype=np.uint32).astype(np.uint16)
VALID = EVERY[(EVERY & VALIDITY_MASK) != VALIDITY_MASK]
OCTETS = np.arange(256, dtype=np.uint16).astype(np.uint8)
ROUND_TRIP_LOSES = {"UncertainInitialValue", "UncertainDataSubNormal", "UncertainSensorCalibration"} | {
    "BadCommunicationError", "BadTimeout", "BadServerNotConnected", "BadNotConnected", "BadDisconnect",
    "BadConnectionClosed",
}  # fmt: skip


def opcua(*codes: int) -> list[int]:
    return from_opcua(np.array(codes, np.uint32)).tolist()


def test_the_bits_of_quality_never_move() -> None:
    assert [int(flag) for flag in Quality] == [1, 2, 4, 8, *(1 << bit for bit in range(4, 16))]
    assert (Quality.GOOD, Quality.CALCULATED, VALIDITY_MASK, ORIGIN_MASK) == (0, 12, 3, 12)


@pytest.mark.parametrize(("code", "name", "quality"), [(code, *said) for code, said in OPCUA_CODES.items()])
def test_an_opcua_code_keeps_its_severity_and_what_it_says(code: int, name: str, quality: Quality) -> None:
    severity = {"G": 0, "U": 1, "B": 2}[name[0]]
    assert code >> 30 == severity
    assert opcua(code) == [quality]
    assert quality & VALIDITY_MASK == severity
    back = int(to_opcua(np.array([quality], np.uint16))[0])
    assert back >> 30 == severity
    if name not in ROUND_TRIP_LOSES:
        assert back & 0xFFFF0000 == code


def test_opcua_codes_that_are_not_in_the_table_have_the_validity_of_their_severity() -> None:
    assert opcua(0x00A20000, 0x40BC0000, 0x80010000, 0xC0000000) == [0, 1, 2, 2]


def test_opcua_info_bits_are_read_where_they_are_data_value_bits() -> None:
    assert opcua(0x00000401, 0x00000402, 0x00000500, 0x00000600, 0x00000700) == [
        Quality.CALCULATED, Quality.ESTIMATED, Quality.OUT_OF_RANGE, Quality.OUT_OF_RANGE, 0,
    ]  # fmt: skip
    assert opcua(0x00000001, 0x00000100, 0x0000C000) == [0, 0, 0]


def test_the_validity_of_every_quality_arrives_in_opcua_and_comes_back() -> None:
    back = from_opcua(to_opcua(VALID))
    assert ((back & VALIDITY_MASK) == (VALID & VALIDITY_MASK)).all()
    origin = VALID & ORIGIN_MASK
    told = np.isin(origin, (int(Quality.CALCULATED), int(Quality.ESTIMATED)))
    assert ((back & ORIGIN_MASK)[told] == origin[told]).all()
    assert (back[VALID & Quality.OUT_OF_RANGE != 0] & Quality.OUT_OF_RANGE != 0).all()


def test_every_iec61850_quality_comes_back_but_for_what_is_documented() -> None:
    theirs = np.arange(8192, dtype=np.uint16)
    plain = theirs[
        theirs & int(Iec61850Quality.BAD_REFERENCE | Iec61850Quality.OSCILLATORY | Iec61850Quality.FAILURE)
        == 0
    ]
    plain = plain[plain & 3 != int(Iec61850Quality.RESERVED)]
    back, _ = to_iec61850(from_iec61850(plain))
    assert (back == plain).all()
    assert from_iec61850(np.array([Iec61850Quality.FAILURE], np.uint16))[0] == Quality.INVALID
    assert from_iec61850(np.array([Iec61850Quality.RESERVED], np.uint16))[0] == Quality.INVALID
    assert from_iec61850(np.array([Iec61850Quality.BAD_REFERENCE], np.uint16))[0] == Quality.INACCURATE


def test_every_quality_keeps_in_iec61850_what_iec61850_has_a_place_for() -> None:
    given = VALID[VALID & int(Quality.COMMUNICATION_LOST) == 0]
    kept = VALIDITY_MASK | int(Quality.CLOCK_FAILED | Quality.CLOCK_UNSYNCHRONISED)
    for ours in IEC61850_BITS.values():
        if ours is not Quality.SUBSTITUTED:
            kept |= int(ours)
    back = from_iec61850(*to_iec61850(given))
    assert (back & kept == given & kept).all()
    substituted = given & ORIGIN_MASK == int(Quality.SUBSTITUTED)
    assert ((back & ORIGIN_MASK == int(Quality.SUBSTITUTED)) == substituted).all()


def test_time_quality_of_iec61850_is_the_state_of_the_clock() -> None:
    time = np.array(
        [0, Iec61850TimeQuality.CLOCK_FAILURE, Iec61850TimeQuality.CLOCK_NOT_SYNCHRONIZED, 0x9F], np.uint8
    )
    assert from_iec61850(np.zeros(4, np.uint16), time).tolist() == [
        0, Quality.CLOCK_FAILED, Quality.CLOCK_UNSYNCHRONISED, 0,
    ]  # fmt: skip


def test_every_quality_descriptor_of_iec60870_comes_back() -> None:
    for mask, read, write in (
        (0xF1, from_qds, to_qds),
        (0xF0, from_siq, to_siq),
        (0xF8, from_qdp, to_qdp),
    ):
        for minutes in (0, CP56_MINUTE_IV | 59):
            descriptor, time = write(read(OCTETS, minutes))
            assert (descriptor == OCTETS & mask).all()
            assert (time == minutes & CP56_MINUTE_IV).all()


def test_the_state_bits_of_single_and_double_points_are_no_quality() -> None:
    assert from_siq(np.array([0, 1, 2, 3], np.uint8)).tolist() == [0, 0, 0, 0]
    assert from_qds(np.array([1], np.uint8)).tolist() == [Quality.OVERFLOW | Quality.QUESTIONABLE]


def test_no_quality_that_is_not_good_arrives_as_good_in_iec60870() -> None:
    doubtful = Iec60870Quality.IV | Iec60870Quality.NT | Iec60870Quality.OV | Iec60870Quality.EI
    for write in (to_qds, to_siq, to_qdp):
        descriptor, _ = write(VALID)
        validity = VALID & VALIDITY_MASK
        assert ((descriptor & int(Iec60870Quality.IV) != 0) == (validity == 2)).all()
        assert (descriptor[validity == 1] & int(doubtful) != 0).all()
        for theirs in (Iec60870Quality.BL, Iec60870Quality.OV):
            if write is to_qds or theirs is Iec60870Quality.BL:
                assert ((descriptor & int(theirs) != 0) == (VALID & int(IEC60870_BITS[theirs]) != 0)).all()


def test_the_reserved_validity_is_written_as_invalid_everywhere() -> None:
    reserved = np.array([3], np.uint16)
    assert to_opcua(reserved)[0] >> 30 == 2
    assert to_iec61850(reserved)[0][0] == Iec61850Quality.INVALID
    assert to_qds(reserved)[0][0] == Iec60870Quality.IV
