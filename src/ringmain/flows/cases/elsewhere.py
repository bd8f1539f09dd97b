"""Another place and time for a user's function: clocks, dice and identifiers give other values than usual.

A function that looks at any of them gives other results there, and is found out. Replaced are what Python code reaches by
name: `time`, `datetime`, `random`, `numpy.random`, `os.urandom`, `uuid`, `secrets`. Only while the block runs. Modules that
were imported before it and copied a name (`from datetime import datetime`) keep theirs, unless they are among `modules`.
"""

from __future__ import annotations

import contextlib
import datetime as datetime_module
import os
import random
import secrets
import sys
import time
import uuid
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

_YEAR_S = 31_556_952
_DateTime = datetime_module.datetime
_Date = datetime_module.date


@contextlib.contextmanager
def elsewhere(seed: int, modules: Iterable[str] = ()) -> Iterator[None]:
    """Run the block in a world that the seed decides: other years, clocks of other speed, other dice.

    `modules` are imported anew by whoever asks for them within it.
    """
    dice = random.Random(seed)
    clock = _Clock(1_000_000_000 + dice.randrange(20 * _YEAR_S) + dice.random(), dice.uniform(0.5, 5000))
    made = _Identifiers(dice)
    changes: list[tuple[Any, str, Any]] = [
        (time, "time", clock.seconds),
        (time, "time_ns", clock.nanoseconds),
        (time, "monotonic", clock.seconds),
        (time, "monotonic_ns", clock.nanoseconds),
        (time, "perf_counter", clock.seconds),
        (time, "perf_counter_ns", clock.nanoseconds),
        (time, "process_time", clock.seconds),
        (time, "localtime", clock.localtime),
        (time, "gmtime", clock.gmtime),
        (datetime_module, "datetime", clock.datetime_class()),
        (datetime_module, "date", clock.date_class()),
        (os, "urandom", made.urandom),
        (os, "getpid", lambda: 100 + seed),
        (uuid, "uuid1", made.uuid),
        (uuid, "uuid4", made.uuid),
        (secrets, "token_bytes", made.urandom),
        (secrets, "token_hex", made.token_hex),
        (secrets, "randbelow", dice.randrange),
        (np.random, "default_rng", made.default_rng),
    ]
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in changes]
    known = {name: sys.modules.pop(name) for name in modules if name in sys.modules}
    random_state, numpy_state = random.getstate(), np.random.get_state()
    try:
        for owner, name, value in changes:
            setattr(owner, name, value)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        yield
    finally:
        for owner, name, value in before:
            setattr(owner, name, value)
        sys.modules.update(known)
        random.setstate(random_state)
        np.random.set_state(numpy_state)


class _Clock:
    """A clock that begins somewhere and moves with each look."""

    def __init__(self, now_s: float, step_s: float) -> None:
        self._now_s = now_s
        self._step_s = step_s
        self._localtime, self._gmtime = time.localtime, time.gmtime

    def seconds(self) -> float:
        self._now_s += self._step_s
        return self._now_s

    def nanoseconds(self) -> int:
        return int(self.seconds() * 1e9)

    def localtime(self, seconds: float | None = None) -> time.struct_time:
        return self._localtime(self.seconds() if seconds is None else seconds)

    def gmtime(self, seconds: float | None = None) -> time.struct_time:
        return self._gmtime(self.seconds() if seconds is None else seconds)

    def datetime_class(self) -> type:
        seconds = self.seconds

        class Kind(type(_DateTime)):  # type: ignore[misc]
            """Real times are of this class too."""

            def __instancecheck__(cls, instance: object) -> bool:
                return isinstance(instance, _DateTime)

        class datetime(_DateTime, metaclass=Kind):  # noqa: N801
            """As the real one, with another now."""

            @classmethod
            def now(cls, tz: Any = None) -> Any:
                return _DateTime.fromtimestamp(seconds(), tz)

            @classmethod
            def utcnow(cls) -> Any:
                return _DateTime.fromtimestamp(seconds(), datetime_module.UTC).replace(tzinfo=None)

            @classmethod
            def today(cls) -> Any:
                return _DateTime.fromtimestamp(seconds())

        return datetime

    def date_class(self) -> type:
        seconds = self.seconds

        class Kind(type(_Date)):  # type: ignore[misc]
            """Real dates are of this class too."""

            def __instancecheck__(cls, instance: object) -> bool:
                return isinstance(instance, _Date)

        class date(_Date, metaclass=Kind):  # noqa: N801
            """As the real one, with another today."""

            @classmethod
            def today(cls) -> Any:
                return _Date.fromtimestamp(seconds())

        return date


class _Identifiers:
    """Bytes and identifiers out of dice."""

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice
        self._default_rng = np.random.default_rng

    def urandom(self, size: int | None = None) -> bytes:
        return self._dice.randbytes(32 if size is None else size)

    def token_hex(self, size: int | None = None) -> str:
        return self.urandom(size).hex()

    def uuid(self, *_: object) -> uuid.UUID:
        return uuid.UUID(int=self._dice.getrandbits(128))

    def default_rng(self, seed: Any = None) -> np.random.Generator:
        return self._default_rng(self._dice.getrandbits(64) if seed is None else seed)
