"""Parameters of the API's GET operations, typed, and the stretch of time that some of them name."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec

from ringmain.serve.access import Refused
from ringmain.serve.history import POINTS_MAX
from ringmain.serve.instants import instant_ns

DEFAULT_STRETCH_NS = 15 * 60 * 1_000_000_000

_MS_BELOW = 10**13
_Text = Annotated[str, msgspec.Meta(max_length=1024)]


class MatchQuery(msgspec.Struct, forbid_unknown_fields=True):
    """Which series, and how many of them."""

    match: Annotated[
        str,
        msgspec.Meta(
            description="words that each occur in key, place, device, quantity, medium or owner",
            max_length=200,
        ),
    ] = ""
    limit: Annotated[int, msgspec.Meta(description="most series in the answer", ge=0, le=1000)] = 50


class LatestQuery(msgspec.Struct, forbid_unknown_fields=True):
    """Which series, and how many of them."""

    match: Annotated[str, msgspec.Meta(description="as for series; empty: all", max_length=200)] = ""
    limit: Annotated[int, msgspec.Meta(description="most values in the answer", ge=0, le=100_000)] = 1000


class AlarmState(StrEnum):
    """Which alarms."""

    OPEN = "open"
    CLOSED = "closed"
    ALL = "all"


class AlarmsQuery(msgspec.Struct, forbid_unknown_fields=True):
    """Which alarms, and how many of them."""

    state: Annotated[AlarmState, msgspec.Meta(description="open ones, those that closed last, or both")] = (
        AlarmState.OPEN
    )
    limit: Annotated[
        int,
        msgspec.Meta(description="most open alarms, and most closed ones, in the answer", ge=0, le=10_000),
    ] = 500


class LiveQuery(msgspec.Struct, forbid_unknown_fields=True):
    """Which series."""

    match: Annotated[str, msgspec.Meta(description="as for series; empty: all", max_length=200)] = ""


class ReadingsQuery(msgspec.Struct, forbid_unknown_fields=True):
    """A series and a stretch of time."""

    series: Annotated[str, msgspec.Meta(description="key of the series", max_length=1024)]
    from_: Annotated[
        str | None,
        msgspec.Meta(description="RFC 3339 or ms since the epoch; default: 15 minutes before `to`"),
    ] = msgspec.field(default=None, name="from")
    to: Annotated[
        str | None, msgspec.Meta(description="RFC 3339 or ms since the epoch, exclusive; default: now")
    ] = None
    max_points: Annotated[
        int,
        msgspec.Meta(description="beyond that, buckets with mean, min and max", ge=1, le=POINTS_MAX),
    ] = 600


class WindowsQuery(msgspec.Struct, forbid_unknown_fields=True):
    """A window stream, a series or a medium, and a stretch of time."""

    stream: Annotated[str, msgspec.Meta(description="a stream that a flow writes windows to", max_length=200)]
    series: Annotated[_Text | None, msgspec.Meta(description="key of the series")] = None
    medium: Annotated[
        _Text | None, msgspec.Meta(description="instead of a series: sums over the medium's power series")
    ] = None
    from_: Annotated[
        str | None,
        msgspec.Meta(description="RFC 3339 or ms since the epoch; default: 15 minutes before `to`"),
    ] = msgspec.field(default=None, name="from")
    to: Annotated[
        str | None, msgspec.Meta(description="RFC 3339 or ms since the epoch, exclusive; default: now")
    ] = None


def stretch_ns(start: str | None, end: str | None, now_ns: int) -> tuple[int, int]:
    """The stretch of time that parameters ask for, in ns. Raises Refused."""
    high = _time_ns("to", end) if end is not None else now_ns + 1_000_000
    low = _time_ns("from", start) if start is not None else high - DEFAULT_STRETCH_NS
    if low >= high:
        raise Refused(400, "parameter", f"expected `from` before `to`, found {start!r} and {end!r}")
    return low, high


def _time_ns(name: str, text: str) -> int:
    try:
        # in ASCII digits only: int() takes more than that
        if text.isascii() and text.removeprefix("-").isdigit() and len(text) < 16:
            return int(text) * 1_000_000 if abs(int(text)) < _MS_BELOW else _too_far(text)
        return instant_ns(text)
    except ValueError as error:
        raise Refused(400, "parameter", f"{name}: {error}") from None


def _too_far(text: str) -> int:
    raise ValueError(f"expected milliseconds since the epoch, found {text}")
