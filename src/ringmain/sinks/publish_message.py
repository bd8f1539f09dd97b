"""Rows as MQTT messages: a topic out of a template, and a payload, for each row.

Columns are made for a whole batch at once; what depends on the series alone is made once a series.

A topic (MQTT 5, clause 4.7) must not hold `+`, `#` or NUL, and `/` separates its levels. So in what is put into a
template `%`, `+`, `#` and control characters are written as `%` and two hexadecimal digits for each of their bytes (RFC
3986, clause 2.1), and `/` too except in `{key}` and `{place}`, whose levels become levels of the topic. `$` at the very
beginning, which is for the broker's own topics, is `%24`. Names that differ so stay different.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ringmain.log.interface import StreamKind
from ringmain.model.catalogue import Catalogue
from ringmain.runtime.sink import SinkBatch

TOPIC_BYTES_MAX = 65_535
OF_SERIES = ("key", "place", "device", "unit", "quantity", "medium", "owner")
OF_BATCH = ("node", "stream")
LEVELLED = ("key", "place")
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_NAMED = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?:\.(-?[1-9][0-9]?))?")
_ESCAPED = re.compile(r"[\x00-\x1f\x7f-\x9f%+#]")
_ESCAPED_LEVEL = re.compile(r"[\x00-\x1f\x7f-\x9f%+#/]")


class TimeForm(Enum):
    """How times are written."""

    ISO = "iso"
    """RFC 3339 in UTC, nine digits behind the second."""
    S = "s"
    MS = "ms"
    NS = "ns"


@dataclass(frozen=True, slots=True)
class Placeholder:
    """`{name}` or `{name.level}` of a template; levels count from 1, or from the end with -1."""

    name: str
    level: int | None


def parse_template(template: str) -> list[str | Placeholder]:
    """The texts and placeholders of a topic template. Raises ValueError."""
    if not template:
        raise ValueError("expected a topic such as site/{key}, found an empty text")
    parts: list[str | Placeholder] = []
    end = 0
    for found in _PLACEHOLDER.finditer(template):
        parts.append(_literal(template[end : found.start()]))
        named = _NAMED.fullmatch(found[1])
        if named is None:
            raise ValueError(
                f"expected a placeholder such as {{key}} or {{key.1}}, found {found[0]!r} in {template!r}"
            )
        if named[2] is not None and named[1] not in LEVELLED:
            raise ValueError(
                f"expected levels of {' or '.join(LEVELLED)} alone, found {found[0]!r} in {template!r}"
            )
        parts.append(Placeholder(named[1], int(named[2]) if named[2] else None))
        end = found.end()
    parts.append(_literal(template[end:]))
    return [part for part in parts if part != ""]


def _literal(text: str) -> str:
    wrong = next((c for c in text if c in "+#{}" or ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0), None)
    if wrong is not None:
        raise ValueError(f"expected a topic without {wrong!r} (MQTT 5, clause 4.7), found {text!r}")
    return text


def escaped(text: str, *, levels: bool = False) -> str:
    """Text as it stands in a topic; `levels`: its `/` stay."""
    pattern = _ESCAPED if levels else _ESCAPED_LEVEL
    return pattern.sub(lambda found: "".join(f"%{byte:02X}" for byte in found[0].encode()), text)


@dataclass(frozen=True, slots=True)
class Message:
    """A row on its way: `topic` None where it cannot be published, with the reason."""

    topic: str | None
    payload: bytes
    reason: str = ""


class MessageMaker:
    """Makes the messages of batches. Used by one thread."""

    def __init__(
        self,
        template: str,
        *,
        node: str,
        missing: str,
        members: dict[str, str],
        time_form: TimeForm,
        bare: bool,
    ) -> None:
        """`members`: JSON name -> field, empty for the usual ones; `bare`: the value alone, as text."""
        self._parts = parse_template(template)
        self._node = node
        self._missing = escaped(missing)
        self._members = members
        self._time_form = time_form
        self._bare = bare
        self._version = -1
        self._topics: dict[str, dict[int, str]] = {}
        self._attributes: dict[int, dict[str, str | None]] = {}
        names = [part.name for part in self._parts if isinstance(part, Placeholder)]
        self._by_row = [name for name in names if name not in OF_SERIES and name not in OF_BATCH]

    def messages(self, batch: SinkBatch, catalogue: Catalogue, start: int = 0) -> list[Message]:
        """A message for each row of the batch from `start` on."""
        if catalogue.version != self._version:  # attributes may have changed
            self._version = catalogue.version
            self._topics, self._attributes = {}, {}
        rows = batch.rows.slice(start)
        payloads = self._payloads(batch, rows, catalogue, start)
        topics = self._topics_of(batch, rows, catalogue)
        return [self._message(topic, payload) for topic, payload in zip(topics, payloads, strict=True)]

    def _message(self, topic: str, payload: bytes) -> Message:
        if topic.startswith("$"):
            topic = f"%24{topic[1:]}"
        if len(topic) * 4 > TOPIC_BYTES_MAX and len(topic.encode()) > TOPIC_BYTES_MAX:
            size = len(topic.encode())
            return Message(
                None, payload, f"expected a topic of at most {TOPIC_BYTES_MAX} bytes, found {size}"
            )
        return Message(topic, payload)

    # Topics

    def _topics_of(self, batch: SinkBatch, rows: pa.RecordBatch, catalogue: Catalogue) -> Sequence[str]:
        series = _series(rows)
        if not self._by_row:
            if series is None:
                return [self._topic(batch, {}, {})] * rows.num_rows
            known = self._topics.setdefault(batch.id.stream, {})
            found = []
            for number in series:
                topic = known.get(number)
                if topic is None:
                    topic = known[number] = self._topic(batch, self._of_series(number, catalogue), {})
                found.append(topic)
            return found
        columns = {name: _texts(rows, name) for name in dict.fromkeys(self._by_row)}
        return [
            self._topic(
                batch,
                {} if series is None else self._of_series(series[place], catalogue),
                {name: column[place] for name, column in columns.items()},
            )
            for place in range(rows.num_rows)
        ]

    def _topic(
        self, batch: SinkBatch, of_series: dict[str, str | None], of_row: dict[str, str | None]
    ) -> str:
        texts = []
        for part in self._parts:
            if isinstance(part, str):
                texts.append(part)
                continue
            fixed = {"node": self._node, "stream": batch.id.stream}
            value = fixed.get(part.name) or of_series.get(part.name)
            if part.name in of_row:
                value = of_row[part.name]
            if value and part.level is not None:
                levels = value.split("/")
                place = part.level - 1 if part.level > 0 else len(levels) + part.level
                value = levels[place] if 0 <= place < len(levels) else None
                texts.append(escaped(value) if value else self._missing)
            else:
                texts.append(escaped(value, levels=part.name in LEVELLED) if value else self._missing)
        return "".join(texts)

    def _of_series(self, number: int, catalogue: Catalogue) -> dict[str, str | None]:
        found = self._attributes.get(number)
        if found is None:
            try:
                one = catalogue.attributes_of(number)
                found = {
                    "key": catalogue.key_of(number),
                    "place": one.place,
                    "device": one.device,
                    "unit": one.unit,
                    "quantity": one.quantity,
                    "medium": one.medium,
                    "owner": one.owner,
                }
            except IndexError:
                found = {}
            self._attributes[number] = found
        return found

    # Payloads

    def _payloads(
        self, batch: SinkBatch, rows: pa.RecordBatch, catalogue: Catalogue, start: int
    ) -> list[bytes]:
        if self._bare:
            values = (
                rows.column("value").to_pylist() if "value" in rows.schema.names else [None] * rows.num_rows
            )
            return [b"" if value is None else _bare(value) for value in values]
        members = self._members or self._usual(batch, rows)
        columns = [self._column(field, batch, rows, catalogue, start) for field in members.values()]
        names = tuple(members)
        encode = msgspec.json.Encoder(enc_hook=str).encode
        return [encode(dict(zip(names, values, strict=True))) for values in zip(*columns, strict=True)]

    def _usual(self, batch: SinkBatch, rows: pa.RecordBatch) -> dict[str, str]:
        names = ["key" if name == "series" and _keyed(rows) else name for name in rows.schema.names]
        if _keyed(rows) and "unit" not in names:
            names.append("unit")
        if batch.kind is not StreamKind.EVENT:
            return {name: name for name in names}
        return {name: name for name in names if name != "datacontenttype"}

    def _column(
        self, field: str, batch: SinkBatch, rows: pa.RecordBatch, catalogue: Catalogue, start: int
    ) -> Sequence[Any]:
        count = rows.num_rows
        if field == "row":
            first = batch.id.first_row + start
            return [f"{batch.id.stream}/{batch.id.position}/{first + place}" for place in range(count)]
        if field == "arrived":
            return self._times(pa.array([batch.origin_arrival_ns] * count, pa.timestamp("ns", tz="UTC")))
        if field in OF_BATCH:
            return [self._node if field == "node" else batch.id.stream] * count
        if field in rows.schema.names and not (field == "series" and _keyed(rows)):
            column = rows.column(field)
            if pa.types.is_timestamp(column.type):
                return self._times(column)
            if pa.types.is_binary(column.type):
                return [_json_or_text(value) for value in column.to_pylist()]
            if pa.types.is_temporal(column.type):
                return list(column.cast(pa.string()).to_pylist())
            return list(column.to_pylist())
        series = _series(rows)
        if series is None:
            return [None] * count
        name = "key" if field == "series" else field
        return [self._of_series(number, catalogue).get(name) for number in series]

    def _times(self, column: pa.Array) -> Sequence[Any]:
        numbers = column.cast(pa.timestamp("ns", tz="UTC")).cast(pa.int64())
        match self._time_form:
            case TimeForm.NS:
                return list(numbers.to_pylist())
            case TimeForm.MS | TimeForm.S:
                divisor = 1_000_000 if self._time_form is TimeForm.MS else 1_000_000_000
                return [None if ns is None else ns // divisor for ns in numbers.to_pylist()]
            case TimeForm.ISO:
                stamps = numbers.fill_null(0).to_numpy().view("datetime64[ns]")
                texts: list[str] = [f"{text}Z" for text in np.datetime_as_string(stamps, unit="ns")]
                if not numbers.null_count:
                    return texts
                known = pc.is_valid(numbers).to_pylist()
                return [text if there else None for text, there in zip(texts, known, strict=True)]


def fields_of_messages() -> tuple[str, ...]:
    """Fields that `members` may name beside the columns of the stream."""
    return (*OF_SERIES, *OF_BATCH, "arrived", "row")


def _keyed(rows: pa.RecordBatch) -> bool:
    return "series" in rows.schema.names and rows.schema.field("series").type == pa.uint32()


def _series(rows: pa.RecordBatch) -> list[int] | None:
    return rows.column("series").to_pylist() if _keyed(rows) else None


def _texts(rows: pa.RecordBatch, name: str) -> list[str | None]:
    if name not in rows.schema.names:
        return [None] * rows.num_rows
    column = rows.column(name)
    if pa.types.is_binary(column.type):
        return [None if value is None else value.decode("utf-8", "replace") for value in column.to_pylist()]
    return list(column.cast(pa.string()).to_pylist())


def _bare(value: Any) -> bytes:
    return str(value).encode() if not isinstance(value, float) else repr(value).encode()


def _json_or_text(value: bytes | None) -> Any:
    """Data of an event: JSON as it is, else text."""
    if value is None:
        return None
    try:
        msgspec.json.decode(value)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return value.decode("utf-8", "replace")
    return msgspec.Raw(value)
