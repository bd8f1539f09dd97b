"""Takes a picture of a flow's state without holding the flow up, and writes it beside.

The flow's thread only copies arrays into memory that was made ready before, and large ones not at once: those of which
the step says what it is about to write (`step.TellsWrites`) are copied a little at a time while the flow goes on
(`picture.py`). Everything else (what need not be kept is left out, the file written piece by piece and read back) is
done by a thread that lives as long as that takes. While a flow has a snapshot taken now and then, its state is in memory
twice, with an eighth to spare; copies of more than 512 MiB are made anew each time.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ringmain.flows.picture import PIECE_BYTES, Picture
from ringmain.flows.snapshot import Saved, Snapshots
from ringmain.flows.step import StepState, TellsWrites

_PAUSE_S = 0.02
"""Between pieces of a large snapshot: syncs of others go in between."""
_PART_BYTES = 1 << 20
_KEPT_BYTES = 512 << 20
"""Copies of larger states are not kept for the next time."""

Compact = Callable[[StepState], StepState]
Done = Callable[[int | None, Exception | None], None]


@dataclass(frozen=True, slots=True)
class Saving:
    """One step's part in a snapshot. `compact`: what makes its copied state smaller; `teller`: the step, where it tells."""

    compact: Compact | None = None
    teller: TellsWrites | None = None

    @classmethod
    def of(cls, step: object) -> Saving:
        """The traits that a step has."""
        return cls(getattr(step, "compact", None), step if isinstance(step, TellsWrites) else None)


@dataclass(slots=True)
class _Taking:
    """A picture on its way."""

    definition: str
    saved: Saved
    """With copies of the state, some of which are not whole yet."""
    savings: Sequence[Saving]
    pictures: list[Picture]
    done: Done


