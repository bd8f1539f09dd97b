"""The steps of flows, one file each: `type = "swinging-door"` names the module `swinging_door` here.

A new step is one new file with a `StepSettings` tagged with its type; nothing else has to change.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from importlib.util import find_spec

import msgspec

from ringmain.flows.step import StepSettings


def step_type(name: str) -> type[StepSettings] | None:
    """The settings of the step of that type; None if there is none. Imports only that step's module."""
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name):
        return None
    module = f"{__name__}.{name.replace('-', '_')}"
    if find_spec(module) is None:
        return None
    for found in vars(importlib.import_module(module)).values():
        if (
            isinstance(found, type)
            and issubclass(found, StepSettings)
            and found.__struct_config__.tag == name
        ):
            return found
    return None


def step_types() -> dict[str, type[StepSettings]]:
    """Every step type by name; imports all of them (for lint messages and the reference page)."""
    names = (module.name.replace("_", "-") for module in pkgutil.iter_modules(__path__))
    return {name: found for name in sorted(names) if (found := step_type(name)) is not None}


def settings_of(table: dict[str, object]) -> StepSettings:
    """The settings in a table with its `type`. Raises msgspec.ValidationError, LookupError for an unknown type."""
    found = step_type(str(table.get("type")))
    if found is None:
        raise LookupError(
            f"unknown step type {table.get('type')!r}; expected one of {', '.join(step_types())}"
        )
    return msgspec.convert(table, found)
