"""What a configuration file may say about the log."""

from __future__ import annotations

import re
from typing import Annotated

import msgspec

from ringmain.log.socket.access import Access, UserPolicy
from ringmain.model.duration import parse_duration

_SIZE_UNITS_BYTES = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
SEGMENT_BYTES_MIN = 64 * 1024
SEGMENT_BYTES_MAX = 1 << 30
SYNC_ALWAYS = "always"
SYNC_DELAY_MAX_NS = 1_000_000_000


def parse_size(text: str) -> int:
    """Bytes of a size such as `64MiB`. Raises ValueError that says what was expected."""
    match = re.fullmatch(r"([0-9]{1,12})\s*(B|KiB|MiB|GiB|TiB)", text.strip())
    if match is None:
        raise ValueError(f"expected a size such as 64MiB or 20GiB, found {text!r}")
    return int(match[1]) * _SIZE_UNITS_BYTES[match[2]]


def parse_sync(text: str) -> int:
    """How long the log gathers appends before it syncs them, in ns; 0 for `always`. Raises ValueError."""
    if text == SYNC_ALWAYS:
        return 0
    try:
        delay_ns = parse_duration(text)
    except ValueError:
        delay_ns = 0
    if not 0 < delay_ns <= SYNC_DELAY_MAX_NS:
        raise ValueError(f'expected "{SYNC_ALWAYS}" or a duration of at most 1s such as 5ms, found {text!r}')
    return delay_ns


class AccessSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[log.access.NAME]`: what programs of another user of this machine may do through the log's socket."""

    user: Annotated[str, msgspec.Meta(description="the user of this machine that is let in", min_length=1)]
    streams: Annotated[
        list[str],
        msgspec.Meta(
            description="streams that it may read, as names or patterns such as `*.1m`; `catalogue` for the keys of series"
        ),
    ] = []
    append: Annotated[
        bool,
        msgspec.Meta(description="whether it may also append to those, under claims `access/NAME` and below"),
    ] = False


class LogSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[log]`: durability, segments and retention."""

    sync: Annotated[
        str,
        msgspec.Meta(
            description='when appends are synced and then acknowledged: "always" (at once), or after gathering for '
            "a duration of at most 1s such as 5ms"
        ),
    ] = SYNC_ALWAYS
    segment: Annotated[str, msgspec.Meta(description="size of a segment file, 64KiB to 1GiB")] = "64MiB"
    preallocate: Annotated[
        bool,
        msgspec.Meta(
            description="whether the next segment is written with zeros beforehand, so that a sync need not wait for "
            "what other programs write; takes up to two segments of space more"
        ),
    ] = True
    keep_age: Annotated[
        str | None,
        msgspec.Meta(description="remove segments whose newest data is older, e.g. 72h; default: never"),
    ] = None
    keep_size: Annotated[
        str | None,
        msgspec.Meta(description="remove the oldest segments beyond this size, e.g. 20GiB; default: never"),
    ] = None

    access: Annotated[
        dict[str, AccessSettings],
        msgspec.Meta(description="what other users may do through the log's socket; default: nothing"),
    ] = {}

    def policy(self) -> UserPolicy:
        """Who may do what through the log's socket. Raises LogError for a user that this machine does not have."""
        return UserPolicy(
            Access(name, one.user, tuple(one.streams), one.append) for name, one in self.access.items()
        )

    def check(self) -> list[tuple[str, str]]:
        """Errors as (key, message)."""
        errors: list[tuple[str, str]] = []
        for key, value, parse in (
            ("sync", self.sync, parse_sync),
            ("segment", self.segment, parse_size),
            ("keep_age", self.keep_age, parse_duration),
            ("keep_size", self.keep_size, parse_size),
        ):
            if value is None:
                continue
            try:
                parsed = parse(value)
            except ValueError as error:
                errors.append((key, str(error)))
            else:
                if key == "segment" and not SEGMENT_BYTES_MIN <= parsed <= SEGMENT_BYTES_MAX:
                    errors.append((key, f"expected 64KiB to 1GiB, found {value}"))
        for name in self.access:
            if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name):
                expected = "expected a name of letters, digits, - and _, up to 64"
                errors.append(
                    (f"access.{name}" if name.isprintable() else "access", f"{expected}, found {name!r}")
                )
        users = [one.user for one in self.access.values()]
        for name, one in self.access.items():
            if users.count(one.user) > 1:
                errors.append(
                    (f"access.{name}.user", f"expected one entry a user, found {one.user!r} in several")
                )
        return errors
