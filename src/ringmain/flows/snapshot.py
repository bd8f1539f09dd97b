"""Snapshots of a flow's state: an accelerator, never the truth.

A snapshot is one file in a directory beside the log. It carries the definition that it belongs to and the
position up to which it has folded, is covered by a CRC, written aside, synced, renamed, and read back. What does
not check out is passed over; without any, the flow folds its input again from the beginning.

    file    magic `RMFLOW02`, CRC-32C u32 of everything behind it, head length u32, head (JSON), parts
    part    what one step remembers under one name: an Arrow IPC stream of one column, or bytes as they are
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import msgspec
import numpy as np
import pyarrow as pa
from crc32c import crc32c
from numpy.typing import NDArray

from ringmain.flows.step import StepState
from ringmain.log.files import FileSystem, publish_file, read_file
from ringmain.log.interface import Position

KEPT = 2
_MAGIC = b"RMFLOW02"
_PREFIX = struct.Struct("<8sII")
_CRC_BYTES = 1 << 20
"""At a time, so that other threads of the process wait for no more than this."""
_logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Saved:
    """A flow's state at a position. `states`: those of its steps in order, that of the catalogue's attributes last."""

    position: Position
    now_ns: int
    lead_ns: int
    newest_ns: int
    skipped: tuple[Position, ...]
    """Frames that were passed over, because a step failed on them."""
    instant: tuple[Position, ...]
    states: Sequence[StepState]


class _Part(msgspec.Struct, frozen=True):
    step: int
    name: str
    array: bool
    size_bytes: int


class _Head(msgspec.Struct, frozen=True):
    definition: str
    position: str
    now_ns: int
    lead_ns: int
    newest_ns: int
    skipped: list[str]
    instant: list[str]
    steps: int
    parts: list[_Part]


class Snapshots:
    """The snapshots of one flow."""

    def __init__(self, fs: FileSystem, directory: Path, flow: str) -> None:
        self._fs = fs
        self.directory = directory
        self._prefix = f"flow-{quote(flow, safe='')}-"

    def _numbers(self) -> list[int]:
        """Numbers of the snapshots that are there, newest first."""
        names = self._fs.list_directory(self.directory)
        numbers = [
            name[len(self._prefix) : -len(".snapshot")]
            for name in names
            if name.startswith(self._prefix) and name.endswith(".snapshot")
        ]
        return sorted((int(number) for number in numbers if number.isdigit()), reverse=True)

    def _path(self, number: int) -> Path:
        return self.directory / f"{self._prefix}{number:012d}.snapshot"

    def save(self, definition: str, saved: Saved) -> int:
        """Write the state and remove older snapshots but one; the size in bytes.

        Raises OSError, ValueError when what was read back is not what was written.
        """
        payload = encode(definition, saved)
        self._fs.make_directory(self.directory)
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

    def load(self, definition: str) -> list[Saved]:
        """The states that check out and belong to the definition, newest first."""
        states = []
        for number in self._numbers():
            path = self._path(number)
            try:
                found = decode(read_file(self._fs, path))
            except (OSError, ValueError, msgspec.MsgspecError, pa.ArrowException) as error:
                _logger.warning("snapshot %s is passed over: %s", path.name, error)
                continue
            if found[0] == definition:
                states.append(found[1])
        return states


def encode(definition: str, saved: Saved) -> bytes:
    """The bytes of a snapshot."""
    parts: list[_Part] = []
    data: list[bytes] = []
    for number, state in enumerate(saved.states):
        for name, part in state.items():
            payload = part if isinstance(part, bytes) else _ipc(part)
            parts.append(_Part(number, name, not isinstance(part, bytes), len(payload)))
            data.append(payload)
    head = msgspec.json.encode(
        _Head(
            definition,
            str(saved.position),
            saved.now_ns,
            saved.lead_ns,
            saved.newest_ns,
            [str(position) for position in saved.skipped],
            [str(position) for position in saved.instant],
            len(saved.states),
            parts,
        )
    )
    rest = b"".join([len(head).to_bytes(4, "little"), head, *data])
    return _MAGIC + _crc(rest).to_bytes(4, "little") + rest


def decode(data: bytes) -> tuple[str, Saved]:
    """Definition and state of a snapshot. Raises ValueError or an error of the decoders for anything else."""
    if len(data) < _PREFIX.size:
        raise ValueError(f"expected at least {_PREFIX.size} bytes, found {len(data)}")
    magic, crc, head_bytes = _PREFIX.unpack_from(data)
    version = magic[6:]
    if magic[:6] == _MAGIC[:6] and version.isdigit() and version != _MAGIC[6:]:
        raise ValueError(
            f"it has format version {int(version)}, this Ringmain reads version {int(_MAGIC[6:])}: "
            "the flow folds its input again"
        )
    if magic != _MAGIC:
        raise ValueError(f"expected a flow snapshot, found magic {magic!r}")
    if _crc(memoryview(data)[12:]) != crc:
        raise ValueError("its CRC is wrong: it is damaged")
    end = _PREFIX.size + head_bytes
    head = msgspec.json.decode(data[_PREFIX.size : end], type=_Head)
    states: list[StepState] = [{} for _ in range(head.steps)]
    for part in head.parts:
        payload = data[end : end + part.size_bytes]
        states[part.step][part.name] = _array(payload) if part.array else payload
        end += part.size_bytes
    return head.definition, Saved(
        Position.parse(head.position),
        head.now_ns,
        head.lead_ns,
        head.newest_ns,
        tuple(map(Position.parse, head.skipped)),
        tuple(map(Position.parse, head.instant)),
        states,
    )


def _crc(data: bytes | memoryview) -> int:
    crc = 0
    view = memoryview(data)
    for start in range(0, len(view), _CRC_BYTES):
        crc = int(crc32c(view[start : start + _CRC_BYTES], crc))
    return crc


def _ipc(values: NDArray[np.generic]) -> bytes:
    if values.ndim != 1:
        raise ValueError(f"expected flat arrays in a step's state, found {values.ndim} dimensions")
    column = pa.array(values.view(np.uint8) if values.dtype == np.bool_ else values)
    field = pa.field("values", column.type, metadata={"dtype": values.dtype.name})
    sink = pa.BufferOutputStream()
    schema = pa.schema([field])
    with pa.ipc.new_stream(sink, schema) as writer:
        writer.write_batch(pa.RecordBatch.from_arrays([column], schema=schema))
    data: bytes = sink.getvalue().to_pybytes()
    return data


def _array(data: bytes) -> NDArray[np.generic]:
    batch = pa.ipc.open_stream(pa.py_buffer(data)).read_next_batch()
    dtype = np.dtype(batch.schema.field(0).metadata[b"dtype"].decode())
    values: NDArray[np.generic] = np.array(batch.column(0).to_numpy())
    return values.view(np.bool_) if dtype == np.bool_ else values
