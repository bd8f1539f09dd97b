"""Alarms by e-mail (type `email`): one mail for all that happened within an interval, over SMTP.

A flood of alarms is few mails: events of one interval of log time are one mail, the most urgent first, at most `lines` of
them and the count of the rest. Which events are in a mail, its text and its `Message-ID` follow from the log alone: a mail
that is sent again after a crash is the same one, and most mail programs show it once.

The position moves when the server has taken the mail. While it does not, it is tried again; after `give_up` the events
become dead letters. Left to the runtime: waiting, positions, dead letters, counters.
"""

from __future__ import annotations

import smtplib
import ssl
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import msgspec

from ringmain.log.interface import StreamKind
from ringmain.model.duration import parse_duration
from ringmain.runtime.counters import Kind, declare
from ringmain.runtime.sink import (
    ACCEPTED,
    HELD,
    Answer,
    Mark,
    Rejected,
    Retry,
    SinkBatch,
    SinkContext,
    SinkError,
)
from ringmain.sinks.email_text import Line, Mail, address_problem, lines_of, message_of
from ringmain.sinks.types import Begin, Findings, SinkSettings, SinkType, Surroundings

LINES_MAX = 500
HELD_EVENTS_MAX = 100_000
_MAILS = declare(
    "ringmain_email_mails_total",
    Kind.COUNTER,
    "Mails that an e-mail sink has handed to its server.",
    labels=("sink",),
    unit="mails",
)
_REFUSED = declare(
    "ringmain_email_refused_recipients_total",
    Kind.COUNTER,
    "Recipients that the server refused while it took the mail for others.",
    labels=("sink",),
    unit="recipients",
)


class Tls(StrEnum):
    """How the connection to the server is encrypted."""

    STARTTLS = "starttls"
    IMPLICIT = "implicit"
    NONE = "none"


class Told(StrEnum):
    """What of an alarm's life is told."""

    OPENED = "opened"
    UPDATED = "updated"
    CLOSED = "closed"


class EmailSettings(SinkSettings, frozen=True, kw_only=True):
    """`[sinks.NAME]`: alarms by e-mail, those of an interval in one mail."""

    host: Annotated[str, msgspec.Meta(description="the mail server", min_length=1, max_length=253)]
    sender: Annotated[str, msgspec.Meta(description="address that mails come from")]
    recipients: Annotated[
        tuple[str, ...], msgspec.Meta(description="addresses that mails go to", min_length=1, max_length=100)
    ]
    port: Annotated[
        int | None, msgspec.Meta(description="default: 587 with starttls, 465 with implicit, 25 with none")
    ] = None
    tls: Annotated[
        Tls,
        msgspec.Meta(
            description="starttls (encrypted from the first command on), implicit (from the first byte on) or none"
        ),
    ] = Tls.STARTTLS
    user: Annotated[str | None, msgspec.Meta(description="name to sign in with; without it nobody does")] = (
        None
    )
    password_file: Annotated[
        str | None,
        msgspec.Meta(
            description="file with the password in its first line, relative to the configuration file"
        ),
    ] = None
    ca_file: Annotated[
        str | None, msgspec.Meta(description="certificates (PEM) to trust instead of the system's")
    ] = None
    every: Annotated[
        str,
        msgspec.Meta(description="interval of log time that has one mail, 1s to 1d; a quiet one has none"),
    ] = "1m"
    priority: Annotated[
        int, msgspec.Meta(description="alarms of this priority and before it: 1, 2 or 3", ge=1, le=3)
    ] = 3
    events: Annotated[tuple[Told, ...], msgspec.Meta(description="what is told: opened, updated, closed")] = (
        Told.OPENED,
        Told.CLOSED,
    )
    members: Annotated[
        bool, msgspec.Meta(description="whether alarms that belong to a group alarm are told beside it")
    ] = False
    lines: Annotated[
        int, msgspec.Meta(description="alarms in a mail at most; the rest is counted", ge=1, le=LINES_MAX)
    ] = 50
    subject: Annotated[
        str,
        msgspec.Meta(
            description="what subjects of mails begin with; default: the node's name", max_length=100
        ),
    ] = ""
    timeout: Annotated[str, msgspec.Meta(description="an answer of the server is waited for so long")] = "15s"
    give_up: Annotated[
        str,
        msgspec.Meta(
            description="events that have been in the log for so long, and whose mail was refused again, become dead letters"
        ),
    ] = "1d"

    @property
    def port_used(self) -> int:
        """The port, the usual one of the encryption unless it is set."""
        return self.port or {Tls.STARTTLS: 587, Tls.IMPLICIT: 465, Tls.NONE: 25}[self.tls]

    def check(self) -> Findings:
        """Errors and warnings without touching the outside."""
        errors: list[tuple[str, str]] = []
        warnings: list[tuple[str, str]] = []
        places = [("sender", self.sender)]
        places += [(f"recipients.{number}", text) for number, text in enumerate(self.recipients)]
        for key, address in places:
            problem = address_problem(address)
            if problem is not None:
                errors.append((key, problem))
        if not self.host.isascii() or not self.host.isprintable() or " " in self.host:
            errors.append(("host", f"expected a host name, found {self.host!r}"))
        if self.port is not None and not 1 <= self.port <= 65535:
            errors.append(("port", f"expected 1 to 65535, found {self.port}"))
        if not self.subject.isprintable():
            errors.append(("subject", "expected a line of text, found other characters"))
        if not self.events:
            errors.append(("events", "expected at least one of opened, updated, closed"))
        if (self.user is None) != (self.password_file is None):
            missing = "user" if self.user is None else "password_file"
            errors.append((missing, "expected `user` and `password_file` together, or neither"))
        if self.tls is Tls.NONE:
            warnings.append(
                ("tls", "mails are readable on their way; use starttls unless the server is this machine")
            )
            if self.user is not None:
                errors.append(
                    ("tls", "expected starttls or implicit: the password would be readable on its way")
                )
        for key, low, high, bounds in (
            ("every", 10**9, 86_400 * 10**9, "1s to 1d"),
            ("timeout", 10**9, 600 * 10**9, "1s to 10m"),
            ("give_up", 10**9, 2**62, "1s or more"),
        ):
            try:
                if not low <= parse_duration(getattr(self, key)) <= high:
                    errors.append((key, f"expected {bounds}, found {getattr(self, key)!r}"))
            except ValueError as error:
                errors.append((key, str(error)))
        return errors, warnings


