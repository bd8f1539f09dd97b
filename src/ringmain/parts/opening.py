"""Why a node cannot be started, in words for whoever starts it: the same in every layout."""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path

from ringmain.config import ConfigError, NodeConfig, Problem, load
from ringmain.log.interface import LogError
from ringmain.model.series_csv import SeriesFileError

_logger = logging.getLogger("ringmain.node")


class RefusedError(Exception):
    """The node cannot be started as things are; the message says what to do."""


def load_config(file: Path) -> tuple[NodeConfig, list[Problem]]:
    """The configuration and its warnings. Raises RefusedError with every problem, one a line."""
    try:
        return load(file)
    except ConfigError as error:
        count = len(error.problems)
        told = "one problem" if count == 1 else f"{count} problems"
        raise RefusedError(f"the configuration has {told}:\n{error}") from None


def reloaded(file: Path) -> NodeConfig | None:
    """The configuration as it is in the file now; None, with every problem told, where it cannot be used."""
    try:
        config, warnings = load_config(file)
    except RefusedError as error:
        _logger.error("nothing is taken over: %s", error)
        return None
    for warning in warnings:
        _logger.warning("%s", warning)
    return config


def tell(changes: list[str]) -> None:
    """What was taken over, for the log of the process."""
    for change in changes:
        _logger.info("taken over: %s", change)


def refusal(error: Exception, data: Path) -> RefusedError | None:
    """What to tell when opening the log in `data` raised this; None where it is a mistake of the program."""
    if isinstance(error, OSError):
        return RefusedError(_cannot_write(data, error))
    if isinstance(error, LogError | SeriesFileError):
        return RefusedError(str(error))
    return None


def _cannot_write(data: Path, error: OSError) -> str:
    """The message for a data directory that the operating system refuses, with the remedy."""
    found = f"{error.strerror or error} ({error.filename})" if error.filename else str(error)
    match error.errno:
        case errno.EACCES | errno.EPERM:
            user = os.geteuid()
            remedy = f"give it to the user that runs the node (chown -R {user}) or run the node as its owner"
        case errno.EROFS:
            remedy = "mount it writable, or give another directory as `data` under [node]"
        case _:
            remedy = "see `ringmain doctor`, or give another directory as `data` under [node]"
    return f"{data}: expected a directory that this process may write, found: {found}; {remedy}"
