"""A plain model of the log: what whoever appends and reads may rely on, and nothing of how it is kept.

It knows every append that was handed over, what became of it, and in which order the acknowledged ones came. Appends
that were not answered (a crash came first) or were answered with a failure may turn out to be stored when the log is
opened again, wholly; until then nobody may see them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pyarrow as pa

from ringmain.log.interface import Batch, Frame
from tests.log.batches import notes, readings


@dataclass(frozen=True, slots=True)
class Name:
    """The identity of an append."""

    producer: str
    epoch: int
    sequence: int


@dataclass(frozen=True, slots=True)
class Body:
    """What an append says; two bodies are the same when their seeds are."""

    seed: int

    def batches(self) -> list[Batch]:
        """Readings, notes, both, or nothing but positions."""
        seed = self.seed
        batches = []
        if seed % 4 in (0, 2, 3):
            batches.append(Batch("readings", readings(1 + seed % 23, value=float(seed))))
        if seed % 4 in (1, 2):
            batches.append(Batch("notes", notes(*[f"{seed} {n}" for n in range(1 + seed % 3)])))
        return batches if seed % 11 else []


@dataclass(frozen=True, slots=True)
class Entry:
    """An append that the log holds."""

    name: Name
    body: Body
    positions: Mapping[str, bytes | None]
    offset: int

    def frames(self) -> list[tuple[Name, str, pa.RecordBatch]]:
        """What a reader of both streams gets of it."""
        return [(self.name, batch.stream, batch.rows) for batch in self.body.batches()]


@dataclass(slots=True)
class Sent:
    """An append that was handed over."""

    name: Name
    body: Body
    positions: Mapping[str, bytes | None]


@dataclass(slots=True)
class Model:
    """See the module."""

    entries: list[Entry] = field(default_factory=list)
    waiting: list[Sent] = field(default_factory=list)
    """Handed over and not answered, in order."""
    failed: dict[Name, Sent] = field(default_factory=dict)
    """Answered with a failure: not stored, as far as this opening knows."""
    newest: dict[tuple[str, int], int] = field(default_factory=dict)
    """The highest stored sequence of a producer's epoch."""
    positions: dict[str, bytes] = field(default_factory=dict)
    offsets: dict[int, Name] = field(default_factory=dict)
    """Every position that was ever answered or read."""
    conflicts: int = 0

    def stored(self, sent: Sent, offset: int) -> None:
        """The append is in the log, at this position."""
        known = self.offsets.setdefault(offset, sent.name)
        assert known == sent.name, f"position {offset:x} names {known} and {sent.name}"
        assert not self.entries or self.entries[-1].offset < offset
        assert self.newest.get((sent.name.producer, sent.name.epoch), -1) < sent.name.sequence
        self.entries.append(Entry(sent.name, sent.body, sent.positions, offset))
        self.moved(sent)

    def moved(self, sent: Sent) -> None:
        """The append is in the log, wherever."""
        self.newest[sent.name.producer, sent.name.epoch] = sent.name.sequence
        self.failed.pop(sent.name, None)
        self.move(self.positions, sent)

    @staticmethod
    def move(positions: dict[str, bytes], sent: Sent) -> None:
        """Move positions as the append does."""
        for name, value in sent.positions.items():
            if value is None:
                positions.pop(name, None)
            else:
                positions[name] = value

    def refused(self, sent: Sent) -> None:
        """The append failed, and may be sent again."""
        self.failed[sent.name] = sent

    def entry(self, name: Name) -> Entry | None:
        """The stored append of that identity."""
        return next((entry for entry in reversed(self.entries) if entry.name == name), None)

    def expected(
        self, streams: tuple[str, ...], after: int = -1
    ) -> list[tuple[Name, str, pa.RecordBatch, int]]:
        """What a reader of the streams gets behind an offset, with the offset of the append."""
        return [
            (*frame, entry.offset)
            for entry in self.entries
            if entry.offset > after
            for frame in entry.frames()
            if frame[1] in streams
        ]


def same(frame: Frame, name: Name, stream: str, rows: pa.RecordBatch) -> bool:
    """Whether a frame is that part of that append."""
    return (
        frame.stream == stream
        and (frame.epoch, frame.sequence) == (name.epoch, name.sequence)
        and frame.rows.equals(rows)
    )
