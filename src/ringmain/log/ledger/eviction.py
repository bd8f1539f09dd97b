"""What goes with segments that retention removes: rows of each producer and stream, and what sources said last.

Counted from the frame headers as they lie in the segments, found through the index. What the ledger has as damaged
or removed already is not counted a second time.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ringmain.log.builtin import ACCOUNTS_ID, CONFLICTS_ID, LedgerKind
from ringmain.log.codec import decode_record
from ringmain.log.control import ControlState, Removed
from ringmain.log.files import read_around
from ringmain.log.frames import FRAME_HEADER_BYTES, GROUP_HEADER_BYTES, lsn_of, offset_of
from ringmain.log.index import Entries
from ringmain.log.interface import Position
from ringmain.log.ledger.entries import LedgerEntry
from ringmain.log.ledger.findings import range_of
from ringmain.log.ledger.row import AccountRow, decode_account
from ringmain.log.segments import StoredGroup, walk
from ringmain.log.store import Segment, Store

_WINDOW_BYTES = 256 << 10
_PRODUCER_AT = 32
_EPOCH_AT = 40
_ROW_ATTEMPTS = 16

Words = NDArray[np.uint64]


def removal_of(store: Store, segments: Sequence[Segment], now_ns: int) -> tuple[list[LedgerEntry], Removed]:
    """Ledger entries for the rows of data streams that go with these segments, and the record of their removal.

    Raises PositionGoneError when a segment's file is gone already.
    """
    state = store.state
    last_of: dict[int, int] = {}
    sums: dict[tuple[int, int], list[int]] = {}
    rows: list[tuple[int, AccountRow]] = []
    damaged = _damaged(state)
    for segment in segments:
        index = store.entries(segment)
        index = index[index["offset"].astype(np.int64) > state.removed_offset]
        producers, epochs = _identities(store, segment, index)
        for stream in np.unique(index["stream"]):
            last_of[int(stream)] = int(index["offset"][index["stream"] == stream][-1])
        rows += _last_rows(store, segment, index, producers, epochs)
        data = (index["stream"] >= CONFLICTS_ID) & (index["stream"] != ACCOUNTS_ID)
        data &= ~np.isin(index["offset"] >> np.uint64(16), damaged)
        chosen, owners = index[data], producers[data]
        for stream, producer in {*zip(chosen["stream"].tolist(), owners.tolist(), strict=True)}:
            mine = chosen[(chosen["stream"] == stream) & (owners == np.uint64(producer))]
            first, last = int(mine[0]["offset"]), int(mine[-1]["offset"])
            found = sums.setdefault((stream, producer), [first, last, 0, 0])
            found[1] = last
            found[2] += int(mine["body_bytes"].sum())
            found[3] += int(mine["rows"].sum())
    entries = [
        LedgerEntry(
            LedgerKind.EVICTED,
            None if (known := state.by_id.get(stream)) is None else known.stream.name,
            state.source_of(producer),
            str(Position(state.incarnation_at(lsn_of(first)), 0, first)),
            str(Position(state.incarnation_at(lsn_of(last)), 0, last)),
            size,
            count,
            "removed by retention",
            now_ns,
        )
        for (stream, producer), (first, last, size, count) in sorted(sums.items(), key=lambda one: one[1])
    ]
    last_lsn = max(segment.last_lsn for segment in segments)
    return entries, Removed(offset_of(last_lsn, 0xFFFF), last_of, rows)


def _damaged(state: ControlState) -> Words:
    """Lsns of groups that the ledger has as damaged, one by one."""
    places = [range_of(entry) for entry in state.ledger if entry.kind == LedgerKind.QUARANTINED]
    return np.array(
        [lsn_of(place[0]) for place in places if place and lsn_of(place[0]) == lsn_of(place[1])], "<u8"
    )


def _identities(store: Store, segment: Segment, index: Entries) -> tuple[Words, Words]:
    """Producer and epoch of each frame, out of its header; 0 where the disk does not give it."""
    count = len(index)
    producers, epochs = np.zeros(count, "<u8"), np.zeros(count, "<u8")
    places = index["offset"].astype(np.int64) & 0xFFFF
    headers_at = index["group_at"].astype(np.int64) + GROUP_HEADER_BYTES + FRAME_HEADER_BYTES * places
    start = 0
    with store.opened(segment) as handle:
        while start < count:
            at = int(headers_at[start])
            stop = max(start + 1, int(np.searchsorted(headers_at, at + _WINDOW_BYTES, side="left")))
            size = int(headers_at[stop - 1]) + FRAME_HEADER_BYTES - at
            raw = np.frombuffer(read_around(store.fs, handle, size, at), np.uint8)
            if len(raw) == size:
                within = (headers_at[start:stop] - at)[:, None] + np.arange(8)
                producers[start:stop] = raw[within + _PRODUCER_AT].view("<u8")[:, 0]
                epochs[start:stop] = raw[within + _EPOCH_AT].view("<u8")[:, 0]
            start = stop
    return producers, epochs


def _last_rows(
    store: Store, segment: Segment, index: Entries, producers: Words, epochs: Words
) -> list[tuple[int, AccountRow]]:
    """The last account row of each source and epoch in a segment, in log order, with its lsn."""
    places = np.flatnonzero(index["stream"] == ACCOUNTS_ID)
    groups: dict[tuple[int, int], list[int]] = {}
    for place, producer, epoch in zip(
        places.tolist(), producers[places].tolist(), epochs[places].tolist(), strict=True
    ):
        groups.setdefault((producer, epoch), []).append(place)
    found: list[tuple[int, AccountRow]] = []
    with store.opened(segment) as handle:
        for of_epoch in groups.values():
            for place in of_epoch[: -_ROW_ATTEMPTS - 1 : -1]:
                row = _row_at(store, handle, index[place])
                if row is not None:
                    found.append((place, row))
                    break
    found.sort(key=lambda one: one[0])
    return [(lsn_of(int(index[place]["offset"])), row) for place, row in found]


def _row_at(store: Store, handle: int, entry: Entries) -> AccountRow | None:
    at, size, number = int(entry["group_at"]), int(entry["group_bytes"]), int(entry["offset"]) & 0xFFFF
    for found in walk(store.fs, handle, at, at + size):
        if isinstance(found, StoredGroup) and number < len(found.frames):
            data = decode_record(found.frames[number], found.body(number))
            return None if data is None else decode_account(data)
    return None
