"""Nothing goes without an entry, no entry is lost, and a flood of entries stays small with its sums exact."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ringmain
from ringmain.log import open_log
from ringmain.log.builtin import LedgerKind
from ringmain.log.control import producer_id
from ringmain.log.frames import offset_of
from ringmain.log.interface import Position
from ringmain.log.ledger.entries import (
    DAY_NS,
    HOUR_NS,
    MINUTE_NS,
    LedgerEntry,
    bounded,
    compacted,
    entries_of,
    instant_ns,
    instant_text,
    ledger_batch,
    merged,
    shown,
)
from ringmain.log.ledger.findings import unknown
from ringmain.testing import CHANGING_CALLS, SimulatedDisk
from tests.log.accounting import TestSource, accounts_of, groups_of
from tests.log.deterministic import held

HERE = Path("log")
FIRST = HERE / "0000000001.seg"


def _torn() -> dict[Path, bytes]:
    """What a kill leaves: groups that are proven, three that are not, and a torn one behind them."""
    disk = SimulatedDisk()
    log = open_log(HERE, fs=disk)
    field = TestSource(log)
    for _ in range(3):
        field.append()
    with held(log):
        for _ in range(4):
            batches, row = field.prepared()
            field.sequence += 1
            log.append_nowait(batches, lambda *_: None, claim=field.claim, sequence=field.sequence)
            field.row = row
    field.append()
    files = disk.contents()
    log.close()
    raw = bytearray(files[FIRST])
    mine = [group for group in groups_of(bytes(raw)) if group[2] == producer_id("source/field")]
    raw[mine[-2][1] - 20] ^= 1
    files[FIRST] = bytes(raw[: mine[-2][1]])
    return {path: data for path, data in files.items() if path.suffix == ".seg"}


def test_a_cut_tail_keeps_its_entry_wherever_the_opening_that_cuts_it_is_cut_off() -> None:
    disk = SimulatedDisk(_torn())
    points: list[SimulatedDisk] = []

    def look(call: str, path: Path | None) -> None:
        if call in CHANGING_CALLS:
            points.append(disk.copy())

    disk.before_call = look
    with open_log(HERE, fs=disk) as log:
        assert [row["rows"] for row in _rows(log.ledger(), LedgerKind.CUT)] == [3]
        assert accounts_of(log)["field"].readings.found == 18
    disk.before_call = None
    assert len(points) > 10
    for number, point in enumerate(points):
        for after in (point.kill(), point.after_power_cut(random.Random(number)), point.after_power_cut()):
            with open_log(HERE, fs=after) as log:
                (cut,) = _rows(log.ledger(), LedgerKind.CUT)
                assert (cut["source"], cut["rows"]) == ("field", 3)
                assert "may have been acknowledged" in str(cut["reason"])
                account = accounts_of(log)["field"]
                assert (account.readings.found, account.readings.cut, account.closes) == (18, 3, True)


def _rows(ledger: object, kind: LedgerKind) -> list[dict[str, object]]:
    rows = ledger.drop_columns(["time"]).to_pylist()  # type: ignore[attr-defined]
    return [row for row in rows if row["kind"] == kind]


def test_the_table_of_sql_has_the_entries_that_no_row_of_the_stream_holds(tmp_path: Path) -> None:
    with open_log(tmp_path, segment_bytes=4096) as log:
        field = TestSource(log)
        for _ in range(20):
            field.append(0, letters=2)
        assert log.retain(size_bytes=0) > 2
    with ringmain.open(tmp_path, read_only=True) as log:
        found = log.sql(
            "select kind, source, sum(rows) as n from ledger group by all order by kind"
        ).to_pylist()
    assert [(row["kind"], row["source"]) for row in found] == [("evicted", "field"), ("rejected", "field")]
    assert found[1]["n"] == 40


def _entry(time_ns: int, rows: int | None = 1, kind: str = "quarantined", source: str = "a") -> LedgerEntry:
    place = f"1-0-{time_ns:x}"
    reason = f"damaged: body CRC (segment 1, bytes {time_ns} to {time_ns + 8})"
    return LedgerEntry(kind, "readings", source, place, place, 8, rows, reason, time_ns)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(
    st.lists(
        st.builds(
            _entry,
            st.integers(0, 5 * DAY_NS),
            st.integers(0, 9),
            st.sampled_from(["quarantined", "evicted", "cut", "conflict"]),
            st.sampled_from(["a", "b"]),
        ),
        max_size=300,
    ),
    st.sampled_from([MINUTE_NS, HOUR_NS, DAY_NS, None]),
)
def test_joining_entries_keeps_sums_and_ranges(entries: list[LedgerEntry], interval_ns: int | None) -> None:
    entries = sorted(entries, key=lambda one: one.time_ns)
    for joined in (merged(entries, interval_ns), shown(entries), compacted(entries, 16)):
        assert _sums(joined) == _sums(entries)
        for entry in entries:
            assert any(
                (one.kind, one.source) == (entry.kind, entry.source)
                and int(one.start[4:], 16) <= entry.time_ns <= int(one.end[4:], 16)
                for one in joined
            )


def _sums(entries: list[LedgerEntry]) -> dict[tuple[str, str | None], tuple[int, int]]:
    found: dict[tuple[str, str | None], tuple[int, int]] = {}
    for entry in entries:
        size, rows = found.get((entry.kind, entry.source), (0, 0))
        found[entry.kind, entry.source] = size + entry.bytes, rows + (entry.rows or 0)
    return found


def test_what_is_shown_of_a_flood_is_small_and_a_few_places_are_shown_one_by_one() -> None:
    flood = [_entry(n * 10**6) for n in range(10_000)]
    assert len(shown(flood)) == 1
    assert shown(flood)[0].rows == 10_000
    assert "segment" not in shown(flood)[0].reason
    few = flood[:5]
    assert shown(few) == few
    unknown = [_entry(n, rows=None) for n in range(50)]
    assert shown(unknown)[0].rows is None, "a sum with something unknown in it is unknown"


def test_time_ranges_that_do_not_adjoin_are_not_joined() -> None:
    def unknown(start: int, end: int) -> LedgerEntry:
        return LedgerEntry(
            "unknown", None, "a", instant_text(start), instant_text(end), 0, None, "why", MINUTE_NS + end
        )

    entries = [unknown(5, 6), unknown(6, 9), unknown(20, 30)]
    assert [(one.start, one.end) for one in shown(entries)] == [
        (instant_text(5), instant_text(9)),
        (instant_text(20), instant_text(30)),
    ]


@pytest.mark.parametrize("ns", [0, 1, 1_795_392_000_123_456_789, 2**62, -1])
def test_instants_are_read_back(ns: int) -> None:
    assert instant_ns(instant_text(ns)) == ns


def test_text_that_is_no_instant_is_none() -> None:
    for text in ("", "Z", "1-0-5", "2026-13-01T00:00:00.000000000Z", "2026-11-23T00:00:00Z", "x" * 30 + "Z"):
        assert instant_ns(text) is None


def test_entries_survive_as_rows() -> None:
    entries = [_entry(5), _entry(7, rows=None, kind="unknown")]
    assert entries_of(ledger_batch(entries)) == entries


def _place(stream: str, first: int, last: int, size: int, at: int | None) -> LedgerEntry:
    start, end = (str(Position(7, 0, offset_of(lsn, 0))) for lsn in (first, last))
    where = "" if at is None else f" (segment 1, bytes {at} to {at + size})"
    return LedgerEntry(LedgerKind.QUARANTINED, stream, None, start, end, size, 1, f"damaged{where}", 5)


@given(st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=60), st.integers(1, 20))
def test_many_places_are_joined_with_their_neighbours_and_none_of_them_is_told_again(
    streams: list[str], entries_max: int
) -> None:
    places = [_place(stream, lsn, lsn, lsn, 100 * lsn) for lsn, stream in enumerate(streams, 1)]
    kept = bounded(places, entries_max)
    assert len(kept) <= entries_max + len(set(streams))
    for stream in set(streams):
        assert sum(one.bytes for one in kept if one.stream == stream) == sum(
            one.bytes for one in places if one.stream == stream
        )
    assert unknown(places, kept) == []
    if len(places) <= entries_max:
        assert kept == places


_RANGES = st.lists(
    st.tuples(st.sampled_from("ab"), st.integers(1, 20), st.integers(0, 6)).map(
        lambda t: (t[0], t[1], t[1] + t[2])
    ),
    max_size=12,
)


@given(_RANGES, _RANGES)
def test_a_place_is_known_where_one_joined_entry_of_its_stream_holds_all_of_it(
    joined: list[tuple[str, int, int]], asked: list[tuple[str, int, int]]
) -> None:
    known = [_place(*one, 1, None) for one in joined]
    places = [_place(*one, 8, 8) for one in asked]
    expected = [
        place
        for place, (stream, first, last) in zip(places, asked, strict=True)
        if not any(name == stream and start <= first and last <= end for name, start, end in joined)
    ]
    assert unknown(places, known) == expected
