"""Text files as blocks of whole lines in UTF-8, in bounded memory, whatever is in the file.

A block begins at an offset of the unpacked file and ends with a line; where it ends follows from its beginning and the
file alone, so that a block read again after a crash is the same. Files may be packed (gzip, zstd: told by their first
bytes), begin with a byte order mark, or have another encoding. Lines that are too long, or that are not text in the
encoding, are taken out and told with their number.
"""

from __future__ import annotations

import codecs
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
import pyarrow as pa

BLOCK_BYTES = 4 << 20
LINE_BYTES_MAX = 256 << 10
"""A longer line is no row."""
KEPT_BYTES = 512
"""Of a line that is told as wrong."""
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_READ_BYTES = 1 << 20
_PIECE_BYTES = 1 << 18


class UnreadableFileError(Exception):
    """The rest of the file cannot be read; the message says why."""


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that gives no row: its number from 1 on, its first bytes, its length, and what was expected."""

    number: int
    text: bytes
    length_bytes: int
    reason: str


@dataclass(slots=True)
class Block:
    """Whole lines in UTF-8. `offset` and `line` are those of its first line; `end_offset`, `end_line` what lies behind."""

    data: bytes
    offset: int
    line: int
    end_offset: int
    end_line: int
    bad: list[BadLine] = field(default_factory=list)
    numbers: list[int] | None = None
    """The number of each line in `data`; None: without a gap from `line` on."""

    def lines(self) -> list[bytes]:
        """The lines, without their ends."""
        lines = self.data.split(b"\n")
        if lines and not lines[-1]:
            lines.pop()
        return [line.removesuffix(b"\r") for line in lines]

    def number_of(self, place: int) -> int:
        """The number in the file of a line of `data`."""
        return self.line + place if self.numbers is None else self.numbers[place]


class _Stream(Protocol):
    """Unpacked bytes."""

    def read(self, size: int) -> bytes: ...


class _Gzip:
    """Unpacks gzip members one after the other (RFC 1952), with all that there is of a cut file."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._unpacker = zlib.decompressobj(31)
        self._left = b""
        self._begun = False

    def read(self, size: int) -> bytes:
        """At most `size` bytes; none at the end. Raises UnreadableFileError."""
        while True:
            if not self._left:
                self._left = self._file.read(_READ_BYTES)
                if not self._left:
                    if self._begun and not self._unpacker.eof:
                        pending = self._unpacker.decompress(b"", size)
                        if pending:
                            return pending
                    if self._begun and not self._unpacker.eof:
                        raise UnreadableFileError(
                            "expected the rest of the gzip data, found the end of the file"
                        )
                    return b""
            if self._unpacker.eof:
                self._left = self._left.lstrip(b"\0")  # padding
                if not self._left:
                    continue
                self._unpacker = zlib.decompressobj(31)
            self._begun = True
            try:
                data = self._unpacker.decompress(self._left, size)
            except zlib.error as error:
                raise UnreadableFileError(f"expected gzip data, found: {error}") from None
            self._left = self._unpacker.unconsumed_tail or self._unpacker.unused_data
            if data:
                return data


class _Zstd:
    def __init__(self, path: Path) -> None:
        self._stream = pa.CompressedInputStream(pa.OSFile(str(path)), "zstd")

    def read(self, size: int) -> bytes:
        """As `_Gzip.read`."""
        try:
            return bytes(self._stream.read(size))
        except (OSError, pa.ArrowException) as error:
            raise UnreadableFileError(f"expected zstd data, found: {error}") from None


class _Decoded:
    """Another encoding, of more than one byte a character, as UTF-8."""

    def __init__(self, stream: _Stream, encoding: str) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder(encoding)("replace")

    def read(self, size: int) -> bytes:
        """As `_Gzip.read`, but for a few bytes more."""
        while True:
            raw = self._stream.read(size)
            text = self._decoder.decode(raw, not raw)
            if text or not raw:
                return text.encode("utf-8", "replace")


