"""What is wrong with the settings of a window step, as far as they alone show it. Errors are (key, message)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from ringmain.flows.aggregates import WEIGHTED, Aggregate, Condition
from ringmain.flows.calendar import DAYS_MIN, Unit
from ringmain.model.duration import format_duration

if TYPE_CHECKING:
    from ringmain.flows.steps.window import WindowStepSettings

OPEN_WINDOWS_MAX = 4096
"""Windows of one series that may be open at once by configuration: (grace + window) / window."""
REACH_MAX = 64
"""Windows that a value may hold into behind its own: a late reading may change them all."""

_WINDOW_MIN_NS = 1_000_000
_WINDOW_MAX_NS = 366 * 86_400_000_000_000
_MINUTE_NS = 60_000_000_000
_DAY_NS = 1440 * _MINUTE_NS
_LOCAL_MIN_NS = 15 * _MINUTE_NS
PANES_MAX = 512
"""Panes of a window that hops: each is kept for every series."""
WORDS = "hour, day, week, month, quarter, year"


def needs(settings: WindowStepSettings, durations: dict[str, int]) -> list[tuple[str, str]]:
    """What some values need besides."""
    errors: list[tuple[str, str]] = []
    if settings.state is not None:
        try:
            Condition.parse(settings.state)
        except ValueError as error:
            errors.append(("state", str(error)))
    elif Aggregate.DURATION in settings.values:
        errors.append(("state", "expected the condition that `duration` measures, such as `value > 10`"))
    if Aggregate.COMPLETENESS in settings.values and durations.get("interval", 1) <= 0:
        errors.append(
            ("interval", "expected how often a reading should come, such as 15m, for `completeness`")
        )
    if settings.hold is not None and durations.get("hold", 1) <= 0:
        errors.append(("hold", f"expected more than 0s, found {settings.hold}"))
    if settings.zone is not None:
        try:
            ZoneInfo(settings.zone)
        except (KeyError, ValueError, OSError):
            errors.append(
                ("zone", f"expected an IANA time zone such as Europe/Berlin, found {settings.zone!r}")
            )
    return errors


def lengths(settings: WindowStepSettings, durations: dict[str, int]) -> list[tuple[str, str]]:
    """Whether windows of such a length can be, with everything that is measured in them."""
    try:
        unit = settings.unit()
    except ValueError as error:
        return [("window", str(error))]
    if not isinstance(unit, Unit) and not _WINDOW_MIN_NS <= unit <= _WINDOW_MAX_NS:
        return [("window", f"expected 1ms to 366d, found {settings.window}")]
    errors: list[tuple[str, str]] = []
    if isinstance(unit, Unit) or settings.calendar:
        if not isinstance(unit, Unit) and not (unit >= _LOCAL_MIN_NS and _DAY_NS % unit == 0):
            return [
                (
                    "window",
                    f"expected a length of 15m or more that divides the day, or one of {WORDS}, in the local "
                    f"calendar, found {settings.window}",
                )
            ]
        if durations.get("offset", 0) % 1_000_000_000 or durations.get("offset", 0) >= _DAY_NS:
            errors.append(("offset", f"expected whole seconds below 1d, found {settings.offset}"))
    if settings.every is not None:
        errors += _hopping(settings, unit, durations.get("every", 0))
    width = width_ns(unit)
    if settings.every is not None and not errors and not isinstance(unit, Unit):
        width = math.gcd(unit, durations["every"])
    if durations.get("grace", 0) > width * (OPEN_WINDOWS_MAX - 2):
        errors.append(
            (
                "grace",
                f"expected at most {OPEN_WINDOWS_MAX - 2} times {format_duration(width)}, found {settings.grace}: "
                "a series would keep more windows open than are kept",
            )
        )
    if durations.get("hold", 0) > width * REACH_MAX:
        errors.append(
            (
                "hold",
                f"expected at most {REACH_MAX} windows of {settings.window}, found {settings.hold}: a late reading "
                "would change them all",
            )
        )
    return errors


def _hopping(settings: WindowStepSettings, unit: Unit | int, every_ns: int) -> list[tuple[str, str]]:
    """Whether windows can begin so often."""
    if isinstance(unit, Unit) or settings.calendar:
        return [("every", "expected none with windows of the local calendar: these do not overlap")]
    if not 0 < every_ns < unit or every_ns < _WINDOW_MIN_NS:
        return [
            (
                "every",
                f"expected 1ms or more and less than the window of {settings.window}, found {settings.every}",
            )
        ]
    if unit // math.gcd(unit, every_ns) > PANES_MAX:
        return [
            (
                "every",
                f"expected windows of at most {PANES_MAX} parts that are as long as both {settings.window} and "
                f"{settings.every} are multiples of, found {unit // math.gcd(unit, every_ns)}",
            )
        ]
    timed = [value.value for value in settings.columns if value in WEIGHTED]
    if timed:
        return [("values", f"expected none of {', '.join(timed)} in windows that overlap (`every`)")]
    return []


def meaningless(settings: WindowStepSettings) -> list[tuple[str, str]]:
    """Settings that say nothing."""
    used = set(settings.values)
    idle = {
        "state": Aggregate.DURATION in used,
        "interval": Aggregate.COMPLETENESS in used,
        "hold": bool(used & WEIGHTED),
    }
    return [
        (key, f"`{key}` has no meaning for the values {', '.join(value.value for value in settings.values)}")
        for key, needed in idle.items()
        if getattr(settings, key) is not None and not needed
    ]


def width_ns(unit: Unit | int) -> int:
    """The length of a window at least, but for steps of the clock."""
    if not isinstance(unit, Unit):
        return unit
    return _MINUTE_NS * 60 if unit is Unit.HOUR else DAYS_MIN[unit] * _DAY_NS
