"""What becomes of open alarms when their flow's definition changes: closed once, and told anew where they still hold.

A flow that tells when something begins and ends owes its readers the end. When it goes on under another definition
(`continue`, a replay, a new output), comes back after it had been taken out of the configuration, or is taken out, its
past is remembered as *takeovers*: changes with a number, the frame behind which each happened, and the stream of the
alarms that end with it. They stand at the named position `flow/NAME/taken`, written together with the definition.

Promises
    - Every alarm that the flow has open in that stream is closed by one event with the reason as its note, which goes
      on with the numbers of that alarm's events. What the new definition finds open is told as a new alarm.
    - Once: which of it is told follows from the stream itself, so a flow that dies between its appends goes on there.
    - Takeovers are part of the fold (`Folding` has the chain pass them at their frames), so ids and state are the same
      after every restart, with a snapshot or without.

Left to others: when a definition counts as changed (`opening.py`), what is told of it (`alerts/telling.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from ringmain.flows.alerts.events import AlarmEvent, event_rows, number_of, source_of
from ringmain.flows.block import Block
from ringmain.flows.flow import FlowPlan, definition_text
from ringmain.flows.folding import Folding
from ringmain.flows.growing import NEVER
from ringmain.flows.output import Committer
from ringmain.flows.takeovers import Takeovers
from ringmain.log.interface import LogReader, Position, StreamKind
from ringmain.model.alarm import AlarmNote, AlarmType, alarm_of
from ringmain.model.rfc3339 import rfc3339

TAKEN, REMOVED, DEFINITION = "taken", "removed", "definition"
"""Names below the flow's position: its takeovers, that its alarms were closed because it is gone, its definition."""
_ALERT = "alert"
_TRANSITIONS = pa.array([AlarmType.OPENED.value, AlarmType.UPDATED.value, AlarmType.CLOSED.value])
_AT_ONCE = 500


@dataclass(slots=True)
class OpenAlarm:
    """An alarm that a stream tells as open: its newest event, with the highest number of its events so far."""

    newest: AlarmEvent

    @property
    def events(self) -> int:
        """How many there are."""
        return self.newest.number + 1


def gives_alarms(definition: Mapping[str, Any]) -> bool:
    """Whether a flow of this definition raises alarms."""
    return any(step.get("type") == _ALERT for step in definition.get("steps", ()))


def takeovers_of(
    before: Mapping[str, bytes], plan: FlowPlan, committed: Position | None, *, fresh: bool
) -> Takeovers:
    """The takeovers of a flow that is about to go on: those that are known, and one more where that is one.

    `before`: its named positions, without its own name before them. `fresh`: it begins from nothing.
    """
    known = Takeovers.parse(before.get(TAKEN))
    told = before.get(DEFINITION)
    if told is None:
        return known
    old, new = msgspec.json.decode(told), msgspec.json.decode(definition_text(plan))
    if old == new and REMOVED not in before:
        return known
    if not (gives_alarms(old) or gives_alarms(new)):
        return known
    note = AlarmNote.REMOVED if old == new else AlarmNote.DEFINITION_CHANGED
    return known.followed_by(None if fresh else committed, note, str(old.get("to")), alone=fresh)


def takeover_after_replay(
    log: LogReader, folding: Folding, committed: Position | None, known: Takeovers
) -> Takeovers:
    """The takeovers after a replay: one more where the stream tells other alarms open than the replay's end does.

    `folding`: that of the replay, which has come to the committed position.
    """
    plan = folding.plan
    if not gives_alarms(msgspec.json.decode(definition_text(plan))) or known.untold:
        return known
    told = {alert: alarm.events for alert, alarm in open_alarms(log, plan.settings.to, plan.name).items()}
    if told == folding.chain.standing():
        return known
    return known.followed_by(committed, AlarmNote.RECOMPUTED, plan.settings.to)


def take_over(folding: Folding, committer: Committer, log: LogReader, known: Takeovers) -> Takeovers:
    """Close what ends with takeovers that were not told of yet, and tell what stands; the takeovers, all of them told.

    `folding` has come to the committed position. What it has to tell is written at once. Raises StepFailureError.
    """
    given = folding.settle()
    if not known.untold:
        return known
    name, to = folding.plan.name, folding.plan.settings.to
    mine = folding.chain.standing()
    standing = [event for block in given for event in _events(block) if event.alert in mine]
    for one in known.untold:
        found = open_alarms(log, one.stream, name)
        ending = [alarm for alert, alarm in found.items() if one.stream != to or alert not in mine]
        now_ns = folding.chain.now
        if now_ns == NEVER:  # it begins from nothing
            now_ns = _newest_arrival_ns(log, one.stream)
        _write(committer, name, one.stream, closings(ending, one.note, now_ns), now_ns)
    there = event_ids(log, to, name)
    _write(committer, name, to, [event for event in standing if event.id not in there], folding.chain.now)
    told = known.all_told()
    committer.note([], {f"/{TAKEN}": told.text()})
    return told


