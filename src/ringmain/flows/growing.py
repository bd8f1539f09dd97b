"""Arrays by series or device that grow with what appears."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

_Number = TypeVar("_Number", bound=np.generic)

NEVER = -(2**63)
"""A time or window number before every other: nothing yet."""


def grown(array: NDArray[_Number], size: int, fill: object) -> NDArray[_Number]:
    """A copy of the array with `size` elements, new ones with the value `fill`."""
    larger = np.full(size, fill, array.dtype)
    larger[: len(array)] = array
    return larger
