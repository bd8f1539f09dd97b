"""What a payload says: rows of (which value, time, number, quality), and a fault for each element without them.

`PayloadReader.examine` defines the meaning, with the standard library's JSON parser, member by member. It is
slow and tells precisely what is wrong. `simple` and `typed` are the fast ways for what is usual; they decode
into structs that are made for the mapping. Whatever they cannot read, or might read otherwise than `examine`
does (a member that may occur twice, text that may not be UTF-8), they leave to it.

JSON is RFC 8259. NaN and Infinity are no JSON; a number beyond what a double holds is a fault, and so are
`true`, `null` or text where a number is expected (also "230.1": text is not silently a number), and a member
that occurs twice where it is used, because it is not known which of the two is meant.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn

import msgspec

from ringmain.model.quality import VALIDITY_MASK, Quality
from ringmain.sources.mapping_times import RawTime

ELEMENTS_MAX = 30_000
"""Elements of an array in one message: their readings fit one frame of the log."""

PAYLOAD_BYTES_MAX = 1 << 20
"""Larger payloads are not looked into."""

Path = tuple[str, ...]

QUALITY_WORDS = {
    "good": int(Quality.GOOD),
    "questionable": int(Quality.QUESTIONABLE),
    "invalid": int(Quality.INVALID),
}


@dataclass(frozen=True, slots=True)
class Shape:
    """Where a payload has its time, values and quality. A value with an empty path: the payload is the number."""

    values: tuple[Path, ...]
    time: Path | None = None
    quality: Path | None = None

    @property
    def bare(self) -> bool:
        """Whether the payload itself is the number."""
        return self.values == ((),)


class Row(NamedTuple):
    """One value that was read: index into `Shape.values`, time as written, the number, quality bits."""

    value_index: int
    time: RawTime
    value: float
    quality: int


class Fault(NamedTuple):
    """Why an element of an array (or, with None, the whole message) or one value of it is no reading."""

    element: int | None
    reason: str


class Examined(NamedTuple):
    """Rows, the element that each is from, and faults, in the order of the payload."""

    rows: list[Row]
    elements: list[int | None]
    faults: list[Fault]


def parse_path(text: str) -> Path:
    """`ENERGY.Power` as ("ENERGY", "Power"). Raises ValueError for an empty part."""
    path = tuple(text.split("."))
    if not all(path):
        raise ValueError(f"expected a dotted path such as ENERGY.Power, found {text!r}")
    return path


def quality_of(raw: object) -> int:
    """Quality bits of a bit field (0 to 65535) or a word. Raises ValueError."""
    if raw is None:
        return 0
    if isinstance(raw, str) and raw.lower() in QUALITY_WORDS:
        return QUALITY_WORDS[raw.lower()]
    if isinstance(raw, int) and not isinstance(raw, bool) and 0 <= raw <= 0xFFFF:
        return raw if raw & VALIDITY_MASK != VALIDITY_MASK else raw & ~1  # 3 is reserved: invalid
    words = ", ".join(QUALITY_WORDS)
    raise ValueError(f"expected a quality from 0 to 65535 or one of {words}, found {shown(raw)}")


def shown(value: object) -> str:
    """A JSON value for a message: its kind when it is large, and printable whatever it is."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Members):
        return "an object"
    if isinstance(value, list):
        return f"an array of {len(value)}"
    text = ascii(value)
    text = text if len(text) <= 60 else text[:57] + "..."
    return f"the text {text}" if isinstance(value, str) else text


def raw_elements(payload: bytes) -> list[bytes] | None:
    """The bytes of each element of an array; None where they cannot be told."""
    try:
        return [bytes(raw) for raw in msgspec.json.decode(payload, type=list[msgspec.Raw])]
    except (ValueError, RecursionError):
        return None


class Members(list[tuple[str, Any]]):
    """A JSON object with every member in its order, also those that occur twice."""


