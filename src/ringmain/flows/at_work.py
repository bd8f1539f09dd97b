"""What a step is at while somebody else's code runs in it: a user's function, a query.

Such code may never return, and it may end the process. Before each call the step notes its place (the position of the
input that it has come to) in a small mapped file, which the kernel keeps when the process dies. The next process finds
there at which place the one before died, and how often: after the stated number of deaths `begin` raises instead, so
that the batch becomes a dead letter like any other on which the step fails. A step in whose calls processes die one after
the other, at as many positions as `HELD_PLACES`, is held: all flows of the process begin anew with each death. Whoever ends
a flow in order says so (`set_down`): that is no death. Nothing is synced, because after a power cut no step has killed
anything.

What a flow has been at for long is shown by its status (`longest`).
"""

from __future__ import annotations

import mmap
import os
import secrets
import struct
import threading
import time
import weakref
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from ringmain.log.interface import Position

_SLOT = struct.Struct("=BBHQ116s")
"""State, length of the place, deaths, process, place."""
_POSITION = struct.Struct("=BBHQ4xQQQ")
"""The same with a place that is a position: `_NUMBERS` instead of the length; its three numbers are words 2, 3 and 4."""
_NUMBERS = 0xFF
_IDLE, _AT_WORK, _SET_DOWN = 0, 1, 2
_PROCESS = secrets.randbits(64)
"""Tells the notes of this process from those of the ones before it."""
HELD_PLACES = 2
"""Places at which a step may end its process as often as a batch is tried, without a later call that returned."""
_TOLD = 0xFFFF
"""Deaths of a place that somebody said to skip."""


class ProcessDiedError(Exception):
    """The process ended at this place as often as a batch is tried, or somebody said to pass over it."""


class HeldError(Exception):
    """One process after the other ended in calls of this step: somebody has to mend it."""


@dataclass(frozen=True, slots=True)
class Notes:
    """Where the steps of a flow note what they are at. `path`: what the names of the files begin with.

    `tries`: deaths at one place before it is given up; 0: at the first one that is known, because somebody said so.
    `anew`: what is known of deaths counts no more, because somebody said so.
    """

    path: Path
    tries: int
    anew: bool = False


@dataclass(frozen=True, slots=True)
class LeftBehind:
    """What a process that ended was at. `flow`: as in the name of the file; `step`: the function or query."""

    flow: str
    step: str
    place: str