class TextFile:
    """A text file from its beginning, or from an offset that a block of it gave. Raises OSError, UnreadableFileError."""

    def __init__(self, path: Path, encoding: str, offset: int = 0, line: int = 1) -> None:
        self._file = path.open("rb")
        head = self._file.read(4)
        self._file.seek(0)
        stream: _Stream = self._file
        packed = True
        if head[:2] == b"\x1f\x8b":
            stream = _Gzip(self._file)
        elif head == b"\x28\xb5\x2f\xfd":
            stream = _Zstd(path)
        else:
            packed = False
        first = b""
        while len(first) < 4 and (more := stream.read(4 - len(first))):
            first += more
        mark, told = next(((mark, name) for mark, name in _MARKS if first.startswith(mark)), (b"", encoding))
        first = first[len(mark) :]
        wide = codecs.lookup(told).name.startswith(("utf-16", "utf-32"))
        self._encoding = "utf-8" if wide else codecs.lookup(told).name
        self._left = b""
        self._stream: _Stream = _Prefixed(first, stream)
        self._offset, self._line = 0, 1
        if wide:
            self._stream = _Decoded(self._stream, told)
        elif not packed and offset:
            self._file.seek(len(mark) + offset)
            self._stream, self._offset = self._file, offset
        while self._offset < offset:
            passed = self._stream.read(min(_READ_BYTES, offset - self._offset))
            if not passed:
                raise UnreadableFileError(f"expected {offset} bytes of text, found {self._offset}")
            self._left = passed[offset - self._offset :]
            self._offset += len(passed) - len(self._left)
        self._line = line

    def close(self) -> None:
        """Let go of it."""
        self._file.close()

    def blocks(self, block_bytes: int = BLOCK_BYTES) -> Iterator[Block]:
        """The blocks from here on. An error comes behind what could be read before it."""
        error: UnreadableFileError | None = None
        ended = False
        while not ended or self._left:
            pieces, size = [self._left], len(self._left)
            while size < block_bytes and not ended:
                try:
                    piece = self._stream.read(block_bytes - size)
                except UnreadableFileError as found:
                    error, piece = found, b""
                ended = not piece
                pieces.append(piece)
                size += len(piece)
            # as much as lies within `block_bytes`, so that a block does not depend on what was read with it
            if size == block_bytes and len(pieces) == 2 and (end := pieces[1].rfind(b"\n") + 1):
                self._left = pieces[1][end:]
                yield self._block(b"".join((pieces[0], memoryview(pieces[1])[:end])))
                continue
            raw = b"".join(pieces)
            if not raw:
                break
            end = len(raw) if ended and len(raw) < block_bytes else raw.rfind(b"\n", 0, block_bytes) + 1
            if end == 0:
                yield from self._long_line(raw)
                continue
            self._left = raw[end:]
            if error is not None and end == len(raw) and not raw.endswith(b"\n"):
                end = raw.rfind(b"\n") + 1  # a line that was cut
                self._left = b""
                if not end:
                    break
            yield self._block(raw[:end])
        if error is not None:
            raise error

    def offset_of_line(self, number: int) -> int:
        """The offset of a line, or of the end where there are fewer; reads up to there."""
        line, offset = 1, 0
        while line < number and (data := self._stream.read(1 << 16)):
            start = 0
            while line < number and (end := data.find(b"\n", start)) >= 0:
                line, start = line + 1, end + 1
            offset += start if line == number else len(data)
        return offset

    def _block(self, raw: bytes) -> Block:
        ends, suspicious = _looked_at(raw)
        lines = ends + (not raw.endswith(b"\n"))
        block = Block(raw, self._offset, self._line, self._offset + len(raw), self._line + lines)
        self._offset, self._line = block.end_offset, block.end_line
        _clean(block, self._encoding, suspicious or _has_long_line(raw))
        return block

    def _long_line(self, raw: bytes) -> Iterator[Block]:
        """Pass over a line that is longer than a block."""
        kept, length = raw[:KEPT_BYTES], 0
        self._left, piece = b"", raw
        while piece:
            end = piece.find(b"\n")
            if end >= 0:
                length += end + 1
                self._left = piece[end + 1 :]
                break
            length += len(piece)
            piece = self._stream.read(_READ_BYTES)
        block = Block(b"", self._offset, self._line, self._offset + length, self._line + 1, numbers=[])
        block.bad.append(_too_long(self._line, kept, length))
        self._offset, self._line = block.end_offset, block.end_line
        yield block


