"""Expressions computed row by row out of their syntax tree, with None for NULL: slow, and plain to read."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from ringmain.flows.expression_calendar import LIMIT_NS
from ringmain.flows.expression_syntax import parse
from ringmain.flows.expression_tree import Call, Literal, Name, Tree

Row = Mapping[str, Any]
_ORIGINS = {"measured": 0, "substituted": 1, "estimated": 2, "calculated": 3}


def value_of(
    text: str, row: Row, known: Mapping[int, Mapping[str, Any]], unit: str | None = None, zone: str = "UTC"
) -> Any:
    """The value of an expression for one row. `unit`: that of the shape; `known`: attributes by series."""
    told = dict(known.get(row.get("series", -1), {}))
    if told and "key" not in told:
        told["key"] = f"key/{row['series']}"
    return _Computing(row, told, unit, ZoneInfo(zone)).value(parse(text))


class _Computing:
    def __init__(self, row: Row, told: Mapping[str, Any], unit: str | None, zone: ZoneInfo) -> None:
        self.row, self.told, self.unit, self.zone = row, told, unit, zone

    def value(self, tree: Tree) -> Any:
        if isinstance(tree, Literal):
            return tree.value
        if isinstance(tree, Name):
            return self.name(tree.name, tree.of)
        assert isinstance(tree, Call)
        if tree.name == "case":
            for when, then in zip(tree.arguments[:-1:2], tree.arguments[1::2], strict=True):
                if self.value(when) is True:
                    return self.value(then)
            return self.value(tree.arguments[-1])
        arguments = [self.value(argument) for argument in tree.arguments]
        found = self.call(tree.name, arguments)
        return None if isinstance(found, float) and math.isnan(found) else found

    def name(self, name: str, of: str | None) -> Any:
        if of == "series" or (name in ("series", "key") and of is None):
            return self.told.get("key" if name == "series" else name)
        if name in self.row:
            found = self.row[name]
            return None if isinstance(found, float) and math.isnan(found) else found
        quality = self.row.get("quality", 0)
        if name in _ORIGINS:
            return quality >> 2 & 3 == _ORIGINS[name]
        if name in ("valid", "good", "invalid"):
            missing = "value" in self.row and math.isnan(self.row["value"])
            good = quality & 3 == 0 if name == "good" else quality & 3 < 2
            good = good and not missing
            return not good if name == "invalid" else good
        if name == "unit" and self.unit is not None:
            return self.unit
        return self.told.get(name)

    def call(self, name: str, arguments: list[Any]) -> Any:
        if name == "and":
            return False if False in arguments else None if None in arguments else True
        if name == "or":
            return True if True in arguments else None if None in arguments else False
        if name == "is null":
            return arguments[0] is None
        if name == "coalesce":
            return next((one for one in arguments if one is not None), None)
        if name in ("least", "greatest"):
            there = [one for one in arguments if one is not None]
            return None if not there else min(there) if name == "least" else max(there)
        if name == "in":
            value, *others = arguments
            if value is None:
                return None
            return (
                True
                if value in [one for one in others if one is not None]
                else None
                if None in others
                else False
            )
        if name == "place_level":
            levels = (self.told.get("place") or "").split("/") if self.told.get("place") is not None else []
            at = arguments[0] - 1 if arguments[0] > 0 else arguments[0]
            return levels[at] if -len(levels) <= at < len(levels) else None
        if None in arguments:
            return None
        return self.plain(name, *arguments)

    def plain(self, name: str, *arguments: Any) -> Any:
        one = arguments[0]
        if name == "between":
            return arguments[1] <= one <= arguments[2]
        if name == "like":
            pattern = "".join({"%": ".*", "_": "."}.get(sign, re.escape(sign)) for sign in arguments[1])
            return re.fullmatch(pattern, one, re.DOTALL) is not None
        if name == "hour" and abs(one) > LIMIT_NS:
            return None
        if name == "hour":
            return (
                (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=one // 1000))
                .astimezone(self.zone)
                .hour
            )
        if len(arguments) == 1:
            return {"not": lambda: not one, "neg": lambda: -one, "abs": lambda: abs(one)}[name]()
        other = arguments[1]
        if name in ("/", "%") and other == 0:
            return None
        return {
            "=": lambda: one == other, "<>": lambda: one != other, "<": lambda: one < other,
            "<=": lambda: one <= other, ">": lambda: one > other, ">=": lambda: one >= other,
            "+": lambda: one + other, "-": lambda: one - other, "*": lambda: one * other,
            "/": lambda: one / other, "%": lambda: _remainder(one, other), "&": lambda: one & other,
            "|": lambda: one | other, "||": lambda: one + other,
        }[name]()  # fmt: skip


def _remainder(one: float, other: float) -> float:
    return math.nan if math.isinf(one) else math.fmod(one, other)


CONDITIONS = [
    "value > 0", "not (value > 0)", "value is null", "value between -5 and 5", "value in (0, 1.5, null)",
    "medium = 'electricity'", "medium <> 'electricity' and value >= 1", "medium = 'gas' or value < 0",
    "unit = 'W'", "unit is null", "unit in ('W', 'kW')", "unit not in ('W', null)", "place like 'area-1/%'",
    "place_level(2) = 'ss-1'", "place_level(-1) = 'ss-2' or good", "valid", "estimated or substituted",
    "quality & 3 = 1", "series like '%2'", "series.medium = 'gas' and valid",
    "case when medium = 'gas' then value > 10 when unit = 'kW' then value > 1 else null end",
    "coalesce(unit, medium, '') = ''", "abs(value) > 3 and (unit is null or unit <> 'kW')", "value % 2 = 1",
    "greatest(value, 0) < 3", "hour(time) >= 15", "1 = 1", "null = 1", "value / (value - 1) > 0",
]  # fmt: skip
"""Conditions that every reading of a flow has the columns for."""
