"""E-mail: one mail an interval, handed to a real SMTP server, that says the same whenever it is sent."""

from __future__ import annotations

import email
import email.policy
import ssl
from collections.abc import Iterator
from email.message import EmailMessage
from pathlib import Path

import msgspec
import pytest
import trustme
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from ringmain.model.alarm import AlarmMember, AlarmType
from ringmain.runtime.backoff import Backoff
from ringmain.runtime.sink_runner import SinkRunner
from ringmain.sinks.email import EmailSettings, EmailSink
from ringmain.sinks.email_text import Line, Mail, message_of
from ringmain.sinks.types import Surroundings
from ringmain.testing.clock import SimulatedClock
from tests.conftest import free_port, wait_until
from tests.runtime.sink_rig import SECOND, Room
from tests.sinks.alarm_events import START, alarm, put, row

MINUTE = 60 * SECOND


class Postmaster:
    """A mail server on the loopback address. `say`: what it answers to DATA, None takes the mail."""

    def __init__(self, **options: object) -> None:
        self.mails: list[EmailMessage] = []
        self.envelopes: list[tuple[str, list[str]]] = []
        self.say: str | None = None
        self.refused: set[str] = set()
        self.tries = 0
        self.secure: list[bool] = []
        outer = self

        class Handler:
            async def handle_RCPT(
                self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
            ) -> str:
                if address in outer.refused:
                    return "550 no such user"
                envelope.rcpt_tos.append(address)
                return "250 OK"

            async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
                outer.tries += 1
                if outer.say is not None:
                    return outer.say
                content = envelope.content
                assert isinstance(content, bytes)
                message = email.message_from_bytes(content, policy=email.policy.default)
                assert isinstance(message, EmailMessage)
                outer.mails.append(message)
                outer.envelopes.append((envelope.mail_from or "", list(envelope.rcpt_tos)))
                outer.secure.append(session.ssl is not None)
                return "250 taken"

        self.port = free_port()
        self._controller = Controller(
            Handler(), hostname="127.0.0.1", port=self.port, ready_timeout=60, **options
        )

    def __enter__(self) -> Postmaster:
        self._controller.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._controller.stop()


@pytest.fixture
def clock() -> SimulatedClock:
    return SimulatedClock()


@pytest.fixture
def room(tmp_path: Path, clock: SimulatedClock) -> Iterator[Room]:
    found = Room(tmp_path / "log", clock=clock)
    put(found)
    yield found
    found.close()


def settings(port: int, **more: object) -> EmailSettings:
    table = {
        "from": "alarms",
        "host": "localhost",
        "port": port,
        "tls": "none",
        "timeout": "5s",
        "sender": "ringmain@leipzig.example",
        "recipients": ["control@leipzig.example", "night@leipzig.example"],
        **more,
    }
    found = msgspec.convert(table, EmailSettings)
    assert not found.check()[0], found.check()
    return found


def send(room: Room, port: int, **more: object) -> SinkRunner:
    sink = EmailSink(
        "mail", settings(port, **more), Surroundings("leipzig-west", room.directory.parent, "Europe/Berlin")
    )
    backoff = Backoff(0.001, 0.02, healthy_s=0.0)
    return room.run(sink, streams=("alarms",), batch_rows_max=1000, backoff=backoff)


def pass_time(room: Room, clock: SimulatedClock, ns: int) -> None:
    """Log time goes on by a tick."""
    clock.pass_time(ns)
    room.tick()


def sent(server: Postmaster, count: int) -> list[EmailMessage]:
    wait_until(lambda: len(server.mails) >= count, what=f"{count} mails")
    return server.mails


def test_a_single_alarm_is_a_mail_that_says_it_in_its_subject(room: Room, clock: SimulatedClock) -> None:
    with Postmaster() as server:
        send(room, server.port)
        put(room, row(1, subject="ss-07/t1/öl"))
        pass_time(room, clock, MINUTE)
        (mail,) = sent(server, 1)
    assert server.envelopes == [
        ("ringmain@leipzig.example", ["control@leipzig.example", "night@leipzig.example"])
    ]
    assert mail["Subject"] == "[leipzig-west] P2 opened: ss-07/t1/öl too hot"
    assert mail["From"] == "ringmain@leipzig.example"
    assert mail["Auto-Submitted"] == "auto-generated"
    body = mail.get_content()
    assert "P2 OPENED 2025-06-15 17:06:41+0200 ss-07/t1/öl: too hot" in body
    assert "value 91.5 °C (limit 90 °C), worst 92 °C; condition: above 90" in body
    assert "place leipzig/ss-07; device t4" in body


