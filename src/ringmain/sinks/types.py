"""How a configuration finds a sink: `type = "publish"` names the module `publish` here.

A new kind of receiver is one new module of this package with a `SINK_TYPE`; nothing else has to change. Its settings
extend `SinkSettings`, so that every sink names its streams in the same way.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

if TYPE_CHECKING:
    from ringmain.runtime.sink import Sink

Findings = tuple[list[tuple[str, str]], list[tuple[str, str]]]
"""(errors, warnings), each as (key, message)."""

BATCH_ROWS_MAX = 40_000


class Begin(Enum):
    """Where a sink begins at its first start."""

    OLDEST = "oldest"
    NEWEST = "newest"


class SinkSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of `[sinks.NAME]`."""

    from_: Annotated[
        str | list[str], msgspec.Meta(description="the stream, or list of streams, whose rows go out")
    ] = msgspec.field(name="from")
    begin: Annotated[
        Begin | None,
        msgspec.Meta(
            description="where the first start begins: `oldest` row that the log holds, or `newest`, with what comes then; "
            "without it as the type says"
        ),
    ] = None

    @property
    def streams(self) -> tuple[str, ...]:
        """The names of the streams."""
        return (self.from_,) if isinstance(self.from_, str) else tuple(self.from_)

    def check_streams(self) -> Findings:
        """What is wrong with the streams, without a log."""
        errors: list[tuple[str, str]] = []
        streams = self.streams
        if not streams:
            errors.append(("from", 'expected a stream such as from = "readings", found an empty list'))
        doubled = next((name for name in streams if streams.count(name) > 1), None)
        if doubled is not None:
            errors.append(("from", f"expected each stream once, found {doubled!r} twice"))
        if "" in streams:
            errors.append(("from", "expected the name of a stream, found an empty text"))
        return errors, []


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the node hands to a sink that it builds. `directory` is the configuration file's: paths are relative to it."""

    node: str
    directory: Path
    timezone: str


@dataclass(frozen=True, slots=True)
class SinkType:
    """One kind of receiver: its settings, and how a sink is built from them.

    `check` gives errors and warnings without touching the outside. `begin`: where its first start begins unless the
    settings say. `batch_rows_max(settings)`: rows of one batch at most.
    """

    settings: type[SinkSettings]
    build: Callable[[str, Any, Surroundings], Sink]
    check: Callable[[Any], Findings]
    begin: Begin = Begin.OLDEST
    batch_rows_max: Callable[[Any], int] = lambda settings: BATCH_ROWS_MAX


def sink_type(name: str) -> SinkType | None:
    """The sink type of that name; None if there is none. Imports only that module."""
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name):
        return None
    module = f"{__package__}.{name.replace('-', '_')}"
    if find_spec(module) is None:
        return None
    found = getattr(importlib.import_module(module), "SINK_TYPE", None)
    return found if isinstance(found, SinkType) else None


def sink_types() -> dict[str, SinkType]:
    """Every sink type by name; imports all of them (for lint messages and the reference page)."""
    names = (
        module.name.replace("_", "-")
        for module in pkgutil.iter_modules(importlib.import_module(str(__package__)).__path__)
    )
    return {name: found for name in sorted(names) if (found := sink_type(name)) is not None}
