"""What the measurements of single steps share: blocks of readings, and a log that holds nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ringmain.flows.block import Block, readings_block
from ringmain.log.interface import Frame


def readings(
    series: NDArray[np.uint32], time: NDArray[np.int64], value: NDArray[np.float64], arrival_ns: int
) -> Block:
    """A block of good readings."""
    return readings_block(series, time, value, np.zeros(len(series), np.uint16), arrival_ns)


class Empty:
    """A `LogReader` without a frame."""

    def read(self, *_: Any, **__: Any) -> Iterator[Frame]:
        """No frame."""
        return iter(())

    def find(self, *_: Any) -> None:
        """No position."""

    def streams(self) -> list[Any]:
        """No stream."""
        return []
