"""What a configuration file may say in `[[sources.NAME.map]]`: which messages become which readings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal, TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from ringmain.model.units import canonical_unit
from ringmain.sources.mapping_patterns import Template, TopicPattern
from ringmain.sources.mapping_shape import Shape, parse_path
from ringmain.sources.mapping_times import TimeUnit

ATTRIBUTES = ("unit", "quantity", "medium", "device", "place", "owner")
VALUE_NAME = "name"

T = TypeVar("T")
_Text = Annotated[str, msgspec.Meta(max_length=1024)]


class MapSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[[sources.NAME.map]]`: one topic pattern and how its payloads are read. The first that fits is used."""

    topic: Annotated[
        _Text, msgspec.Meta(description="topic pattern; {name} is one level, # at the end the rest")
    ]
    series: Annotated[_Text, msgspec.Meta(description="key of the series, with {name} from the topic")]
    value: Annotated[
        _Text | None, msgspec.Meta(description='dotted path of the number; "": the payload is the number')
    ] = None
    values: Annotated[
        dict[str, str] | None,
        msgspec.Meta(
            description="several numbers in one payload, {name} = dotted path; {name} goes into `series`"
        ),
    ] = None
    time: Annotated[
        _Text | None, msgspec.Meta(description="dotted path of the time; absent: the arrival")
    ] = None
    time_unit: Annotated[
        Literal["s", "ms", "us", "ns"] | None,
        msgspec.Meta(description="what numeric times count since 1970; absent: told by their magnitude"),
    ] = None
    timezone: Annotated[
        _Text | None, msgspec.Meta(description="zone of times without offset; absent: the node's")
    ] = None
    quality: Annotated[
        _Text | None,
        msgspec.Meta(description="dotted path of the quality: bits, or good/questionable/invalid"),
    ] = None
    units: Annotated[dict[str, str], msgspec.Meta(description="units of `values`, by name")] = {}
    unit: Annotated[_Text | None, msgspec.Meta(description="unit of the series, such as W or m3/h")] = None
    quantity: Annotated[_Text | None, msgspec.Meta(description="quantity, such as power or energy")] = None
    medium: Annotated[_Text | None, msgspec.Meta(description="medium: electricity, gas, heat or water")] = (
        None
    )
    device: Annotated[_Text | None, msgspec.Meta(description="device that the series belongs to")] = None
    place: Annotated[_Text | None, msgspec.Meta(description="place in the asset hierarchy")] = None
    owner: Annotated[_Text | None, msgspec.Meta(description="owner")] = None

    def check(self) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
        """(errors, warnings), each as (key, what was expected and found)."""
        errors: list[tuple[str, str]] = []
        ParsedMap.parse(self, "UTC", errors)
        warnings = []
        if self.values is not None and self.unit is not None and len(self.values) > 1:
            warnings.append(("unit", "is the unit of every one of `values`; `units` gives each its own"))
        return errors, warnings


