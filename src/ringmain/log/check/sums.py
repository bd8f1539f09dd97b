"""What a run of frames says about every stream and every producer in it, summed up.

Checks and folds of `verify` need little of a frame: whether the running count of its stream goes on as it must, whether
the sequence of its producer rises, and what stands in the first and the last frame of each. Promises: the same sums in
both forms, by NumPy here and by the compiled loops of `check/loops.py`; where a sum is not as it must be, which frames
are meant is for the caller to find out. All arrays are in the order of the frames of one scan.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

_ARRAY = NDArray[Any]
_Numbers = NDArray[np.int64]
_Flags = NDArray[np.bool_]


class StreamSums(NamedTuple):
    """One entry for each stream, ascending. `first`, `last`: the numbers of its first and last frame.

    `whole`: the running count grows by the rows of each frame behind the first.
    """

    streams: NDArray[np.uint32]
    frames: _Numbers
    rows: _Numbers
    first: _Numbers
    last: _Numbers
    whole: _Flags


class ProducerSums(NamedTuple):
    """One entry for each producer and epoch, ascending. `first`, `last`: the numbers of their first and last group.

    `rising`: the sequence rises from group to group.
    """

    producers: NDArray[np.uint64]
    epochs: NDArray[np.uint64]
    first: _Numbers
    last: _Numbers
    rising: _Flags


def stream_sums(frames: _ARRAY, *, compiled: bool) -> StreamSums:
    """The sums of each stream. `frames`: headers (`scan.FRAMES`)."""
    if compiled:
        from ringmain.log.check.loops import sum_streams

        found = sum_streams(frames)
        if found is not None:
            return found
    order = np.argsort(frames["stream"], kind="stable")
    streams, rows = frames["stream"][order], frames["rows"][order].astype(np.int64)
    cumulative = frames["cumulative_rows"][order].astype(np.int64)
    begins, ends = _runs(streams[1:] != streams[:-1], len(order))
    breaks = cumulative[1:] - rows[1:] != cumulative[:-1]
    return StreamSums(
        streams[begins],
        ends - begins,
        _sums(rows, begins),
        order[begins],
        order[ends - 1],
        _none_within(breaks, begins, ends),
    )


def producer_sums(
    groups: _ARRAY, first: _Numbers, frames: _ARRAY, internal: int, *, compiled: bool
) -> ProducerSums:
    """The sums of each producer and epoch but `internal`, by the last frame of each group that has any.

    `groups`: headers (`scan.GROUPS`); `first`: the number of each group's first frame in `frames`, and one more.
    """
    if compiled:
        from ringmain.log.check.loops import sum_producers

        found = sum_producers(groups, first, frames, internal)
        if found is not None:
            return found
    chosen, last = last_frames(groups, first, frames, internal)
    order = np.lexsort((last["epoch"], last["producer"]))
    producers, epochs, sequences = (last[name][order] for name in ("producer", "epoch", "sequence"))
    begins, ends = _runs((producers[1:] != producers[:-1]) | (epochs[1:] != epochs[:-1]), len(order))
    return ProducerSums(
        producers[begins],
        epochs[begins],
        chosen[order[begins]],
        chosen[order[ends - 1]],
        _none_within(sequences[1:] <= sequences[:-1], begins, ends),
    )


def last_frames(groups: _ARRAY, first: _Numbers, frames: _ARRAY, internal: int) -> tuple[_Numbers, _ARRAY]:
    """(numbers, last frames) of the groups that have frames, and of another producer than `internal`."""
    chosen = np.flatnonzero(groups["frame_count"])
    last = frames[first[chosen + 1] - 1]
    outside = last["producer"] != np.uint64(internal)
    return chosen[outside], last[outside]


def _runs(changes: _Flags, count: int) -> tuple[_Numbers, _Numbers]:
    """Where runs of equal elements begin, and where they end, given where two neighbours differ."""
    if not count:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    begins = np.concatenate([[0], np.flatnonzero(changes) + 1])
    return begins, np.concatenate([begins[1:], [count]])


def _sums(values: _Numbers, begins: _Numbers) -> _Numbers:
    return np.add.reduceat(values, begins) if len(begins) else np.empty(0, np.int64)


def _none_within(breaks: _Flags, begins: _Numbers, ends: _Numbers) -> _Flags:
    """Whether no break lies within a run. `breaks`: between each element and the next."""
    before = np.concatenate([[0], np.cumsum(breaks)])
    whole: _Flags = before[np.maximum(ends - 1, 0)] == before[begins]
    return whole
