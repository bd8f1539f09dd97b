"""Snapshots of a flow's state: an accelerator, never the truth.

A snapshot is one file in a directory beside the log. It carries the definition that it belongs to and the
position up to which it has folded, is covered by a CRC, written aside, synced, renamed, and read back. What does
not check out is passed over; without any, the flow folds its input again from the beginning.

    file    magic `RMFLOW01`, CRC-32C u32 of everything behind it, head length u32, head (JSON), Arrow IPC streams
"""

from __future__ import annotations

import logging
import struct
from pathlib import Path
from urllib.parse import quote

import msgspec
import numpy as np
import pyarrow as pa
from crc32c import crc32c
from numpy.typing import NDArray

from ringmain.flows.settings import WindowSettings
from ringmain.flows.state import NEVER, WindowState, grown
from ringmain.flows.totals import Ints
from ringmain.log.files import FileSystem, publish_file, read_file
from ringmain.log.interface import Position

KEPT = 2
_MAGIC = b"RMFLOW01"
_PREFIX = struct.Struct("<8sII")
_SLOT_COLUMNS = ("window", "dirty", "count", "sum", "min", "max", "first", "last")
_logger = logging.getLogger(__name__)


class _Part(msgspec.Struct, frozen=True):
    name: str
    size_bytes: int


class _Head(msgspec.Struct, frozen=True):
    definition: str
    position: str
    now_ns: int
    revised_at_ns: int
    lead_ns: int
    devices: int
    slots: int
    parts: list[_Part]


class Snapshots:
    """The snapshots of one flow."""

    def __init__(self, fs: FileSystem, directory: Path, flow: str) -> None:
        self._fs = fs
        self._directory = directory
        self._prefix = f"flow-{quote(flow, safe='')}-"

    def _numbers(self) -> list[int]:
        """Numbers of the snapshots that are there, newest first."""
        names = self._fs.list_directory(self._directory)
        numbers = [
            name[len(self._prefix) : -len(".snapshot")]
            for name in names
            if name.startswith(self._prefix) and name.endswith(".snapshot")
        ]
        return sorted((int(number) for number in numbers if number.isdigit()), reverse=True)

    def _path(self, number: int) -> Path:
        return self._directory / f"{self._prefix}{number:012d}.snapshot"

    def save(self, definition: str, state: WindowState) -> int:
        """Write the state and remove older snapshots but one; the size in bytes.

        Raises OSError, ValueError when what was read back is not what was written.
        """
        payload = encode(definition, state)
        self._fs.make_directory(self._directory)
        numbers = self._numbers()
        number = numbers[0] + 1 if numbers else 1
        path = self._path(number)
        publish_file(self._fs, path, [payload])
        if read_file(self._fs, path) != payload:
            self._fs.remove(path)
            raise ValueError(f"{path.name}: what was read back is not what was written")
        for old in numbers[KEPT - 1 :]:
            self._fs.remove(self._path(old))
        return len(payload)

    def load(self, definition: str, settings: WindowSettings) -> list[WindowState]:
        """The states that check out and belong to the definition, newest first."""
        states = []
        for number in self._numbers():
            path = self._path(number)
            try:
                found = decode(read_file(self._fs, path), settings)
            except (OSError, ValueError, msgspec.MsgspecError, pa.ArrowException) as error:
                _logger.warning("snapshot %s is passed over: %s", path.name, error)
                continue
            if found[0] == definition:
                states.append(found[1])
        return states


