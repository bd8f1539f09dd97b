"""What a user's function may remember between two calls, and its form in a snapshot.

A state is a dict of text keys. In it: None, true or false, whole numbers of 64 bits, floats, texts, bytes, lists, dicts
(keys: text or whole numbers), NumPy arrays of numbers or booleans, Arrow arrays and record batches. These come back from
a snapshot as they were, so a function gives the same after a restart. Whatever else (a tuple, a set, an object) is
refused, with its place.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

STATE_BYTES_MAX = 64 * 1024 * 1024
"""Bytes of a function's state, as stored."""
_DEPTH_MAX = 32
_ARRAY, _ARROW, _BATCH = 1, 2, 3
_FEW = 32
_PLAIN = frozenset((type(None), bool, float, str, bytes))
_KEYS = frozenset((str, int))
_NUMBERS = "biufMm"
"""Kinds of NumPy's types."""


class UserStateError(ValueError):
    """A state cannot be kept; the message says where in it and why."""


def encode_state(state: dict[str, Any]) -> bytes:
    """The state as bytes. Raises UserStateError."""
    problem = problem_of(state)
    if problem is not None:
        raise UserStateError(problem)
    try:
        stored = _ENCODER.encode(state)
    except (UnicodeEncodeError, OverflowError, RecursionError, ValueError) as error:
        raise UserStateError(f"state: cannot be kept: {error}") from None
    if len(stored) > STATE_BYTES_MAX:
        raise UserStateError(
            f"state: expected at most {STATE_BYTES_MAX >> 20} MiB, found {len(stored) / 2**20:.0f} MiB: "
            "remember less for each series, or forget old ones"
        )
    return stored


def decode_state(stored: bytes) -> dict[str, Any]:
    """What `encode_state` took."""
    state: dict[str, Any] = _DECODER.decode(stored)
    return state


def entries_of(state: dict[str, Any]) -> int:
    """About how many entries it has: its own, and those of dicts and lists in it."""
    entries = len(state)
    for value in state.values():
        kind = type(value)
        if kind is dict or kind is list:
            entries += len(value)
    return entries


def is_plain(state: Any) -> bool:
    """Whether a glance tells that it can be kept: few entries, none of which has entries of its own."""
    if type(state) is not dict or len(state) > _FEW:
        return False
    for key, value in state.items():
        kind = type(value)
        if kind is np.ndarray:
            kept = value.dtype.kind in _NUMBERS
        elif kind is int:
            kept = -(2**63) <= value < 2**63
        else:
            kept = kind in _PLAIN
        if not kept or type(key) is not str:
            return False
    return True


def problem_of(state: Any) -> str | None:
    """What in a state cannot be kept; None: nothing."""
    if type(state) is not dict:
        return f"state: expected a dict, found {type(state).__name__}"
    return _problem(state, "state", 0)


def _problem(value: Any, place: str, depth: int) -> str | None:
    kind = type(value)
    if kind in _PLAIN:
        return None
    if kind is int:
        return (
            None
            if -(2**63) <= value < 2**63
            else f"{place}: expected a whole number of 64 bits, found {value}"
        )
    if depth > _DEPTH_MAX:
        return f"{place}: expected at most {_DEPTH_MAX} levels, found more (does it hold itself?)"
    if kind is dict:
        for key, inner in value.items():
            if type(key) not in _KEYS:
                return f"{place}: expected keys that are text or whole numbers, found {key!r}"
            kind = type(inner)
            if kind in _PLAIN or (kind is np.ndarray and inner.dtype.kind in _NUMBERS):
                continue
            if found := _problem(inner, f"{place}[{key!r}]", depth + 1):
                return found
        return None
    if kind is list:
        for index, inner in enumerate(value):
            if type(inner) not in _PLAIN and (found := _problem(inner, f"{place}[{index}]", depth + 1)):
                return found
        return None
    if kind is np.ndarray:
        if value.dtype.kind in _NUMBERS:
            return None
        return f"{place}: expected an array of numbers, found one of {value.dtype}"
    if isinstance(value, pa.Array | pa.RecordBatch):
        return None
    hint = {
        "tuple": ": use a list",
        "set": ": use a dict or a sorted list, its order differs from run to run",
        "frozenset": ": use a sorted list",
        "datetime": ": keep whole nanoseconds",
        "Timestamp": ": keep whole nanoseconds",
        "ChunkedArray": ": use combine_chunks()",
        "Table": ": use combine_chunks().to_batches()[0]",
    }.get(kind.__name__, ": use float(...) or int(...)" if isinstance(value, np.generic) else "")
    return (
        f"{place}: expected plain data (None, bool, int, float, str, bytes, list, dict) or an array of NumPy or Arrow, "
        f"found {kind.__name__}{hint}"
    )


def _encoded(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        # a zero-dimensional array is not an ordinary one; its shape travels too
        head = msgspec.msgpack.encode((value.dtype.str, list(value.shape)))
        body = np.ascontiguousarray(value).tobytes()
        return msgspec.msgpack.Ext(_ARRAY, len(head).to_bytes(4, "little") + head + body)
    if isinstance(value, pa.RecordBatch):
        return msgspec.msgpack.Ext(_BATCH, _ipc(value))
    if isinstance(value, pa.Array):
        return msgspec.msgpack.Ext(_ARROW, _ipc(pa.RecordBatch.from_arrays([value], names=["values"])))
    raise UserStateError(f"state: cannot be kept: {type(value).__name__}")


def _decoded(code: int, data: memoryview) -> Any:
    if code == _ARRAY:
        size = int.from_bytes(data[:4], "little")
        dtype, shape = msgspec.msgpack.decode(data[4 : 4 + size])
        return np.frombuffer(bytes(data[4 + size :]), np.dtype(dtype)).reshape(shape).copy()
    batch = pa.ipc.open_stream(bytes(data)).read_next_batch()
    return batch if code == _BATCH else batch.column(0)


def _ipc(batch: pa.RecordBatch) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue())


_ENCODER = msgspec.msgpack.Encoder(enc_hook=_encoded)
_DECODER = msgspec.msgpack.Decoder(ext_hook=_decoded)
