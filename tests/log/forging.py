"""A log changed on purpose, at random: bytes that no CRC covers any more, and contents whose CRCs were made right."""

from __future__ import annotations

import random
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
from crc32c import crc32c

from ringmain.log import open_log
from ringmain.log.builtin import CONTROL_ID
from ringmain.log.catalogue import SeriesRegistry
from ringmain.log.codec import IDS_HEADER_BYTES, Codec
from ringmain.log.frames import (
    FRAME,
    GROUP,
    GROUP_HEADER_BYTES,
    SEGMENT_HEADER_BYTES,
    FrameHeader,
    header_body_crc,
    headers_bytes,
)
from ringmain.log.index import Sidecar
from ringmain.log.interface import Batch, StreamKind
from ringmain.log.segments import StoredGroup, walk
from ringmain.model.catalogue import SeriesAttributes
from ringmain.testing import SimulatedDisk
from tests.log.batches import NOTE, notes, readings

LOG = Path("log")
Files = dict[Path, bytes]

_NUMBERS = (0, 1, 2, 3, 5, 63, 64, 99, 5000, 1 << 31, (1 << 63) - 1)
_GROUP_FIELDS = ("lsn", "arrival_ns", "durable_lsn", "flags", "clock_state", "incarnation", "digest")
_FRAME_FIELDS = (
    "stream",
    "rows",
    "catalogue_position",
    "producer",
    "epoch",
    "sequence",
    "time_min_ns",
    "cumulative_rows",
)
_ENTRY_FIELDS = ("offset", "group_at", "body_at", "body_bytes", "rows", "stream", "time_max_ns", "reserved")


def made() -> Files:
    """The files of a log of two openings and several segments, with every kind of frame."""
    disk = SimulatedDisk()
    for opening in range(2):
        with open_log(LOG, fs=disk, segment_bytes=12_000) as log:
            registry = SeriesRegistry(log)
            for number in range(8):
                registry.register("field", f"m/{number}", SeriesAttributes(unit="W", device="m"))
            registry.save()
            log.create_stream("notes", StreamKind.ROW, NOTE)
            claims = [log.claim("one", epoch=opening + 1), log.claim("two", epoch=0), log.claim("n" * 40)]
            for number in range(30):
                claim = claims[number % 3]
                moved = {claim.name: b"%d" % number, f"{claim.name}/x": None if number % 4 else b"x" * 300}
                log.append(
                    [
                        Batch("readings", readings(8 - number % 2, start=number)),
                        Batch("notes", notes("a", None)),
                    ],
                    claim=claim,
                    sequence=100 * opening + number,
                    positions={**moved, f"{claim.name}/all": b""}
                    if number % 5 == 0
                    else moved
                    if number % 2
                    else None,
                )
    return disk.contents()


def disk_of(files: Files) -> SimulatedDisk:
    """A disk with these files."""
    disk = SimulatedDisk()
    for path, raw in files.items():
        disk.make_directory(path.parent)
        handle = disk.create(path)
        disk.pwritev(handle, [raw], 0)
        disk.fdatasync(handle)
        disk.close(handle)
        disk.sync_directory(path.parent)
    return disk


