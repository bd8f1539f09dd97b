"""Going on where the beginning of a flow's input is not in the log any more, because a person says so.

A state is the fold over the whole input. When retention has taken the beginning of that, a snapshot replaces it, and
a flow without one (its definition is another, its snapshots are lost) stands still instead of inventing. Told to continue,
it goes on with what there is:

    steps before the first change of the definition   as the newest snapshot of the definition before has them
    steps from there on, all without such a snapshot  as the input that the log still holds makes them

The state that is come to so is saved before the definition counts as taken over: it cannot be had again from the log.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from ringmain.flows.flow import FlowPlan, definition_hash, definition_of, hash_of
from ringmain.flows.flow_site import FlowSite
from ringmain.flows.folding import FlowStoppedError
from ringmain.flows.poison import PassedOver
from ringmain.flows.takeovers import Takeovers
from ringmain.log.interface import LogReader, Position

_logger = logging.getLogger("ringmain.flow")


@dataclass(frozen=True, slots=True)
class Gone:
    """The beginning of a stream that is not in the log any more: so many rows. `until_ns`: the newest event time of the
    first frame that is there."""

    stream: str
    rows: int
    until_ns: int


def beginning_gone(log: LogReader, streams: Sequence[str]) -> Gone | None:
    """What of the first of these streams that does not begin in the log is gone."""
    for stream in streams:
        first = next(iter(log.read(stream)), None)
        if first is not None and first.cumulative_rows != first.row_count:
            return Gone(stream, first.cumulative_rows - first.row_count, first.time_max_ns)
    return None


def carry_on(
    site: FlowSite,
    plan: FlowPlan,
    passed_over: PassedOver,
    taken: Takeovers,
    committed: Position,
    before: bytes | None,
) -> None:
    """See to it that the flow can go on behind its position. `before`: its definition so far.

    Raises FlowStoppedError where it cannot, StepFailureError.
    """
    folding = site.folding(plan, passed_over, taken)
    gone = beginning_gone(site.log, folding.chain.streams)
    if gone is None:
        return
    try:
        folding.fold_up_to(committed)
    except FlowStoppedError:
        kept = 0 if before is None else _unchanged(plan, msgspec.json.decode(before))
        saved = (
            next(iter(site.snapshots.load(hash_of(before))), None) if before is not None and kept else None
        )
        taken_up = folding.fold_what_is_there(committed, saved, kept)
        site.snapshots.save(definition_hash(plan), folding.saved())
        names = [row.step for row in folding.chain.rows]
        _logger.warning(
            "flow %s continues without the first %d rows of %r, which have been removed from the log: %s",
            site.name,
            gone.rows,
            gone.stream,
            "; ".join(
                f"step {step} {'as it was' if number < taken_up else 'with what the log holds'}"
                for number, step in enumerate(names)
            ),
        )


def _unchanged(plan: FlowPlan, old: dict[str, Any]) -> int:
    """How many steps at the beginning are what they were, and are given what they were given."""
    new = msgspec.json.decode(msgspec.json.encode(definition_of(plan)))
    if any(old.get(name) != new[name] for name in new if name not in ("to", "steps")):
        return 0
    count = 0
    for one, other in zip(old.get("steps", ()), new["steps"], strict=False):
        if one != other:
            break
        count += 1
    return count
