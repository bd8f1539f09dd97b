"""How a configuration finds a source: `type = "mqtt-listener"` names the module `mqtt_listener` here.

A new protocol is one new module of this package with a `SOURCE_TYPE`; nothing else has to change.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from ringmain.log.catalogue import SeriesRegistry
    from ringmain.runtime.contract import Source
    from ringmain.sources.mapping import MapSettings


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the node hands to a source that it builds.

    `directory` is the configuration file's: paths in settings are relative to it. `maps` are the mappings of
    every source that has its own, by its name.
    """

    node: str
    directory: Path
    timezone: str
    registry: SeriesRegistry
    maps: Mapping[str, Sequence[MapSettings]]


@dataclass(frozen=True, slots=True)
class SourceType:
    """One protocol: its settings, and how a source is built from them.

    `check` gives (errors, warnings), each as (key, message), without touching the outside. `listens`: the node is
    ready only when this source accepts connections (a client of somebody else's broker is not waited for).
    """

    settings: type[msgspec.Struct]
    build: Callable[[str, Any, Surroundings], Source]
    check: Callable[[Any], tuple[list[tuple[str, str]], list[tuple[str, str]]]]
    listens: bool = False


def source_type(name: str) -> SourceType | None:
    """The source type of that name; None if there is none. Imports only that protocol's module."""
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name):
        return None
    module = f"{__package__}.{name.replace('-', '_')}"
    if find_spec(module) is None:
        return None
    found = getattr(importlib.import_module(module), "SOURCE_TYPE", None)
    return found if isinstance(found, SourceType) else None


def source_types() -> dict[str, SourceType]:
    """Every source type by name; imports all of them (for lint messages and the reference page)."""
    names = (
        module.name.replace("_", "-")
        for module in pkgutil.iter_modules(importlib.import_module(str(__package__)).__path__)
    )
    return {name: found for name in sorted(names) if (found := source_type(name)) is not None}
