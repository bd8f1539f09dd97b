"""The fast ways to read payloads: decoders of structs that are made for a mapping.

They read only what `PayloadReader.examine` would read the same way. Whatever they cannot decode, or what might
mean something else (a member that may occur twice, text that may not be UTF-8), they leave to it by giving None.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from ringmain.sources.mapping_shape import ELEMENTS_MAX, Path, Row, Shape, quality_of
from ringmain.sources.mapping_times import RawTime


class BareReader:
    """Typed reading where the payload is the number, or an array of pairs."""

    def __init__(self) -> None:
        self._number = msgspec.json.Decoder(float).decode
        self._pairs = msgspec.json.Decoder(list[tuple[RawTime, float]]).decode

    def is_plain(self, payload: bytes) -> bool:
        return False

    def read(self, payload: bytes) -> list[Row] | None:
        if payload[:1] != b"[":
            return [Row(0, None, self._number(payload), 0)]
        return _rows_of_pairs(self._pairs(payload))


class ObjectReader:
    """Typed reading of objects, or of arrays of objects or pairs."""

    def __init__(self, shape: Shape) -> None:
        self._struct, self._getters, names = _struct_of(shape)
        self._object = msgspec.json.Decoder(self._struct).decode
        self._names = tuple((b'"' + name.encode() + b'"', times) for name, times in names.items())
        self._flat = all(len(path) == 1 for path in _paths(shape))
        self._single = len(shape.values) == 1
        self._objects = msgspec.json.Decoder(list[self._struct]).decode  # type: ignore[name-defined]
        self._pairs = msgspec.json.Decoder(list[tuple[RawTime, float]]).decode

    def is_plain(self, payload: bytes) -> bool:
        if b"\\" in payload or not _is_utf8(payload):
            return False
        return all(payload.count(name) <= times for name, times in self._names)

    def read(self, payload: bytes) -> list[Row] | None:
        if payload[:1] == b"[":
            return self._array(payload)
        decoded = self._object(payload)
        if not self.is_plain(payload):
            return None
        rows: list[Row] = []
        self._rows(decoded, rows)
        return rows or None

    def _array(self, payload: bytes) -> list[Row] | None:
        first = payload[1:64].lstrip(b" \t\r\n")[:1]
        if first == b"[" and self._single:
            return _rows_of_pairs(self._pairs(payload))
        if first != b"{" or not self._flat or b"\\" in payload or not _is_utf8(payload):
            return None
        decoded = self._objects(payload)
        if len(decoded) > ELEMENTS_MAX:
            return None
        rows: list[Row] = []
        for element in decoded:
            before = len(rows)
            self._rows(element, rows)
            if len(rows) == before:
                return None
        for (name, _), (field,) in zip(self._names, self._getters.values(), strict=True):
            absent = sum(1 for element in decoded if getattr(element, field) in (None, msgspec.UNSET))
            if payload.count(name) != len(decoded) - absent:  # twice somewhere, or as a text
                return None
        return rows

    def _rows(self, decoded: Any, rows: list[Row]) -> None:
        time: RawTime = None
        quality = 0
        for key, fields in self._getters.items():
            found = decoded
            for field in fields:
                found = getattr(found, field)
                if found is msgspec.UNSET:
                    break
            if key == "time":
                time = None if found is msgspec.UNSET else found
            elif key == "quality":
                quality = 0 if found is msgspec.UNSET else quality_of(found)
            elif found is not msgspec.UNSET:
                rows.append(Row(int(key), time, found, quality))


def typed_reader(shape: Shape) -> BareReader | ObjectReader | None:
    """None for shapes whose paths lie within each other or count elements: those are always examined."""
    if shape.bare:
        return BareReader()
    paths = _paths(shape)
    for index, path in enumerate(paths):
        if any(part.isdecimal() or '"' in part or "\\" in part or not part.isprintable() for part in path):
            return None
        if any(other[: len(path)] == path for other in paths[:index] + paths[index + 1 :]):
            return None
    return ObjectReader(shape)


def simple_decoder(shape: Shape) -> tuple[Callable[[bytes], Any], bytes, bytes] | None:
    """A decoder of flat objects into something with `t` and `v`, and their names; None for other shapes."""
    value = shape.values[0]
    if shape.time is None or len(shape.time) != 1 or len(value) != 1 or shape.time == value:
        return None
    if shape.quality is not None or len(shape.values) > 1:
        return None
    struct = msgspec.defstruct(
        "Simple",
        [("t", RawTime, None), ("v", float)],
        kw_only=True,
        rename={"t": shape.time[0], "v": value[0]},
        gc=False,
    )
    return msgspec.json.Decoder(struct).decode, shape.time[0].encode(), value[0].encode()


def _paths(shape: Shape) -> list[Path]:
    return [path for path in (shape.time, shape.quality, *shape.values) if path is not None]


def _struct_of(shape: Shape) -> tuple[type[msgspec.Struct], dict[str, tuple[str, ...]], dict[str, int]]:
    """A struct for the shape; the fields that lead to time, quality and values; how often each name is used."""
    leaves: dict[Path, tuple[str, Any, Any]] = {}
    if shape.time is not None:
        leaves[shape.time] = ("time", RawTime, None)
    if shape.quality is not None:
        leaves[shape.quality] = ("quality", int | str | None, None)
    for index, path in enumerate(shape.values):
        leaves[path] = (str(index), float | msgspec.UnsetType, msgspec.UNSET)
    getters: dict[str, tuple[str, ...]] = {}
    names: dict[str, int] = {}

    def struct(prefix: Path, fields_before: tuple[str, ...]) -> type[msgspec.Struct]:
        fields: list[tuple[str, Any, Any]] = []
        rename: dict[str, str] = {}
        parts = dict.fromkeys(path[len(prefix)] for path in leaves if path[: len(prefix)] == prefix)
        for number, part in enumerate(parts):
            field, path = f"f{number}", (*prefix, part)
            rename[field] = part
            names[part] = names.get(part, 0) + 1
            if path in leaves:
                key, kind, default = leaves[path]
                getters[key] = (*fields_before, field)
                fields.append((field, kind, default))
            else:
                inner = struct(path, (*fields_before, field))
                fields.append((field, inner | msgspec.UnsetType, msgspec.UNSET))
        return msgspec.defstruct("Payload", fields, kw_only=True, rename=rename, gc=False)

    made = struct((), ())
    order = ["time", "quality", *(str(index) for index in range(len(shape.values)))]
    return made, {key: getters[key] for key in order if key in getters}, names


def _rows_of_pairs(pairs: Sequence[tuple[RawTime, float]]) -> list[Row] | None:
    if not 0 < len(pairs) <= ELEMENTS_MAX:
        return None
    return [Row(0, time, value, 0) for time, value in pairs]


def _is_utf8(payload: bytes) -> bool:
    if payload.isascii():
        return True
    try:
        payload.decode()
    except UnicodeDecodeError:
        return False
    return True