def test_a_flood_is_one_mail_with_the_most_urgent_first_and_the_rest_counted(
    room: Room, clock: SimulatedClock
) -> None:
    with Postmaster() as server:
        send(room, server.port, lines=3)
        put(room, *(row(number, priority=3) for number in range(500)))
        put(room, row(500, priority=1), row(501, AlarmType.CLOSED, priority=1))
        pass_time(room, clock, MINUTE)
        (mail,) = sent(server, 1)
        pass_time(room, clock, MINUTE)
    assert mail["Subject"] == "[leipzig-west] P1: alarms 501 opened, 1 closed"
    told = [line for line in mail.get_content().splitlines() if line.startswith("P")]
    assert [line[:10] for line in told] == ["P1 OPENED ", "P3 OPENED ", "P3 OPENED "]
    assert "and 499 more: 1 of priority 1, 498 of priority 3." in mail.get_content()
    assert len(server.mails) == 1


def test_each_interval_has_a_mail_of_its_own_and_a_quiet_one_none(room: Room, clock: SimulatedClock) -> None:
    with Postmaster() as server:
        send(room, server.port)
        for number in range(3):
            put(room, row(number))
            pass_time(room, clock, 5 * MINUTE)
            sent(server, number + 1)
    assert [mail["Subject"].split(":")[1].split()[0] for mail in server.mails] == [
        "ss-07/t0/oil",
        "ss-07/t1/oil",
        "ss-07/t2/oil",
    ]
    assert len({mail["Message-ID"] for mail in server.mails}) == 3


def test_a_mail_that_is_sent_again_is_the_same_mail(room: Room, clock: SimulatedClock) -> None:
    with Postmaster() as server:
        server.say = "451 later"
        runner = send(room, server.port)
        put(room, row(1), row(2, AlarmType.CLOSED))
        put(room, row(3))
        pass_time(room, clock, MINUTE)
        wait_until(lambda: "451 later" in (runner.status().last_error or ""), what="a refusal")
        server.say = None
        (first,) = sent(server, 1)
        # as after a crash between the mail and the position: begin anew from the start
        room.stop()
        sink = EmailSink(
            "mail",
            settings(server.port),
            Surroundings("leipzig-west", room.directory.parent, "Europe/Berlin"),
        )
        room.run(sink, name="again", streams=("alarms",), batch_rows_max=1000)
        again = sent(server, 2)[1]
    assert again["Message-ID"] == first["Message-ID"]
    assert again.as_bytes() == first.as_bytes()


def test_after_a_restart_nothing_is_told_twice_and_nothing_is_missing(
    room: Room, clock: SimulatedClock
) -> None:
    with Postmaster() as server:
        runner = send(room, server.port)
        put(room, row(1))
        pass_time(room, clock, MINUTE)
        sent(server, 1)
        put(room, row(2))
        wait_until(lambda: runner.lag()[1] == 1, what="one that is held")
        room.reopen()
        send(room, server.port)
        pass_time(room, clock, MINUTE)
        sent(server, 2)
    assert [mail["Subject"].split(":")[1].split()[0] for mail in server.mails] == [
        "ss-07/t1/oil",
        "ss-07/t2/oil",
    ]


def test_only_what_is_asked_for_is_told(room: Room, clock: SimulatedClock) -> None:
    members = (AlarmMember("ss-07/t1/oil", "a1"), AlarmMember("ss-07/t2/oil", "a2"))
    with Postmaster() as server:
        send(room, server.port, priority=2, events=["opened"])
        put(
            room,
            row(1),
            row(2, AlarmType.CLOSED),
            row(3, priority=3),
            row(4, AlarmType.UPDATED),
            row(5, group="g1"),
            row(6, members=members, count=7, standing=6, suppressed=4),
            {**row(7), "data": b"no alarm", "type": "charging.started"},
            {**row(8), "data": None},
        )
        pass_time(room, clock, MINUTE)
        (mail,) = sent(server, 1)
    told = [line for line in mail.get_content().splitlines() if line.startswith("P")]
    assert [line.split()[4] for line in told] == ["ss-07/t1/oil:", "ss-07/t6/oil:"]
    assert "6 of 7 still open" in mail.get_content()
    assert "ss-07/t1/oil, ss-07/t2/oil" in mail.get_content()


def test_a_mail_that_is_refused_for_too_long_becomes_dead_letters(room: Room, clock: SimulatedClock) -> None:
    with Postmaster() as server:
        server.say = "554 not wanted"
        send(room, server.port, give_up="10m")
        put(room, row(1), row(2))
        pass_time(room, clock, MINUTE)
        wait_until(lambda: server.tries >= 2, what="tries")
        assert room.letters() == []
        pass_time(room, clock, 10 * MINUTE)
        wait_until(lambda: bool(room.letters()), what="letters")
        server.say = None
        put(room, row(3))
        pass_time(room, clock, MINUTE)
        (mail,) = sent(server, 1)
    assert "ss-07/t3/oil" in mail["Subject"]
    assert "554 not wanted" in room.letters()[0][2]
    assert "within 10m" in room.letters()[0][2]


def test_recipients_that_are_refused_do_not_hold_up_the_others(room: Room, clock: SimulatedClock) -> None:
    with Postmaster() as server:
        server.refused = {"night@leipzig.example"}
        send(room, server.port)
        put(room, row(1))
        pass_time(room, clock, MINUTE)
        sent(server, 1)
        assert server.envelopes[0][1] == ["control@leipzig.example"]
    assert 'ringmain_email_refused_recipients_total{sink="out"} 1' in room.counters.render()


