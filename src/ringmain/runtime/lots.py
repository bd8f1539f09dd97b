"""Cuts what a source submitted into lots: appends that respect the log's limits.

A lot holds as many submissions as fit, each whole where it can be, so that a submission's positions are
committed with its rows. A submission beyond what one append holds is cut; its positions and its `durable` go
with its last piece, so that a crash in between leads to redelivery and never to loss.

Promises: a lot stays below `GROUP_BYTES_MAX` and each batch below `FRAME_BYTES_MAX`, whatever is submitted:
payloads of dead letters, topics and reasons are cut to stated bounds, an event too large for a frame becomes
a dead letter. Left to others: when to append, and what to do when that fails (`intake.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import pyarrow as pa

from ringmain.log.interface import Batch
from ringmain.model.schemas import DEAD_LETTER, EVENT, MAX_LETTER_PAYLOAD, READING, TIMESTAMP
from ringmain.runtime.contract import Columns, Happening, Letter, Messages, Submission

LOT_BYTES_MAX = 3 * 1024 * 1024
"""Estimated size of a lot; the rest of a group is for catalogue entries, headers and Arrow's own framing."""

FRAME_ROWS_MAX = 40_000
"""Readings in one batch: 22 bytes each, below the frame limit with room for Arrow's framing."""

FRAME_TEXT_BYTES_MAX = 768 * 1024
"""Estimated size of one batch of letters or events."""

EVENT_BYTES_MAX = 700 * 1024
"""Data of one event; a larger one becomes a dead letter."""

TEXT_CHARACTERS_MAX = 4096
"""Characters of a topic, subject or reason that are kept."""

_Item = TypeVar("_Item")

READING_BYTES = 22
_OVERHEAD_BYTES = 64
NO_MESSAGES = Messages()


@dataclass(frozen=True, slots=True)
class BoundLetter:
    """A dead letter cut to its bounds; `payload_bytes` is the size before the cut."""

    topic: str
    payload: bytes
    payload_bytes: int
    reason: str
    time_ns: int

    @property
    def size_bytes(self) -> int:
        """Estimated size in an append."""
        return _text_bytes(self.topic) + len(self.payload) + _text_bytes(self.reason) + _OVERHEAD_BYTES


@dataclass(frozen=True, slots=True)
class Piece:
    """A submission, or a part of one. `durable` and `messages` are set on the last part only."""

    columns: Columns | None
    letters: tuple[BoundLetter, ...]
    happenings: tuple[Happening, ...]
    positions: Mapping[str, bytes | None]
    durable: Callable[[], None] | None
    messages: Messages = NO_MESSAGES

    @property
    def rows(self) -> int:
        """Rows in an append; 1 where there are none, so that a queue of empty pieces is bounded too."""
        readings = len(self.columns.series) if self.columns is not None else 0
        return max(1, readings + len(self.letters) + len(self.happenings))

    @property
    def size_bytes(self) -> int:
        """Estimated size in an append."""
        size = _OVERHEAD_BYTES
        if self.columns is not None:
            size += READING_BYTES * len(self.columns.series)
        for letter in self.letters:
            size += letter.size_bytes
        for happening in self.happenings:
            size += _event_bytes(happening)
        for name, value in self.positions.items():
            size += len(name) + len(value or b"") + _OVERHEAD_BYTES
        return size

    def halves(self) -> tuple[Piece, Piece] | None:
        """Two pieces that together are this one, in order; None when there is nothing left to cut."""
        count = len(self.columns.series) if self.columns is not None else 0
        items = count + len(self.letters) + len(self.happenings)
        if items < 2:
            return None
        middle = items // 2
        letters = max(0, middle - count)
        happenings = max(0, letters - len(self.letters))
        first, rest = None, None
        if self.columns is not None:
            first = _slice(self.columns, 0, middle)
            rest = _slice(self.columns, middle, count) if middle < count else None
        return (
            Piece(first, self.letters[:letters], self.happenings[:happenings], {}, None),
            Piece(
                rest,
                self.letters[letters:],
                self.happenings[happenings:],
                self.positions,
                self.durable,
                self.messages,
            ),
        )


