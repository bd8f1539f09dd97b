"""Points in time as people and programs write them, read exactly to the nanosecond."""

from __future__ import annotations

import datetime as dt
import re

_TIME_MIN_NS = -(2**63) + 1
_TIME_MAX_NS = 2**63 - 1
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_TEXT = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})(?:[Tt ]([0-9]{2}:[0-9]{2}(?::[0-9]{2})?)(?:\.([0-9]{1,9})[0-9]*)?)?"
    r"([Zz]|[+-][0-9]{2}:?[0-9]{2})?"
)


def instant_ns(value: dt.datetime | str | int) -> int:
    """Nanoseconds since the epoch of a datetime, an RFC 3339 text or ns; without an offset, UTC is meant.

    Raises ValueError that says what was expected.
    """
    if isinstance(value, bool):
        raise ValueError(f"expected a time, found {value!r}")
    if isinstance(value, int):
        return _in_range(value, value)
    if isinstance(value, dt.datetime):
        aware = value if value.tzinfo is not None else value.replace(tzinfo=dt.UTC)
        return _in_range(_since_epoch_ns(aware), value)
    if not isinstance(value, str):
        raise ValueError(
            f"expected a datetime, an RFC 3339 text or nanoseconds, found {type(value).__name__}"
        )
    match = _TEXT.fullmatch(value.strip())
    if match is None:
        raise ValueError(f"expected a time such as 2026-03-29T01:30:00Z, found {value[:60]!r}")
    day, clock, fraction, offset = match.groups()
    try:
        at = dt.datetime.fromisoformat(f"{day}T{clock or '00:00:00'}{'Z' if not offset else offset.upper()}")
    except ValueError as error:
        raise ValueError(
            f"expected a time such as 2026-03-29T01:30:00Z, found {value[:60]!r}: {error}"
        ) from None
    return _in_range(_since_epoch_ns(at) + int((fraction or "0").ljust(9, "0")), value)


def _since_epoch_ns(at: dt.datetime) -> int:
    passed = at - _EPOCH
    return ((passed.days * 86_400 + passed.seconds) * 1_000_000 + passed.microseconds) * 1_000


def _in_range(ns: int, value: object) -> int:
    if not _TIME_MIN_NS <= ns <= _TIME_MAX_NS:
        raise ValueError(f"expected a time between 1677 and 2262, found {value!r}")
    return ns
