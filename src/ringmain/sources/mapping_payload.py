"""What a payload says: rows of (which value, time, number, quality), and a fault for each element without them.

`PayloadReader.examine` defines the meaning, with the standard library's JSON parser, member by member. It is
slow and tells precisely what is wrong; the fast ways are in `mapping_typed.py`.

JSON is RFC 8259. NaN and Infinity are no JSON; a number beyond what a double holds is a fault, and so are
`true`, `null` or text where a number is expected (also "230.1": text is not silently a number), and a member
that occurs twice where it is used, because it is not known which of the two is meant.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

import msgspec

from ringmain.sources.mapping_shape import (
    ELEMENTS_MAX,
    PAYLOAD_BYTES_MAX,
    Members,
    Path,
    Row,
    Shape,
    quality_of,
    shown,
)
from ringmain.sources.mapping_typed import simple_decoder, typed_reader


class Fault(NamedTuple):
    """Why an element of an array (or, with None, the whole message) or one value of it is no reading."""

    element: int | None
    reason: str


class Examined(NamedTuple):
    """Rows, the element that each is from, and faults, in the order of the payload."""

    rows: list[Row]
    elements: list[int | None]
    faults: list[Fault]


class PayloadReader:
    """Reads the payloads of one mapping."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.simple: Callable[[bytes], Any] | None = None
        """Decodes an object into something with `t` and `v`; None where the mapping is not that simple.

        The caller has to see to it that no member occurs twice (see `is_plain`).
        """
        self.simple_keys: tuple[bytes, bytes] | None = None
        self._typed = typed_reader(shape)
        simple = simple_decoder(shape) if self._typed is not None else None
        if simple is not None:
            self.simple, *names = simple
            self.simple_keys = (names[0], names[1])

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


def raw_elements(payload: bytes) -> list[bytes] | None:
    """The bytes of each element of an array; None where they cannot be told."""
    try:
        return [bytes(raw) for raw in msgspec.json.decode(payload, type=list[msgspec.Raw])]
    except (ValueError, RecursionError):
        return None
