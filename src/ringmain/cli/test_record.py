"""`ringmain test --record FLOW`: a case out of what is in a node's log."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ringmain.cli.log import reader_of
from ringmain.cli.main import Refusal
from ringmain.config import NodeConfig
from ringmain.flows.cases.layout import CASE_FILE, INPUT, SERIES_FILE
from ringmain.flows.cases.tables import csv_text, keyed
from ringmain.flows.graph import plan_flows, reads_of
from ringmain.log import JournalReader
from ringmain.log.interface import Frame, LogError
from ringmain.model.catalogue import Catalogue
from ringmain.model.schemas import READING, TIMESTAMP
from ringmain.model.series_csv import COLUMNS

ROWS_MAX = 5_000_000
"""Rows of one case."""


def record(config: NodeConfig, flow: str, from_ns: int, to_ns: int, directory: Path) -> int:
    """Write the input of a flow that arrived in a time as a case, and return its rows. Raises Refusal, OSError."""
    from zoneinfo import ZoneInfo

    planned = plan_flows(config.flows, config.path.parent, ZoneInfo(config.node.timezone))
    plan = planned.plan(flow)
    if plan is None:
        known = ", ".join(config.flows) or "none"
        raise Refusal(f"{config.path}: no flow {flow!r}; it has {known}")
    if directory.exists() and any(directory.iterdir()):
        raise Refusal(f"{directory}: expected a directory that is empty or not there yet, found files in it")
    reader = reader_of(config.data)
    series: set[int] = set()
    catalogue = reader.catalogue()
    try:
        written = 0
        directory.mkdir(parents=True, exist_ok=True)
        for stream in reads_of(plan):
            rows = _arrived(reader, stream, from_ns, to_ns, ROWS_MAX - written, series)
            name = f"{INPUT}.csv" if stream == "readings" else f"{INPUT}.{stream}.csv"
            if rows is not None:
                (directory / name).write_text(csv_text(rows), encoding="utf-8")
                written += rows.num_rows
    except LogError as error:
        raise Refusal(f"{config.data}: {error}") from None
    finally:
        reader.close()
    if not written:
        raise Refusal(
            f"{config.data}: nothing arrived for flow {flow!r} in that time: look with `ringmain log streams`"
        )
    (directory / SERIES_FILE).write_text(_series_text(catalogue, sorted(series)), encoding="utf-8")
    where = os.path.relpath(config.path.resolve(), directory.resolve())
    (directory / CASE_FILE).write_text(
        f'config = "{_escaped(where)}"\nflows = ["{flow}"]\n', encoding="utf-8"
    )
    return written


def _arrived(
    reader: JournalReader, stream: str, from_ns: int, to_ns: int, rows_max: int, series: set[int]
) -> pa.Table | None:
    """What arrived on a stream, in the form of a case's input; None: nothing. `series`: ids that came are added."""
    pieces: list[pa.RecordBatch] = []
    count = 0
    for frame in _frames(reader, stream, from_ns, to_ns):
        if "series" in frame.rows.schema.names:
            series |= set(pc.unique(frame.rows.column("series")).drop_null().to_pylist())
        rows = _shown(frame, reader.catalogue())
        count += rows.num_rows
        if count > rows_max:
            raise Refusal(f"more than {ROWS_MAX:,} rows arrived in that time: take a shorter one")
        pieces.append(rows)
    return pa.Table.from_batches(pieces) if pieces else None


def _frames(reader: JournalReader, stream: str, from_ns: int, to_ns: int) -> Iterator[Frame]:
    if stream not in [state.stream.name for state in reader.streams()]:
        return
    for frame in reader.read(stream, after=reader.find(stream, from_ns)):
        if frame.arrival_ns >= to_ns:
            return
        if frame.origin_arrival_ns >= from_ns and frame.row_count:
            yield frame


def _shown(frame: Frame, catalogue: Catalogue) -> pa.RecordBatch:
    """A frame's rows as people see them, arrival first; types that a header has to state are stated."""
    rows = keyed(frame.rows, catalogue)
    arrived = pa.array(np.full(rows.num_rows, frame.origin_arrival_ns), pa.int64()).view(TIMESTAMP)
    columns = [
        column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
        for column in rows.columns
    ]
    names = rows.schema.names if frame.rows.schema.equals(READING) else list(_stated(rows.schema))
    return pa.RecordBatch.from_arrays([arrived, *columns], names=["arrived", *names])


def _stated(schema: pa.Schema) -> Sequence[str]:
    words = {pa.string(): "text", pa.float64(): "number", pa.int64(): "integer", pa.bool_(): "bool"}
    return [
        f"{field.name}:{words[field.type]}" if field.name != "series" and field.type in words else field.name
        for field in schema
    ]


def _series_text(catalogue: Catalogue, series: Sequence[int]) -> str:
    """What the log's catalogue says of series, as the file of a catalogue."""
    rows = []
    for one in series:
        about = catalogue.attributes_of(one)
        told = {name: getattr(about, name) for name in COLUMNS}
        rows.append({"key": catalogue.key_of(one), **told, **about.external})
    names = ["key", *COLUMNS]
    names += sorted({name for row in rows for name in row} - set(names))
    return csv_text(
        pa.table({name: pa.array([row.get(name) for row in rows], pa.string()) for name in names})
    )


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
