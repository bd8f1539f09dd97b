"""Snapshots of a flow's state: an accelerator, never the truth.

A snapshot is one file in a directory beside the log. It carries the definition that it belongs to and the
position up to which it has folded, is covered by a CRC, written aside, synced, renamed, and read back. What does
not check out is passed over; without any, the flow folds its input again from the beginning.

    file    magic `RMFLOW03`, CRC-32C u32 of everything behind it, head length u32, head (JSON), parts
    part    what one step remembers under one name: the bytes of an array (little endian; the head has its type), or
            bytes as they are
"""

from __future__ import annotations

import contextlib
import logging
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import msgspec
import numpy as np
from crc32c import crc32c

from ringmain.flows.later import content
from ringmain.flows.step import StepState
from ringmain.log.files import FileSystem, read_file, write_all
from ringmain.log.interface import Position

KEPT = 2
_MAGIC = b"RMFLOW03"
_PREFIX = struct.Struct("<8sII")
_SYNC_BYTES = 8 << 20
_PIECE_BYTES = 1 << 20
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
    dtype: str
    """Empty for bytes."""
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

    def save(self, definition: str, saved: Saved, pause: Callable[[], object] = lambda: None) -> int:
        """Write the state and remove older snapshots but one; the size in bytes. `pause` is called between pieces.

        Raises OSError, ValueError when what was read back is not what was written.
        """
        payload = parts_of(definition, saved)
        size = sum(map(len, payload))
        self._fs.make_directory(self.directory)
        numbers = self._numbers()
        number = numbers[0] + 1 if numbers else 1
        path = self._path(number)
        self._publish(path, payload, pause)
        if not self._is(path, payload):
            self._fs.remove(path)
            raise ValueError(f"{path.name}: what was read back is not what was written")
        for old in numbers[KEPT - 1 :]:
            self._fs.remove(self._path(old))
        return size

    def _publish(self, path: Path, payload: Sequence[memoryview], pause: Callable[[], object]) -> None:
        """Write a file so that either all of it is there after any crash or nothing.

        It is synced piece by piece: much data at once would stand before the sync of somebody's acknowledgement.
        """
        temporary = path.with_name(path.name + ".tmp")
        handle = self._fs.create(temporary)
        try:
            try:
                place = unsynced = 0
                for part in payload:
                    for start in range(0, len(part), _SYNC_BYTES):
                        piece = part[start : start + _SYNC_BYTES]
                        place = write_all(self._fs, handle, [piece], place)
                        unsynced += len(piece)
                        if unsynced >= _SYNC_BYTES:
                            self._fs.fdatasync(handle)
                            unsynced = 0
                            pause()
                self._fs.fdatasync(handle)
            finally:
                self._fs.close(handle)
            self._fs.rename(temporary, path)
        except OSError:
            with contextlib.suppress(OSError):
                self._fs.remove(temporary)
            raise
        self._fs.sync_directory(path.parent)

    def _is(self, path: Path, payload: Sequence[memoryview]) -> bool:
        """Whether a file holds this, looked at piece by piece."""
        handle = self._fs.open_existing(path)
        try:
            if self._fs.size(handle) != sum(map(len, payload)):
                return False
            place = 0
            for part in payload:
                for start in range(0, len(part), _PIECE_BYTES):
                    piece = part[start : start + _PIECE_BYTES]
                    if self._fs.pread(handle, len(piece), place) != piece:
                        return False
                    place += len(piece)
        finally:
            self._fs.close(handle)
        return True

    def load(self, definition: str) -> list[Saved]:
        """The states that check out and belong to the definition, newest first."""
        states = []
        for number in self._numbers():
            path = self._path(number)
            try:
                found = decode(read_file(self._fs, path))
            except (OSError, ValueError, msgspec.MsgspecError) as error:
                _logger.warning("snapshot %s is passed over: %s", path.name, error)
                continue
            if found[0] == definition:
                states.append(found[1])
        return states


def encode(definition: str, saved: Saved) -> bytes:
    """The bytes of a snapshot."""
    return b"".join(parts_of(definition, saved))


def parts_of(definition: str, saved: Saved) -> list[memoryview]:
    """A snapshot in pieces that share the memory of the arrays."""
    parts: list[_Part] = []
    data: list[memoryview] = []
    for number, state in enumerate(saved.states):
        for name, told in state.items():
            part = content(told)
            if isinstance(part, memoryview):
                piece, dtype = part, ""
            else:
                if part.ndim != 1:
                    raise ValueError(
                        f"expected flat arrays in a step's state, found {part.ndim} dimensions: {name}"
                    )
                piece, dtype = np.ascontiguousarray(part).view(np.uint8).data, part.dtype.str
            parts.append(_Part(number, name, dtype, len(piece)))
            data.append(piece)
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
    data.insert(0, memoryview(len(head).to_bytes(4, "little") + head))
    crc = 0
    for piece in data:
        crc = _crc(piece, crc)
    return [memoryview(_MAGIC + crc.to_bytes(4, "little")), *data]


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
        states[part.step][part.name] = (
            np.frombuffer(payload, np.dtype(part.dtype)).copy() if part.dtype else payload
        )
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


def _crc(data: bytes | memoryview, crc: int = 0) -> int:
    view = memoryview(data)
    for start in range(0, len(view), _PIECE_BYTES):
        crc = int(crc32c(view[start : start + _PIECE_BYTES], crc))
    return crc
