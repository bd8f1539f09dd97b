"""Parts of a state that are put together beside: out of what nobody writes to any more.

A picture of a state is taken between two frames, and its flow stands still for that. What consists of things that never
change (rows of Arrow, arrays that are only ever replaced, text that was made before) need not be copied: the state names
them, and the thread that writes the snapshot makes bytes of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Later:
    """A part of a state. `nbytes`: about how large it is.

    `make`: gives an array, bytes or a buffer of Arrow; called on any thread, the same whenever it is.
    """

    make: Callable[[], Any]
    nbytes: int


Part = NDArray[Any] | bytes | Later
"""A part of a state as a step tells it."""


def made(part: Part) -> NDArray[Any] | bytes:
    """The part itself."""
    found: Any = part.make() if isinstance(part, Later) else part
    return found if isinstance(found, np.ndarray) else bytes(found)


def content(part: Part) -> NDArray[Any] | memoryview:
    """The part itself, or a view of its bytes where it is no array."""
    found = part.make() if isinstance(part, Later) else part
    return found if isinstance(found, np.ndarray) else memoryview(found).cast("B")


def size_of(part: Part) -> int:
    """Bytes of a part."""
    return len(part) if isinstance(part, bytes) else part.nbytes


def rows_later(batches: Sequence[pa.RecordBatch], encode: Callable[[list[pa.RecordBatch]], Any]) -> Part:
    """Rows, of which `encode` makes bytes; at once where there are none."""
    held = list(batches)
    return Later(lambda: encode(held), sum(batch.nbytes for batch in held)) if held else b""


def array_later(parts: Sequence[NDArray[Any]], dtype: Any) -> Part:
    """Arrays that nobody writes to, one behind the other."""
    held = list(parts)
    size = sum(len(part) for part in held) * np.dtype(dtype).itemsize
    return Later(lambda: np.concatenate([np.empty(0, dtype), *held]), size)
