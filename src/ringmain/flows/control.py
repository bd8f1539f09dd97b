"""What a person tells a flow to do: named positions in the log, which the flow looks at.

A command is the position `flow-control/NAME`, claimed for a moment by whoever gives it, so it reaches a node that runs
and one that will. The flow remembers the last command that it has carried out, so each is done once.
"""

from __future__ import annotations

import secrets
from enum import StrEnum

import msgspec

from ringmain.flows.comparing import Differing
from ringmain.flows.flow_status import FlowState
from ringmain.log.interface import Log, LogReader

PREFIX = "flow-control/"


class Action(StrEnum):
    """What a flow can be told."""

    RETRY = "retry"
    """Begin again at once, with tries counted anew."""
    SKIP = "skip"
    """Make a dead letter of the batch on which a step fails, and go on."""
    CONTINUE = "continue"
    """Go on under a changed definition from where it is; what was written stays."""
    REPLAY = "replay"
    """Compute outputs from an instant on anew, and write what differs."""


class Command(msgspec.Struct, frozen=True):
    """One command. `from_ns`: the event time from which a replay begins (ns UTC; None: everything)."""

    action: Action
    id: str = msgspec.field(default_factory=lambda: secrets.token_hex(8))
    from_ns: int | None = None


class Replayed(msgspec.Struct, frozen=True):
    """What a replay found other than before: kept at the position `flow/NAME/replayed` until the next one.

    `command`: its id. `from_ns`: see `Command`. `streams`: what was compared, the flow's output first.
    """

    command: str
    from_ns: int | None
    streams: dict[str, Differing]

    def __str__(self) -> str:
        return "; ".join(f"{name}: {differing}" for name, differing in self.streams.items())

    def __bytes__(self) -> bytes:
        return msgspec.json.encode(self)


class Standing(msgspec.Struct, frozen=True):
    """How a flow stands with a replay that is not done: kept at the position `flow/NAME/standing`.

    `command`: its id. `reason`: why the flow stands still, empty while it does not.
    """

    command: str
    state: FlowState
    reason: str = ""
    refused: bool = False
    """It is not done at all."""

    def __bytes__(self) -> bytes:
        return msgspec.json.encode(self)


def standing(log: LogReader, flow: str, command: Command) -> Standing | None:
    """How a flow stands with the replay of this command; None where it has not taken it up."""
    text = log.positions(f"flow/{flow}/standing").get(f"flow/{flow}/standing")
    if text is None:
        return None
    found = msgspec.json.decode(text, type=Standing)
    return found if found.command == command.id else None


def replayed(log: LogReader, flow: str, command: Command) -> Replayed | None:
    """What the replay of this command found; None while it is not done."""
    text = log.positions(f"flow/{flow}/replayed").get(f"flow/{flow}/replayed")
    if text is None:
        return None
    found = msgspec.json.decode(text, type=Replayed)
    return found if found.command == command.id else None


def give(log: Log, flow: str, command: Command) -> None:
    """Hand a command to a flow. Durable on return; a later one replaces one that was not carried out yet."""
    claim = log.claim(PREFIX + flow)
    log.append([], claim=claim, sequence=1, positions={PREFIX + flow: msgspec.json.encode(command)})


def given(log: LogReader, flow: str) -> Command | None:
    """The last command that a flow was given, carried out or not."""
    text = log.positions(PREFIX + flow).get(PREFIX + flow)
    if text is None:
        return None
    try:
        return msgspec.json.decode(text, type=Command)
    except msgspec.MsgspecError:
        return None
