"""What a configuration file may say about an existing MQTT broker, and what is wrong or doubtful about it."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Annotated, Literal
from urllib.parse import unquote, urlsplit

import msgspec

from ringmain.model.duration import parse_duration
from ringmain.sources.mapping import MapSettings
from ringmain.sources.settings_checks import check_durations, check_maps

Findings = tuple[list[tuple[str, str]], list[tuple[str, str]]]
"""Errors and warnings, each as (key, message)."""

TOPIC_BYTES_MAX = 65_535
"""Longest topic filter (MQTT 5, clause 1.5.4)."""


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


class MqttSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`type = "mqtt"`: readings from a broker that exists already (MQTT 5 or 3.1.1)."""

    url: Annotated[
        str,
        msgspec.Meta(
            description="mqtt://HOST:PORT or mqtts://HOST:PORT, with USER:PASSWORD@ before the host if needed"
        ),
    ]
    topics: Annotated[
        list[str],
        msgspec.Meta(description="topic filters to subscribe to, `$share/GROUP/...` included", min_length=1),
    ]
    map: Annotated[
        list[MapSettings] | str,
        msgspec.Meta(
            description="how topics and payloads become readings, or the source whose mapping to reuse"
        ),
    ]
    qos: Annotated[
        int,
        msgspec.Meta(description="1: the broker keeps each message until it is stored here; 0: it does not"),
    ] = 1
    protocol: Annotated[Literal["5", "3.1.1"], msgspec.Meta(description="MQTT version")] = "5"
    client_id: Annotated[
        str | None,
        msgspec.Meta(description="names the session in the broker; without it `ringmain-NODE-SOURCE`"),
    ] = None
    password_file: Annotated[
        str | None, msgspec.Meta(description="file whose first line is the password, instead of one in `url`")
    ] = None
    tls: Annotated[MqttTlsSettings | None, msgspec.Meta(description="certificates for `mqtts://`")] = None
    session_expiry: Annotated[
        str,
        msgspec.Meta(description="how long the broker keeps messages while this node is away (MQTT 5)"),
    ] = "7d"
    keep_alive: Annotated[
        str, msgspec.Meta(description="time without traffic after which the connection is probed")
    ] = "30s"
    connect_timeout: Annotated[str, msgspec.Meta(description="time for connecting, TLS and CONNACK")] = "10s"
    receive_maximum: Annotated[
        int,
        msgspec.Meta(
            description="messages that the broker may have sent and not yet acknowledged (MQTT 5)",
            ge=1,
            le=65_535,
        ),
    ] = 2_000
    max_packet_bytes: Annotated[
        int,
        msgspec.Meta(
            description="largest packet asked of the broker, which drops larger ones (MQTT 5)",
            ge=1024,
            le=268_435_455,
        ),
    ] = 16 * 1024 * 1024
    max_ahead: Annotated[
        str,
        msgspec.Meta(description="a time further than this ahead of arrival is flagged as a failed clock"),
    ] = "5m"

    def seconds(self, name: str) -> float:
        """The duration setting `name` in seconds. ValueError names the setting."""
        try:
            return parse_duration(getattr(self, name)) / 1e9
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None

    def check(self) -> Findings:
        """Errors and warnings without connecting."""
        errors: list[tuple[str, str]] = []
        warnings: list[tuple[str, str]] = []
        if find_spec("paho") is None:
            errors.append(
                ("type", 'a source of type "mqtt" needs the package paho-mqtt: pip install "ringmain[mqtt]"')
            )
        try:
            broker = parse_url(self.url)
        except ValueError as error:
            errors.append(("url", str(error)))
        else:
            self._check_trust(broker, errors, warnings)
        for topic in self.topics:
            problem = filter_problem(topic)
            if problem is not None:
                errors.append(("topics", problem))
        if self.qos == 2:
            errors.append(
                (
                    "qos",
                    "expected 0 or 1, found 2: use 1, with which a message is acknowledged once it is stored and "
                    "a repeated reading counts once (the broker then delivers QoS 2 messages at QoS 1)",
                )
            )
        elif self.qos not in (0, 1):
            errors.append(("qos", f"expected 0 or 1, found {self.qos}"))
        elif self.qos == 0:
            warnings.append(
                ("qos", "with 0 the broker keeps nothing for this node: what comes while it is away is lost")
            )
        check_maps(self.map, errors, warnings)
        bounds = {
            "session_expiry": (0.0, 4_294_967_294.0),
            "keep_alive": (1.0, 65_535.0),
            "connect_timeout": (0.1, 600.0),
            "max_ahead": (0.0, 86_400.0 * 365),
        }
        check_durations(self, bounds, errors)
        return errors, warnings

    def _check_trust(
        self, broker: Broker, errors: list[tuple[str, str]], warnings: list[tuple[str, str]]
    ) -> None:
        if self.password_file is not None and broker.password is not None:
            errors.append(("password_file", "expected one password, found one here and one in `url`"))
        if self.password_file is not None and broker.user is None:
            errors.append(
                ("password_file", "expected a user in `url` (mqtt://USER@HOST) to go with the password")
            )
        if self.tls is None:
            if not broker.tls and broker.password is not None:
                warnings.append(
                    ("url", "the password travels readable for everybody on the way: use mqtts://")
                )
            return
        if not broker.tls:
            errors.append(("tls", f"expected an mqtts:// address to go with `tls`, found {broker.address}"))
        if (self.tls.certificate is None) != (self.tls.key is None):
            errors.append(("tls", "expected `certificate` and `key` together, found one of them"))


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


def filter_problem(topic: str) -> str | None:
    """What is wrong with a topic filter (MQTT 5, clause 4.7), None if nothing."""
    if not topic:
        return "expected a topic filter such as meters/#, found an empty one"
    try:
        size = len(topic.encode())
    except UnicodeEncodeError:
        return f"expected a topic filter in UTF-8, found {topic!r}"
    if size > TOPIC_BYTES_MAX or "\0" in topic:
        return f"expected at most {TOPIC_BYTES_MAX} bytes and no NUL in a topic filter, found {topic[:60]!r}"
    levels = topic.split("/")
    for number, level in enumerate(levels):
        if "#" in level and (level != "#" or number != len(levels) - 1):
            return f"expected # as the whole last level of a topic filter, found {topic!r}"
        if "+" in level and level != "+":
            return f"expected + as a whole level of a topic filter, found {topic!r}"
    if levels[0] == "$share" and (len(levels) < 3 or not levels[1] or levels[1] in ("#", "+")):
        return f"expected $share/GROUP/FILTER, found {topic!r}"
    return None
