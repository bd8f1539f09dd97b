"""A part's side of the channel to the process that supervises it.

Two threads: one reads what the supervisor says, one reports that this part lives, once a second and whenever
something changed. The end of the channel is the end of the supervisor: then everything is asked of this part that a
`Stop` would ask.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable

from ringmain.parts import messages
from ringmain.parts.messages import (
    Begin,
    Drain,
    FromPart,
    Incoming,
    Informed,
    MalformedError,
    Peers,
    Reload,
    Report,
    Stop,
    ToPart,
)

REPORT_EVERY_S = 1.0
CHANGES_EVERY_S = 0.25
_PR_SET_PDEATHSIG = 1
_logger = logging.getLogger("ringmain.parts")


class Link:
    """The channel of a part. `listen` at once, `report_with` when there is something to tell."""

    def __init__(self, channel: socket.socket) -> None:
        self.begin = threading.Event()
        """The log can be had, or the end has come."""
        self.first = False
        """This part never began before."""
        self.drain = threading.Event()
        self.stop = threading.Event()
        self._channel = channel
        self._sending = threading.Lock()
        self._body: Callable[[], bytes] = bytes
        self._state: Callable[[], object] = lambda: None
        self._peers: Callable[[Peers], None] | None = None
        self._newest: Peers | None = None
        self._taking = threading.Lock()
        self._reload: Callable[[], None] | None = None
        self._reloading = threading.Lock()

    def start(self) -> None:
        """Begin to listen and to tell that this part lives."""
        threading.Thread(target=self._listen, name="link-listen", daemon=True).start()
        threading.Thread(target=self._report, name="link-report", daemon=True).start()

    def say(self, message: FromPart) -> None:
        """Send; without a supervisor nothing happens."""
        with self._sending, contextlib.suppress(OSError):
            self._channel.sendall(messages.encode(message))

    def report_with(self, body: Callable[[], bytes], state: Callable[[], object] = lambda: None) -> None:
        """Report what `body` gives from now on; at once whenever `state` (quick) gives something else than before."""
        self._state, self._body = state, body
        self.report_now()

    def report_now(self) -> None:
        """Report, before anything that is said next."""
        self.say(Report(self._body()))

    def take_peers_with(self, take: Callable[[Peers], None]) -> None:
        """Have `take` called with news about all parts, on one thread at a time, the newest so far at once."""
        with self._taking:
            self._peers = take
            if self._newest is not None:
                self._take(self._newest)

    def reload_with(self, reload: Callable[[], None]) -> None:
        """Have `reload` called when the configuration is to be read again, once at a time on a thread of its own."""
        self._reload = reload

    def _reload_now(self) -> None:
        with self._reloading:
            if self._reload is None or self.stop.is_set():
                return
            try:
                self._reload()
            except Exception:
                _logger.exception(
                    "the configuration could not be taken over: this process goes on with the old one"
                )
            self.report_now()

    def end(self) -> None:
        """The end has come: stop waiting for anything."""
        self.drain.set()
        self.stop.set()
        self.begin.set()

    def _listen(self) -> None:
        incoming = Incoming(ToPart)
        try:
            while received := self._channel.recv(1 << 18):
                for message in incoming.feed(received):
                    self._heard(message)
        except (OSError, MalformedError) as error:
            _logger.error("the channel to the supervising process failed: %s", error)
        if not self.stop.is_set():
            _logger.warning("the supervising process is gone: this one ends")
        self.end()

    def _heard(self, message: object) -> None:
        match message:
            case Begin(first):
                self.first = first
                self.begin.set()
            case Peers():
                with self._taking:
                    self._newest = message
                    self._take(message)
            case Drain():
                self.drain.set()
            case Reload():
                threading.Thread(target=self._reload_now, name="link-reload", daemon=True).start()
            case Stop():
                self.end()

    def _take(self, peers: Peers) -> None:
        if self._peers is not None:
            self._peers(peers)
            if peers.ready:
                self.say(Informed())

    def _report(self) -> None:
        told: object = None
        waited_s = REPORT_EVERY_S
        while True:
            try:
                state = self._state()
                if state != told or waited_s >= REPORT_EVERY_S:
                    self.say(Report(self._body()))
                    told, waited_s = state, 0.0
            except Exception:  # it lives, whatever cannot be told
                if not self.stop.is_set():  # else what is asked may be closed already
                    _logger.exception("a report could not be made")
                self.say(Report())
                waited_s = 0.0
            time.sleep(CHANGES_EVERY_S)  # to the end: what takes its time to end lives as well
            waited_s += CHANGES_EVERY_S


def die_with(supervisor: int, end: Callable[[], None]) -> None:
    """Have `end` called when the supervising process dies; Ctrl-C at a terminal and SIGTERM are for that one alone.

    The kernel sends SIGTERM at its death (prctl(2), PR_SET_PDEATHSIG), beside the end of the channel.
    """

    def on_term(_number: int, _frame: object) -> None:
        if os.getppid() != supervisor:
            end()

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, on_term)
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != supervisor:
        end()
