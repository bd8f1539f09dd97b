"""Checks that the settings of several sources share: durations within bounds, and the maps of a source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from ringmain.sources.mapping import MapSettings

Found = list[tuple[str, str]]
"""Errors or warnings, each as (key, message)."""


class HasSeconds(Protocol):
    """Settings with durations."""

    def seconds(self, name: str) -> float:
        """The duration setting `name` in seconds. ValueError names the setting."""
        ...


def check_durations(settings: HasSeconds, bounds_s: Mapping[str, tuple[float, float]], errors: Found) -> None:
    """Add an error for each duration that cannot be read or lies outside its bounds, in seconds, both included."""
    for name, (low, high) in bounds_s.items():
        try:
            value = settings.seconds(name)
        except ValueError as error:
            errors.append((name, str(error).removeprefix(f"{name}: ")))
        else:
            if not low <= value <= high:
                errors.append((name, f"expected {low:g} s to {high:g} s, found {getattr(settings, name)}"))


def check_maps(maps: Sequence[MapSettings] | str, errors: Found, warnings: Found) -> None:
    """Add what is wrong or doubtful in a source's own maps; a text names another source's maps and is not checked."""
    for index, settings in enumerate(maps if not isinstance(maps, str) else []):
        for found, findings in zip(settings.check(), (errors, warnings), strict=True):
            findings.extend((f"map.{index}.{key}", message) for key, message in found)