class AtWork:
    """One step's note; `notes=None`: none is kept. `begin` and `end` by one thread, `set_down` by any."""

    def __init__(self, notes: Notes | None, name: str) -> None:
        self.notes = notes
        self.since_s: float | None = None
        """When the call that is on its way began (monotonic clock)."""
        self.place: Position | str = ""
        self._died: tuple[str, int] | None = None
        self._row = 0
        """Deaths since a call returned that began behind all places of deaths."""
        if notes is None:
            return
        path = notes.path.with_name(f"{notes.path.name}.{name}.at-work")
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(handle, 2 * _SLOT.size)
            self._noted = memoryview(mmap.mmap(handle, 2 * _SLOT.size))
        finally:
            os.close(handle)
        self._words = self._noted.cast("Q")
        self._notes_numbers = False
        self._learn(notes.tries, notes.anew)
        with _lock:
            _known.add(self)

    def _learn(self, tries: int, anew: bool) -> None:
        """Find out at which place the process before died."""
        state, place, _, process = _noted(self._noted, 0)
        _, died_at, deaths, row = _noted(self._noted, _SLOT.size)
        row = row if row <= _TOLD else 0  # more is damage
        if process != _PROCESS and state in (_AT_WORK, _SET_DOWN):
            deaths = (deaths if died_at == place else 0) + (state == _AT_WORK)
            row += state == _AT_WORK and self._noted[1] == _NUMBERS
            died_at = place
            self._write(0, _IDLE, "", 0)
        if anew:
            died_at, row = "", 0
            self._write(_SLOT.size, _IDLE, "", 0, 0)
        if not died_at:
            return
        deaths = _TOLD if not tries else min(deaths, _TOLD)
        self._row = row
        self._write(_SLOT.size, _IDLE, died_at, deaths, row)
        self._died = died_at, deaths

    def begin(self, place: Position | str) -> None:
        """The code is about to run. Raises ProcessDiedError, HeldError."""
        if self.notes is None:
            return
        if self._died is not None:
            self._refuse(str(place), self.notes.tries)
        self.place = place
        self.since_s = time.monotonic()
        if type(place) is not Position:
            self._notes_numbers = False
            self._write(0, _AT_WORK, str(place), 0)
            return
        if not self._notes_numbers:
            self._notes_numbers = True
            _POSITION.pack_into(self._noted, 0, _IDLE, _NUMBERS, 0, _PROCESS, 0, 0, 0)
        # Word by word: leaner than to pack them, while the caches hold what the code has read.
        words = self._words
        words[2] = place.incarnation
        words[3] = place.partition
        words[4] = place.offset
        self._noted[0] = _AT_WORK  # now that the rest is there

    def _refuse(self, place: str, tries: int) -> None:
        """Raise ProcessDiedError if this is where processes have died, HeldError if they died too often."""
        assert self._died is not None
        died_at, deaths = self._died
        if tries and self._row >= HELD_PLACES * tries:
            raise HeldError(
                f"the process ended, or had to be ended, {self._row} times in a row in calls of this step, the last time "
                f"behind position {died_at}; every flow of the process began anew with each, so it is called no more"
            )
        if died_at != place:
            return
        if deaths == _TOLD:
            raise ProcessDiedError(
                f"the call behind position {place} did not return, and was told to be skipped"
            )
        if deaths >= tries:
            raise ProcessDiedError(
                f"the process ended {deaths} times in the call behind position {place}: it was killed there, ran "
                "out of memory, or ended itself"
            )

    def end(self) -> None:
        """The code has returned, or raised an exception."""
        if self.notes is None:
            return
        self.since_s = None
        self._noted[0] = _IDLE
        if self._died is not None:
            self._got_over(*self._died)

    def _got_over(self, died_at: str, deaths: int) -> None:
        """A call has returned: forget a death in the same one, and that there was a row of them after those before."""
        if died_at == str(self.place):
            self._died, self._row = None, 0
            self._write(_SLOT.size, _IDLE, "", 0, 0)
        elif self._row and _behind(self.place, died_at):
            self._row = 0
            self._write(_SLOT.size, _IDLE, died_at, deaths, 0)

    def set_down(self) -> None:
        """The flow is being ended in order: if the process ends now, the code is not to blame."""
        if self.since_s is not None and self._noted[0] == _AT_WORK:
            self._noted[0] = _SET_DOWN

    def _write(self, offset: int, state: int, place: str, deaths: int, process: int = _PROCESS) -> None:
        text = place.encode("ascii", "replace")[:116]
        self._noted[offset] = _IDLE  # until the rest is there
        _SLOT.pack_into(self._noted, offset, _IDLE, len(text), deaths, process, text)
        self._noted[offset] = state


def _noted(slots: memoryview | bytes, offset: int) -> tuple[int, str, int, int]:
    """State, place, deaths, process of a slot; of the second one, in place of the process, the deaths in a row."""
    state, length, deaths, process, place = _SLOT.unpack_from(slots, offset)
    if length == _NUMBERS:
        numbers = _POSITION.unpack_from(slots, offset)[4:]
        return state, str(Position(*numbers)), deaths, process
    return state, place[:length].decode("ascii", "replace"), deaths, process


def _behind(place: Position | str, death: str) -> bool:
    """Whether a position lies behind that of a death; another place never does."""
    if not isinstance(place, Position):
        return False
    died_at = Position.parse(death)
    return place.incarnation != died_at.incarnation or place.offset > died_at.offset


def left_behind(directory: Path) -> list[LeftBehind]:
    """What steps of processes before this one were at when these ended, by the notes in a directory."""
    found = []
    for path in sorted(directory.glob("flow-*.at-work")):
        try:
            state, place, _, process = _noted(path.read_bytes(), 0)
        except (OSError, struct.error, ValueError):
            continue
        if state == _AT_WORK and process != _PROCESS:
            flow, _, step = path.name.removeprefix("flow-").removesuffix(".at-work").rpartition(".")
            found.append(LeftBehind(unquote(flow), step.rpartition("-")[0], place))
    return found


_known: weakref.WeakSet[AtWork] = weakref.WeakSet()
_lock = threading.Lock()


def _of(path: Path) -> list[AtWork]:
    with _lock:
        known = list(_known)
    return [one for one in known if one.notes is not None and one.notes.path == path]


def longest(path: Path) -> tuple[str, float] | None:
    """The place that a step of these notes has been at for longest in this process, and for how many seconds."""
    now_s = time.monotonic()
    busy = [(str(one.place), now_s - since_s) for one in _of(path) if (since_s := one.since_s) is not None]
    return max(busy, key=lambda found: found[1], default=None)


def set_down(path: Path) -> None:
    """Whoever notes there is being ended in order."""
    for one in _of(path):
        one.set_down()