@pytest.mark.filterwarnings(
    "ignore:Requiring AUTH while not requiring TLS"
)  # it is encrypted before SMTP begins
@pytest.mark.parametrize("tls", ["starttls", "implicit"])
def test_it_signs_in_over_an_encrypted_connection_only(
    room: Room, clock: SimulatedClock, tmp_path: Path, tls: str
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    (tmp_path / "password").write_text("s3cret\n")
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(served)
    users: list[object] = []

    def authenticate(
        server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: object
    ) -> AuthResult:
        users.append(data)
        good = isinstance(data, LoginPassword) and (data.login, data.password) == (b"ringmain", b"s3cret")
        return AuthResult(success=good)

    options: dict[str, object] = {"authenticator": authenticate, "auth_required": True}
    if tls == "starttls":
        options |= {"tls_context": served, "require_starttls": True}
    else:
        options |= {"ssl_context": served, "auth_require_tls": False}
    with Postmaster(**options) as server:
        send(room, server.port, tls=tls, user="ringmain", password_file="password", ca_file="ca.pem")
        put(room, row(1))
        pass_time(room, clock, MINUTE)
        sent(server, 1)
    assert len(users) == 1


def test_a_certificate_that_nobody_vouches_for_gets_no_mail(room: Room, clock: SimulatedClock) -> None:
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("localhost").configure_cert(served)
    with Postmaster(tls_context=served, require_starttls=True) as server:
        runner = send(room, server.port, tls="starttls")
        put(room, row(1))
        pass_time(room, clock, MINUTE)
        wait_until(lambda: "certificate" in (runner.status().last_error or "").lower(), what="a refusal")
        assert server.mails == []


def test_a_server_that_is_not_there_is_waited_for(room: Room, clock: SimulatedClock) -> None:
    with Postmaster() as server:
        port = server.port
    runner = send(room, port)
    put(room, row(1))
    pass_time(room, clock, MINUTE)
    wait_until(lambda: f"localhost:{port}" in (runner.status().last_error or ""), what="the problem")


LINE = Line("a1-0", "opened", 1, "x", START, alarm(1))
HOSTILE = st.text(st.characters(codec="utf-8") | st.sampled_from("\r\n\x00\x85\u2028:"), max_size=80)


@examples(max_examples=50, derandomize=True, deadline=None)
@given(text=HOSTILE, subject=HOSTILE, node=HOSTILE)
def test_nothing_in_an_alarm_becomes_a_header(text: str, subject: str, node: str) -> None:
    hostile = msgspec.structs.replace(
        alarm(1), text=text + "\r\nBcc: all@evil.example\r\n\r\nfree text", place=subject, device=text
    )
    line = Line("a1-0", "opened", 1, subject + "\nX-Evil: 1", START, hostile)
    mail = Mail(node, "mail", START, START + MINUTE, [line, LINE])
    for lines in ([line], [line, LINE]):
        message = message_of(
            Mail(node, "mail", START, START + MINUTE, lines), "a@b.example", ("c@d.example",), "", 50, "UTC"
        )
        read = email.message_from_bytes(
            message.as_bytes(policy=email.policy.SMTP), policy=email.policy.default
        )
        assert {name.lower() for name in read} == {
            "from",
            "to",
            "subject",
            "date",
            "message-id",
            "auto-submitted",
            "content-type",
            "content-transfer-encoding",
            "mime-version",
        }
        assert read["To"] == "c@d.example"
    assert (
        message_of(mail, "a@b.example", ("c@d.example",), "", 50, "UTC")["Message-ID"]
        == (message_of(mail, "a@b.example", ("c@d.example",), "", 50, "UTC")["Message-ID"])
    )


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"sender": "no address"}, "sender"),
        ({"sender": "a@b.example\r\nBcc: x@y.example"}, "sender"),
        ({"recipients": ["a@b.example", "Somebody <a@b.example>"]}, "recipients.1"),
        ({"recipients": ["ü@b.example"]}, "recipients.0"),
        ({"host": "mail server"}, "host"),
        ({"subject": "two\nlines"}, "subject"),
        ({"every": "0s"}, "every"),
        ({"every": "2d"}, "every"),
        ({"timeout": "forever"}, "timeout"),
        ({"user": "x"}, "password_file"),
        ({"user": "x", "password_file": "p", "tls": "none"}, "tls"),
        ({"port": 70000}, "port"),
        ({"events": []}, "events"),
    ],
)
def test_a_mistake_in_the_settings_is_named(change: dict[str, object], key: str) -> None:
    table = {"from": "alarms", "host": "mail", "sender": "a@b.example", "recipients": ["c@d.example"]}
    assert key in [name for name, _ in msgspec.convert({**table, **change}, EmailSettings).check()[0]]
    assert msgspec.convert(table, EmailSettings).check() == ([], [])
