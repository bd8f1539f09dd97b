"""The webhook: signed, in order, at least once, whatever the receiver does."""

from __future__ import annotations

import base64
import hashlib
import hmac
import ssl
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import msgspec
import pytest
import trustme
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from ringmain.runtime.backoff import Backoff
from ringmain.runtime.sink_runner import SinkRunner
from ringmain.runtime.sink_status import SinkState
from ringmain.sinks.types import Surroundings, sink_type
from ringmain.sinks.webhook import WebhookSettings, WebhookSink, printable
from tests.conftest import free_port, wait_until
from tests.runtime.sink_rig import Room, wait_lag
from tests.sinks.alarm_events import put, row
from tests.sinks.receiver import Answer, Receiver

SECRET = "a secret of the control room"


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    found = Room(tmp_path / "log")
    put(found)
    yield found
    found.close()


def settings(url: str, **more: object) -> WebhookSettings:
    table = {"from": "alarms", "url": url, "timeout": "10s", **more}
    found = msgspec.convert(table, WebhookSettings)
    assert not found.check()[0]
    return found


def send(room: Room, url: str, **more: object) -> SinkRunner:
    found = settings(url, **more)
    sink = WebhookSink("out", found, Surroundings("leipzig-west", room.directory.parent, "UTC"))
    backoff = Backoff(0.001, 0.02, healthy_s=0.0)
    return room.run(sink, streams=("alarms",), batch_rows_max=found.batch, backoff=backoff)


def test_an_event_goes_out_as_a_cloud_event(room: Room) -> None:
    with Receiver() as receiver:
        runner = send(room, receiver.url)
        put(room, row(1, subject="ss-07/t1/öl"))
        wait_lag(runner)
        (request,) = receiver.requests
    assert request.path == "/hooks/alarms?from=ringmain"
    assert request.headers["content-type"] == "application/cloudevents+json"
    event = request.event
    data = event.pop("data")
    assert event == {
        "id": "a1-0",
        "source": "flow/hot",
        "type": "ringmain.alarm.opened",
        "specversion": "1.0",
        "time": "2025-06-15T15:06:41Z",
        "ringmainnode": "leipzig-west",
        "subject": "ss-07/t1/öl",
        "datacontenttype": "application/json",
    }
    assert (data["value"], data["limit"], data["unit"]) == (91.5, 90.0, "°C")
    assert request.headers["webhook-id"] == request.headers["idempotency-key"] == "flow/hot/a1-0"


def test_a_request_is_signed_with_every_secret_over_id_time_and_body(room: Room, tmp_path: Path) -> None:
    other = base64.b64encode(b"another secret, of 32 bytes, yes").decode()
    (tmp_path / "secret").write_text(f"{SECRET}\nwhsec_{other}\n")
    with Receiver() as receiver:
        wait_lag(send(room, receiver.url, secret_file="secret"))
        put(room, row(1))
        wait_until(lambda: receiver.taken, what="the event")
        (request,) = receiver.requests
    stamp = request.headers["webhook-timestamp"]
    assert abs(time.time() - int(stamp)) < 60
    signed = f"{request.headers['webhook-id']}.{stamp}.".encode() + request.body
    expected = [
        "v1," + base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode()
        for secret in (SECRET.encode(), b"another secret, of 32 bytes, yes")
    ]
    assert request.headers["webhook-signature"].split(" ") == expected


def test_what_fails_is_tried_again_and_nothing_overtakes_it(room: Room) -> None:
    bad = {
        1: Answer(500),
        2: Answer(503),
        4: Answer(drop=True),
        6: Answer(429, {"Retry-After": "0"}),
        7: Answer(302, {"Location": "http://127.0.0.1:1/elsewhere"}),
        9: Answer(401),
    }
    with Receiver(lambda request, n: bad.get(n, Answer())) as receiver:
        runner = send(room, receiver.url)
        for number in range(12):
            put(room, row(number))
        wait_lag(runner)
        came = receiver.ids
    assert list(dict.fromkeys(came)) == [f"a{number}-0" for number in range(12)]
    assert len(came) == 12 + len(bad)
    assert receiver.taken == [f"flow/hot/a{number}-0" for number in range(12)]
    assert room.letters() == []


