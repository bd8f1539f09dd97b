"""Takes a picture of a flow's state without holding the flow up, and writes it beside.

The flow's thread only copies arrays into memory that was made ready before; everything else (what need not be kept is
left out, the file written piece by piece and read back) is done by a thread that lives as long as that takes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ringmain.flows.snapshot import Saved, Snapshots
from ringmain.flows.step import StepState

_PAUSE_S = 0.02
"""Between pieces of a large snapshot: syncs of others go in between."""
_PART_BYTES = 1 << 20
_KEPT_BYTES = 512 << 20
"""Copies of larger states are not kept for the next time."""

Compact = Callable[[StepState], StepState]


class Saver:
    """Saves states of one flow, one at a time. `save` and `finish` are called by the flow's thread."""

    def __init__(self, snapshots: Snapshots) -> None:
        self._snapshots = snapshots
        self._copies: dict[tuple[int, str], NDArray[Any]] = {}
        self._thread: threading.Thread | None = None
        self._hurry = threading.Event()
        self.pause_s = 0.0
        """How long the flow was held up by the last one."""

    @property
    def busy(self) -> bool:
        """Whether the one before is still being written."""
        return self._thread is not None and self._thread.is_alive()

    def ready(self, states: Any) -> bool:
        """Whether `save` would only copy; if not, memory for that is made ready beside, for a later try."""
        if self.busy:
            return False
        wanted = {
            (number, name): part
            for number, state in enumerate(states)
            for name, part in state.items()
            if not isinstance(part, bytes) and part.nbytes > _PART_BYTES
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

    def save(
        self,
        definition: str,
        saved: Saved,
        compact: list[Compact | None],
        done: Callable[[int | None, Exception | None], None],
    ) -> None:
        """Copy the state now, and write it in a thread of its own; `done(size_bytes, error)` is called there.

        `compact`: by step, what makes a copied state smaller.
        """
        self.finish()
        started_s = time.perf_counter()
        states = self._copied(saved.states)
        self.pause_s = time.perf_counter() - started_s
        copied = replace(saved, states=states)

        def write() -> None:
            try:
                kept = [
                    state if make is None else make(state)
                    for state, make in zip(states, compact, strict=True)
                ]
                size = self._snapshots.save(definition, replace(copied, states=kept), self._pause)
            except Exception as error:
                done(None, error)
            else:
                done(size, None)

        self._thread = threading.Thread(target=write, name="flow-snapshot", daemon=True)
        self._thread.start()

    def finish(self) -> None:
        """Wait until what is being written is."""
        if self._thread is not None:
            self._hurry.set()
            self._thread.join()
            self._hurry.clear()
            self._thread = None

    def _pause(self) -> None:
        self._hurry.wait(_PAUSE_S)

    def _copied(self, states: Any) -> list[StepState]:
        """The states with arrays of their own; large ones are copied by several threads."""
        copies: list[StepState] = []
        large: list[tuple[NDArray[Any], NDArray[Any]]] = []
        held = 0
        for number, state in enumerate(states):
            mine: StepState = {}
            for name, part in state.items():
                if isinstance(part, bytes):
                    mine[name] = part
                    continue
                copy = self._room(number, name, part)
                held += copy.nbytes
                mine[name] = copy
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

    def _room(self, number: int, name: str, part: NDArray[Any]) -> NDArray[Any]:
        """Memory for a copy: that of the last time where it is large enough."""
        if not self._has((number, name), part):
            self._copies[number, name] = np.empty(len(part) + len(part) // 8, part.dtype)
        return self._copies[number, name][: len(part)]

    def _has(self, key: tuple[int, str], part: NDArray[Any]) -> bool:
        held = self._copies.get(key)
        return held is not None and held.dtype == part.dtype and len(held) >= len(part)
