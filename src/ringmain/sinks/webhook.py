"""Events to a web address (type `webhook`): each as a CloudEvent in a signed POST, in order, at least once.

    Content-Type         application/cloudevents+json
    Webhook-Id           the event's source and id; Idempotency-Key says the same
    Webhook-Timestamp    seconds since the epoch, of this attempt
    Webhook-Signature    v1,BASE64 of HMAC-SHA256 over ID.TIMESTAMP.BODY; one for each secret, separated by spaces

(the scheme of standardwebhooks.com, for which there are libraries in many languages). A receiver refuses a timestamp
that is more than a few minutes old, and ignores an id that it has had: then nobody can send a captured request again.

An event is delivered when the receiver answered 2xx. 400, 413, 415 and 422 say that it will never be taken: it becomes
a dead letter. Everything else (other answers, redirects, which are not followed, no answer in time, no connection) is
tried again, and nothing behind it is sent before; an event that was in the log for `give_up` becomes a dead letter as
well. Left to the runtime: waiting, positions, dead letters, counters.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated
from urllib.parse import SplitResult, urlsplit

import msgspec

from ringmain.log.interface import StreamKind
from ringmain.model.duration import parse_duration
from ringmain.runtime.counters import Kind, declare
from ringmain.runtime.sink import (
    ACCEPTED,
    Answer,
    Rejected,
    RejectedRows,
    Retry,
    SinkBatch,
    SinkContext,
    SinkError,
)
from ringmain.sinks.cloudevents import ONE, SEVERAL, events_of
from ringmain.sinks.http_post import Poster, PostError, Reply
from ringmain.sinks.types import Begin, Findings, SinkSettings, SinkType, Surroundings

NEVER_TAKEN = frozenset({400, 413, 415, 422})
TRIES_LEAST = 3
"""However old an event is, it is tried so often before it is given up."""
BATCH_MAX = 1000
SECRET_BYTES_MIN = 16

_REQUESTS = declare(
    "ringmain_webhook_requests_total",
    Kind.COUNTER,
    "Requests that a webhook sink has sent, by answer: a status, or what went wrong.",
    labels=("sink", "answer"),
    unit="requests",
)


class WebhookSettings(SinkSettings, frozen=True, kw_only=True):
    """`[sinks.NAME]`: events to a web address, as signed CloudEvents, in order."""

    url: Annotated[
        str, msgspec.Meta(description="where events are sent to (POST), https://HOST/PATH", max_length=2000)
    ]
    secret_file: Annotated[
        str | None,
        msgspec.Meta(
            description="file with the secret that requests are signed with, relative to the configuration file: one a "
            "line, at least 16 bytes or whsec_BASE64; with two both sign, so that they can be changed in turn"
        ),
    ] = None
    token_file: Annotated[
        str | None,
        msgspec.Meta(description="file with a token that is sent as `Authorization: Bearer TOKEN`"),
    ] = None
    ca_file: Annotated[
        str | None,
        msgspec.Meta(
            description="certificates (PEM) to trust instead of the system's, of a utility's own authority"
        ),
    ] = None
    timeout: Annotated[
        str, msgspec.Meta(description="an attempt ends after so long, whatever the receiver does meanwhile")
    ] = "10s"
    batch: Annotated[
        int,
        msgspec.Meta(
            description="events in one request at most; more than 1: as a JSON array, application/cloudevents-batch+json",
            ge=1,
            le=BATCH_MAX,
        ),
    ] = 1
    give_up: Annotated[
        str,
        msgspec.Meta(
            description="an event that has been in the log for so long, and was refused again, becomes a dead letter; until "
            "then everything behind it waits"
        ),
    ] = "1d"

    def check(self) -> Findings:
        """Errors and warnings without touching the outside."""
        errors: list[tuple[str, str]] = []
        warnings: list[tuple[str, str]] = []
        try:
            parts = address_of(self.url)
        except ValueError as error:
            errors.append(("url", str(error)))
        else:
            if parts.scheme == "http":
                warnings.append(
                    (
                        "url",
                        "http:// is readable and changeable on its way; use https:// unless it ends on this machine",
                    )
                )
            if self.token_file is not None and parts.scheme == "http":
                errors.append(
                    ("token_file", "expected https:// in `url`: a token would be readable on its way")
                )
        for key, low, high, bounds in (
            ("timeout", 10**8, 300 * 10**9, "100ms to 5m"),
            ("give_up", 10**9, 2**62, "1s or more"),
        ):
            try:
                if not low <= parse_duration(getattr(self, key)) <= high:
                    errors.append((key, f"expected {bounds}, found {getattr(self, key)!r}"))
            except ValueError as error:
                errors.append((key, str(error)))
        if self.secret_file is None:
            warnings.append(
                (
                    "secret_file",
                    "without a secret the receiver cannot tell who sent an event, nor that nobody changed it",
                )
            )
        return errors, warnings


def address_of(url: str) -> SplitResult:
    """The parts of a web address. Raises ValueError for what is none, or has a password in it."""
    if not url.isascii() or any(character <= " " for character in url):
        raise ValueError("expected an address of printable ASCII characters, others as %XX")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"expected https://HOST/PATH, found {url!r}: {error}") from None
    if parts.scheme not in ("https", "http") or not parts.hostname or port == 0:
        raise ValueError(f"expected https://HOST/PATH, found {url!r}")
    if parts.username is not None or parts.password is not None:
        raise ValueError("expected no password in the address: use `token_file`")
    if parts.fragment:
        raise ValueError("expected an address without a #fragment, which is never sent")
    return parts


class WebhookSink:
    """Sends events. See the module."""

    def __init__(self, name: str, settings: WebhookSettings, around: Surroundings) -> None:
        self._name = name
        self._settings = settings
        self._node = around.node
        self._directory = around.directory
        self._give_up_ns = parse_duration(settings.give_up)
        self._secrets: tuple[bytes, ...] = ()
        self._token: str | None = None
        self._poster: Poster | None = None
        self._context: SinkContext | None = None

    def open(self, context: SinkContext) -> str:
        """Read the secrets; connects with the first event. Raises SinkError."""
        settings = self._settings
        self._context = context
        self._secrets = self._read_secrets()
        self._token = None if settings.token_file is None else self._line(settings.token_file, "token_file")
        parts = address_of(settings.url)
        ca_file = None if settings.ca_file is None else self._directory / settings.ca_file
        try:
            self._poster = Poster(parts, ca_file, parse_duration(settings.timeout) / 1e9)
        except OSError as error:
            raise SinkError(
                f"expected certificates in {ca_file}, found: {error}", "check `ca_file`"
            ) from error
        return f"{parts.scheme}://{parts.netloc}{parts.path}"

    def deliver(self, batches: Sequence[SinkBatch], now_ns: int) -> Sequence[Answer]:
        """Send each batch as one request, in order."""
        assert self._context is not None
        answers: list[Answer] = []
        for batch in batches:
            if self._context.stopping.is_set():
                answers.append(Retry("the node stops"))
                break
            if batch.kind is not StreamKind.EVENT:
                raise SinkError(
                    f"expected a stream of events such as `alarms`, found {batch.id.stream!r}, which has rows of "
                    f"{batch.kind.name.lower()}s",
                    "change `from`",
                )
            answer = self._deliver(batch)
            answers.append(answer)
            if isinstance(answer, Retry):
                break
        return answers

    def close(self) -> None:
        """Let the connection go."""
        if self._poster is not None:
            self._poster.close()
            self._poster = None

    # One request

    def _deliver(self, batch: SinkBatch) -> Answer:
        assert self._poster is not None
        assert self._context is not None
        events = events_of(batch.rows, self._node)
        single = self._settings.batch == 1
        body = msgspec.json.encode(events[0] if single else events)
        name = f"{events[0].source}/{events[0].id}" if single else str(batch.id)
        try:
            reply = self._poster.post(body, self._headers(name, body, ONE if single else SEVERAL))
        except PostError as error:
            self._context.count("ringmain_webhook_requests_total", 1, answer=error.kind)
            return self._again(batch, f"{self._poster.place}: {error}")
        self._context.count("ringmain_webhook_requests_total", 1, answer=str(reply.status))
        if 200 <= reply.status < 300:
            return ACCEPTED
        told = f"{self._poster.place} answered {reply.status} {reply.text}".rstrip()
        if reply.status in NEVER_TAKEN:
            return Rejected(
                (RejectedRows(0, batch.rows.num_rows, f"expected 2xx of the webhook, found {told}"),)
            )
        if 300 <= reply.status < 400:
            told += "; redirects are not followed: name the address itself in `url`"
        return self._again(batch, told, reply)

    def _again(self, batch: SinkBatch, told: str, reply: Reply | None = None) -> Answer:
        # by the clock: log time does not move while a batch is tried again
        age_ns = time.time_ns() - batch.arrival_ns
        if batch.attempt + 1 >= TRIES_LEAST and age_ns >= self._give_up_ns:
            return Rejected.whole(
                batch, f"expected 2xx of the webhook within {self._settings.give_up}, found {told}"
            )
        return Retry(told, None if reply is None else reply.retry_after_s)

    def _headers(self, name: str, body: bytes, content_type: str) -> dict[str, str]:
        headers = {
            "Content-Type": content_type,
            "Webhook-Id": printable(name),
            "Idempotency-Key": printable(name),
            "User-Agent": "ringmain",
        }
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        if self._secrets:
            stamp = str(int(time.time()))
            headers["Webhook-Timestamp"] = stamp
            headers["Webhook-Signature"] = " ".join(
                signature(secret, headers["Webhook-Id"], stamp, body) for secret in self._secrets
            )
        return headers

    # Files

    def _read_secrets(self) -> tuple[bytes, ...]:
        if self._settings.secret_file is None:
            return ()
        lines = self._lines(self._settings.secret_file, "secret_file")
        try:
            return tuple(secret_of(line) for line in lines)
        except ValueError as error:
            raise SinkError(f"{self._settings.secret_file}: {error}", "check `secret_file`") from None

    def _line(self, file: str, key: str) -> str:
        line = self._lines(file, key)[0]
        if not line.isascii() or not line.isprintable():
            raise SinkError(f"expected printable ASCII in {file}, found other characters", f"check `{key}`")
        return line

    def _lines(self, file: str, key: str) -> list[str]:
        path: Path = self._directory / file
        try:
            lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise SinkError(f"expected a text file {path}, found: {error}", f"check `{key}`") from error
        if not lines:
            raise SinkError(f"expected at least one line in {path}, found none", f"check `{key}`")
        return lines


def signature(secret: bytes, name: str, stamp: str, body: bytes) -> str:
    """The signature of a request (standardwebhooks.com, symmetric, version 1)."""
    signed = b".".join((name.encode(), stamp.encode(), body))
    return "v1," + base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode()


def secret_of(line: str) -> bytes:
    """The secret that a line says. Raises ValueError, without the secret in its message."""
    if line.startswith("whsec_"):
        try:
            secret = base64.b64decode(line.removeprefix("whsec_"), validate=True)
        except (binascii.Error, ValueError):
            raise ValueError("expected base64 behind whsec_, found something else") from None
    else:
        secret = line.encode()
    if len(secret) < SECRET_BYTES_MIN:
        raise ValueError(f"expected a secret of at least {SECRET_BYTES_MIN} bytes, found {len(secret)}")
    return secret


def printable(name: str) -> str:
    """An id as a header can say it: what is no printable ASCII as %XX; at most 200 characters."""
    safe = "".join(
        character
        if "!" <= character <= "~" and character != "%"
        else "".join(f"%{byte:02X}" for byte in character.encode("utf-8", "surrogatepass"))
        for character in name
    )
    if len(safe) <= 200:
        return safe
    return f"{safe[:100]}-{hashlib.sha256(safe.encode()).hexdigest()}"


def _build(name: str, settings: WebhookSettings, around: Surroundings) -> WebhookSink:
    return WebhookSink(name, settings, around)


SINK_TYPE = SinkType(
    WebhookSettings,
    _build,
    lambda settings: settings.check(),
    begin=Begin.NEWEST,
    batch_rows_max=lambda settings: settings.batch,
)
