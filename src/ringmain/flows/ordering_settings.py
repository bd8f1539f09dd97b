"""Settings that every step has whose readings must come in order of time (`flows.ordering`)."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any

import msgspec

from ringmain.flows.step import Findings, Shape, StepSettings, Surroundings
from ringmain.flows.totals import LATE
from ringmain.log.interface import StreamKind
from ringmain.model.duration import parse_duration

LATE_SHAPE = Shape(StreamKind.ROW, LATE)


class Lateness(StrEnum):
    """What becomes of a reading that is not newer than one of its series that was worked on before."""

    SIDE = "side"
    DROP = "drop"


class OrderedSettings(StepSettings, frozen=True):
    """Base of the settings of such a step."""

    late: Annotated[
        Lateness,
        msgspec.Meta(
            description="a reading that is not newer than one of its series that was worked on before: "
            "side (to the stream TO.late) or drop (counted)"
        ),
    ] = Lateness.SIDE
    grace: Annotated[
        str,
        msgspec.Meta(
            description="hold a reading until its series has one that is newer by so much, for devices that send out of "
            "order"
        ),
    ] = "0s"
    idle: Annotated[
        str, msgspec.Meta(description="readings held are worked on when their series was silent for so long")
    ] = "30s"

    @property
    def grace_ns(self) -> int:
        """See `grace`."""
        return parse_duration(self.grace)

    @property
    def idle_ns(self) -> int:
        """See `idle`."""
        return parse_duration(self.idle)

    def definition(self, around: Surroundings) -> dict[str, Any]:
        """What decides the results: `60s` and `1m` are the same."""
        return durations_told(
            super().definition(around), ("grace", "idle", "max_interval", "max_gap", "stuck")
        )

    def late_streams(self, around: Surroundings) -> Mapping[str, Shape]:
        """The streams for `Plan.streams` that late readings go to."""
        return {late_stream(around): LATE_SHAPE} if self.late is Lateness.SIDE else {}

    def check(self) -> Findings:
        """Errors and warnings that the settings alone show."""
        errors = duration_errors(self, ("grace", "idle"))
        if not errors and self.idle_ns <= 0:
            errors.append(("idle", f"expected more than 0s, found {self.idle}"))
        return errors, []


def late_stream(around: Surroundings) -> str:
    """Where late readings of the flow go."""
    return f"{around.to}.late"


def duration_errors(settings: StepSettings, keys: tuple[str, ...]) -> list[tuple[str, str]]:
    """What is wrong with these settings as durations; None is right."""
    errors: list[tuple[str, str]] = []
    for key in keys:
        text = getattr(settings, key)
        if text is None:
            continue
        try:
            parse_duration(text)
        except ValueError as error:
            errors.append((key, str(error)))
    return errors


def durations_told(told: dict[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    """A definition with these durations, as far as there are any, in ns."""
    return {
        key: parse_duration(value) if key in keys and isinstance(value, str) else value
        for key, value in told.items()
    }
