"""Who we are to a broker and whether we trust it; and what to do when it will not have us.

Paths in settings are relative to the configuration file's directory. What cannot be used raises `SourceError`,
which names the file and never shows a password.
"""

from __future__ import annotations

import ssl
from pathlib import Path

from ringmain.runtime.contract import SourceError
from ringmain.sources.mqtt_client_settings import Broker, MqttSettings, MqttTlsSettings


def password(broker: Broker, settings: MqttSettings, directory: Path) -> str | None:
    """The password of the address, or the first line of `password_file`. Raises SourceError."""
    if settings.password_file is None:
        return broker.password
    path = directory / settings.password_file
    try:
        return path.read_text().splitlines()[0]
    except (OSError, UnicodeDecodeError, IndexError) as error:
        raise SourceError(
            f"expected a password in the first line of {path}, found {error}", "check `password_file`"
        ) from None


def tls_context(settings: MqttSettings, directory: Path) -> ssl.SSLContext:
    """TLS 1.2 or newer, host name checked, against `tls.ca` or the system's authorities. Raises SourceError."""
    tls = settings.tls or MqttTlsSettings()
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
