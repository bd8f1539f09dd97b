"""Who may do what through the log's socket: default deny, decided once for each connection.

The kernel says who connects (SO_PEERCRED). Whoever runs as the same user as the log, or as root, can write its
files anyway and is granted everything; anybody else gets what a `[log.access.NAME]` of the configuration grants
its user, and where there is none, nothing.
"""

from __future__ import annotations

import fnmatch
import os
import pwd
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from ringmain.log.interface import LogError
from ringmain.log.socket.channel import Peer


@dataclass(frozen=True, slots=True)
class Grant:
    """What a peer may do. `everything`: streams, claims and retention without limits, and reading the files itself.

    `claims`: its claims are this name or lie below it; `streams`: patterns (`*`, `?`) of the streams that it may read.
    """

    name: str
    everything: bool = False
    append: bool = False
    claims: str = ""
    streams: tuple[str, ...] = ()

    def may_read(self, stream: str) -> bool:
        """Whether it may see the stream."""
        return self.everything or any(fnmatch.fnmatchcase(stream, pattern) for pattern in self.streams)

    def may_claim(self, name: str) -> bool:
        """Whether it may own the name."""
        return self.everything or (
            self.append and (name == self.claims or name.startswith(self.claims + "/"))
        )

    def told(self) -> str:
        """What it grants, as the end of a refusal."""
        if self.everything:
            return "expected to be granted, as everything is"
        streams = ", ".join(self.streams) or "none"
        appending = f"appending under claim {self.claims}" if self.append else "no appending"
        return f"not granted to you; [log.access.{self.name}] grants streams {streams} and {appending}"

    def may_append_to(self, stream: str) -> bool:
        """Whether it may add to the stream: those that it may read, and never those that the log itself writes."""
        return self.everything or (self.append and stream not in _OF_THE_LOG and self.may_read(stream))


_OF_THE_LOG = frozenset({"catalogue", "ticks", "ledger", "conflicts", "accounts"})
OWNER = Grant("owner", everything=True, append=True, streams=("*",))


class Policy(Protocol):
    """Decides what a peer is granted."""

    @property
    def others(self) -> bool:
        """Whether anybody but the log's own user can be granted anything: the socket is open to them then."""
        ...

    def grant(self, peer: Peer) -> Grant | None:
        """What the peer may do; None: nothing, its connection is refused."""
        ...


@dataclass(frozen=True, slots=True)
class Access:
    """One user who is let in, as `[log.access.NAME]` says."""

    name: str
    user: str
    streams: tuple[str, ...]
    append: bool = False


class UserPolicy:
    """The log's own user and root may do everything, others what `accesses` say."""

    def __init__(self, accesses: Iterable[Access] = (), *, uid: int | None = None) -> None:
        """Raises LogError for a user that this machine does not have."""
        self._uid = os.geteuid() if uid is None else uid
        self._grants: dict[int, Grant] = {}
        for access in accesses:
            try:
                found = pwd.getpwnam(access.user).pw_uid
            except KeyError:
                raise LogError(
                    f"[log.access.{access.name}]: expected a user of this machine, found {access.user!r}"
                ) from None
            self._grants[found] = Grant(
                access.name, append=access.append, claims=f"access/{access.name}", streams=access.streams
            )

    @property
    def others(self) -> bool:
        """See `Policy`."""
        return bool(self._grants)

    def grant(self, peer: Peer) -> Grant | None:
        """See `Policy`."""
        if peer.uid in (0, self._uid):
            return OWNER
        return self._grants.get(peer.uid)
