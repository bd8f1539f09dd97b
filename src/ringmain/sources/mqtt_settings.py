"""What a configuration file may say about an MQTT listener, and what is wrong or doubtful about it."""

from __future__ import annotations

import ipaddress
import re
import ssl
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from ringmain.model.duration import parse_duration
from ringmain.sources.mapping import MapSettings
from ringmain.sources.mqtt_codes import REMAINING_LENGTH_MAX
from ringmain.sources.settings_checks import check_durations, check_maps

Findings = tuple[list[tuple[str, str]], list[tuple[str, str]]]
"""Errors and warnings, each as (key, message)."""


class TlsSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`tls = { certificate = ..., key = ..., client_ca = ... }`: PEM files, relative to the configuration file."""

    certificate: Annotated[str, msgspec.Meta(description="certificate chain of this listener, PEM")]
    key: Annotated[str, msgspec.Meta(description="its private key, PEM, not encrypted")]
    client_ca: Annotated[
        str | None,
        msgspec.Meta(description="authority that every client's certificate has to come from, PEM"),
    ] = None


class MqttListenerSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`type = "mqtt-listener"`: devices connect straight to this node (MQTT 3.1.1 and 5; QoS 0, 1, 2)."""

    listen: Annotated[
        str,
        msgspec.Meta(
            description="HOST:PORT; another host than loopback needs `tls` and `passwords`, or `insecure = true`"
        ),
    ]
    map: Annotated[
        list[MapSettings] | str,
        msgspec.Meta(
            description="how topics and payloads become readings, or the source whose mapping to reuse"
        ),
    ]
    tls: Annotated[
        TlsSettings | None, msgspec.Meta(description="encrypt every connection (TLS 1.2 or newer)")
    ] = None
    passwords: Annotated[
        str | None,
        msgspec.Meta(description="file of user names and hashed passwords, as `ringmain password` writes it"),
    ] = None
    insecure: Annotated[
        bool,
        msgspec.Meta(description="accept a listener that others can reach without `tls` and `passwords`"),
    ] = False
    max_connections: Annotated[
        int, msgspec.Meta(description="connections at a time; more are closed at once", ge=1, le=1_000_000)
    ] = 10_000
    max_sessions: Annotated[
        int,
        msgspec.Meta(
            description="sessions kept of absent clients; beyond it the one longest away ends",
            ge=1,
            le=10_000_000,
        ),
    ] = 100_000
    max_packet_bytes: Annotated[
        int,
        msgspec.Meta(
            description="largest packet taken; longer ones are refused", ge=1024, le=REMAINING_LENGTH_MAX
        ),
    ] = 1_048_576
    receive_maximum: Annotated[
        int,
        msgspec.Meta(
            description="QoS 1 and 2 messages that an MQTT 5 client may have unacknowledged", ge=1, le=65_535
        ),
    ] = 10_000
    topic_alias_maximum: Annotated[
        int, msgspec.Meta(description="topic aliases that an MQTT 5 client may use", ge=0, le=1_000)
    ] = 64
    keep_alive_min: Annotated[
        str, msgspec.Meta(description="shortest keep-alive asked of an MQTT 5 client")
    ] = "5s"
    keep_alive_max: Annotated[
        str, msgspec.Meta(description="longest keep-alive asked of an MQTT 5 client")
    ] = "20m"
    session_expiry_max: Annotated[
        str, msgspec.Meta(description="how long a session is kept for a client that is away")
    ] = "7d"
    connect_timeout: Annotated[
        str, msgspec.Meta(description="time that a new connection has for TLS and CONNECT")
    ] = "10s"
    max_ahead: Annotated[
        str,
        msgspec.Meta(description="a time further than this ahead of arrival is flagged as a failed clock"),
    ] = "5m"
    fast: Annotated[
        Literal["auto", "off"],
        msgspec.Meta(description="auto: compiled reading of simple messages where Numba is installed"),
    ] = "auto"

    def seconds(self, name: str) -> float:
        """The duration setting `name` in seconds. ValueError names the setting."""
        try:
            return parse_duration(getattr(self, name)) / 1e9
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None

    def check(self) -> Findings:
        """Errors and warnings without opening a port; files are looked for by the listener itself."""
        errors: list[tuple[str, str]] = []
        warnings: list[tuple[str, str]] = []
        try:
            host, _ = parse_listen(self.listen)
        except ValueError as error:
            errors.append(("listen", str(error)))
        else:
            self._check_exposure(host, errors, warnings)
        check_maps(self.map, errors, warnings)
        bounds = {
            "keep_alive_min": (0.0, 65_535.0),
            "keep_alive_max": (1.0, 65_535.0),
            "session_expiry_max": (0.0, 4_294_967_294.0),
            "connect_timeout": (0.1, 3_600.0),
            "max_ahead": (0.0, 86_400.0 * 365),
        }
        check_durations(self, bounds, errors)
        if not errors and self.seconds("keep_alive_min") > self.seconds("keep_alive_max"):
            errors.append(
                (
                    "keep_alive_min",
                    f"expected at most keep_alive_max ({self.keep_alive_max}), found {self.keep_alive_min}",
                )
            )
        return errors, warnings

    def _check_exposure(
        self, host: str, errors: list[tuple[str, str]], warnings: list[tuple[str, str]]
    ) -> None:
        missing = [name for name in ("tls", "passwords") if getattr(self, name) is None]
        if is_loopback(host):
            return
        if self.tls is not None and self.tls.client_ca is not None:
            missing = []
        what = " and ".join(f"`{name}`" for name in missing)
        if missing and not self.insecure:
            errors.append(
                (
                    "listen",
                    f"{host} can be reached from other machines, which needs {what}: "
                    "give them, listen on 127.0.0.1, or say `insecure = true`",
                )
            )
        elif missing:
            warnings.append(("insecure", f"anybody who reaches {host} can send readings: no {what}"))


def parse_listen(text: str) -> tuple[str, int]:
    """Host and port of `HOST:PORT` (IPv6 hosts in brackets). ValueError says what was expected."""
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.%]+)\]|([^:\[\]/@\s]+)):([0-9]{1,5})", text)
    if match is None or int(match[3]) > 65_535:
        raise ValueError(f"expected HOST:PORT such as 127.0.0.1:1884 or [::1]:1884, found {text!r}")
    return match[1] or match[2], int(match[3])


def is_loopback(host: str) -> bool:
    """Whether the host can be reached from this machine only."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def tls_context(settings: TlsSettings, base: Path) -> ssl.SSLContext:
    """The server's TLS context: TLS 1.2 or newer; client certificates required where `client_ca` is given.

    Raises ValueError that names the file which cannot be used. Paths are relative to `base`.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    certificate, key = base / settings.certificate, base / settings.key
    try:
        context.load_cert_chain(certificate, key, password=lambda: b"")
    except (OSError, ssl.SSLError) as error:
        raise ValueError(
            f"expected a PEM certificate in {certificate} and its key, not encrypted, in {key}: {error}"
        ) from None
    if settings.client_ca is not None:
        authority = base / settings.client_ca
        try:
            context.load_verify_locations(authority)
        except (OSError, ssl.SSLError) as error:
            raise ValueError(f"expected PEM certificates of authorities in {authority}: {error}") from None
        context.verify_mode = ssl.CERT_REQUIRED
    return context