class Saver:
    """Saves states of one flow, one at a time. Called by the flow's thread.

    `begin` and `go_on` until nothing is `unfinished` take the picture, which is then written beside.
    """

    def __init__(
        self,
        snapshots: Snapshots,
        *,
        clock: Callable[[], float] = time.perf_counter,
        piece_bytes: int = PIECE_BYTES,
    ) -> None:
        self._snapshots = snapshots
        self._piece_bytes = piece_bytes
        self._clock = clock
        self._copies: dict[tuple[int, str], NDArray[Any]] = {}
        self._thread: threading.Thread | None = None
        self._hurry = threading.Event()
        self._taking: _Taking | None = None
        self._longest_s = 0.0

    @property
    def unfinished(self) -> bool:
        """Whether a picture is being taken: `go_on` has to be called, between frames."""
        return self._taking is not None

    @property
    def pause_s(self) -> float:
        """The longest that the flow did nothing but copy, at a time, for the newest picture."""
        taking = self._taking
        return max([self._longest_s, *([] if taking is None else (one.longest_s for one in taking.pictures))])

    def ready(self, states: Sequence[StepState]) -> bool:
        """Whether `begin` would only copy; if not, memory for that is made ready beside, for a later try."""
        if self._taking is not None or (self._thread is not None and self._thread.is_alive()):
            return False
        wanted = {
            (number, name): part
            for number, state in enumerate(states)
            for name, part in state.items()
            if isinstance(part, np.ndarray) and part.nbytes > _PART_BYTES
        }
        missing = [(key, len(part), part.dtype) for key, part in wanted.items() if not self._has(key, part)]
        if not missing:
            return True

        def make() -> None:
            for key, length, dtype in missing:
                room = np.empty(length + length // 8, dtype)
                room.fill(0)  # so that every page is there
                self._copies[key] = room

        self._thread = threading.Thread(target=make, name="flow-snapshot", daemon=True)
        self._thread.start()
        return False

    def begin(
        self, definition: str, saved: Saved, savings: Sequence[Saving], done: Done, started_s: float
    ) -> None:
        """Begin to copy the state as it is now.

        `savings`: by state. `done(size_bytes, error)` is called when it is written, on the thread that did. `started_s`:
        since when (by its clock) the flow has stood still for it.
        """
        self.finish()
        pictures: list[Picture] = []
        states = self._copied(saved.states, savings, pictures)
        self._taking = _Taking(definition, replace(saved, states=states), savings, pictures, done)
        self._longest_s = self._clock() - started_s

    def go_on(self, seconds: float, before_write: Callable[[], None] = lambda: None) -> None:
        """Copy for so long; once all is copied call `before_write`, and have it written by a thread of its own."""
        taking = self._taking
        if taking is None:
            return
        until_s = self._clock() + seconds
        for picture in taking.pictures:
            if not picture.whole:
                picture.go_on(until_s)
                if self._clock() >= until_s:
                    break
        if all(picture.whole for picture in taking.pictures):
            self._longest_s = self.pause_s
            self._give_up()
            before_write()
            self._write(taking)

    def finish(self) -> None:
        """Give up a picture that is not whole, and wait until what is being written is."""
        self._give_up()
        if self._thread is not None:
            self._hurry.set()
            self._thread.join()
            self._hurry.clear()
            self._thread = None

    def _give_up(self) -> None:
        if self._taking is not None:
            for saving in self._taking.savings:
                if saving.teller is not None:
                    saving.teller.tell({})
            self._taking = None

    def _write(self, taking: _Taking) -> None:
        def write() -> None:
            try:
                kept = [
                    state if saving.compact is None else saving.compact(state)
                    for state, saving in zip(taking.saved.states, taking.savings, strict=True)
                ]
                size = self._snapshots.save(
                    taking.definition, replace(taking.saved, states=kept), self._pause
                )
            except Exception as error:
                taking.done(None, error)
            else:
                taking.done(size, None)

        self._thread = threading.Thread(target=write, name="flow-snapshot", daemon=True)
        self._thread.start()

    def _pause(self) -> None:
        self._hurry.wait(_PAUSE_S)

    def _copied(
        self, states: Sequence[StepState], savings: Sequence[Saving], pictures: list[Picture]
    ) -> list[StepState]:
        """The states with arrays of their own; some are filled with time, through `pictures`."""
        copies: list[StepState] = []
        large: list[tuple[NDArray[Any], NDArray[Any]]] = []
        held = 0
        for number, (state, saving) in enumerate(zip(states, savings, strict=True)):
            mine: StepState = {
                name: self._room(number, name, part) if isinstance(part, np.ndarray) else part
                for name, part in state.items()
            }
            held += sum(part.nbytes for part in mine.values() if isinstance(part, np.ndarray))
            watched = self._watched(state, mine, saving, pictures)
            for name, part in state.items():
                copy = mine[name]
                if not isinstance(part, np.ndarray) or not isinstance(copy, np.ndarray) or name in watched:
                    continue
                if part.nbytes <= _PART_BYTES:
                    np.copyto(copy, part)
                else:
                    rows = _PART_BYTES // part.itemsize
                    large += [
                        (copy[start : start + rows], part[start : start + rows])
                        for start in range(0, len(part), rows)
                    ]
            copies.append(mine)
        if large:
            with ThreadPoolExecutor(2) as pool:
                wait([pool.submit(np.copyto, copy, part) for copy, part in large])
        if held > _KEPT_BYTES:
            self._copies = {}
        return copies

    def _watched(
        self, state: StepState, copies: StepState, saving: Saving, pictures: list[Picture]
    ) -> frozenset[str]:
        """The arrays that the step tells of from now on what it writes to."""
        if saving.teller is None:
            return frozenset()
        tables = saving.teller.tables(state)
        told: Mapping[str, Picture] = {
            table: Picture(
                _by_place(state, names),
                _by_place(copies, names),
                piece_bytes=self._piece_bytes,
                clock=self._clock,
            )
            for table, names in tables.items()
        }
        saving.teller.tell(told)
        pictures += told.values()
        return frozenset(name for names in tables.values() for name in names)

    def _room(self, number: int, name: str, part: NDArray[Any]) -> NDArray[Any]:
        """Memory for a copy: that of the last time where it is large enough."""
        if not self._has((number, name), part):
            self._copies[number, name] = np.empty(len(part) + len(part) // 8, part.dtype)
        return self._copies[number, name][: len(part)]

    def _has(self, key: tuple[int, str], part: NDArray[Any]) -> bool:
        held = self._copies.get(key)
        return held is not None and held.dtype == part.dtype and len(held) >= len(part)


def _by_place(state: StepState, names: Sequence[str]) -> list[NDArray[Any]]:
    """Arrays that lie by the same places; where one has several elements a place, by place and element."""
    arrays = [part for name in names if isinstance(part := state[name], np.ndarray)]
    size = len(arrays[0]) if arrays else 0
    return [array if len(array) == size else array.reshape(size, -1) for array in arrays]