class _Prefixed:
    """Bytes that were read already, and then the rest."""

    def __init__(self, first: bytes, rest: _Stream) -> None:
        self._first = first
        self._rest = rest

    def read(self, size: int) -> bytes:
        """As of the rest."""
        if self._first:
            data, self._first = self._first[:size], self._first[size:]
            return data
        return self._rest.read(size)


def _looked_at(data: bytes) -> tuple[int, bool]:
    """How many line ends there are, and whether a line may be empty, or hold a NUL or a CR that is not before its end.

    Piece by piece, so that what is compared stays in the processor's cache.
    """
    if data.startswith((b"\n", b"\r\n")):
        return data.count(b"\n"), True
    text = np.frombuffer(data, np.uint8)
    ends, other = np.empty(_PIECE_BYTES + 1, np.bool_), np.empty(_PIECE_BYTES + 1, np.bool_)
    count = controls = 0
    empty = False
    for start in range(0, len(text), _PIECE_BYTES):
        piece = text[start : start + _PIECE_BYTES + 1]  # with the first of the next one
        size = min(len(piece), _PIECE_BYTES)
        here, mark = ends[: len(piece)], other[: len(piece)]
        np.equal(piece, 10, out=here)
        count += int(np.count_nonzero(here[:size]))
        np.less_equal(piece, 13, out=mark)  # NUL, LF, CR, and a few more
        controls += int(np.count_nonzero(mark[:size]))
        empty = empty or bool(np.logical_and(here[1:], here[:-1], out=mark[1:]).any())
    if empty or controls == count:
        return count, empty
    returns = data.count(b"\r")
    suspicious = b"\0" in data or (
        returns > 0
        and (
            returns != data.count(b"\r\n") + data.endswith(b"\r")
            or b"\n\r\n" in data
            or data.endswith(b"\n\r")
            or data == b"\r"
        )
    )
    return count, suspicious


def _clean(block: Block, encoding: str, suspicious: bool) -> None:
    """Have the block in UTF-8, without lines that are no text, too long or empty; all are fine if not suspicious."""
    data = block.data
    if not suspicious:
        try:
            text = data if data.isascii() else data.decode(encoding)
        except UnicodeDecodeError:
            pass
        else:
            block.data = data if isinstance(text, bytes) or encoding == "utf-8" else text.encode()
            return
    kept: list[bytes] = []
    numbers: list[int] = []
    lines = data.split(b"\n")
    if lines and not lines[-1]:
        lines.pop()
    for number, line in enumerate(lines, block.line):
        stripped = line.removesuffix(b"\r")
        if not stripped:
            continue
        if len(stripped) > LINE_BYTES_MAX:
            block.bad.append(_too_long(number, stripped, len(stripped)))
            continue
        try:
            text = stripped.decode(encoding)
        except UnicodeDecodeError as error:
            reason = f"expected text in {encoding}, found byte 0x{stripped[error.start]:02x} at {error.start}"
            block.bad.append(BadLine(number, stripped[:KEPT_BYTES], len(stripped), reason))
            continue
        wrong = next((place for place in map(text.find, "\0\r") if place >= 0), -1)
        if wrong >= 0:
            found = "a NUL" if text[wrong] == "\0" else "CR without LF"
            reason = f"expected text in lines that end with LF or CR LF, found {found} at {wrong}"
            block.bad.append(BadLine(number, stripped[:KEPT_BYTES], len(stripped), reason))
            continue
        kept.append(text.encode())
        numbers.append(number)
    block.data = b"\n".join(kept) + (b"\n" if kept else b"")
    block.numbers = numbers


def _has_long_line(data: bytes) -> bool:
    """Whether a line, its end included, has more than `LINE_BYTES_MAX` bytes; looks at few places only."""
    start = 0
    while len(data) - start > LINE_BYTES_MAX:
        end = data.rfind(b"\n", start, start + LINE_BYTES_MAX) + 1
        if end <= start:
            return True
        start = end
    return False


def _too_long(number: int, text: bytes, length: int) -> BadLine:
    return BadLine(
        number,
        text[:KEPT_BYTES],
        length,
        f"expected a line of at most {LINE_BYTES_MAX} bytes, found {length}",
    )
