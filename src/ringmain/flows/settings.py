"""What a configuration file may say about a flow."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated

import msgspec

from ringmain.model.duration import parse_duration

OPEN_WINDOWS_MAX = 4096
"""Windows of one series that may be open at once by configuration: (grace + window) / window."""

_WINDOW_MIN_NS = 1_000_000
_WINDOW_MAX_NS = 366 * 86_400_000_000_000
_STREAM = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")


class Aggregate(StrEnum):
    """A column of a window; the value is its name in configuration and in the stream."""

    COUNT = "count"
    SUM = "sum"
    MEAN = "mean"
    MIN = "min"
    MAX = "max"
    FIRST = "first"
    LAST = "last"


class Late(StrEnum):
    """What becomes of a reading whose window is closed."""

    REVISE = "revise"
    SIDE = "side"
    DROP = "drop"


class WindowSettings(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, rename={"from_": "from"}
):
    """`[flows.NAME]`: values of tumbling windows in event time, per series."""

    to: Annotated[str, msgspec.Meta(description="stream that the windows are written to, e.g. readings.1m")]
    from_: Annotated[str, msgspec.Meta(description="stream of readings to compute from")] = "readings"
    window: Annotated[
        str, msgspec.Meta(description="length of a window, aligned to the UTC epoch, e.g. 1m, 15m, 1h")
    ] = "1m"
    values: Annotated[
        tuple[Aggregate, ...],
        msgspec.Meta(description="what to compute: count, sum, mean, min, max, first, last (by event time)"),
    ] = (Aggregate.COUNT, Aggregate.MEAN, Aggregate.MIN, Aggregate.MAX)
    late: Annotated[
        Late,
        msgspec.Meta(
            description="a reading whose window is closed: revise (compute the window again), "
            "side (to the stream TO.late) or drop (counted)"
        ),
    ] = Late.REVISE
    grace: Annotated[
        str,
        msgspec.Meta(description="how far a device's newest time must be past a window's end to close it"),
    ] = "10s"
    idle: Annotated[
        str, msgspec.Meta(description="a device that was silent for so long has its windows closed")
    ] = "30s"
    max_ahead: Annotated[
        str, msgspec.Meta(description="a time further ahead of its arrival stays outside every window")
    ] = "5m"

    @property
    def window_ns(self) -> int:
        """Length of a window."""
        return parse_duration(self.window)

    @property
    def grace_ns(self) -> int:
        """See `grace`."""
        return parse_duration(self.grace)

    @property
    def idle_ns(self) -> int:
        """See `idle`."""
        return parse_duration(self.idle)

    @property
    def max_ahead_ns(self) -> int:
        """See `max_ahead`."""
        return parse_duration(self.max_ahead)

    @property
    def late_stream(self) -> str:
        """Where late readings go, and readings whose window could not be computed again."""
        return f"{self.to}.late"

    @property
    def columns(self) -> tuple[Aggregate, ...]:
        """The values in the order in which they stand in the stream."""
        return tuple(value for value in Aggregate if value in self.values)

    def check(self) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
        """Errors and warnings, each as (key, message)."""
        errors: list[tuple[str, str]] = []
        durations: dict[str, int] = {}
        for key in ("window", "grace", "idle", "max_ahead"):
            try:
                durations[key] = parse_duration(getattr(self, key))
            except ValueError as error:
                errors.append((key, str(error)))
        for key, name in (("from", self.from_), ("to", self.to)):
            if not _STREAM.fullmatch(name):
                errors.append(
                    (key, f"expected a stream name of letters, digits, `.`, `_` and `-`, found {name!r}")
                )
        if self.to in (self.from_, "ticks", "catalogue", f"{self.from_}.late"):
            errors.append(
                ("to", f"expected a stream of the flow's own, such as readings.1m, found {self.to!r}")
            )
        if not self.values:
            errors.append(("values", "expected at least one of count, sum, mean, min, max, first, last"))
        if len(set(self.values)) != len(self.values):
            found = ", ".join(value.value for value in self.values)
            errors.append(("values", f"expected each value once, found {found}"))
        window = durations.get("window", _WINDOW_MIN_NS)
        if not _WINDOW_MIN_NS <= window <= _WINDOW_MAX_NS:
            errors.append(("window", f"expected 1ms to 366d, found {self.window}"))
        elif "window" in durations and durations.get("grace", 0) > window * (OPEN_WINDOWS_MAX - 2):
            errors.append(
                (
                    "grace",
                    f"expected at most {OPEN_WINDOWS_MAX - 2} windows of {self.window}, found {self.grace}: "
                    "a series would keep more windows open than are kept",
                )
            )
        if durations.get("idle", 1) <= 0:
            errors.append(("idle", f"expected more than 0s, found {self.idle}"))
        return errors, []
