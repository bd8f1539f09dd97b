"""What the log's socket needs of the journal that it serves, and of whoever gives ids to series.

Handed over by `Journal.listen`, so that the socket knows no more of the journal than this.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ringmain.log.interface import Claim, Stream, StreamKind
from ringmain.log.request import Request
from ringmain.log.store import Store
from ringmain.model.catalogue import SeriesAttributes


class Registrar(Protocol):
    """The one allocator of series ids, where the process that writes the log has one (`catalogue.SeriesRegistry`)."""

    def register(self, source: str, key: str, attributes: SeriesAttributes) -> int:
        """The id of a series, a new one for a new key; -1 beyond the source's limit."""
        ...

    def save(self) -> None:
        """Make new entries durable."""
        ...


@dataclass(frozen=True, slots=True)
class Served:
    """What the socket needs of the journal that it serves."""

    directory: Path
    store: Store
    submit: Callable[[Request], None]
    claim: Callable[[str, int | None], Claim]
    create_stream: Callable[[str, StreamKind, Any], Stream]
    retain: Callable[[int | None, int | None], int]
    on_durable: Callable[[Callable[[], None]], Callable[[], None]]