def close_removed(log: LogReader, name: str, definition: Mapping[str, Any], committer: Committer) -> int:
    """Close every alarm that a flow has open that is in the configuration no more; how many. Written once for all.

    `committer` holds the flow's claim.
    """
    stream = str(definition.get("to"))
    found = open_alarms(log, stream, name)
    now_ns = _newest_arrival_ns(log, stream, str(definition.get("from")), "ticks")
    _write(committer, name, stream, closings(found.values(), AlarmNote.REMOVED, now_ns), now_ns)
    committer.note([], {f"/{REMOVED}": b"1"})
    return len(found)


def removed_flows(positions: Mapping[str, bytes], wanted: Iterable[str]) -> dict[str, Mapping[str, Any]]:
    """Flows that raise alarms, are not wanted, and whose alarms were not closed yet: by name, their definitions.

    `positions`: named ones of the log whose names begin with `flow/`.
    """
    found: dict[str, Mapping[str, Any]] = {}
    keep = set(wanted)
    for place, text in positions.items():
        name = place.removeprefix("flow/").removesuffix(f"/{DEFINITION}")
        if place != f"flow/{name}/{DEFINITION}" or name in keep or f"flow/{name}/{REMOVED}" in positions:
            continue
        definition = msgspec.json.decode(text)
        if gives_alarms(definition):
            found[name] = definition
    return found


def open_alarms(log: LogReader, stream: str, flow: str) -> dict[str, OpenAlarm]:
    """The alarms of a flow that a stream tells as open, by id, in the order of their first events."""
    found: dict[str, OpenAlarm] = {}
    for event in _own(log, stream, flow):
        known = found.get(event.alert)
        if event.type is AlarmType.CLOSED:
            found.pop(event.alert, None)
        elif known is None:
            found[event.alert] = OpenAlarm(event)
        else:
            event.number = max(event.number, known.newest.number)
            known.newest = event
    return found


def event_ids(log: LogReader, stream: str, flow: str) -> set[str]:
    """Ids of a flow's events in a stream."""
    return {event.id for event in _own(log, stream, flow)}


def closings(ending: Iterable[OpenAlarm], note: AlarmNote, now_ns: int) -> list[AlarmEvent]:
    """The events that close these alarms, at log time `now_ns` or when they were told of last, if that is later."""
    events = []
    for one in ending:
        newest = one.newest
        time_ns = max(now_ns, newest.time_ns)
        alarm = msgspec.structs.replace(newest.alarm, closed=rfc3339(time_ns), note=note.value)
        events.append(AlarmEvent(newest.alert, one.events, AlarmType.CLOSED, newest.subject, time_ns, alarm))
    return events


def _own(log: LogReader, stream: str, flow: str) -> Iterator[AlarmEvent]:
    """The transitions of a flow's alarms in a stream, in log order."""
    kinds = {state.stream.name: state.stream.kind for state in log.streams()}
    if kinds.get(stream) is not StreamKind.EVENT:
        return
    for frame in log.read(stream):
        rows = frame.rows
        mine = pc.and_(
            pc.equal(rows.column("source"), source_of(flow)), pc.is_in(rows.column("type"), _TRANSITIONS)
        )
        if pc.any(mine).as_py():
            yield from _events(Block(rows.filter(mine), frame.arrival_ns))


def _events(block: Block) -> Iterator[AlarmEvent]:
    rows = block.rows
    times = rows.column("time").cast(pa.int64()).to_pylist()
    columns = (rows.column(name).to_pylist() for name in ("id", "type", "subject", "data"))
    for event_id, kind, subject, data, time_ns in zip(*columns, times, strict=True):
        alarm = alarm_of(data)
        if alarm is not None:
            number = number_of(event_id)
            yield AlarmEvent(alarm.alert, number, AlarmType(kind), subject or "", time_ns, alarm)


def _newest_arrival_ns(log: LogReader, *streams: str) -> int:
    """The newest arrival among these streams: log time where no chain tells it."""
    return max((state.last_arrival_ns for state in log.streams() if state.stream.name in streams), default=0)


def _write(committer: Committer, flow: str, stream: str, events: Sequence[AlarmEvent], now_ns: int) -> None:
    for start in range(0, len(events), _AT_ONCE):
        rows = event_rows(flow, events[start : start + _AT_ONCE])
        committer.write([Block(rows, now_ns, stream)], now_ns)