def test_a_receiver_that_hangs_is_left_after_the_timeout_and_tried_again(room: Room) -> None:
    with Receiver(lambda request, n: Answer(hang=n < 2)) as receiver:
        runner = send(room, receiver.url, timeout="500ms")
        put(room, row(1))
        wait_until(lambda: "no answer within 0.5 s" in (runner.status().last_error or ""), what="the reason")
        wait_lag(runner)
    assert len(receiver.ids) >= 3
    assert set(receiver.ids) == {"a1-0"}


def test_an_answer_that_drips_is_left_after_the_timeout(room: Room) -> None:
    class Dripping(Receiver):
        def _handle(self, handler: object) -> None:  # type: ignore[override]
            with self._lock:
                first = not self.taken
            if first:
                self.taken.append("dripped")
                try:
                    for byte in b"HTTP/1.1 200 OK\r\nX-Slow: " + b"y" * 200:
                        handler.wfile.write(bytes([byte]))  # type: ignore[attr-defined]
                        handler.wfile.flush()  # type: ignore[attr-defined]
                        self._ended.wait(0.05)
                except OSError:
                    pass
                handler.close_connection = True  # type: ignore[attr-defined]
            else:
                super()._handle(handler)  # type: ignore[arg-type]

    with Dripping() as receiver:
        runner = send(room, receiver.url, timeout="500ms")
        put(room, row(1))
        wait_lag(runner)
        assert runner.status().retries >= 1
    assert set(receiver.ids) == {"a1-0"}


def test_retry_after_is_waited_for_as_seconds_and_as_a_date(room: Room) -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)
    waits = [Answer(429, {"Retry-After": "1"}), Answer(503, {"Retry-After": later}), Answer()]
    at: list[float] = []

    def answer(request: object, n: int) -> Answer:
        at.append(time.monotonic())
        return waits[min(n, 2)]

    with Receiver(answer) as receiver:
        runner = send(room, receiver.url)
        put(room, row(1))
        wait_lag(runner)
    assert at[1] - at[0] >= 1.0


@pytest.mark.parametrize("status", [400, 413, 415, 422])
def test_what_the_receiver_will_never_take_is_a_dead_letter_with_its_reason(room: Room, status: int) -> None:
    with Receiver(lambda request, n: Answer(status if n == 0 else 200, text=b"no\nsuch field")) as receiver:
        runner = send(room, receiver.url)
        put(room, row(1), row(2))
        wait_lag(runner)
        assert receiver.taken == ["flow/hot/a2-0"]
        place = f"http://localhost:{receiver.port}"
    wait_until(lambda: bool(room.letters()), what="a letter")
    ((source, topic, reason),) = room.letters()
    assert source == "sink/out"
    assert topic.startswith("alarms/")
    assert reason == f"expected 2xx of the webhook, found {place} answered {status} no such field"


def test_an_event_is_given_up_when_it_is_too_old_and_was_refused_often_enough(room: Room) -> None:
    with Receiver(lambda request, n: Answer(500 if request.event["id"] == "a1-0" else 200)) as receiver:
        runner = send(room, receiver.url, give_up="1s")
        began = time.monotonic()
        put(room, row(1), row(2))
        wait_until(lambda: bool(room.letters()), what="a letter")
        assert time.monotonic() - began >= 1.0
        wait_lag(runner)
    assert receiver.taken == ["flow/hot/a2-0"]
    assert receiver.ids.count("a1-0") >= 3
    assert "within 1s" in room.letters()[0][2]


def test_several_events_go_in_one_request_when_told(room: Room) -> None:
    with Receiver() as receiver:
        runner = send(room, receiver.url, batch=3)
        put(room, *(row(number) for number in range(7)))
        wait_lag(runner)
    bodies = [msgspec.json.decode(request.body) for request in receiver.requests]
    assert [[event["id"] for event in body] for body in bodies] == [
        ["a0-0", "a1-0", "a2-0"],
        ["a3-0", "a4-0", "a5-0"],
        ["a6-0"],
    ]
    assert {request.headers["content-type"] for request in receiver.requests} == {
        "application/cloudevents-batch+json"
    }
    assert len({request.headers["webhook-id"] for request in receiver.requests}) == 3