class PayloadReader:
    """Reads the payloads of one mapping."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.simple: Callable[[bytes], Any] | None = None
        """Decodes an object into something with `t` and `v`; None where the mapping is not that simple.

        The caller has to see to it that no member occurs twice (see `is_plain`).
        """
        self.simple_keys: tuple[bytes, bytes] | None = None
        self._typed = _typed_reader(shape)
        value = shape.values[0]
        flat = shape.time is not None and len(shape.time) == 1 == len(value) and shape.time != value
        alone = shape.quality is None and len(shape.values) == 1 and self._typed is not None
        if flat and alone and shape.time is not None:
            time_key, value_key = shape.time[0], value[0]
            struct = msgspec.defstruct(
                "Simple",
                [("t", RawTime, None), ("v", float)],
                kw_only=True,
                rename={"t": time_key, "v": value_key},
                gc=False,
            )
            self.simple = msgspec.json.Decoder(struct).decode
            self.simple_keys = (time_key.encode(), value_key.encode())

    def is_plain(self, payload: bytes) -> bool:
        """Whether an object that `simple` could decode means the same to `examine`."""
        return self._typed is not None and self._typed.is_plain(payload)

    def typed(self, payload: bytes) -> list[Row] | None:
        """All rows of a payload without faults, fast; None for what `examine` has to look at."""
        if self._typed is None or len(payload) > PAYLOAD_BYTES_MAX:
            return None
        try:
            return self._typed.read(payload)
        except (ValueError, RecursionError):
            return None

    def examine(self, payload: bytes) -> Examined:
        """All rows and faults of any bytes. Never raises."""
        found = Examined([], [], [])
        try:
            root = _parse(payload)
        except ValueError as error:
            found.faults.append(Fault(None, str(error)))
            return found
        if isinstance(root, Members) or not isinstance(root, list):
            self._element(root, None, found)
        elif not root:
            found.faults.append(Fault(None, "expected at least one element, found an empty array"))
        elif len(root) > ELEMENTS_MAX:
            reason = (
                f"expected at most {ELEMENTS_MAX} elements, found {len(root)}: send them in several messages"
            )
            found.faults.append(Fault(None, reason))
        else:
            for index, element in enumerate(root):
                self._element(element, index, found)
        return found

    def _element(self, element: Any, index: int | None, found: Examined) -> None:
        try:
            if isinstance(element, Members):
                self._object(element, index, found)
            elif isinstance(element, list) and index is not None:
                self._pair(element, index, found)
            elif self.shape.bare and index is None:
                found.rows.append(Row(0, None, _number(element), 0))
                found.elements.append(None)
            else:
                expected = "a number" if self.shape.bare else "an object"
                either = f"{expected} or a pair [time, value]" if index is not None else expected
                raise ValueError(f"expected {either}, found {shown(element)}")
        except ValueError as error:
            found.faults.append(Fault(index, str(error)))

    def _object(self, members: Members, index: int | None, found: Examined) -> None:
        shape = self.shape
        if shape.bare:
            raise ValueError("expected a number, found an object")
        time = None if shape.time is None else _walk(members, shape.time)
        quality = (
            0 if shape.quality is None else _named(shape.quality, _walk(members, shape.quality), quality_of)
        )
        present = 0
        for value_index, path in enumerate(shape.values):
            try:
                raw = _walk(members, path, _ABSENT)
                if raw is _ABSENT:
                    continue
                present += 1
                row = Row(value_index, time, _named(path, raw, _number), quality)
            except ValueError as error:
                present += 1
                found.faults.append(Fault(index, str(error)))
            else:
                found.rows.append(row)
                found.elements.append(index)
        if not present:
            raise ValueError(
                f"expected {' or '.join('.'.join(path) for path in shape.values)}, found no such member"
            )

    def _pair(self, pair: list[Any], index: int, found: Examined) -> None:
        if len(self.shape.values) > 1:
            raise ValueError("expected an object, found an array")
        if len(pair) != 2:
            raise ValueError(f"expected a pair [time, value], found {shown(pair)}")
        found.rows.append(Row(0, pair[0], _number(pair[1]), 0))
        found.elements.append(index)


_ABSENT = object()


def _parse(payload: bytes) -> Any:
    """JSON with objects as `Members`. Raises ValueError that says what was expected and found."""
    if len(payload) > PAYLOAD_BYTES_MAX:
        raise ValueError(f"expected a payload of at most {PAYLOAD_BYTES_MAX} bytes, found {len(payload)}")
    try:
        return json.loads(
            payload.decode(), object_pairs_hook=Members, parse_constant=_no_constant, parse_int=_integer
        )
    except UnicodeDecodeError as error:
        raise ValueError(
            f"expected UTF-8, found byte 0x{payload[error.start]:02x} at {error.start}"
        ) from None
    except json.JSONDecodeError as error:
        found = "an empty payload" if not payload.strip() else f"{error.msg} at character {error.pos}"
        raise ValueError(f"expected JSON, found: {found}") from None
    except RecursionError:
        raise ValueError("expected JSON of moderate depth, found one nested too deeply") from None


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"expected JSON, which has no {name}")


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) < 400 else float(digits)


def _number(raw: Any) -> float:
    if isinstance(raw, bool) or not isinstance(raw, int | float):
        hint = ": a number in quotes is text" if isinstance(raw, str) else ""
        raise ValueError(f"expected a number, found {shown(raw)}{hint}")
    try:
        number = float(raw)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError("expected a number that a double holds, found one beyond 1.8e308")
    return number


def _named(path: Path, raw: Any, read: Callable[[Any], Any]) -> Any:
    try:
        return read(raw)
    except ValueError as error:
        raise ValueError(f"{'.'.join(path)}: {error}") from None


def _walk(value: Any, path: Path, absent: object = None) -> Any:
    """What lies at `path` below `value`; a part that is a number also counts the elements of an array."""
    for depth, part in enumerate(path):
        if isinstance(value, Members):
            found = [member for name, member in value if name == part]
            if len(found) > 1:
                raise ValueError(f"expected {'.'.join(path[: depth + 1])} once, found it {len(found)} times")
            if not found:
                return absent
            value = found[0]
        elif isinstance(value, list) and part.isdecimal() and part.isascii():
            if len(part) > 9 or int(part) >= len(value):
                return absent
            value = value[int(part)]
        elif value is None:
            return absent
        else:
            raise ValueError(f"expected an object at {'.'.join(path[:depth])}, found {shown(value)}")
    return value


class _BareReader:
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


class _ObjectReader:
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


def _typed_reader(shape: Shape) -> _BareReader | _ObjectReader | None:
    """None for shapes whose paths lie within each other or count elements: those are always examined."""
    if shape.bare:
        return _BareReader()
    paths = _paths(shape)
    for index, path in enumerate(paths):
        if any(part.isdecimal() or '"' in part or "\\" in part or not part.isprintable() for part in path):
            return None
        if any(other[: len(path)] == path for other in paths[:index] + paths[index + 1 :]):
            return None
    return _ObjectReader(shape)


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
