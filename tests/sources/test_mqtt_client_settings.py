"""What a configuration may say about a broker is checked before anything connects."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from ringmain.sources.mqtt_client_settings import MqttSettings, filter_problem, parse_url


def settings(**changed: Any) -> MqttSettings:
    given = {"url": "mqtt://broker", "topics": ["meters/#"], "map": "field", **changed}
    return msgspec.convert(given, MqttSettings)


@pytest.mark.parametrize(
    ("url", "host", "port", "tls", "user", "password"),
    [
        ("mqtt://broker", "broker", 1883, False, None, None),
        ("mqtts://broker", "broker", 8883, True, None, None),
        ("mqtt://[::1]:1999", "::1", 1999, False, None, None),
        ("mqtts://u%40x:p%2Fw%3F@10.0.0.1:1/", "10.0.0.1", 1, True, "u@x", "p/w?"),
    ],
)
def test_a_broker_address_is_read(
    url: str, host: str, port: int, tls: bool, user: str | None, password: str | None
) -> None:
    broker = parse_url(url)
    assert (broker.host, broker.port, broker.tls, broker.user, broker.password) == (
        host,
        port,
        tls,
        user,
        password,
    )


@pytest.mark.parametrize(
    "url",
    [
        "http://broker",
        "broker:1883",
        "mqtt://",
        "mqtt://:1883",
        "mqtt://u:se/cret@broker",
        "mqtt://b/x",
        "mqtt://b:99999",
    ],
)
def test_another_address_is_refused_without_showing_the_password(url: str) -> None:
    with pytest.raises(ValueError, match="expected mqtt://HOST:PORT") as raised:
        parse_url(url)
    assert "cret" not in str(raised.value)


def test_an_address_for_people_has_no_password() -> None:
    assert parse_url("mqtts://me:secret@[::1]:1").address == "mqtts://[::1]:1"


@pytest.mark.parametrize("topic", ["meters/#", "#", "+/a/+", "/", "$share/g/meters/+", "ä"])
def test_a_topic_filter_is_taken(topic: str) -> None:
    assert filter_problem(topic) is None


@pytest.mark.parametrize(
    "topic", ["", "a#", "#/a", "a+/b", "a\0b", "a" * 65_536, "$share/g", "$share//a", "\ud800"]
)
def test_another_topic_filter_is_refused(topic: str) -> None:
    assert "expected" in (filter_problem(topic) or "")


@pytest.mark.parametrize(
    ("changed", "key", "message"),
    [
        ({"qos": 2}, "qos", "use 1, with which a message is acknowledged once it is stored"),
        ({"qos": 7}, "qos", "expected 0 or 1, found 7"),
        ({"url": "tcp://b"}, "url", "found scheme 'tcp'"),
        ({"topics": ["a", "b#"]}, "topics", "whole last level"),
        ({"keep_alive": "0s"}, "keep_alive", "expected 1 s to 65535 s, found 0s"),
        ({"session_expiry": "soon"}, "session_expiry", "found 'soon'"),
        ({"tls": {}}, "tls", "expected an mqtts:// address to go with `tls`"),
        ({"url": "mqtts://b", "tls": {"key": "k.pem"}}, "tls", "`certificate` and `key` together"),
        ({"password_file": "p"}, "password_file", "expected a user in `url`"),
        ({"url": "mqtts://u:p@b", "password_file": "p"}, "password_file", "expected one password"),
    ],
)
def test_what_is_wrong_is_named_with_what_was_expected(
    changed: dict[str, Any], key: str, message: str
) -> None:
    errors, _ = settings(**changed).check()
    assert [found for found, _ in errors] == [key]
    assert message in errors[0][1]


def test_what_is_right_has_no_findings() -> None:
    assert settings(url="mqtts://u:p@b", tls={"ca": "ca.pem"}).check() == ([], [])


def test_what_is_doubtful_is_a_warning() -> None:
    errors, warnings = settings(url="mqtt://u:p@b", qos=0).check()
    assert errors == []
    assert sorted(key for key, _ in warnings) == ["qos", "url"]
