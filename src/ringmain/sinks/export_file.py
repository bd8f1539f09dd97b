"""One Parquet file while it is written: row groups of bounded memory, zstd, synced as it grows.

Parquet 2.6, page checksums on; words dictionary-encoded, times by delta, values by byte-stream split (Apache Parquet
format, "Encodings"). Whoever writes much at once delays the log's own syncs on the same disk: so every 8 MiB are
synced, with a pause as long as that took.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ringmain.model.catalogue import Catalogue
from ringmain.runtime.sink import SinkBatch
from ringmain.sinks.export_rows import ExportedShape, Piece, joined, time_range_ns

SYNC_BYTES = 8 << 20
GROUP_ROWS = 524_288
GROUP_BYTES = 32 << 20
_PAUSE_S_MAX = 0.5
_PIECES_MAX = 256


class PacedFile:
    """A new file that is synced as it grows. Raises FileExistsError, OSError."""

    def __init__(self, path: Path, stopping: threading.Event) -> None:
        self._handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        self._stopping = stopping
        self._unsynced = 0
        self._size = 0
        self.closed = False

    def write(self, data: bytes) -> int:
        """Write all of it."""
        view = memoryview(data).cast("B")
        length = len(view)
        while view:
            written = os.write(self._handle, view[:SYNC_BYTES])
            view = view[written:]
            self._size += written
            self._unsynced += written
            if self._unsynced >= SYNC_BYTES:
                began_s = time.monotonic()
                os.fdatasync(self._handle)
                self._unsynced = 0
                self._stopping.wait(min(time.monotonic() - began_s, _PAUSE_S_MAX))
        return length

    def tell(self) -> int:
        """Bytes written."""
        return self._size

    def flush(self) -> None:
        """Nothing is kept back here."""

    def sync(self) -> None:
        """Make it durable."""
        os.fsync(self._handle)
        os.posix_fadvise(self._handle, 0, 0, os.POSIX_FADV_DONTNEED)

    def close(self) -> None:
        """Let go of it. Idempotent."""
        if not self.closed:
            self.closed = True
            os.close(self._handle)

    def readable(self) -> bool:
        """Never."""
        return False

    def writable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """It grows only."""
        return False


class ExportFile:
    """A file of one stream, under a name of its own until it is whole. `rows`, `first`, `last` tell what it has."""

    def __init__(
        self, path: Path, schema: pa.Schema, level: int, catalogue: Catalogue, stopping: threading.Event
    ) -> None:
        self.path = path
        self.rows = 0
        self.first: SinkBatch | None = None
        self.last: SinkBatch | None = None
        self.time_range: tuple[int, int] | None = None
        self._shape = ExportedShape(schema)
        self._catalogue = catalogue
        self._new: list[SinkBatch] = []
        self._pieces: list[Piece] = []
        self._buffered_rows = self._buffered_bytes = 0
        self._out = PacedFile(path, stopping)
        self._writer = pq.ParquetWriter(
            pa.PythonFile(self._out, mode="w"),
            self._shape.schema,
            version="2.6",
            compression="zstd",
            compression_level=level,
            **_encodings(self._shape.schema),
            write_page_checksum=True,
        )

    @property
    def buffered_bytes(self) -> int:
        """Rows in memory that are not in the file yet."""
        return self._buffered_bytes

    @property
    def due(self) -> bool:
        """Whether a row group has come together."""
        return self._buffered_rows >= GROUP_ROWS or self._buffered_bytes >= GROUP_BYTES

    def take(self, batch: SinkBatch) -> None:
        """Take over a batch; `settle_memory` is called before its memory is given back."""
        self.first = self.first or batch
        self.last = batch
        self.rows += batch.rows.num_rows
        self._new.append(batch)
        self._buffered_rows += batch.rows.num_rows
        self._buffered_bytes += batch.rows.nbytes + 8 * batch.rows.num_rows

    def settle_memory(self) -> None:
        """Copy what was taken out of the memory that it was read into."""
        if self._new:
            self._pieces.append(Piece.of(self._new))
            self._new = []
        if len(self._pieces) > _PIECES_MAX:
            self._pieces = [joined(self._pieces)]

    def write_group(self) -> None:
        """Write what is in memory as a row group. Raises OSError."""
        self.settle_memory()
        if not self._pieces:
            return
        table = self._shape.table(self._pieces, self._catalogue)
        if self._shape.time is not None:
            found = time_range_ns(table.column(self._shape.time))
            if found is not None:
                before = self.time_range or found
                self.time_range = (min(found[0], before[0]), max(found[1], before[1]))
        self._writer.write_table(table, row_group_size=max(1, table.num_rows))
        self._pieces = []
        self._buffered_rows = self._buffered_bytes = 0

    def finish(self, metadata: dict[str, str]) -> int:
        """Write what is left with the file's end, durable; its size in bytes. Raises OSError."""
        self.write_group()
        self._writer.add_key_value_metadata(metadata)
        self._writer.close()
        self._out.sync()
        size = self._out.tell()
        self._out.close()
        return size

    def abandon(self) -> None:
        """Remove what there is."""
        with contextlib.suppress(Exception):  # whatever is wrong with half a file does not matter any more
            self._writer.close()
        self._out.close()
        self.path.unlink(missing_ok=True)


def _encodings(schema: pa.Schema) -> dict[str, object]:
    words: list[str] = []
    encodings: dict[str, str] = {}
    ordered: list[str] = []
    for field in schema:
        kind = field.type
        if pa.types.is_timestamp(kind):
            encodings[field.name] = "DELTA_BINARY_PACKED"
        elif pa.types.is_floating(kind):
            encodings[field.name] = "BYTE_STREAM_SPLIT"
        elif not pa.types.is_nested(kind):
            words.append(field.name)
        if pa.types.is_primitive(kind):
            ordered.append(field.name)
    return {
        "use_dictionary": words or False,
        "column_encoding": encodings or None,
        "write_statistics": ordered or False,
    }
