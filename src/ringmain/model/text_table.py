"""Texts with dense codes in little memory: what the series catalogue keeps its keys and attributes in.

A Python dict of a million 40-character keys takes about 180 MB; this table takes about 60: one UTF-8 arena,
one offset, one hash and about two 32-bit slots a text. The arena and the offsets are laid out as Arrow lays
out a string array, so `texts()` copies nothing.

Promises: codes are dense, in order of insertion, and never change. One thread writes; any number of threads
read meanwhile (a reader sees every text whose insertion had returned before its call). Arrays that `texts()`
gave out stay valid and unchanged. Python's randomised string hash is used, so chosen keys cannot degrade it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

MISSING = 0xFFFFFFFF
"""The code of a text that is not in the table, and of an absent text."""

_ARENA_BYTES_MAX = 2**31 - 1


class TextTable:
    """An append-only set of texts. `len()` is the number of texts, codes are 0 to `len() - 1`."""

    def __init__(self) -> None:
        self._count = 0
        self._used_bytes = 0
        self._arena: NDArray[np.uint8] = np.empty(256, np.uint8)
        self._offsets: NDArray[np.int32] = np.zeros(17, np.int32)
        self._hashes: NDArray[np.int64] = np.empty(16, np.int64)
        self._slots: NDArray[np.uint32] = np.zeros(32, np.uint32)
        self._arena_view = _view(self._arena)
        self._offsets_view = _view(self._offsets)
        self._hashes_view = _view(self._hashes)
        self._slots_view = _view(self._slots)
        self._texts: pa.StringArray = pa.array([], pa.string())

    def __len__(self) -> int:
        return self._count

    def find(self, text: str) -> int:
        """The code of `text`, or -1."""
        hashed = hash(text)
        slots = self._slots_view
        mask = len(slots) - 1
        at = hashed & mask
        while marked := slots[at]:
            if self._hashes_view[marked - 1] == hashed:
                offsets = self._offsets_view
                stored = bytes(self._arena_view[offsets[marked - 1] : offsets[marked]])
                if stored == text.encode("utf-8", "surrogatepass"):
                    return marked - 1
            at = (at + 1) & mask
        return -1

    def find_many(self, texts: Sequence[str] | pa.StringArray) -> NDArray[np.uint32]:
        """The codes of `texts` (no nulls among them), `MISSING` for those that are not in the table."""
        if isinstance(texts, pa.Array):
            array, plain = texts, texts.to_pylist()
        else:
            plain = list(texts)
            array = pa.array(plain, pa.string())
        hashes = np.fromiter(map(hash, plain), np.int64, len(plain))
        slots = self._slots
        mask = len(slots) - 1
        at = hashes & mask
        codes = np.full(len(plain), MISSING, np.uint32)
        pending = np.arange(len(plain))
        while pending.size:
            marked = slots[at[pending]]
            taken = marked != 0
            pending, marked = pending[taken], marked[taken]
            hit = self._hashes[marked - 1] == hashes[pending]
            codes[pending[hit]] = marked[hit] - 1
            pending = pending[~hit]
            at[pending] = (at[pending] + 1) & mask
        found = np.flatnonzero(codes != MISSING)
        if found.size:
            same = pc.equal(self.texts().take(pa.array(codes[found])), array.take(pa.array(found)))
            for index in found[~same.to_numpy(zero_copy_only=False)]:  # equal hashes of unequal texts
                code = self.find(plain[index])
                codes[index] = MISSING if code < 0 else code
        return codes

    def insert(self, text: str) -> int:
        """The code of `text`, added when it is new. Raises UnicodeEncodeError for lone surrogates."""
        code = self.find(text)
        if code >= 0:
            return code
        encoded = text.encode()
        code = self._count
        self._reserve(1, len(encoded))
        start = self._used_bytes
        self._arena_view[start : start + len(encoded)] = encoded
        self._used_bytes = start + len(encoded)
        self._offsets_view[code + 1] = self._used_bytes
        hashed = hash(text)
        self._hashes_view[code] = hashed
        self._count = code + 1
        slots = self._slots_view
        mask = len(slots) - 1
        at = hashed & mask
        while slots[at]:
            at = (at + 1) & mask
        slots[at] = code + 1
        return code

    def insert_many(self, texts: pa.StringArray) -> NDArray[np.uint32]:
        """The codes of `texts`, adding what is new; `MISSING` for nulls."""
        encoded = texts.dictionary_encode()
        distinct = encoded.dictionary
        codes = self.find_many(distinct)
        new = np.flatnonzero(codes == MISSING)
        if new.size:
            first = self._count
            self._extend(distinct.take(pa.array(new)))
            codes[new] = np.arange(first, first + new.size, dtype=np.uint32)
        codes = np.append(codes, np.uint32(MISSING))
        picked: NDArray[np.uint32] = codes[encoded.indices.fill_null(len(distinct)).to_numpy()]
        return picked

    def text(self, code: int) -> str:
        """The text of a code. Raises IndexError for a code that was never given."""
        if not 0 <= code < self._count:
            raise IndexError(f"expected a code below {self._count}, found {code}")
        offsets = self._offsets_view
        return str(self._arena_view[offsets[code] : offsets[code + 1]], "utf-8")

    def texts(self) -> pa.StringArray:
        """All texts in code order, without copying."""
        known = self._texts
        count = self._count
        if len(known) != count:
            buffers = [None, pa.py_buffer(self._offsets), pa.py_buffer(self._arena)]
            known = self._texts = pa.StringArray.from_buffers(count, buffers[1], buffers[2])
        return known

    def lengths(self, codes: NDArray[np.uint32]) -> NDArray[np.int64]:
        """Bytes of each code's text in UTF-8; 0 for `MISSING`."""
        sizes = np.append(np.diff(self._offsets[: self._count + 1]), 0).astype(np.int64)
        picked: NDArray[np.int64] = sizes[np.minimum(codes, len(sizes) - 1)]
        return picked

    def _extend(self, texts: pa.StringArray) -> None:
        """Append distinct texts that are all new."""
        plain = texts.to_pylist()
        count, first = len(plain), self._count
        joined = "".join(plain).encode()
        sizes = pc.binary_length(texts).to_numpy()
        self._reserve(count, len(joined))
        start = self._used_bytes
        self._arena_view[start : start + len(joined)] = joined
        self._offsets[first + 1 : first + count + 1] = start + np.cumsum(sizes, dtype=np.int64)
        self._used_bytes = start + len(joined)
        hashes = np.fromiter(map(hash, plain), np.int64, count)
        self._hashes[first : first + count] = hashes
        self._count = first + count
        _place(self._slots, hashes, first)

    def _reserve(self, texts: int, size_bytes: int) -> None:
        """Make room; new arrays are complete before they replace those that readers may still hold."""
        needed_bytes = self._used_bytes + size_bytes
        if needed_bytes > _ARENA_BYTES_MAX:
            raise OverflowError(f"expected at most {_ARENA_BYTES_MAX} bytes of text, found {needed_bytes}")
        if needed_bytes > len(self._arena):
            arena = np.empty(min(max(needed_bytes, 2 * len(self._arena)), _ARENA_BYTES_MAX), np.uint8)
            arena[: self._used_bytes] = self._arena[: self._used_bytes]
            self._arena, self._arena_view = arena, _view(arena)
        count = self._count + texts
        if count > len(self._hashes):
            capacity = max(count, 2 * len(self._hashes))
            offsets = np.zeros(capacity + 1, np.int32)
            offsets[: self._count + 1] = self._offsets[: self._count + 1]
            hashes = np.empty(capacity, np.int64)
            hashes[: self._count] = self._hashes[: self._count]
            self._offsets, self._offsets_view = offsets, _view(offsets)
            self._hashes, self._hashes_view = hashes, _view(hashes)
        if 2 * count > len(self._slots):
            slots = np.zeros(1 << (4 * count - 1).bit_length() >> 1, np.uint32)
            _place(slots, self._hashes[: self._count], 0)
            self._slots, self._slots_view = slots, _view(slots)


def _view(array: NDArray[Any]) -> memoryview:
    """The array for access one element at a time, which is twice as fast as the array itself."""
    return memoryview(array)  # type: ignore[arg-type]


def _place(slots: NDArray[np.uint32], hashes: NDArray[np.int64], first: int) -> None:
    """Put codes `first`, `first + 1` ... of texts with these hashes into free slots (linear probing)."""
    mask = len(slots) - 1
    pending = np.arange(len(hashes))
    at = hashes & mask
    while pending.size:
        where = at[pending]
        free = slots[where] == 0
        slots[where[free]] = (pending[free] + first + 1).astype(np.uint32)
        lost = slots[where] != (pending + first + 1).astype(np.uint32)
        pending = pending[lost]
        at[pending] = (at[pending] + 1) & mask