def forge(files: Files, rng: random.Random) -> str:
    """Change something in the files; what it was."""
    segments = sorted(path for path in files if path.suffix == ".seg")
    match rng.randrange(8):
        case 0:
            path = rng.choice(sorted(files))
            return _change(files, path, rng.randrange(max(len(files[path]), 1)), bytes([rng.randrange(256)]))
        case 1:
            path = rng.choice(segments)
            return _change(files, path, rng.randrange(len(files[path])) // 512 * 512, bytes(512))
        case 2:
            return _forge_index(files, rng)
        case 3:
            path, group = _group(files, rng)
            name = rng.choice(_GROUP_FIELDS)
            value = rng.choice((*_NUMBERS, getattr(group.header, name) + rng.choice((-1, 1, 2))))
            header = group.header._replace(**{name: _bounded(GROUP.format, group.header, name, value)})
            _reseal(files, path, replace(group, header=header), group.frames, {})
            return f"{path.name} {group.at} {name} {value}"
        case 4 | 5:
            path, group = _group(files, rng)
            if not group.frames:
                return "nothing"
            number, name = rng.randrange(len(group.frames)), rng.choice(_FRAME_FIELDS)
            frame = group.frames[number]
            value = rng.choice((*_NUMBERS, getattr(frame, name) + rng.choice((-1, 1, 2))))
            frames = list(group.frames)
            frames[number] = frame._replace(**{name: _bounded(FRAME.format, frame, name, value)})
            _reseal(files, path, group, frames, {})
            return f"{path.name} {group.at} frame {number} {name} {value}"
        case _:
            return _forge_record(files, rng)


def with_record_changed(files: Files, old: bytes, new: bytes) -> Files:
    """The files, with the same bytes in place of some in the first control record that has them."""
    changed = dict(files)
    for path in sorted(path for path in files if path.suffix == ".seg"):
        for group in _groups(files, path):
            for number, frame in enumerate(group.frames):
                body = bytes(group.body(number))
                if frame.stream == CONTROL_ID and old in body:
                    _reseal(changed, path, group, group.frames, {number: body.replace(old, new, 1)})
                    return changed
    raise AssertionError(f"no control record has {old!r}")


def _change(files: Files, path: Path, at: int, data: bytes) -> str:
    raw = bytearray(files[path])
    raw[at : at + len(data)] = data[: len(raw) - at]
    files[path] = bytes(raw)
    return f"{path.name} byte {at}"


def _forge_index(files: Files, rng: random.Random) -> str:
    path = rng.choice(sorted(path for path in files if path.suffix == ".idx"))
    sidecar = Sidecar.read(disk_of({path: files[path]}), path, int(path.stem))
    if sidecar is None or not len(sidecar.entries):
        return "nothing"
    entries = sidecar.entries.copy()
    name = rng.choice(_ENTRY_FIELDS)
    entries[name][rng.randrange(len(entries))] ^= np.array(rng.choice((1, 8)), entries.dtype[name])
    entries = entries[: len(entries) - rng.choice((0, 0, 0, 1, 2))]
    end = sidecar.end - rng.choice((0, 0, 0, 8))
    files[path] = b"".join(replace(sidecar, entries=entries, end=end).pack())
    return f"{path.name} {name}"


def _forge_record(files: Files, rng: random.Random) -> str:
    """Change a byte of a control record, its CRC made right: another name, another value, no text, no MessagePack."""
    path, group = _group(files, rng)
    chosen = [number for number, frame in enumerate(group.frames) if frame.stream == CONTROL_ID]
    if not chosen:
        return "nothing"
    number = rng.choice(chosen)
    body = bytearray(group.body(number))
    at = rng.randrange(len(body))
    body[at] = rng.choice((0, 0x80, 0xC0, 0xC4, 0xFF, body[at] ^ 1, (body[at] + 1) % 256))
    _reseal(files, path, group, group.frames, {number: bytes(body)})
    return f"{path.name} {group.at} record {number} byte {at}"


def _group(files: Files, rng: random.Random) -> tuple[Path, StoredGroup]:
    path = rng.choice(sorted(path for path in files if path.suffix == ".seg"))
    groups = _groups(files, path)
    return (path, rng.choice(groups)) if groups else _group(files, rng)


def _groups(files: Files, path: Path) -> list[StoredGroup]:
    disk = disk_of({path: files[path]})
    found = walk(disk, disk.open_existing(path), SEGMENT_HEADER_BYTES, len(files[path]))
    return [one for one in found if isinstance(one, StoredGroup)]


def _bounded(layout: str, header: tuple[int, ...], name: str, value: int) -> int:
    """The value, wrapped to what its field can hold."""
    code = [letter for letter in layout if letter.isalpha()][type(header)._fields.index(name)]  # type: ignore[attr-defined]
    bits = 8 * struct.calcsize(code)
    wrapped = value % (1 << bits)
    return wrapped - (1 << bits) if code.islower() and wrapped >> (bits - 1) else wrapped


def _reseal(
    files: Files, path: Path, group: StoredGroup, frames: list[FrameHeader], bodies: dict[int, bytes]
) -> None:
    """Write a group with other headers and bodies of the same size, and CRCs that fit them."""
    raw = bytearray(files[path])
    GROUP.pack_into(raw, group.at, *group.header)
    body_at = group.at + headers_bytes(group.header)
    for number, frame in enumerate(frames):
        body = bodies.get(number, bytes(raw[body_at : body_at + frame.length]))
        raw[body_at : body_at + frame.length] = body
        ids = 0
        if frame.codec == Codec.IDS_AND_ARROW:
            ids = IDS_HEADER_BYTES + (4 * group.frames[number].rows + 7) // 8 * 8
        sealed = frame._replace(body_crc=header_body_crc(frame, body[ids:]))
        FRAME.pack_into(raw, group.at + GROUP_HEADER_BYTES + FRAME.size * number, *sealed)
        body_at += frame.length
    struct.pack_into("<I", raw, group.at + 12, 0)
    headers = bytes(raw[group.at : group.at + headers_bytes(group.header)])
    struct.pack_into("<I", raw, group.at + 12, crc32c(headers))
    files[path] = bytes(raw)
