"""Turns the loops of this room into machine code.

Needs Numba (extra `fast`), so only modules that are imported by `Form.COMPILED` may import this one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit


def compiled(function: Callable[..., Any]) -> Any:
    """The function as machine code, kept between starts where Numba finds a directory that it may write.

    It does not hold the lock of the interpreter: several segments are checked at once.
    """
    try:
        return njit(cache=True, nogil=True, error_model="numpy")(function)
    except RuntimeError:  # no such directory: compiled at each start
        return njit(nogil=True, error_model="numpy")(function)
