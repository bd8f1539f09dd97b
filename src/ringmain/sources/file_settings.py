"""What a configuration file says about recorded readings in files: where they lie, how they are laid out, how fast they come."""

from __future__ import annotations

import codecs
import re
from enum import Enum
from typing import Annotated, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from ringmain.model.duration import parse_duration
from ringmain.model.quality import Quality
from ringmain.model.units import canonical_unit

Findings = tuple[list[tuple[str, str]], list[tuple[str, str]]]
ATTRIBUTES = ("unit", "quantity", "medium", "device", "place", "owner")
COLUMN = "column"
"""`{column}` in `series` is the name of the column that a value stands in: each such column is a series."""
ALL = "*"
_PLACE = re.compile(r"\{([^{}]+)\}")
_SPEED = re.compile(r"max|x([0-9]{1,6}(?:\.[0-9]{1,6})?)")
_NUMBERED = ("s", "ms", "us", "ns")


class FileFormat(Enum):
    """Kinds of files."""

    AUTO = "auto"
    CSV = "csv"
    NDJSON = "ndjson"
    PARQUET = "parquet"


class After(Enum):
    """What becomes of a file of a directory once everything in it is durable."""

    MOVE = "move"
    DELETE = "delete"


class RepeatedHour(Enum):
    """Which of two instants a local time of the hour is that comes twice in autumn."""

    ORDER = "order"
    EARLIER = "earlier"
    LATER = "later"


class FileSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`type = "file"`: readings recorded in CSV, NDJSON or Parquet files, replayed flat out or in event time."""

    path: Annotated[
        str,
        msgspec.Meta(
            description="a file, or a directory that is watched for files, relative to the configuration file",
            min_length=1,
        ),
    ]
    series: Annotated[
        str,
        msgspec.Meta(
            description="key of the series, with {name} for the text in a column; {column}: the name of the column of the "
            "value, where each column is a series",
            min_length=1,
        ),
    ]
    time: Annotated[
        str | list[str],
        msgspec.Meta(description="column of the time; several (date, time of day) are joined with a space"),
    ]
    value: Annotated[
        str | list[str],
        msgspec.Meta(
            description="column of the value; with {column} in `series` a list of columns, or `*` for all that nothing else names"
        ),
    ] = "value"
    quality: Annotated[
        str | None, msgspec.Meta(description="column of the quality: bits, or words of `qualities`")
    ] = None
    qualities: Annotated[
        dict[str, str],
        msgspec.Meta(
            description='words of the quality column = what they mean, such as { V = "good", E = "estimated questionable" }'
        ),
    ] = {}
    format: Annotated[
        FileFormat, msgspec.Meta(description="kind of file; `auto`: by the end of its name")
    ] = FileFormat.AUTO
    match: Annotated[
        str,
        msgspec.Meta(
            description="names of a directory's files, with * and ?; names that begin with a dot never match"
        ),
    ] = "*"
    encoding: Annotated[
        str,
        msgspec.Meta(description="of texts, such as utf-8, cp1252 or utf-16; a byte order mark overrules it"),
    ] = "utf-8"
    separator: Annotated[
        str, msgspec.Meta(description="between the fields of CSV; a first line `sep=;` overrules it")
    ] = ","
    decimal: Annotated[Literal[".", ","], msgspec.Meta(description="decimal point of CSV")] = "."
    thousands: Annotated[
        Literal["", ".", ",", "'", " ", "\u00a0", "\u202f"],
        msgspec.Meta(description="between thousands, in CSV"),
    ] = ""
    skip_lines: Annotated[int, msgspec.Meta(description="lines before the header of CSV", ge=0, le=1000)] = 0
    columns: Annotated[
        list[str] | None,
        msgspec.Meta(description="names of CSV's columns, where there is no header line"),
    ] = None
    units_line: Annotated[
        bool, msgspec.Meta(description="the line behind the header has the columns' units")
    ] = False
    comment: Annotated[str, msgspec.Meta(description="lines of CSV that begin so are passed over")] = ""
    missing: Annotated[
        tuple[str, ...], msgspec.Meta(description="texts of CSV that stand for no value; NaN is none either")
    ] = ("", "-", "NA", "N/A", "NaN", "nan", "null", "NULL")
    time_format: Annotated[
        str,
        msgspec.Meta(
            description="`iso` (RFC 3339, with or without offset), `s`, `ms`, `us`, `ns` since 1970, or a pattern such as "
            "`%d.%m.%Y %H:%M:%S`"
        ),
    ] = "iso"
    timezone: Annotated[
        str | None, msgspec.Meta(description="zone of times without offset; absent: the node's")
    ] = None
    repeated_hour: Annotated[
        RepeatedHour,
        msgspec.Meta(
            description="local times of the hour that comes twice in autumn: `order`: the second time that a series comes to "
            "it is the later one"
        ),
    ] = RepeatedHour.ORDER
    unit: Annotated[
        str | None, msgspec.Meta(description="unit of the series, such as W; with {name} as `series`")
    ] = None
    quantity: Annotated[str | None, msgspec.Meta(description="quantity, such as power or energy")] = None
    medium: Annotated[str | None, msgspec.Meta(description="medium: electricity, gas, heat or water")] = None
    device: Annotated[str | None, msgspec.Meta(description="device that the series belongs to")] = None
    place: Annotated[str | None, msgspec.Meta(description="place in the asset hierarchy")] = None
    owner: Annotated[str | None, msgspec.Meta(description="owner")] = None
    speed: Annotated[
        str,
        msgspec.Meta(
            description="`max`: as fast as they can be stored; `x1`: as they were recorded, `x60`: 60 times as fast"
        ),
    ] = "max"
    after: Annotated[
        After,
        msgspec.Meta(
            description="what becomes of a directory's file when all of it is durable: `move` to done/, or `delete`"
        ),
    ] = After.MOVE
    poll: Annotated[str, msgspec.Meta(description="how often a directory is looked at")] = "1s"
    settle: Annotated[
        str, msgspec.Meta(description="a file is taken once it has not changed for so long")
    ] = "2s"

    @property
    def wide(self) -> bool:
        """Whether each column of values is a series."""
        return COLUMN in _PLACE.findall(self.series)

    @property
    def time_columns(self) -> tuple[str, ...]:
        """Columns of the time."""
        return (self.time,) if isinstance(self.time, str) else tuple(self.time)

    @property
    def value_columns(self) -> tuple[str, ...] | None:
        """Columns of values; None: all that nothing else names."""
        if self.value == ALL:
            return None
        return (self.value,) if isinstance(self.value, str) else tuple(self.value)

    def places(self) -> set[str]:
        """Columns whose texts stand in `series` and in attributes."""
        texts = [self.series, *(getattr(self, name) or "" for name in ATTRIBUTES)]
        return {name for text in texts for name in _PLACE.findall(text)} - {COLUMN}

    def seconds(self, name: str) -> float:
        """The duration setting `name` in seconds. ValueError names the setting."""
        try:
            return parse_duration(getattr(self, name)) / 1e9
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None

    def times_faster(self) -> float | None:
        """How many times as fast as recorded; None: as fast as can be. Raises ValueError."""
        found = _SPEED.fullmatch(self.speed)
        if found is None or (found[1] is not None and float(found[1]) <= 0):
            raise ValueError(f"expected max, x1, x60 or another factor, found {self.speed!r}")
        return None if found[1] is None else float(found[1])

    def check(self) -> Findings:
        """Errors and warnings without looking at files."""
        errors: list[tuple[str, str]] = []
        for key in ("series", *ATTRIBUTES):
            text = getattr(self, key) or ""
            if re.search(r"[{}]", _PLACE.sub("", text)):
                errors.append((key, f"expected {{name}} around a column's name, found {text!r}"))
            if key not in ("series", "device", "quantity") and COLUMN in _PLACE.findall(text):
                errors.append(
                    (key, f"expected {{column}} in `series`, `device` or `quantity` alone, found {text!r}")
                )
        if self.unit and "{" not in self.unit:
            try:
                canonical_unit(self.unit)
            except ValueError as error:
                errors.append(("unit", str(error)))
        if not self.wide and not isinstance(self.value, str):
            errors.append(("value", "expected one column, or {column} in `series`, found a list of columns"))
        if not self.wide and self.value == ALL:
            errors.append(("value", "expected {column} in `series` to go with `*`"))
        if not self.time_columns or not all(self.time_columns):
            errors.append(("time", "expected the name of a column, found none"))
        self._check_text_forms(errors)
        for key, low, high in (("poll", 0.01, 3600.0), ("settle", 0.0, 86_400.0)):
            try:
                seconds = self.seconds(key)
            except ValueError as error:
                errors.append((key, str(error).removeprefix(f"{key}: ")))
            else:
                if not low <= seconds <= high:
                    errors.append((key, f"expected {low:g} s to {high:g} s, found {getattr(self, key)!r}"))
        try:
            self.times_faster()
        except ValueError as error:
            errors.append(("speed", str(error)))
        for word, meaning in self.qualities.items():
            try:
                quality_of(meaning)
            except ValueError as error:
                errors.append((f"qualities.{word}", str(error)))
        return errors, []

    def _check_text_forms(self, errors: list[tuple[str, str]]) -> None:
        if len(self.separator) != 1 or not self.separator.isascii() or self.separator in '"\r\n':
            errors.append(("separator", f"expected one ASCII character, found {self.separator!r}"))
        if self.separator == self.decimal:
            errors.append(("decimal", f"expected another character than the separator {self.separator!r}"))
        if self.thousands == self.decimal:
            errors.append(
                ("thousands", f"expected another character than the decimal point {self.decimal!r}")
            )
        try:
            codecs.lookup(self.encoding)
            b"a".decode(self.encoding, "replace")
        except (LookupError, ValueError):
            errors.append(
                ("encoding", f"expected an encoding such as utf-8, cp1252 or utf-16, found {self.encoding!r}")
            )
        if self.time_format not in ("iso", *_NUMBERED):
            unknown = re.search(r"%(?![YmdHMSyjbBep%T])", self.time_format)
            if "%" not in self.time_format or unknown:
                errors.append(
                    (
                        "time_format",
                        "expected iso, s, ms, us, ns or a pattern of %Y %m %d %H %M %S (strptime(3)), found "
                        f"{self.time_format!r}",
                    )
                )
        if self.timezone is not None:
            try:
                ZoneInfo(self.timezone)
            except (ZoneInfoNotFoundError, ValueError, OSError):
                errors.append(
                    ("timezone", f"expected a time zone such as Europe/Berlin, found {self.timezone!r}")
                )


def quality_of(meaning: str) -> int:
    """The bits of a quality in words: `good`, `invalid`, `estimated questionable` ... Raises ValueError."""
    bits = 0
    for word in meaning.replace("-", "_").split():
        found = Quality.__members__.get(word.upper())
        if found is None:
            names = ", ".join(name.lower() for name in Quality.__members__)
            raise ValueError(f"expected words of {names}, found {word!r}")
        bits |= int(found)
    return bits
