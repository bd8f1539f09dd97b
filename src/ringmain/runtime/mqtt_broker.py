"""Somebody else's MQTT broker as sources and sinks meet it: where it is, who we are to it, whether we trust it.

Paths in settings are relative to the configuration file's directory. What cannot be used raises `SourceError`,
which names the file and never shows a password. Left to others: the connection, and what travels over it.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated
from urllib.parse import unquote, urlsplit

import msgspec

from ringmain.runtime.contract import SourceError


class MqttTlsSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`tls = { ca = ..., certificate = ..., key = ... }`: PEM files, for `mqtts://` addresses."""

    ca: Annotated[
        str | None,
        msgspec.Meta(
            description="authority that the broker's certificate has to come from; without it the system's"
        ),
    ] = None
    certificate: Annotated[
        str | None, msgspec.Meta(description="certificate chain that this node shows to the broker")
    ] = None
    key: Annotated[str | None, msgspec.Meta(description="private key of that certificate, not encrypted")] = (
        None
    )


@dataclass(frozen=True, slots=True)
class Broker:
    """Where a broker is, and who we are to it."""

    host: str
    port: int
    tls: bool
    user: str | None
    password: str | None

    @property
    def address(self) -> str:
        """The address without user and password, for people to read."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'mqtts' if self.tls else 'mqtt'}://{host}:{self.port}"


def parse_url(url: str) -> Broker:
    """The broker at `mqtt[s]://[USER[:PASSWORD]@]HOST[:PORT]` (1883, with TLS 8883). ValueError shows no password."""
    expected = "expected mqtt://HOST:PORT or mqtts://HOST:PORT"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"{expected}, found another form ({error})") from None
    if parts.scheme not in ("mqtt", "mqtts"):
        raise ValueError(f"{expected}, found scheme {parts.scheme!r}")
    if not parts.hostname:
        raise ValueError(f"{expected}, found no host")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError(
            f"{expected}, found something behind the port (in a password, write / as %2F, ? as %3F, # as %23)"
        )
    tls = parts.scheme == "mqtts"
    return Broker(
        host=parts.hostname,
        port=port if port is not None else (8883 if tls else 1883),
        tls=tls,
        user=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password is not None else None,
    )


def check_trust(
    broker: Broker,
    password_file: str | None,
    tls: MqttTlsSettings | None,
    errors: list[tuple[str, str]],
    warnings: list[tuple[str, str]],
) -> None:
    """What is wrong or doubtful about password and certificates, as (key, message)."""
    if password_file is not None and broker.password is not None:
        errors.append(("password_file", "expected one password, found one here and one in `url`"))
    if password_file is not None and broker.user is None:
        errors.append(
            ("password_file", "expected a user in `url` (mqtt://USER@HOST) to go with the password")
        )
    if tls is None:
        if not broker.tls and broker.password is not None:
            warnings.append(("url", "the password travels readable for everybody on the way: use mqtts://"))
        return
    if not broker.tls:
        errors.append(("tls", f"expected an mqtts:// address to go with `tls`, found {broker.address}"))
    if (tls.certificate is None) != (tls.key is None):
        errors.append(("tls", "expected `certificate` and `key` together, found one of them"))


def password(broker: Broker, password_file: str | None, directory: Path) -> str | None:
    """The password of the address, or the first line of `password_file`. Raises SourceError."""
    if password_file is None:
        return broker.password
    path = directory / password_file
    try:
        return path.read_text().splitlines()[0]
    except (OSError, UnicodeDecodeError, IndexError) as error:
        raise SourceError(
            f"expected a password in the first line of {path}, found {error}", "check `password_file`"
        ) from None


def tls_context(tls: MqttTlsSettings | None, directory: Path) -> ssl.SSLContext:
    """TLS 1.2 or newer, host name checked, against `tls.ca` or the system's authorities. Raises SourceError."""
    tls = tls or MqttTlsSettings()
    authority = None if tls.ca is None else directory / tls.ca
    try:
        context = ssl.create_default_context(cafile=authority)
    except (OSError, ssl.SSLError) as error:
        raise SourceError(
            f"expected PEM certificates in {authority}, found {error}", "check `tls.ca`"
        ) from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if tls.certificate is not None and tls.key is not None:
        certificate, key = directory / tls.certificate, directory / tls.key
        try:
            context.load_cert_chain(certificate, key, password=lambda: b"")
        except (OSError, ssl.SSLError) as error:
            raise SourceError(
                f"expected a PEM certificate in {certificate} and its key, not encrypted, in {key}, found {error}",
                "check `tls.certificate` and `tls.key`",
            ) from None
    return context


def remedy(code: int) -> str:
    """What to do about a reason code (MQTT 5, clauses 3.2.2.2 and 3.14.2.1; paho maps those of 3.1.1 to them)."""
    return _REMEDIES.get(
        code, "check the broker and its log; another client with the same `client_id` has this effect too"
    )


_REMEDIES = {
    0x84: 'set `protocol = "3.1.1"`, or the version that the broker speaks',
    0x85: "set a `client_id` that the broker accepts",
    0x86: "check user and password in `url`",
    0x87: "check user and password in `url`, and what the broker allows this user",
    0x8A: "the broker has banned this client: ask its operator",
    0x8E: "another client with the same `client_id` took over: give each node its own",
    0x93: "the broker sent more than `receive_maximum`: check its version",
    0x95: "the broker sent or refused a packet that is too large: check `max_packet_bytes`",
}