def encode(definition: str, state: WindowState) -> bytes:
    """The bytes of a snapshot."""
    if state.position is None:
        raise ValueError("expected the state behind a frame, found the state before the first")
    used = np.flatnonzero(state.device >= 0)
    size = int(used[-1]) + 1 if len(used) else 0
    devices = min(state.devices, len(state.watermark))
    names: list[str | None] = [None] * state.devices
    for name, number in state.device_names.items():
        names[number] = name
    parts = {
        "series": _ipc(
            device=state.device[:size],
            newest=state.newest[:size],
            newest_value=state.newest_value[:size],
            closed=state.closed[:size],
        ),
        "devices": _ipc(
            watermark=state.watermark[:devices],
            seen=state.seen[:devices],
            closes_at=state.closes_at[:devices],
        ),
        "names": _ipc(name=pa.array(names, pa.string())),
        "announced": _ipc(device=state.announced),
        "due": _ipc(device=np.concatenate([np.empty(0, np.int64), *state.due])),
    }
    for name, keys in (("deferred", state.deferred), ("late", state.late)):
        series, window = keys.arrays()
        parts[name] = _ipc(series=series, window=window)
    for number, slot in enumerate(state.slots):
        held = np.flatnonzero(slot.window != NEVER)
        columns = {name: getattr(slot, name)[held] for name in _SLOT_COLUMNS}
        parts[f"slot{number}"] = _ipc(series=held, **columns)
    head = msgspec.json.encode(
        _Head(
            definition,
            str(state.position),
            state.now,
            state.revised_at,
            state.lead_ns,
            state.devices,
            len(state.slots),
            [_Part(name, len(data)) for name, data in parts.items()],
        )
    )
    rest = b"".join([len(head).to_bytes(4, "little"), head, *parts.values()])
    return _MAGIC + int(crc32c(rest)).to_bytes(4, "little") + rest


def decode(data: bytes, settings: WindowSettings) -> tuple[str, WindowState]:
    """Definition and state of a snapshot. Raises ValueError or an error of the decoders for anything else."""
    if len(data) < _PREFIX.size:
        raise ValueError(f"expected at least {_PREFIX.size} bytes, found {len(data)}")
    magic, crc, head_bytes = _PREFIX.unpack_from(data)
    newer = magic[6:]
    if magic[:6] == _MAGIC[:6] and newer.isdigit() and newer > _MAGIC[6:]:
        raise ValueError(
            f"it has format version {int(newer)}, this Ringmain reads up to version {int(_MAGIC[6:])}: "
            "the flow folds its input again"
        )
    if magic != _MAGIC:
        raise ValueError(f"expected a flow snapshot, found magic {magic!r}")
    if crc32c(memoryview(data)[12:]) != crc:
        raise ValueError("its CRC is wrong: it is damaged")
    end = _PREFIX.size + head_bytes
    head = msgspec.json.decode(data[_PREFIX.size : end], type=_Head)
    tables: dict[str, pa.Table] = {}
    for part in head.parts:
        buffer = pa.py_buffer(memoryview(data)[end : end + part.size_bytes])
        tables[part.name] = pa.ipc.open_stream(buffer).read_all()
        end += part.size_bytes
    state = WindowState.new(settings)
    if head.slots != len(state.slots):
        return head.definition, state
    state.now, state.revised_at, state.lead_ns = head.now_ns, head.revised_at_ns, head.lead_ns
    state.position = Position.parse(head.position)
    state.devices = head.devices
    series = tables["series"]
    size = len(series)
    state.reserve_series(size)
    for name in ("device", "newest", "newest_value", "closed"):
        getattr(state, name)[:size] = _numbers(series, name)
    devices = tables["devices"]
    state.reserve_devices(max(head.devices, len(devices)))
    for name in ("watermark", "seen", "closes_at"):
        getattr(state, name)[: len(devices)] = _numbers(devices, name)
    names = tables["names"].column("name").to_pylist()
    state.device_names = {name: number for number, name in enumerate(names) if name is not None}
    announced = _numbers(tables["announced"], "device")
    state.announced = grown(announced.astype(np.int32), len(announced), -1)
    due: Ints = _numbers(tables["due"], "device").astype(np.int64)
    state.due = [due] if len(due) else []
    for name, keys in (("deferred", state.deferred), ("late", state.late)):
        table = tables[name]
        series_of, window_of = (_numbers(table, column).astype(np.int64) for column in ("series", "window"))
        keys.replace(series_of, window_of)
    for number, slot in enumerate(state.slots):
        table = tables[f"slot{number}"]
        held = _numbers(table, "series")
        for name in _SLOT_COLUMNS:
            getattr(slot, name)[held] = _numbers(table, name)
    return head.definition, state


def _ipc(**columns: NDArray[np.generic] | pa.Array) -> bytes:
    table = pa.table({name: pa.array(column) for name, column in columns.items()})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def _numbers(table: pa.Table, name: str) -> NDArray[np.generic]:
    numbers: NDArray[np.generic] = table.column(name).to_numpy()
    return numbers
