"""Durations as configuration writes them: a number and a unit, such as `500ms`, `10s`, `1m`, `15m`, `1h`, `7d`."""

import re

_UNITS_NS = {
    "ns": 1,
    "us": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
    "d": 86_400_000_000_000,
}
_PATTERN = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ns|us|ms|s|m|h|d)")


def parse_duration(text: str) -> int:
    """Nanoseconds of a duration such as `10s`. Raises ValueError that says what was expected."""
    match = _PATTERN.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"expected a duration such as 500ms, 10s, 1m, 1h or 7d, found {text!r}")
    whole, _, fraction = match[1].partition(".")
    unit = _UNITS_NS[match[2]]
    return int(whole) * unit + (int(fraction) * unit // 10 ** len(fraction) if fraction else 0)


def format_duration(duration_ns: int) -> str:
    """The shortest exact text of a duration, in the form that `parse_duration` reads."""
    for name in ("d", "h", "m", "s", "ms", "us"):
        if duration_ns and duration_ns % _UNITS_NS[name] == 0:
            return f"{duration_ns // _UNITS_NS[name]}{name}"
    return f"{duration_ns}ns"
