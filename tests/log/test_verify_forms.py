"""`verify` says the same about a log, word for word, however its headers are summed up: by NumPy or by compiled loops."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringmain.log.builtin import CATALOGUE_ID, CONTROL_ID
from ringmain.log.check.scan import FRAMES, GROUPS, Form, can_compile
from ringmain.log.check.state import _DECODER, _POSITIONS_BEGIN
from ringmain.log.check.sums import producer_sums, stream_sums
from ringmain.log.check.verify import VerifyReport, verify
from ringmain.log.control import UNREADABLE, Claimed, Moved
from ringmain.log.interface import LogError
from tests.log.forging import LOG, Files, disk_of, forge, made, with_record_changed

FILES = made()
pytestmark = pytest.mark.skipif(not can_compile(), reason="no compiled loop on this machine")


def _said(files: Files, form: Form) -> VerifyReport | str:
    try:
        return verify(LOG, fs=disk_of(files), form=form)
    except (LogError, OSError) as error:
        return f"{type(error).__name__}: {error}"


def _changed(seed: int) -> tuple[Files, list[str]]:
    rng, files = random.Random(seed), dict(FILES)
    return files, [forge(files, rng) for _ in range(rng.choice((1, 1, 2, 4)))]


def test_a_sound_log_is_sound_in_each_form() -> None:
    found = [_said(FILES, form) for form in Form]
    assert isinstance(found[0], VerifyReport)
    assert found[0].sound
    assert found[0].segments > 5
    assert found == [found[0]] * len(Form)


@pytest.mark.parametrize(
    "seeds", [range(start, start + 40) for start in range(0, 80, 40)], ids=lambda r: r[0]
)
def test_forged_and_damaged_logs_are_described_alike(seeds: range) -> None:
    unsound = 0
    for seed in seeds:
        files, changes = _changed(seed)
        expected = _said(files, Form.WALK)
        unsound += not (isinstance(expected, VerifyReport) and expected.sound)
        for form in (Form.CHAINED, Form.COMPILED):
            assert _said(files, form) == expected, (seed, changes, form)
    assert unsound > len(seeds) // 2


def test_a_name_of_a_position_that_is_no_text_is_told() -> None:
    files = with_record_changed(FILES, b"two/x", b"tw\xff/x")
    found = [_said(files, form) for form in Form]
    assert isinstance(found[0], VerifyReport)
    assert "control record cannot be read ('utf-8' codec can't decode" in str(found[0].problems[0])
    assert found == [found[0]] * len(Form)


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_very_many_forged_and_damaged_logs_are_described_alike() -> None:
    for seed in range(1000, 11_000):
        files, changes = _changed(seed)
        expected = _said(files, Form.WALK)
        for form in (Form.CHAINED, Form.COMPILED):
            assert _said(files, form) == expected, (seed, changes, form)


# -- sums --------------------------------------------------------------------------------------------------------


def _headers(seed: int, ids: int) -> tuple[Any, Any, Any]:
    """Groups, the number of each's first frame, and frames, mostly as they must be."""
    random_ = np.random.default_rng(seed)
    counts = random_.integers(0, 4, int(random_.integers(0, 300)))
    groups = np.zeros(len(counts), GROUPS)
    groups["frame_count"] = counts
    frames = np.zeros(int(counts.sum()), FRAMES)
    frames["stream"] = random_.integers(0, ids, len(frames))
    frames["rows"] = random_.integers(0, 5, len(frames))
    frames["producer"] = random_.integers(0, ids, len(frames)).astype(np.uint64) * np.uint64(2**57 + 3)
    frames["epoch"] = random_.integers(0, 2, len(frames))
    frames["sequence"] = np.arange(len(frames))
    for stream in np.unique(frames["stream"]):
        of = frames["stream"] == stream
        frames["cumulative_rows"][of] = np.cumsum(frames["rows"][of])
    for name in ("cumulative_rows", "sequence"):
        for place in random_.integers(0, max(len(frames), 1), int(random_.integers(0, 3))):
            if len(frames):
                frames[name][place] += np.uint64(random_.integers(0, 2**64, dtype=np.uint64) >> np.uint64(1))
    return groups, np.concatenate([[0], np.cumsum(counts)]), frames


@pytest.mark.parametrize("ids", [2, 40, 100_000])
def test_sums_are_the_same_in_both_forms(ids: int) -> None:
    broken = 0
    for seed in range(40):
        groups, first, frames = _headers(seed, ids)
        plain, fast = stream_sums(frames, compiled=False), stream_sums(frames, compiled=True)
        for name, one, other in zip(plain._fields, plain, fast, strict=True):
            assert np.array_equal(one, other), (seed, name)
            assert one.dtype == other.dtype, name
        assert int(plain.frames.sum()) == len(frames)
        broken += not plain.whole.all()
        for internal in (0, 2**57 + 3):
            sums = [
                producer_sums(groups, first, frames, internal, compiled=compiled)
                for compiled in (False, True)
            ]
            for name, one, other in zip(sums[0]._fields, *sums, strict=True):
                assert np.array_equal(one, other), (seed, name)
                assert one.dtype == other.dtype, name
            assert internal not in sums[0].producers.tolist()
            broken += not sums[0].rising.all()
    assert broken or ids == 100_000


