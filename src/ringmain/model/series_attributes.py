"""What is known about a series besides its id, and the sizes that keys and texts may have.

Whoever takes a series from outside (a mapping, a catalogue file, a program) checks against these before the catalogue has it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

KEY_BYTES_MAX = 1024
TEXT_BYTES_MAX = 1024
EXTERNAL_BYTES_MAX = 16 * 1024
"""Of all external names of a series together, as JSON."""


@dataclass(frozen=True, slots=True)
class SeriesAttributes:
    """What is known about a series besides its key. `external` maps schemes (MeLo, OBIS ...) to names."""

    unit: str | None = None
    quantity: str | None = None
    medium: str | None = None
    device: str | None = None
    place: str | None = None
    owner: str | None = None
    external: Mapping[str, str] = field(default_factory=dict)


def check_key(key: str) -> None:
    """Raise ValueError when `key` cannot name a series: empty, too long, control characters, not UTF-8."""
    if not key:
        raise ValueError("expected a series key, found an empty one")
    try:
        size_bytes = len(key.encode())
    except UnicodeEncodeError:
        raise ValueError(f"expected a series key in UTF-8, found {key[:60]!r}") from None
    if size_bytes > KEY_BYTES_MAX:
        raise ValueError(f"expected a series key of at most {KEY_BYTES_MAX} bytes, found {key[:60]!r}...")
    if not key.isprintable():
        raise ValueError(f"expected a series key of printable characters, found {key[:60]!r}")
