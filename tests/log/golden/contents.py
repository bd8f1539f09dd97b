"""Everything that a log's directory holds, as JSON has it: what `make.py` writes down and `test_golden.py` compares.

Independent of how the log is read: frames come from a `LogReader`, control records and groups from a walk through
the segments. Bytes are hexadecimal, times are ns UTC, floats as `repr` gives them.
"""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from ringmain.log import open_reader
from ringmain.log.builtin import CONTROL_ID
from ringmain.log.codec import decode_record
from ringmain.log.files import LocalFileSystem
from ringmain.log.frames import SEGMENT_HEADER_BYTES
from ringmain.log.interface import Frame
from ringmain.log.segments import StoredGroup, segment_path, walk


def describe(directory: Path) -> dict[str, Any]:
    """All of it. Reads only."""
    with open_reader(directory) as reader:
        states = reader.streams()
        return {
            "streams": [
                {
                    "name": state.stream.name,
                    "id": state.stream.id,
                    "kind": state.stream.kind.name,
                    "columns": [
                        f"{field.name} {field.type}{'' if field.nullable else ' not null'}"
                        for field in state.stream.schema
                    ],
                    "rows": state.rows,
                    "frames": state.frames,
                    "last": str(state.last),
                    "last_arrival_ns": state.last_arrival_ns,
                }
                for state in states
            ],
            "frames": {
                state.stream.name: [_frame(frame) for frame in reader.read(state.stream.name)]
                for state in states
            },
            "positions": {name: value.hex() for name, value in sorted(reader.positions().items())},
            "catalogue": _rows(pa.Table.from_batches(reader.catalogue().to_batches())),
            "ledger": _rows(reader.ledger()),
            "segments": {
                path.stem: _segment(directory, int(path.stem)) for path in sorted(directory.glob("*.seg"))
            },
        }


def _frame(frame: Frame) -> dict[str, Any]:
    return {
        "position": str(frame.position),
        "arrival_ns": frame.arrival_ns,
        "origin_arrival_ns": frame.origin_arrival_ns,
        "producer": f"{frame.producer:016x}",
        "epoch": frame.epoch,
        "sequence": frame.sequence,
        "time_min_ns": frame.time_min_ns,
        "time_max_ns": frame.time_max_ns,
        "cumulative_rows": frame.cumulative_rows,
        "clock_state": frame.clock_state,
        "rows": _rows(frame.rows),
    }


def _rows(rows: pa.RecordBatch | pa.Table) -> list[dict[str, Any]]:
    columns = {}
    for field, column in zip(rows.schema, rows.columns, strict=True):
        times = pa.types.is_timestamp(field.type)
        columns[field.name] = [
            _plain(value) for value in (column.cast(pa.int64()) if times else column).to_pylist()
        ]
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value


def _segment(directory: Path, number: int) -> dict[str, Any]:
    """Every group of a segment, and the records in its control frames."""
    path = segment_path(directory, number)
    handle = os.open(path, os.O_RDONLY)
    groups = []
    try:
        for found in walk(LocalFileSystem(), handle, SEGMENT_HEADER_BYTES, path.stat().st_size):
            assert isinstance(found, StoredGroup), found
            header = found.header
            records = []
            for place, frame in enumerate(found.frames):
                if frame.stream == CONTROL_ID:
                    record = decode_record(frame, found.body(place))
                    assert record is not None
                    records.append(_plain(msgspec.msgpack.decode(record)))
            groups.append(
                {
                    "at": found.at,
                    "flags": header.flags,
                    "incarnation": f"{header.incarnation:016x}",
                    "lsn": header.lsn,
                    "durable_lsn": header.durable_lsn,
                    "arrival_ns": header.arrival_ns,
                    "wall_ns": header.wall_ns,
                    "clock_state": header.clock_state,
                    "digest": header.digest,
                    "streams": [frame.stream for frame in found.frames],
                    "catalogue_positions": [frame.catalogue_position for frame in found.frames],
                    "records": records,
                }
            )
    finally:
        os.close(handle)
    return {"bytes": path.stat().st_size, "groups": groups}