class EmailSink:
    """Gathers the events of an interval, and sends them when it has passed."""

    def __init__(self, name: str, settings: EmailSettings, around: Surroundings) -> None:
        self._name = name
        self._settings = settings
        self._around = around
        self._every_ns = parse_duration(settings.every)
        self._give_up_ns = parse_duration(settings.give_up)
        self._timeout_s = parse_duration(settings.timeout) / 1e9
        self._password: str | None = None
        self._tls: ssl.SSLContext | None = None
        self._context: SinkContext | None = None
        self._batches: list[SinkBatch] = []
        """Held: those of one interval, and those behind it."""
        self._given_up: tuple[int, str] | None = None
        """Batches that arrived before this become dead letters, and why."""

    def open(self, context: SinkContext) -> str:
        """Read the password and the certificates. Raises SinkError."""
        settings, directory = self._settings, self._around.directory
        self._context = context
        self._batches = []
        if settings.password_file is not None:
            self._password = _first_line(directory / settings.password_file)
        if settings.tls is not Tls.NONE:
            ca_file = None if settings.ca_file is None else str(directory / settings.ca_file)
            try:
                self._tls = ssl.create_default_context(cafile=ca_file)
            except OSError as error:
                raise SinkError(
                    f"expected certificates in {ca_file}, found: {error}", "check `ca_file`"
                ) from error
        return f"{settings.host}:{settings.port_used}"

    def deliver(self, batches: Sequence[SinkBatch], now_ns: int) -> Sequence[Answer]:
        """Hold what comes until its interval has passed."""
        answers: list[Answer] = []
        for batch in batches:
            if batch.kind is not StreamKind.EVENT:
                raise SinkError(
                    f"expected a stream of events such as `alarms`, found {batch.id.stream!r}, which has rows of "
                    f"{batch.kind.name.lower()}s",
                    "change `from`",
                )
            wanted = bool(self._wanted(batch))
            given_up = self._given_up is not None and batch.arrival_ns < self._given_up[0]
            if wanted and given_up and not self._batches and self._given_up is not None:
                answers.append(Rejected.whole(batch, self._given_up[1]))
            elif wanted or self._batches:
                self._batches.append(batch)
                answers.append(HELD)
            else:
                answers.append(ACCEPTED)
        return answers

    def settle(self, now_ns: int) -> Mark | Retry | None:
        """Send the mail of the oldest interval that has passed; the mark behind its last event."""
        if not self._batches:
            return None
        interval = self._batches[0].arrival_ns // self._every_ns
        end_ns = (interval + 1) * self._every_ns
        held = sum(batch.rows.num_rows for batch in self._batches)
        if now_ns < end_ns and held < HELD_EVENTS_MAX:
            return None
        mine = [batch for batch in self._batches if batch.arrival_ns < end_ns]
        lines = [line for batch in mine for line in self._wanted(batch)]
        if lines:
            problem = self._send(
                Mail(self._around.node, self._name, interval * self._every_ns, end_ns, lines)
            )
            if problem is not None:
                if now_ns - mine[0].arrival_ns >= self._give_up_ns:
                    told = f"expected the server to take the mail within {self._settings.give_up}, found {problem}"
                    self._given_up = (end_ns, told)
                    raise SinkError(problem, "the events become dead letters")
                return Retry(problem)
        del self._batches[: len(mine)]
        return mine[-1].mark

    def close(self) -> None:
        """What is held comes again."""
        self._batches = []

    def _wanted(self, batch: SinkBatch) -> list[Line]:
        """What of a batch is told."""
        settings = self._settings
        return [
            line
            for line in lines_of(batch.rows)
            if line.priority <= settings.priority
            and line.happened in settings.events
            and (settings.members or not line.grouped)
        ]

    def _send(self, mail: Mail) -> str | None:
        """Hand a mail to the server; what went wrong, or None."""
        assert self._context is not None
        settings = self._settings
        message = message_of(
            mail,
            settings.sender,
            settings.recipients,
            settings.subject,
            settings.lines,
            self._around.timezone,
        )
        try:
            with self._connected() as server:
                refused = server.send_message(message, settings.sender, list(settings.recipients))
        except smtplib.SMTPRecipientsRefused as error:
            return f"{settings.host} refused every recipient: {_first_answer(error)}"
        except smtplib.SMTPResponseException as error:
            return f"{settings.host} answered {error.smtp_code} {_plain(error.smtp_error)}"
        except (smtplib.SMTPException, ssl.SSLError, OSError) as error:
            return f"{settings.host}:{settings.port_used}: {type(error).__name__}: {error}"
        self._context.count("ringmain_email_mails_total", 1)
        if refused:
            self._context.count("ringmain_email_refused_recipients_total", len(refused))
        return None

    def _connected(self) -> smtplib.SMTP:
        settings = self._settings
        if settings.tls is Tls.IMPLICIT:
            server: smtplib.SMTP = smtplib.SMTP_SSL(
                settings.host, settings.port_used, timeout=self._timeout_s, context=self._tls
            )
        else:
            server = smtplib.SMTP(settings.host, settings.port_used, timeout=self._timeout_s)
        try:
            if settings.tls is Tls.STARTTLS:
                server.starttls(context=self._tls)
            if settings.user is not None and self._password is not None:
                server.login(settings.user, self._password)
        except BaseException:
            server.close()
            raise
        return server


def _first_line(path: Path) -> str:
    try:
        line = path.read_text(encoding="utf-8").partition("\n")[0].strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SinkError(
            f"expected a password in the first line of {path}, found: {error}", "check `password_file`"
        ) from error
    if not line:
        raise SinkError(
            f"expected a password in the first line of {path}, found none", "check `password_file`"
        )
    return line


def _first_answer(error: smtplib.SMTPRecipientsRefused) -> str:
    code, text = next(iter(error.recipients.values()))
    return f"{code} {_plain(text)}"


def _plain(text: bytes | str) -> str:
    told = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    return " ".join("".join(one if one.isprintable() else " " for one in told).split())[:200]


def _build(name: str, settings: EmailSettings, around: Surroundings) -> EmailSink:
    return EmailSink(name, settings, around)


SINK_TYPE = SinkType(
    EmailSettings,
    _build,
    lambda settings: settings.check(),
    begin=Begin.NEWEST,
    batch_rows_max=lambda settings: 1000,
)
