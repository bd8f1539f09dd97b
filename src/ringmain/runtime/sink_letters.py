"""Rows that a sink's receiver will never take, as dead letters: what they were, where they lie in the log, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import msgspec
import numpy as np
import pyarrow as pa

from ringmain.model.catalogue import Catalogue
from ringmain.model.schemas import DEAD_LETTER, MAX_LETTER_PAYLOAD, TIMESTAMP
from ringmain.runtime.account import reason_class
from ringmain.runtime.sink import BatchId, Rejected, RejectedRows, SinkBatch

LETTERS_MAX = 64
"""Letters of one batch; the rows of what is left share the last one."""
REASON_CHARACTERS_MAX = 1_000
DEAD_LETTERS = "deadletters"
_encoder = msgspec.json.Encoder(enc_hook=str)


class Letters:
    """Letters of one sink that wait for their append."""

    def __init__(self, source: str, catalogue: Catalogue) -> None:
        """`source`: the name of the sink's claim, which letters and accounts have."""
        self._source = source
        self._catalogue = catalogue
        self._columns: tuple[list[str], list[bytes], list[int], list[int], list[str]] = ([], [], [], [], [])
        self.reasons: Counter[str] = Counter()
        """Letters by `reason_class`."""
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._columns[0])

    def add(self, batch: SinkBatch, rejected: Rejected, now_ns: int) -> Counter[str]:
        """Letters for rejected rows, those of dead letters excepted, which would beget more; rows by `reason_class`."""
        ranges = _checked(batch, rejected.rows)
        rows: Counter[str] = Counter()
        for one in ranges:
            rows[reason_class(one.reason)] += one.rows
        if batch.id.stream == DEAD_LETTERS:
            return rows
        if len(ranges) > LETTERS_MAX:
            rest = ranges[LETTERS_MAX - 1 :]
            joined = RejectedRows(
                rest[0].first,
                rest[-1].first + rest[-1].rows - rest[0].first,
                f"{rest[0].reason} ({sum(one.rows for one in rest)} of these rows, for this or another reason)",
            )
            ranges = [*ranges[: LETTERS_MAX - 1], joined]
        topics, payloads, sizes, times, reasons = self._columns
        for one in ranges:
            reason = one.reason[:REASON_CHARACTERS_MAX].encode("utf-8", "replace").decode()
            chosen = batch.rows.slice(one.first, one.rows)
            payload = first_rows(chosen, self._catalogue, MAX_LETTER_PAYLOAD)
            topics.append(
                str(BatchId(batch.id.stream, batch.id.position, batch.id.first_row + one.first, one.rows))
            )
            payloads.append(payload)
            sizes.append(max(len(payload), chosen.nbytes))
            times.append(now_ns)
            reasons.append(reason)
            self.reasons[reason_class(reason)] += 1
            self.size_bytes += len(payload) + len(reason) * 2 + 200
        return rows

    def batch(self) -> pa.RecordBatch:
        """All letters, for stream `deadletters`."""
        topics, payloads, sizes, times, reasons = self._columns
        return pa.RecordBatch.from_arrays(
            [
                pa.array([self._source] * len(topics), pa.string()),
                pa.array(topics, pa.string()),
                pa.array(payloads, pa.binary()),
                pa.array(sizes, pa.int64()),
                pa.array(times, pa.int64()).view(TIMESTAMP),
                pa.array(reasons, pa.string()),
            ],
            schema=DEAD_LETTER,
        )

    def clear(self) -> None:
        """They are durable."""
        for column in self._columns:
            column.clear()
        self.reasons.clear()
        self.size_bytes = 0


def first_rows(rows: pa.RecordBatch, catalogue: Catalogue, bytes_max: int) -> bytes:
    """The first rows as JSON, one object a line, as many as fit; series as keys, times as text."""
    lines: list[bytes] = []
    size = 0
    for start in range(rows.num_rows):
        line = _encoder.encode(_readable(rows.slice(start, 1), catalogue))
        if size + len(line) > bytes_max:
            return b"\n".join(lines) if lines else line[:bytes_max]
        lines.append(line)
        size += len(line) + 1
    return b"\n".join(lines)


def _readable(row: pa.RecordBatch, catalogue: Catalogue) -> dict[str, object]:
    shown: dict[str, object] = {}
    for field, column in zip(row.schema, row.columns, strict=True):
        if field.name == "series" and field.type == pa.uint32():
            number = int(column[0].as_py())
            shown["series"] = catalogue.key_array(np.array([number], np.uint32))[0].as_py() or number
        elif pa.types.is_temporal(field.type):
            shown[field.name] = column.cast(pa.string())[0].as_py()
        elif pa.types.is_binary(field.type):
            value = column[0].as_py()
            shown[field.name] = None if value is None else value.decode("utf-8", "replace")
        else:
            try:
                shown[field.name] = column[0].as_py()
            except (ValueError, OverflowError):  # times within it that Python cannot hold
                shown[field.name] = f"a value of type {field.type}"
    return shown


def _checked(batch: SinkBatch, rows: Sequence[RejectedRows]) -> list[RejectedRows]:
    """The ranges in order, neighbours of one reason as one. Raises ValueError where they do not lie within the batch."""
    found: list[RejectedRows] = []
    for one in sorted(rows, key=lambda one: one.first):
        end = found[-1].first + found[-1].rows if found else 0
        if one.first < end or one.rows < 1 or one.first + one.rows > batch.rows.num_rows:
            raise ValueError(
                f"expected rejected rows from {end} to {batch.rows.num_rows - 1} of batch {batch.id}, found "
                f"{one.rows} from {one.first} on"
            )
        if found and one.first == end and one.reason == found[-1].reason:
            found[-1] = replace(found[-1], rows=found[-1].rows + one.rows)
        else:
            found.append(one)
    return found