def test_after_a_restart_it_goes_on_behind_what_was_taken(room: Room) -> None:
    with Receiver() as receiver:
        wait_lag(send(room, receiver.url))
        put(room, row(1))
        wait_until(lambda: receiver.taken, what="the first")
        room.reopen()
        put(room, row(2))
        runner = send(room, receiver.url)
        wait_lag(runner)
        assert receiver.ids == ["a1-0", "a2-0"]


def test_a_receiver_that_is_not_there_is_waited_for(room: Room) -> None:
    port = free_port()
    runner = send(room, f"http://localhost:{port}/")
    put(room, row(1))
    wait_until(lambda: runner.state is SinkState.WAITING, what="waiting")
    assert "no connection" in (runner.status().last_error or "")
    with Receiver(port=port) as receiver:
        wait_lag(runner)
        assert receiver.ids == ["a1-0"]


def test_the_certificate_is_verified(room: Room, tmp_path: Path) -> None:
    authority, stranger = trustme.CA(), trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    for issuer, accepted in ((stranger, False), (authority, True)):
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        issuer.issue_cert("localhost").configure_cert(tls)
        with Receiver(tls=tls) as receiver:
            runner = send(room, receiver.url, ca_file="ca.pem", token_file="token")
            (tmp_path / "token").write_text("t0ken\n")
            put(room, row(1))
            if accepted:
                wait_lag(runner)
                assert receiver.requests[0].headers["authorization"] == "Bearer t0ken"
                assert receiver.requests[0].headers["host"] == f"localhost:{receiver.port}"
            else:
                wait_until(
                    lambda: "certificate is not accepted" in (runner.status().last_error or ""),  # noqa: B023
                    what="a refusal",
                )
                assert receiver.requests == []
            room.stop()


def test_it_ends_at_once_while_a_receiver_hangs(room: Room) -> None:
    with Receiver(lambda request, n: Answer(hang=True)) as receiver:
        runner = send(room, receiver.url, timeout="500ms")
        put(room, *(row(number) for number in range(50)))
        wait_until(lambda: receiver.requests, what="a request")
        began = time.monotonic()
        assert runner.stop(10)
        assert time.monotonic() - began < 5
        room.runners.clear()


def test_only_events_are_sent(room: Room) -> None:
    with Receiver() as receiver:
        found = settings(receiver.url)
        sink = WebhookSink("out", found, Surroundings("n", room.directory, "UTC"))
        runner = room.run(sink, streams=("readings",))
        room.put(1.0)
        wait_until(lambda: "stream of events" in (runner.status().last_error or ""), what="a refusal")
        assert receiver.requests == []


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"url": "ftp://host/"}, "url"),
        ({"url": "https://user:pass@host/"}, "url"),
        ({"url": "https://host/#part"}, "url"),
        ({"url": "https://host:99999/"}, "url"),
        ({"url": "https://ho st/\r\nX: y"}, "url"),
        ({"url": "https:///path"}, "url"),
        ({"url": "http://host/", "token_file": "t"}, "token_file"),
        ({"timeout": "soon"}, "timeout"),
        ({"timeout": "1h"}, "timeout"),
        ({"give_up": "0s"}, "give_up"),
    ],
)
def test_a_mistake_in_the_settings_is_named(change: dict[str, object], key: str) -> None:
    found = msgspec.convert({"from": "alarms", "url": "https://host/hook", **change}, WebhookSettings)
    assert key in [name for name, _ in found.check()[0]]
    kind = sink_type("webhook")
    assert kind is not None
    assert kind.check(found)[0]


@pytest.mark.parametrize(
    ("text", "problem"), [("short\n", "16 bytes"), ("whsec_%%\n", "base64"), ("\n", "one line")]
)
def test_a_secret_that_is_none_is_told_without_telling_it(
    room: Room, tmp_path: Path, text: str, problem: str
) -> None:
    (tmp_path / "secret").write_text(text)
    runner = send(room, "http://localhost:1/", secret_file="secret")
    wait_until(lambda: problem in (runner.status().last_error or ""), what="the problem")
    assert "short" not in (runner.status().last_error or "")


@examples(max_examples=200, derandomize=True, deadline=None)
@given(st.text(max_size=300))
def test_any_id_is_a_header_and_no_two_ids_are_the_same_one(text: str) -> None:
    found = printable(text)
    assert found.isascii()
    assert len(found) <= 200
    assert not set(found) & set("\r\n \x00\x7f")
    assert printable(text + "x") != found
