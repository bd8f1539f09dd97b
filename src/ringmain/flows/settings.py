"""What a configuration file may say about a flow of one window step: the short form of a chain."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated
from zoneinfo import ZoneInfo

import msgspec

from ringmain.flows.aggregates import Aggregate, Late
from ringmain.flows.flow import STREAM
from ringmain.flows.step import Findings, Surroundings
from ringmain.flows.steps.window import WindowStepSettings
from ringmain.flows.window_checks import OPEN_WINDOWS_MAX
from ringmain.flows.windowing import Windowing
from ringmain.model.duration import parse_duration

__all__ = ["OPEN_WINDOWS_MAX", "Aggregate", "Late", "WindowSettings"]

_UTC = ZoneInfo("UTC")


class WindowSettings(WindowStepSettings, frozen=True, kw_only=True, tag="window", rename={"from_": "from"}):
    """`[flows.NAME]`: values of windows in event time, per series."""

    to: Annotated[str, msgspec.Meta(description="stream that the windows are written to, e.g. readings.1m")]
    from_: Annotated[str, msgspec.Meta(description="stream of readings to compute from")] = "readings"

    @property
    def late_stream(self) -> str:
        """Where late readings go, and readings whose window could not be computed again."""
        return f"{self.to}.late"

    def step(self) -> WindowStepSettings:
        """The window step that a chain of one step has."""
        return WindowStepSettings(
            **{name: getattr(self, name) for name in WindowStepSettings.__struct_fields__}
        )

    def told(self, zone: ZoneInfo = _UTC) -> Windowing:
        """What the fold of the step is told, on a node in that time zone."""
        return self.windowing(Surroundings("window", self.to, Path(), zone, input=self.from_))

    @property
    def max_ahead_ns(self) -> int:
        """See `max_ahead`."""
        return parse_duration(self.max_ahead or "5m")

    def check(self) -> Findings:
        """Errors and warnings, each as (key, message)."""
        errors, warnings = super().check()
        for key, name in (("from", self.from_), ("to", self.to)):
            if not STREAM.fullmatch(name):
                errors.append(
                    (key, f"expected a stream name of letters, digits, `.`, `_` and `-`, found {name!r}")
                )
        if self.to in (self.from_, "ticks", "catalogue", f"{self.from_}.late"):
            errors.append(
                ("to", f"expected a stream of the flow's own, such as readings.1m, found {self.to!r}")
            )
        return errors, warnings
