"""What holds between the parts of a configuration file, beyond what each part checks itself.

Opens nothing but directory entries: whether a file is there. `config` turns the findings into lines of the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ringmain.serve.settings import ServeSettings
from ringmain.sinks.types import SinkType
from ringmain.sources.types import SourceType

_FILE_KEYS = (
    ("passwords",),
    ("password_file",),
    ("tls", "certificate"),
    ("tls", "key"),
    ("tls", "client_ca"),
    ("tls", "ca"),
)


@dataclass(frozen=True, slots=True)
class SourceEntry:
    """One `[sources.NAME]`: its type and the typed settings of that type."""

    name: str
    type_name: str
    type: SourceType
    settings: Any


@dataclass(frozen=True, slots=True)
class SinkEntry:
    """One `[sinks.NAME]`: its type and the typed settings of that type."""

    name: str
    type_name: str
    type: SinkType
    settings: Any


@dataclass(frozen=True, slots=True)
class Found:
    """Something wrong, or doubtful with `warning`, at a key."""

    key: tuple[str | int, ...]
    message: str
    warning: bool = False


def unused_maps(sources: Mapping[str, SourceEntry]) -> Iterator[Found]:
    """Maps that no message reaches, because an earlier one of their source fits the same topics."""
    for name, entry in sources.items():
        maps = getattr(entry.settings, "map", "")
        if isinstance(maps, str):
            continue
        earlier: dict[str, int] = {}
        for index, one in enumerate(maps):
            shape = re.sub(r"\{[^{}]*\}", "+", one.topic)
            first = earlier.get(shape, earlier.get("#"))
            if first is not None:
                yield Found(
                    ("sources", name, "map", index, "topic"),
                    f"this map is never used: map[{first}] fits the same topics, and the first that fits is taken",
                    warning=True,
                )
            earlier.setdefault(shape, index)


def missing_files(directory: Path, sources: Mapping[str, SourceEntry]) -> Iterator[Found]:
    """Files of passwords and certificates that are not there yet. A source waits for them, so these are warnings."""
    for name, entry in sources.items():
        for key in _FILE_KEYS:
            value: Any = entry.settings
            for part in key:
                value = getattr(value, part, None)
            if isinstance(value, str) and not (directory / value).exists():
                yield Found(
                    ("sources", name, *key),
                    f"no such file: {directory / value}; the source starts once it is there",
                    warning=True,
                )


def shared_addresses(sources: Mapping[str, SourceEntry], serve: ServeSettings | None) -> Iterator[Found]:
    """Listeners that want an address which another part of the same node has."""
    listeners: list[tuple[tuple[str, ...], str]] = [
        (("sources", name), entry.settings.listen) for name, entry in sources.items() if entry.type.listens
    ]
    if serve is not None:
        listeners.append((("serve",), serve.listen))
    owners: dict[str, tuple[str, ...]] = {}
    for table, address in listeners:
        if address in owners and not address.endswith(":0"):
            yield Found(
                (*table, "listen"),
                f"{address} is the address of [{'.'.join(owners[address])}] already; give another port",
            )
        owners.setdefault(address, table)
