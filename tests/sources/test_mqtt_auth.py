"""Password files as mosquitto writes them, and settings that would let strangers in."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ringmain.sources.mqtt_auth import Passwords, hash_password, parse_passwords
from ringmain.sources.mqtt_settings import MqttListenerSettings, is_loopback, parse_listen
from tests.sources.mqtt_rig import METERS


def passwords(directory: Path, *lines: str) -> Passwords:
    (directory / "passwords").write_text("\n".join(lines) + "\n")
    return Passwords(directory / "passwords")


def test_a_password_is_right_for_its_user_only(tmp_path: Path) -> None:
    users = passwords(
        tmp_path, f"ann:{hash_password('a', iterations=10)}", f"bob:{hash_password(b'b', iterations=10)}"
    )
    assert users.verify("ann", b"a")
    assert users.verify("bob", b"b")
    assert not users.verify("ann", b"b")
    assert not users.verify("nobody", b"a")
    assert not users.verify("ann", b"")


def test_a_verified_login_is_known_without_another_derivation(tmp_path: Path) -> None:
    users = passwords(tmp_path, f"ann:{hash_password('a', iterations=10)}")
    assert not users.known("ann", b"a")
    assert users.verify("ann", b"a")
    assert users.known("ann", b"a")
    assert not users.known("ann", b"b")
    assert not users.known("an", b"na")


def test_a_login_is_forgotten_when_the_file_changes(tmp_path: Path) -> None:
    users = passwords(tmp_path, f"ann:{hash_password('a', iterations=10)}")
    assert users.verify("ann", b"a")
    (tmp_path / "passwords").write_text(f"ann:{hash_password('another', iterations=10)}\n\n")
    assert users.refresh()
    assert not users.known("ann", b"a")
    assert not users.verify("ann", b"a")
    assert not users.refresh()


def test_a_file_that_became_unusable_keeps_the_users(tmp_path: Path) -> None:
    users = passwords(tmp_path, f"ann:{hash_password('a', iterations=10)}")
    (tmp_path / "passwords").write_text("ann:plain\n")
    with pytest.raises(ValueError, match=r"passwords:1: expected user:\$7\$"):
        users.refresh()
    assert users.verify("ann", b"a")


@pytest.mark.mosquitto
def test_a_file_of_mosquitto_passwd_works_here(tmp_path: Path) -> None:
    tool = shutil.which("mosquitto_passwd")
    if tool is None:
        pytest.skip("mosquitto_passwd is not installed: apt-get install mosquitto")
    file = tmp_path / "passwords"
    subprocess.run([tool, "-c", "-b", str(file), "ann", "secret"], check=True, capture_output=True)
    subprocess.run([tool, "-b", str(file), "bob", "Straße"], check=True, capture_output=True)
    users = Passwords(file)
    assert users.verify("ann", b"secret")
    assert users.verify("bob", "Straße".encode())
    assert not users.verify("ann", b"Secret")


@pytest.mark.parametrize(
    "line",
    [
        "ann",
        "ann:secret",
        "ann:$6$AAAA$BBBB",
        "ann:$7$0$AAAA$" + "A" * 88,
        "ann:$7$10$A$" + "A" * 88,
        "ann:$7$10$AAAA$AAAA",
    ],
)
def test_a_line_that_cannot_be_used_is_named(line: str) -> None:
    with pytest.raises(ValueError, match=r"users\.txt:2: expected"):
        parse_passwords(f"# comment\n{line}\n", "users.txt")


def test_a_user_cannot_come_twice() -> None:
    line = f"ann:{hash_password('a', iterations=1)}"
    with pytest.raises(ValueError, match=r"users\.txt:2: user 'ann' has a line already"):
        parse_passwords(f"{line}\n{line}\n", "users.txt")


def settings(**given: Any) -> MqttListenerSettings:
    return msgspec.convert({"listen": "127.0.0.1:1884", "map": [METERS], **given}, MqttListenerSettings)


def test_a_listener_on_loopback_needs_nothing_more() -> None:
    assert settings().check() == ([], [])
    assert settings(listen="[::1]:1884").check() == ([], [])
    assert settings(listen="localhost:1884").check() == ([], [])


TLS = {"certificate": "c.pem", "key": "k.pem"}


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ({}, "`tls` and `passwords`"),
        ({"tls": TLS}, "`passwords`"),
        ({"passwords": "p.txt"}, "`tls`"),
    ],
)
def test_a_listener_that_others_can_reach_needs_tls_and_passwords(
    given: dict[str, Any], missing: str
) -> None:
    errors, warnings = settings(listen="0.0.0.0:8883", **given).check()
    assert [key for key, _ in errors] == ["listen"]
    assert f"needs {missing}:" in errors[0][1]
    assert warnings == []
    errors, warnings = settings(listen="0.0.0.0:8883", insecure=True, **given).check()
    assert errors == []
    assert [key for key, _ in warnings] == ["insecure"]


def test_tls_and_passwords_or_client_certificates_are_enough() -> None:
    assert settings(listen="0.0.0.0:8883", tls=TLS, passwords="p.txt").check() == ([], [])
    assert settings(listen="[::]:8883", tls={**TLS, "client_ca": "ca.pem"}).check() == ([], [])


@pytest.mark.parametrize(
    ("given", "key"),
    [
        ({"listen": "1884"}, "listen"),
        ({"listen": "127.0.0.1:70000"}, "listen"),
        ({"connect_timeout": "10"}, "connect_timeout"),
        ({"connect_timeout": "2h"}, "connect_timeout"),
        ({"keep_alive_min": "30m"}, "keep_alive_min"),
        ({"session_expiry_max": "forever"}, "session_expiry_max"),
        ({"map": [{**METERS, "topic": "a/{b"}]}, "map.0.topic"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named(given: dict[str, Any], key: str) -> None:
    errors, _ = settings(**given).check()
    assert [found for found, _ in errors][:1] == [key]


def test_addresses_are_read_as_people_write_them() -> None:
    assert parse_listen("[::1]:1884") == ("::1", 1884)
    assert parse_listen("meters.example:8883") == ("meters.example", 8883)
    assert is_loopback("127.9.9.9")
    assert not is_loopback("0.0.0.0")
    assert not is_loopback("meters.example")
