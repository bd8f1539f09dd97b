"""Faults by plan or by chance: which call of a file system fails, waits, writes short or reads wrong.

Shared by the simulated disk and by the faulty view of a real one. Calls have the names of `CALLS`; a failing
call raises `OSError` with the errno that was asked for. Everything random comes from one seeded generator, so
that the same calls in the same order meet the same faults.
"""

from __future__ import annotations

import errno
import random
import threading
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

CHANGING_CALLS = frozenset({"create", "write", "sync", "rename", "remove", "sync_directory"})
"""The calls that may change what a disk holds after its power was cut."""
CALLS = CHANGING_CALLS | {"open", "read", "lock"}
BLOCK_BYTES = 4096
"""What a disk cannot read any more, it cannot read in blocks of this size."""


@dataclass(slots=True)
class _Plan:
    """Calls that are to fail: the `left`-th that matches from now on (None: every one)."""

    call: str
    errno: int
    left: int | None
    suffix: str

    def hits(self, call: str, path: Path | None) -> bool:
        if call != self.call or (self.suffix and (path is None or path.suffix != self.suffix)):
            return False
        if self.left is None:
            return True
        self.left -= 1
        return self.left == -1


class Faults:
    """Counts the calls of a file system and interferes with chosen ones."""

    def __init__(self, seed: int = 0) -> None:
        self.calls: Counter[str] = Counter()
        """How often each call came, by name."""
        self.trail: list[str] = []
        """Every call as `NAME FILE`, in order; `clear()` it when it gets long."""
        self.short_writes = False
        """Let every write of more than one byte write half of it."""
        self.bad_blocks: set[tuple[str, int]] = set()
        """(file name, number of the 4 KiB block) that reading answers with EIO."""
        self.unreadable = False
        """Answer every read with EIO: the disk is gone."""
        self.before_call: Callable[[str, Path | None], None] | None = None
        """Called in front of each call with its name and path, on the thread that makes it."""
        self.rng = random.Random(seed)
        self._plans: list[_Plan] = []
        self._chance: tuple[float, frozenset[str], tuple[int, ...]] = (0.0, frozenset(), ())
        self._flip_rate = 0.0
        self._hooks: dict[str, tuple[Callable[[], None], str]] = {}
        self._counting = threading.Lock()

    def fail(self, name: str, error: int = errno.EIO, *, nth: int | None = None, suffix: str = "") -> None:
        """Let calls of `name` fail: the nth from now (0: the next), or every one, on paths with that suffix.

        Raises ValueError for a name that is none of `CALLS`.
        """
        _check_names([name])
        self._plans.append(_Plan(name, error, nth, suffix))

    def fail_some(
        self,
        rate: float,
        *,
        calls: Collection[str] = CHANGING_CALLS,
        errors: Sequence[int] = (errno.EIO, errno.ENOSPC),
    ) -> None:
        """Let each of the calls fail with that probability, with one of the errors. 0: none."""
        _check_names(calls)
        self._chance = (rate, frozenset(calls), tuple(errors))

    def flip_some_reads(self, rate: float) -> None:
        """Let each read answer one wrong bit with that probability; what is stored stays as it is. 0: none."""
        self._flip_rate = rate

    def heal(self) -> None:
        """No more faults: plans, chance, bad blocks and short writes end."""
        self._plans.clear()
        self.bad_blocks.clear()
        self.fail_some(0.0)
        self._flip_rate = 0.0
        self.unreadable = self.short_writes = False

    def before(self, name: str, hook: Callable[[], None] | None, suffix: str = "") -> None:
        """Run `hook` in each call of `name`, on paths with that suffix, before it does anything; None: no more."""
        _check_names([name])
        if hook is None:
            self._hooks.pop(name, None)
        else:
            self._hooks[name] = (hook, suffix)

    # -- for file systems ------------------------------------------------------------------------------------

    def enter(self, name: str, path: Path | None) -> None:
        """A call comes in. Raises OSError when it is to fail."""
        if self.before_call is not None:
            self.before_call(name, path)
        hook = self._hooks.get(name)
        if hook is not None and (not hook[1] or (path is not None and path.suffix == hook[1])):
            hook[0]()
        with self._counting:
            self.calls[name] += 1
            if name != "read":
                self.trail.append(f"{name} {path.name if path else ''}")
            failing = [plan.errno for plan in self._plans if plan.hits(name, path)]
            rate, names, errors = self._chance
            if not failing and rate and name in names and self.rng.random() < rate:
                failing = [self.rng.choice(errors)]
        if failing:
            raise OSError(failing[0], "injected by the test", str(path))

    def check_readable(self, path: Path | None, held_bytes: int, offset: int) -> None:
        """Raise OSError (EIO) when a read of so many bytes touches a bad block."""
        name = "" if path is None else path.name
        blocks = range(offset // BLOCK_BYTES, -(-(offset + held_bytes) // BLOCK_BYTES))
        if self.unreadable or (self.bad_blocks and any((name, block) in self.bad_blocks for block in blocks)):
            raise OSError(errno.EIO, "injected by the test", name)

    def misread(self, data: bytes) -> bytes:
        """What a read answers: mostly the data, by chance with one bit flipped."""
        if not self._flip_rate or not data or self.rng.random() >= self._flip_rate:
            return data
        wrong = bytearray(data)
        wrong[self.rng.randrange(len(wrong))] ^= 1 << self.rng.randrange(8)
        return bytes(wrong)

    def shortened(self, size: int) -> int:
        """How many bytes of a write of that size go through."""
        return size // 2 if self.short_writes and size > 1 else size


def _check_names(names: Collection[str]) -> None:
    for name in names:
        if name not in CALLS:
            raise ValueError(f"expected a call out of {', '.join(sorted(CALLS))}, found {name!r}")