def test_ids_that_are_made_to_collide_are_summed_by_numpy() -> None:
    """Ids whose places in the table are the same, at any size that it may have."""
    from ringmain.log.check.loops import sum_producers, sum_streams

    inverse = pow(0x9E3779B97F4A7C15, -1, 2**64)
    frames = np.zeros(3000, FRAMES)
    # the product ends in the number and has nothing in the bits that are looked at
    frames["producer"] = [number * inverse % 2**64 for number in range(3000)]
    frames["stream"] = np.arange(3000)
    groups = np.zeros(3000, GROUPS)
    groups["frame_count"] = 1
    first = np.arange(3001)
    assert sum_producers(groups, first, frames, 2**63) is None
    found = producer_sums(groups, first, frames, 2**63, compiled=True)
    assert len(found.producers) == 3000
    streams = sum_streams(frames)
    assert streams is not None
    assert len(streams.streams) == 3000


# -- positions ---------------------------------------------------------------------------------------------------


_NAMES = st.sampled_from(["a", "b", "ü" * 20, "c" * 200, "d" * 66_000, ""])
_VALUES = st.one_of(st.none(), st.binary(max_size=3), st.sampled_from([b"x" * 300, b"y" * 66_000]))
_MOVED = st.dictionaries(_NAMES, _VALUES, max_size=4).map(
    lambda values: msgspec.msgpack.encode(Moved(values))
)
_MANY = st.just(msgspec.msgpack.encode(Moved({f"n/{number}": b"1" for number in range(20)})))
_OTHER = st.just(msgspec.msgpack.encode(Claimed("a", 1, 2, 3)))


@st.composite
def _bodies(draw: st.DrawFn) -> tuple[list[int], list[bytes]]:
    streams, bodies = [], []
    for _ in range(draw(st.integers(0, 12))):
        packed = bytearray(draw(st.one_of(_MOVED, _MOVED, _MOVED, _MANY, _OTHER)))
        if draw(st.integers(0, 5)) == 0:
            packed[draw(st.integers(0, min(len(packed), 60) - 1))] = draw(st.sampled_from(range(256)))
        length = len(packed) + draw(st.sampled_from([0, 0, 0, 0, 0, -1, 1, 2**31]))
        body = length.to_bytes(4, "little") + packed
        bodies.append(bytes(body) + bytes(-len(body) % 8))
        streams.append(draw(st.sampled_from([CONTROL_ID, CONTROL_ID, CONTROL_ID, CATALOGUE_ID])))
    return streams, bodies


def _positions(bodies: list[bytes]) -> tuple[dict[str, bytes], int]:
    """What records of positions come to, and how many bodies are no record at all."""
    positions: dict[str, bytes | None] = {}
    unreadable = 0
    for body in bodies:
        try:
            record = _DECODER.decode(body[4 : 4 + int.from_bytes(body[:4], "little")])
        except UNREADABLE:
            unreadable += 1
            continue
        if isinstance(record, Moved):
            positions.update(record.values)
    return {name: value for name, value in positions.items() if value is not None}, unreadable


@settings(derandomize=True, deadline=None, max_examples=100)
@given(_bodies())
def test_records_that_are_left_out_change_no_position_and_hide_no_record_that_cannot_be_read(
    drawn: tuple[list[int], list[bytes]],
) -> None:
    from ringmain.log.check.replaced import not_replaced

    streams, bodies = drawn
    starts = np.cumsum([0, *map(len, bodies)])
    data = np.frombuffer(b"".join(bodies), np.uint8)
    needed = not_replaced(np.array(streams, np.uint32), data, starts, _POSITIONS_BEGIN).tolist()
    control = [number for number, stream in enumerate(streams) if stream == CONTROL_ID]
    expected, unreadable = _positions([bodies[number] for number in control])
    found, told = _positions([bodies[number] for number in control if needed[number]])
    assert all(needed[number] for number in range(len(bodies)) if number not in control)
    assert bool(told) == bool(unreadable)
    assert found == expected


def test_of_positions_that_move_again_and_again_only_the_last_is_read() -> None:
    from ringmain.log.check.replaced import not_replaced

    packed = [msgspec.msgpack.encode(Moved({f"{n % 3}": b"%d" % n, "of": None})) for n in range(30)]
    bodies = [len(one).to_bytes(4, "little") + one for one in packed]
    bodies = [body + bytes(-len(body) % 8) for body in bodies]
    starts = np.cumsum([0, *map(len, bodies)])
    data = np.frombuffer(b"".join(bodies), np.uint8)
    needed = not_replaced(np.full(30, CONTROL_ID, np.uint32), data, starts, _POSITIONS_BEGIN)
    assert np.flatnonzero(needed).tolist() == [27, 28, 29]
