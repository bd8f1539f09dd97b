"""What a configuration file may say about the server, and how its addresses are read."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated

import msgspec

from ringmain.model.duration import parse_duration

TOKEN_LENGTH_MIN = 16

_Clients = Annotated[int, msgspec.Meta(ge=1, le=10_000)]


def parse_listen(text: str) -> tuple[str, int]:
    """Host and port of `HOST:PORT` (IPv6 hosts in brackets). Raises ValueError that says what was expected."""
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.%]+)\]|([^:\[\]/@\s]+)):([0-9]{1,5})", text)
    if match is None or int(match[3]) > 65535:
        raise ValueError(f"expected HOST:PORT such as 127.0.0.1:8080 or [::1]:8080, found {text!r}")
    return match[1] or match[2], int(match[3])


def is_loopback(host: str) -> bool:
    """Whether the host can be reached from this machine only."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class ServeSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[serve]`: the page, the HTTP API and SQL for people and programs."""

    listen: Annotated[
        str,
        msgspec.Meta(description="address of the page and the API; another host than loopback needs `token`"),
    ] = "127.0.0.1:8080"
    token: Annotated[
        str | None,
        msgspec.Meta(
            description=f"secret that every request has to bring, {TOKEN_LENGTH_MIN} characters or more"
        ),
    ] = None
    hosts: Annotated[
        list[str],
        msgspec.Meta(description="further names under which people reach this node, e.g. a reverse proxy's"),
    ] = []
    sql_timeout: Annotated[str, msgspec.Meta(description="longest time that one SQL statement may take")] = (
        "5s"
    )
    sql_memory_mib: Annotated[
        int, msgspec.Meta(description="memory that all SQL statements together may use", ge=64, le=1_048_576)
    ] = 1024
    sql_threads: Annotated[
        int, msgspec.Meta(description="threads that one SQL statement may use", ge=1, le=256)
    ] = 2
    max_live_clients: Annotated[
        _Clients,
        msgspec.Meta(description="browsers and programs that may follow live values at the same time"),
    ] = 200

    def check(self) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
        """Errors and warnings, each as (key, message)."""
        errors: list[tuple[str, str]] = []
        warnings: list[tuple[str, str]] = []
        if self.token is not None and (
            len(self.token) < TOKEN_LENGTH_MIN or not re.fullmatch(r"[!-~]+", self.token)
        ):
            errors.append(
                (
                    "token",
                    f"expected at least {TOKEN_LENGTH_MIN} printable ASCII characters without spaces, "
                    f"found {len(self.token)} characters: draw one with `openssl rand -hex 24`",
                )
            )
        try:
            host, _ = parse_listen(self.listen)
        except ValueError as error:
            errors.append(("listen", str(error)))
        else:
            if not is_loopback(host) and self.token is None:
                errors.append(
                    (
                        "listen",
                        f"{host} can be reached from other machines, which needs `token`: "
                        "set one, or listen on 127.0.0.1",
                    )
                )
            elif not is_loopback(host):
                warnings.append(
                    (
                        "listen",
                        "the token travels unencrypted: put a TLS reverse proxy in front, see docs/http-api.md",
                    )
                )
        errors.extend(
            ("hosts", f"expected host names without scheme and port, found {name!r}")
            for name in self.hosts
            if not re.fullmatch(r"[A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]+\]", name)
        )
        try:
            if not 0 < parse_duration(self.sql_timeout) <= parse_duration("1h"):
                raise ValueError(f"expected a time of up to 1h, found {self.sql_timeout!r}")
        except ValueError as error:
            errors.append(("sql_timeout", str(error)))
        return errors, warnings
