"""Times in events as text: RFC 3339 in UTC, with as many digits of a second as a time needs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@lru_cache(4096)
def rfc3339(time_ns: int) -> str:
    """A time in ns since 1970 UTC, of the years 1 to 9999, such as `2026-03-01T12:00:00.25Z`."""
    seconds, rest = divmod(time_ns, 1_000_000_000)
    whole = (_EPOCH + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S")
    fraction = f".{rest:09d}".rstrip("0") if rest else ""
    return f"{whole}{fraction}Z"
