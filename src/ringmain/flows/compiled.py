"""Loops as machine code where Numba is installed (extra `fast`), and as they stand where it is not.

A step whose rows follow from one another has its kernel in two forms with equal results, bit for bit: a loop over rows,
and NumPy over rows of which no two belong to one series. `FAST` tells which to take. No fast-math: the compiled loop
does the additions that are written down, in that order.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, TypeVar

_Function = TypeVar("_Function", bound=Callable[..., Any])

FAST = find_spec("numba") is not None
"""Whether Numba is there."""
ROWS_MIN = 1000
"""See `worth`."""


def worth(rows: int) -> bool:
    """Whether to take a compiled loop for so many rows where NumPy would do.

    For few rows it gains too little: with the first loop Numba comes into memory, which a small box has a use for.
    """
    return FAST and rows >= ROWS_MIN


def compiled(function: _Function) -> _Function:
    """The function as machine code from its first call on, or itself without Numba.

    It does not hold the lock of the interpreter. `compiled(f).py_func`, with Numba, is the function itself.
    """
    return _Lazy(function) if FAST else function  # type: ignore[return-value]


def machine_code(function: _Function) -> _Function:
    """What `compiled` gave, made by now: for who calls it often for few microseconds, which asking each time costs too."""
    return function.made() if isinstance(function, _Lazy) else function  # type: ignore[return-value]


class _Lazy:
    """Imports Numba with the first call: that takes most of a second, which nobody should wait for without need."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.py_func = function
        self.__doc__ = function.__doc__
        self._run: Callable[..., Any] | None = None

    def __call__(self, *arguments: Any) -> Any:
        """Run it."""
        run = self._run
        return self.made()(*arguments) if run is None else run(*arguments)

    def made(self) -> Callable[..., Any]:
        """As machine code."""
        if self._run is None:
            self._run = _made(self.py_func)
        return self._run


def _made(function: Callable[..., Any]) -> Callable[..., Any]:
    njit = importlib.import_module("numba").njit
    try:
        made: Callable[..., Any] = njit(cache=True, nogil=True, error_model="numpy")(function)
    except RuntimeError:  # no directory that Numba may write to: compiled at each start
        made = njit(nogil=True, error_model="numpy")(function)
    return made
