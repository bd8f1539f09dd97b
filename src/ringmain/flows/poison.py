"""Batches on which a step fails, and parts of what a step holds: what is written of them, and how a flow remembers to
pass over them."""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import pyarrow as pa

from ringmain.flows.at_work import HeldError, Notes
from ringmain.flows.chain import StepFailureError
from ringmain.flows.flow import FlowPlan
from ringmain.flows.step import PartFailedError, StepBrokenError
from ringmain.log.interface import Batch, Frame, Position
from ringmain.model.schemas import DEAD_LETTER, MAX_LETTER_PAYLOAD

_REASON_CHARACTERS_MAX = 4000
_ROWS_SHOWN = 10
SKIPPED_MAX = 10_000
"""Batches that a flow passes over. They are kept with its position, all of them with each one more; and a step that fails
on so many does not fail on single batches."""


def letters(flow: str, failure: StepFailureError) -> list[Batch]:
    """A dead letter for each frame of the batch: source `flow/NAME`, topic the step; the rows stay at their position.

    One without a position where a step failed on a part of what it holds.
    """
    held = {frame.position: frame for frame in failure.held}
    trace = "".join(traceback.format_exception(failure.cause))[-_REASON_CHARACTERS_MAX:]
    rows = []
    part = part_of(failure)
    if part is not None:
        reason = f"step {failure.step} failed on {part}: {trace}"
        about = {"payload": b"", "payload_bytes": 0, "time": 0, "reason": reason}
        rows.append({"source": f"flow/{flow}", "topic": f"step {failure.step}", **about})
    for position in () if part is not None else failure.frames:
        frame = held.get(position)
        place = f"position {position}" + ("" if frame is None else f" of {frame.stream!r}")
        rows.append(
            {
                "source": f"flow/{flow}",
                "topic": f"step {failure.step}",
                "payload": b"" if frame is None else _payload(frame),
                "payload_bytes": 0 if frame is None else frame.rows.nbytes,
                "time": 0 if frame is None else frame.arrival_ns,
                "reason": f"step {failure.step} failed at {place}: {trace}",
            }
        )
    return [Batch("deadletters", pa.RecordBatch.from_pylist(rows, schema=DEAD_LETTER))] if rows else []


def _payload(frame: Frame) -> bytes:
    shown_rows = frame.rows[:_ROWS_SHOWN]
    texts = [_texts(column) for column in shown_rows.columns]
    shown = {
        "position": str(frame.position),
        "stream": frame.stream,
        "rows": frame.row_count,
        "first": [dict(zip(shown_rows.schema.names, row, strict=True)) for row in zip(*texts, strict=True)],
    }
    return msgspec.json.encode(shown)[:MAX_LETTER_PAYLOAD]


def _texts(column: pa.Array) -> list[str]:
    """Values for people; times to the nanosecond."""
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.string())
    return [str(value) for value in column.to_pylist()]


@dataclass(frozen=True, slots=True)
class PassedOver:
    """What a flow goes on without; kept with its position.

    `skipped`: positions of batches, `given_up`: parts of what its steps hold.
    """

    skipped: tuple[Position, ...] = ()
    given_up: frozenset[str] = frozenset()

    @classmethod
    def parse(cls, before: Mapping[str, bytes]) -> PassedOver:
        """What `texts` gave, out of the flow's named positions without its own name before them. Raises ValueError."""
        skipped, given_up = before.get("skipped"), before.get("given-up")
        return cls(
            ()
            if skipped is None
            else tuple(map(Position.parse, msgspec.json.decode(skipped, type=list[str]))),
            frozenset() if given_up is None else frozenset(msgspec.json.decode(given_up, type=list[str])),
        )

    def texts(self) -> dict[str, bytes | None]:
        """The form in which it is kept, by name below the flow's position."""
        return {
            "/skipped": msgspec.json.encode([str(position) for position in self.skipped]),
            "/given-up": msgspec.json.encode(sorted(self.given_up)),
        }

    def and_frames(self, positions: Iterable[Position]) -> PassedOver:
        """These batches too."""
        more = (position for position in positions if position not in self.skipped)
        return replace(self, skipped=(*self.skipped, *more))

    def and_part(self, part: str) -> PassedOver:
        """This part too."""
        return replace(self, given_up=self.given_up | {part})


def part_of(failure: StepFailureError) -> str | None:
    """The part of what the step holds on which it failed; None: it failed on frames."""
    return failure.cause.part if isinstance(failure.cause, PartFailedError) else None


def can_be_left_out(failure: StepFailureError) -> bool:
    """Whether the flow can go on without what the step failed on."""
    if isinstance(failure.cause, StepBrokenError | HeldError):
        return False
    return bool(failure.frames) or part_of(failure) is not None


def giving_up(plan: FlowPlan, parts: frozenset[str]) -> FlowPlan:
    """The plan of steps that pass over these parts."""
    return replace(plan, around=replace(plan.around, given_up=parts))


def beside(plan: FlowPlan, parts: frozenset[str]) -> FlowPlan:
    """The plan of a replay, whose steps pass over these parts and note what they are at in files of their own."""
    notes = plan.around.notes
    if notes is not None:
        notes = replace(notes, path=notes.path.with_name(f"{notes.path.name}.replay"))
    return replace(plan, around=replace(plan.around, given_up=parts, notes=notes))


def noting(plan: FlowPlan, path: Path, tries: int, *, anew: bool = False) -> FlowPlan:
    """The plan of steps that note what they are at, see `at_work.py`."""
    return replace(plan, around=replace(plan.around, notes=Notes(path, tries, anew)))
