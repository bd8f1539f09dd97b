"""What a configuration file may say about an existing MQTT broker, and what is wrong or doubtful about it."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Annotated, Literal

import msgspec

from ringmain.model.duration import parse_duration
from ringmain.runtime.mqtt_broker import Broker, MqttTlsSettings, check_trust, parse_url
from ringmain.sources.mapping import MapSettings
from ringmain.sources.settings_checks import check_durations, check_maps

__all__ = ["Broker", "Findings", "MqttSettings", "MqttTlsSettings", "filter_problem", "parse_url"]

Findings = tuple[list[tuple[str, str]], list[tuple[str, str]]]
"""Errors and warnings, each as (key, message)."""

TOPIC_BYTES_MAX = 65_535
"""Longest topic filter (MQTT 5, clause 1.5.4)."""


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
            check_trust(broker, self.password_file, self.tls, errors, warnings)
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
