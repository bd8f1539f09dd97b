"""Where a payload has its time, its numbers and their quality, and what was read: the words of the mapping."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from ringmain.model.quality import VALIDITY_MASK, Quality
from ringmain.sources.mapping_times import RawTime

ELEMENTS_MAX = 30_000
"""Elements of an array in one message: their readings fit one frame of the log."""

PAYLOAD_BYTES_MAX = 1 << 20
"""Larger payloads are not looked into."""

Path = tuple[str, ...]

QUALITY_WORDS = {
    "good": int(Quality.GOOD),
    "questionable": int(Quality.QUESTIONABLE),
    "invalid": int(Quality.INVALID),
}


@dataclass(frozen=True, slots=True)
class Shape:
    """Where a payload has its time, values and quality. A value with an empty path: the payload is the number."""

    values: tuple[Path, ...]
    time: Path | None = None
    quality: Path | None = None

    @property
    def bare(self) -> bool:
        """Whether the payload itself is the number."""
        return self.values == ((),)


class Row(NamedTuple):
    """One value that was read: index into `Shape.values`, time as written, the number, quality bits."""

    value_index: int
    time: RawTime
    value: float
    quality: int


class Members(list[tuple[str, Any]]):
    """A JSON object with every member in its order, also those that occur twice."""


def parse_path(text: str) -> Path:
    """`ENERGY.Power` as ("ENERGY", "Power"). Raises ValueError for an empty part."""
    path = tuple(text.split("."))
    if not all(path):
        raise ValueError(f"expected a dotted path such as ENERGY.Power, found {text!r}")
    return path


def quality_of(raw: object) -> int:
    """Quality bits of a bit field (0 to 65535) or a word. Raises ValueError."""
    if raw is None:
        return 0
    if isinstance(raw, str) and raw.lower() in QUALITY_WORDS:
        return QUALITY_WORDS[raw.lower()]
    if isinstance(raw, int) and not isinstance(raw, bool) and 0 <= raw <= 0xFFFF:
        return raw if raw & VALIDITY_MASK != VALIDITY_MASK else raw & ~1  # 3 is reserved: invalid
    words = ", ".join(QUALITY_WORDS)
    raise ValueError(f"expected a quality from 0 to 65535 or one of {words}, found {shown(raw)}")


def shown(value: object) -> str:
    """A JSON value for a message: its kind when it is large, and printable whatever it is."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Members):
        return "an object"
    if isinstance(value, list):
        return f"an array of {len(value)}"
    text = ascii(value)
    text = text if len(text) <= 60 else text[:57] + "..."
    return f"the text {text}" if isinstance(value, str) else text
