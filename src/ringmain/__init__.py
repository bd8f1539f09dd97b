"""Ringmain: every reading of an energy utility in one durable log, processed in motion, served live."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import os

    from ringmain.client import Client

__version__ = "0.1.0"

__all__ = ["__version__", "open"]


def open(directory: str | os.PathLike[str], *, read_only: bool = False) -> Client:  # noqa: A001
    """Open the log in `directory`, made if it is not there; see `ringmain.client.Client` for what it can do.

    `read_only=True` never writes and works while a node runs on the directory; otherwise this process becomes the
    log's one writer, or, while a node runs there, appends through it. Raises
    `ringmain.log.interface.LogLockedError` when another process writes the log and takes no appends.
    """
    from ringmain.client import Client

    return Client(directory, read_only=read_only)