@dataclass(frozen=True, slots=True)
class ParsedMap:
    """A map whose texts have been parsed. `attributes` has a row of templates for each value, in its order."""

    pattern: TopicPattern
    shape: Shape
    value_names: tuple[str, ...]
    series: Template
    attributes: tuple[tuple[Template | None, ...], ...]
    time_unit: TimeUnit | None
    zone: str

    @classmethod
    def parse(cls, settings: MapSettings, timezone: str, errors: list[tuple[str, str]]) -> ParsedMap | None:
        """The parsed map, or None with what is wrong added to `errors` as (key, message)."""
        before = len(errors)
        pattern = _tried(errors, "topic", TopicPattern.parse, settings.topic)
        shape, names = _shape(settings, errors)
        known = set(pattern.known if pattern is not None else ())
        if settings.values is not None:
            if VALUE_NAME in known:
                errors.append(
                    (
                        "topic",
                        f"expected another name than {{{VALUE_NAME}}}, which stands for those of `values`",
                    )
                )
            known.add(VALUE_NAME)
        series = None
        if pattern is not None:
            series = _tried(errors, "series", lambda text: Template.parse(text, known), settings.series)
        if not settings.series:
            errors.append(("series", "expected the key of the series, found nothing"))
        if series is not None and len(names) > 1 and VALUE_NAME not in series.parts[1::2]:
            errors.append(
                (
                    "series",
                    f"expected {{name}} in it, because `values` are several, found {settings.series!r}",
                )
            )
        zone = settings.timezone or timezone
        try:
            ZoneInfo(zone) if zone != "UTC" else None
        except (ZoneInfoNotFoundError, ValueError, OSError):
            errors.append(("timezone", f"expected a time zone such as Europe/Berlin, found {zone!r}"))
        attributes = _attributes(settings, pattern, names, known, errors)
        if len(errors) > before or pattern is None or shape is None or series is None:
            return None
        unit = TimeUnit(settings.time_unit) if settings.time_unit is not None else None
        return cls(pattern, shape, names, series, attributes, unit, zone)

    def names_of(self, topic_names: dict[str, str], value_index: int) -> dict[str, str]:
        """What templates are filled with for one of the values: `{name}` is its name where there are `values`."""
        name = self.value_names[value_index]
        return {**topic_names, VALUE_NAME: name} if name else topic_names


def _shape(settings: MapSettings, errors: list[tuple[str, str]]) -> tuple[Shape | None, tuple[str, ...]]:
    before = len(errors)
    paths: list[tuple[str, ...] | None]
    if (settings.value is None) == (settings.values is None):
        found = "neither" if settings.value is None else "both"
        errors.append(("value", f"expected either `value` or `values`, found {found}"))
        return None, ()
    if settings.values is not None:
        names = tuple(settings.values)
        if not names:
            errors.append(("values", 'expected at least one, such as { p = "ENERGY.Power" }, found none'))
        if "" in names:
            errors.append(("values", "expected a name for each path, found an empty one"))
        paths = [_tried(errors, f"values.{name}", parse_path, path) for name, path in settings.values.items()]
    else:
        names = ("",)
        paths = [() if settings.value == "" else _tried(errors, "value", parse_path, settings.value or "")]
    time = None if settings.time is None else _tried(errors, "time", parse_path, settings.time)
    quality = None if settings.quality is None else _tried(errors, "quality", parse_path, settings.quality)
    if settings.value == "":
        errors += [
            (key, f'expected no `{key}` beside value = "", which takes the payload for the number')
            for key in ("time", "quality")
            if getattr(settings, key) is not None
        ]
    if len(errors) > before:
        return None, names
    return Shape(tuple(path for path in paths if path is not None), time, quality), names


def _attributes(
    settings: MapSettings,
    pattern: TopicPattern | None,
    names: tuple[str, ...],
    known: set[str],
    errors: list[tuple[str, str]],
) -> tuple[tuple[Template | None, ...], ...]:
    """For each value its templates in the order of `ATTRIBUTES`; a level of that name fills one not given."""
    if pattern is None:
        return ()
    errors += [
        (f"units.{name}", f"expected a name of `values`, found {name!r}")
        for name in settings.units
        if name not in names or settings.values is None
    ]
    rows = []
    common: list[Template | None] = []
    for key in ATTRIBUTES:
        text: str | None = getattr(settings, key)
        if text is None and key in pattern.known:
            text = f"{{{key}}}"
        template = _tried(errors, key, lambda t: Template.parse(t, known), text) if text else None
        if key == "unit" and text and "{" not in text:
            _tried(errors, key, canonical_unit, text)
        common.append(template)
    for name in names:
        row = list(common)
        if name in settings.units:
            key = f"units.{name}"
            _tried(errors, key, canonical_unit, settings.units[name])
            row[0] = _tried(errors, key, lambda t: Template.parse(t, ()), settings.units[name])
        rows.append(tuple(row))
    return tuple(rows)


def _tried(errors: list[tuple[str, str]], key: str, parse: Callable[[str], T], text: str) -> T | None:
    """The parsed text, or None after noting the ValueError under `key`."""
    try:
        return parse(text)
    except ValueError as error:
        errors.append((key, str(error)))
        return None