@dataclass(slots=True)
class Lot:
    """Pieces that are appended together."""

    pieces: list[Piece] = field(default_factory=list)
    size_bytes: int = 0

    @property
    def rows(self) -> int:
        """As `Piece.rows`, of all pieces."""
        return sum(piece.rows for piece in self.pieces)

    @property
    def readings(self) -> int:
        """Readings of all pieces."""
        return sum(len(piece.columns.series) for piece in self.pieces if piece.columns is not None)

    def messages(self) -> Messages:
        """Messages of all pieces, and what became of them."""
        if len(self.pieces) == 1:
            return self.pieces[0].messages
        counts = [piece.messages for piece in self.pieces]
        return Messages(
            sum(one.received for one in counts),
            sum(one.accepted for one in counts),
            sum(one.rejected for one in counts),
            sum(one.ignored for one in counts),
            sum(one.dropped for one in counts),
            sum(one.unacknowledged for one in counts),
        )

    def letters(self) -> Iterator[BoundLetter]:
        """Dead letters of all pieces, in order."""
        return (letter for piece in self.pieces for letter in piece.letters)

    def happenings(self) -> Iterator[Happening]:
        """Events of all pieces, in order."""
        return (happening for piece in self.pieces for happening in piece.happenings)

    def positions(self) -> dict[str, bytes | None]:
        """Positions of all pieces; the last value of a name counts."""
        merged: dict[str, bytes | None] = {}
        for piece in self.pieces:
            merged.update(piece.positions)
        return merged

    def batches(self, source: str) -> list[Batch]:
        """The rows of the lot, for the streams `readings`, `deadletters` and `events`."""
        batches = [Batch("readings", rows) for rows in _reading_batches(self.pieces)]
        letters = _runs(self.letters(), lambda letter: letter.size_bytes)
        batches.extend(Batch("deadletters", _letter_batch(source, run)) for run in letters)
        events = _runs(self.happenings(), _event_bytes)
        batches.extend(Batch("events", _event_batch(source, run)) for run in events)
        return batches

    def halves(self) -> tuple[Lot, Lot] | None:
        """Two lots that together are this one, in order; None when there is nothing left to cut."""
        pieces = self.pieces
        if len(pieces) == 1:
            cut = pieces[0].halves()
            if cut is None:
                return None
            return Lot([cut[0]], cut[0].size_bytes), Lot([cut[1]], cut[1].size_bytes)
        middle = len(pieces) // 2
        first, rest = Lot(pieces[:middle]), Lot(pieces[middle:])
        for lot in (first, rest):
            lot.size_bytes = sum(piece.size_bytes for piece in lot.pieces)
        return (first, rest) if pieces else None


def piece_of(submission: Submission) -> Piece:
    """The submission with its texts and payloads cut to their bounds."""
    letters = tuple(_bound(letter) for letter in submission.letters)
    happenings = submission.happenings
    if any(_event_bytes(happening) > EVENT_BYTES_MAX for happening in happenings):
        letters += tuple(_too_large(h) for h in happenings if _event_bytes(h) > EVENT_BYTES_MAX)
        happenings = tuple(h for h in happenings if _event_bytes(h) <= EVENT_BYTES_MAX)
    columns = submission.columns
    if columns is not None and not len(columns.series):
        columns = None
    return Piece(
        columns, letters, happenings, submission.positions, submission.durable, submission.messages()
    )


def lots_of(pieces: Iterable[Piece]) -> list[Lot]:
    """Pack pieces, in order, into as few lots as their limits allow."""
    lots: list[Lot] = []
    for piece in pieces:
        for part in _parts(piece):
            size = part.size_bytes
            if not lots or lots[-1].size_bytes + size > LOT_BYTES_MAX:
                lots.append(Lot())
            lots[-1].pieces.append(part)
            lots[-1].size_bytes += size
    return lots


def _parts(piece: Piece) -> list[Piece]:
    if piece.size_bytes <= LOT_BYTES_MAX:
        return [piece]
    halves = piece.halves()
    if halves is None:
        return [piece]
    return [*_parts(halves[0]), *_parts(halves[1])]


def _reading_batches(pieces: Sequence[Piece]) -> Iterator[pa.RecordBatch]:
    columns = [piece.columns for piece in pieces if piece.columns is not None]
    if not columns:
        return
    if len(columns) == 1:
        whole = columns[0]
    else:
        whole = Columns(
            np.concatenate([c.series for c in columns]),
            np.concatenate([c.time for c in columns]),
            np.concatenate([c.value for c in columns]),
            np.concatenate([c.quality for c in columns]),
        )
    for start in range(0, len(whole.series), FRAME_ROWS_MAX):
        part = _slice(whole, start, start + FRAME_ROWS_MAX)
        yield pa.RecordBatch.from_arrays(
            [
                pa.array(part.series, pa.uint32()),
                pa.array(part.time, pa.int64()).view(TIMESTAMP),
                pa.array(part.value, pa.float64()),
                pa.array(part.quality, pa.uint16()),
            ],
            schema=READING,
        )


def _letter_batch(source: str, letters: Sequence[BoundLetter]) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays(
        [
            pa.array([source] * len(letters), pa.string()),
            pa.array([letter.topic for letter in letters], pa.string()),
            pa.array([letter.payload for letter in letters], pa.binary()),
            pa.array([letter.payload_bytes for letter in letters], pa.int64()),
            pa.array([letter.time_ns for letter in letters], pa.int64()).view(TIMESTAMP),
            pa.array([letter.reason for letter in letters], pa.string()),
        ],
        schema=DEAD_LETTER,
    )


def _event_batch(source: str, happenings: Sequence[Happening]) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays(
        [
            pa.array([_text(happening.id) for happening in happenings], pa.string()),
            pa.array([source] * len(happenings), pa.string()),
            pa.array([_text(happening.type) for happening in happenings], pa.string()),
            pa.array([_text(h.subject) if h.subject is not None else None for h in happenings], pa.string()),
            pa.array([happening.time_ns for happening in happenings], pa.int64()).view(TIMESTAMP),
            pa.array([happening.datacontenttype for happening in happenings], pa.string()),
            pa.array([happening.data for happening in happenings], pa.binary()),
        ],
        schema=EVENT,
    )


def _runs(items: Iterable[_Item], size_bytes: Callable[[_Item], int]) -> Iterator[list[_Item]]:
    """Runs of items of at most `FRAME_TEXT_BYTES_MAX` together."""
    run: list[_Item] = []
    total = 0
    for item in items:
        size = size_bytes(item)
        if run and total + size > FRAME_TEXT_BYTES_MAX:
            yield run
            run, total = [], 0
        run.append(item)
        total += size
    if run:
        yield run


def _slice(columns: Columns, start: int, stop: int) -> Columns:
    return Columns(
        columns.series[start:stop],
        columns.time[start:stop],
        columns.value[start:stop],
        columns.quality[start:stop],
    )


def _bound(letter: Letter) -> BoundLetter:
    payload = bytes(letter.payload[:MAX_LETTER_PAYLOAD])
    size = letter.payload_bytes if letter.payload_bytes is not None else len(letter.payload)
    return BoundLetter(_text(letter.topic), payload, size, _text(letter.reason), letter.arrival_ns)


def _too_large(happening: Happening) -> BoundLetter:
    data = happening.data or b""
    reason = f"event too large: expected at most {EVENT_BYTES_MAX} bytes, found {_event_bytes(happening)}"
    topic = _text(happening.subject or happening.type)
    return BoundLetter(topic, bytes(data[:MAX_LETTER_PAYLOAD]), len(data), reason, happening.time_ns)


def _event_bytes(happening: Happening) -> int:
    return (
        _OVERHEAD_BYTES
        + _text_bytes(happening.id)
        + _text_bytes(happening.type)
        + _text_bytes(happening.subject or "")
        + len(happening.datacontenttype or "")
        + len(happening.data or b"")
    )


def _text_bytes(text: str) -> int:
    """An upper bound of the bytes that the text takes once it is cut."""
    characters = min(len(text), TEXT_CHARACTERS_MAX)
    return characters if text.isascii() else 4 * characters


def _text(text: str) -> str:
    """Text that UTF-8 can hold (a lone surrogate becomes `?`), at most `TEXT_CHARACTERS_MAX` characters."""
    if len(text) > TEXT_CHARACTERS_MAX:
        text = text[: TEXT_CHARACTERS_MAX - 1] + "…"
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
