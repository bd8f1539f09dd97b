"""From topics and payloads to readings: what every message source does with what it receives.

A `Mapper` has the maps of one source. `map` takes a batch of messages and gives columns of readings and a
letter for whatever is no reading, so that every message, and every element of an array, is accounted for. It
never raises for what messages say, and what it remembers is bounded: routes of the newest topics, while keys
and ids are the registry's. The usual is fast: a struct decoder made for each map, one dictionary look-up for
each topic, times and flags by columns. What a payload means is defined in `mapping_payload.py`, what a time
means in `mapping_times.py`.

Durability, the acknowledgement of messages and the reception itself are the source's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, tzinfo
from itertools import islice
from typing import Any, Protocol
from zoneinfo import ZoneInfo

import numpy as np

from ringmain.model.catalogue import Catalogue, SeriesAttributes, check_key
from ringmain.model.schemas import MAX_LETTER_PAYLOAD
from ringmain.runtime.contract import Columns, Letter
from ringmain.sources.mapping_payload import PayloadReader, raw_elements
from ringmain.sources.mapping_settings import ATTRIBUTES, MapSettings, ParsedMap
from ringmain.sources.mapping_shape import Row
from ringmain.sources.mapping_times import TimeForm, TimeUnit, read_time, read_times

__all__ = ["MAX_AHEAD_NS", "MapSettings", "Mapped", "Mapper", "SimplePlan"]

MAX_AHEAD_NS = 300 * 10**9
"""A time further ahead of arrival than this is flagged CLOCK_FAILED."""

ROUTES_MAX = 200_000
ROUTE_TOPIC_CHARS_MAX = 256
"""How many topics are remembered, and how long they may be; others are looked up anew each time."""

LETTERS_A_MESSAGE_MAX = 100
"""Elements of one message that get a letter each; one more letter counts the rest."""

_FORMS_MAX = 256
_UNREGISTERED = -1


class Registry(Protocol):
    """Who gives ids to series: the log's series registry."""

    def register(self, source: str, key: str, attributes: SeriesAttributes) -> int:
        """The id of `key`, or -1 when the source has reached its limit. Raises ValueError for a bad entry."""
        ...

    def describe(self, source: str, key: str, attributes: SeriesAttributes) -> int:
        """As `register`, and what is said about a known series is added to what is known."""
        ...

    @property
    def catalogue(self) -> Catalogue:
        """The series that are durable."""
        ...


@dataclass(frozen=True, slots=True)
class Mapped:
    """Readings of a batch of messages in their order (None: not one), and letters for the rest.

    Of the messages `accepted` gave a reading or more, `rejected` gave letters only, and `ignored` neither.
    """

    columns: Columns | None
    letters: tuple[Letter, ...]
    accepted: int
    rejected: int
    ignored: int


@dataclass(frozen=True, slots=True)
class SimplePlan:
    """What a kernel needs to read a payload `{"TIME_KEY": integer, "VALUE_KEY": number}` by itself.

    It may do so only where the object has exactly these two members, once each, in either order, and the time
    is a whole number that `mapping_times.epoch_ns` can read; it flags CLOCK_FAILED as `Mapper.map` does. All
    other messages go to `Mapper.map`, in the order in which they came.
    """

    series_id: int
    time_key: bytes
    value_key: bytes
    time_unit: TimeUnit | None


class _Plan:
    """One map, ready for use."""

    __slots__ = ("code", "parsed", "reader")

    def __init__(self, parsed: ParsedMap, code: int) -> None:
        self.parsed = parsed
        self.reader = PayloadReader(parsed.shape)
        self.code = code


class _Route:
    """Where the messages of one topic go. A tag is series id | form << 32 | quality << 40; -1: no id yet."""

    __slots__ = ("decode", "keys", "names", "plan", "tag", "tags", "topic")

    def __init__(self, plan: _Plan, topic: str, names: dict[str, str], keys: tuple[str, ...]) -> None:
        self.plan = plan
        self.topic = topic
        self.names = names
        self.keys = keys
        self.tags = [_UNREGISTERED] * len(keys)
        self.tag = _UNREGISTERED
        self.decode: Any = None
        """The plan's simple decoder, once the series has its id."""

    def knows(self, rows: list[Row]) -> bool:
        """Whether the series of these rows have their ids. Those that have not get them in `examine`, which
        makes sure before that a row is good."""
        tags = self.tags
        return _UNREGISTERED not in tags or all(tags[row.value_index] != _UNREGISTERED for row in rows)


class _Batch:
    """Readings on their way into columns, and the message that each came from."""

    __slots__ = ("ignored", "letters", "origins", "rejected", "tags", "times", "values")

    def __init__(self) -> None:
        self.rejected = 0
        self.ignored = 0
        self.tags: list[int] = []
        self.times: list[Any] = []
        self.values: list[float] = []
        self.origins: list[int] = []
        self.letters: list[Letter] = []


class Mapper:
    """Maps the messages of one source. Not for use by several threads at once."""

    def __init__(
        self,
        source: str,
        maps: Sequence[MapSettings],
        registry: Registry,
        *,
        max_ahead_ns: int = MAX_AHEAD_NS,
        timezone: str = "UTC",
        known: Mapping[str, SeriesAttributes] | None = None,
        routes_max: int = ROUTES_MAX,
    ) -> None:
        """`timezone` is the zone of times without offset; `known` wins over the attributes that a map gives.

        Raises ValueError that names the map and the key that is wrong.
        """
        self.max_ahead_ns = max_ahead_ns
        self._source = source
        self._registry = registry
        self._known = known or {}
        self._routes: dict[str, _Route] = {}
        self._routes_max = routes_max
        self._forms = [TimeForm(TimeUnit.NS)]
        self._plans: list[_Plan] = []
        for index, settings in enumerate(maps):
            errors: list[tuple[str, str]] = []
            parsed = ParsedMap.parse(settings, timezone, errors)
            if parsed is None:
                problems = "; ".join(f"{key}: {message}" for key, message in errors)
                raise ValueError(f"source {source!r}, map {index}: {problems}")
            self._plans.append(_Plan(parsed, self._form_code(parsed)))

    def map(self, topics: Sequence[str], payloads: Sequence[bytes], arrival_ns: int) -> Mapped:
        """Readings and letters of messages that arrived at `arrival_ns`; topics and payloads have equal length."""
        examine: frozenset[int] = frozenset()
        while True:
            batch = _Batch()
            self._collect(batch, topics, payloads, arrival_ns, examine)
            if not batch.tags:
                return Mapped(None, tuple(batch.letters), 0, batch.rejected, batch.ignored)
            packed = np.array(batch.tags, np.int64)
            codes = (packed >> 32).astype(np.uint8)
            times = read_times(batch.times, codes, self._forms, arrival_ns, self.max_ahead_ns)
            values = np.array(batch.values, np.float64)
            failed = times.failed | ~np.isfinite(values)
            if not failed.any():
                break
            # these are examined one by one, which tells what is wrong; nothing can fail after that
            examine |= {batch.origins[row] for row in np.flatnonzero(failed)}
        quality = (packed >> 40).astype(np.uint16) | times.quality
        columns = Columns(packed.astype(np.uint32), times.ns, values, quality)
        accepted = len(topics) - batch.rejected - batch.ignored
        return Mapped(columns, tuple(batch.letters), accepted, batch.rejected, batch.ignored)

    def simple_plan(self, topic: str) -> SimplePlan | None:
        """How a kernel may read the payloads of `topic`; None before its first reading, and for other shapes."""
        route = self._routes.get(topic)
        if route is None or route.decode is None or route.plan.reader.simple_keys is None:
            return None
        time_key, value_key = route.plan.reader.simple_keys
        return SimplePlan(route.tags[0] & 0xFFFFFFFF, time_key, value_key, route.plan.parsed.time_unit)

    def _collect(
        self,
        batch: _Batch,
        topics: Sequence[str],
        payloads: Sequence[bytes],
        arrival_ns: int,
        examine: frozenset[int],
    ) -> None:
        """The loop over messages. It calls nothing of ours for the usual simple message."""
        routes_get = self._routes.get
        add_tag, add_time = batch.tags.append, batch.times.append
        add_value, add_origin = batch.values.append, batch.origins.append
        for index, (topic, payload) in enumerate(zip(topics, payloads, strict=True)):
            route = routes_get(topic)
            if route is not None and route.decode is not None and (not examine or index not in examine):
                try:
                    decoded = route.decode(payload)
                except (ValueError, RecursionError):
                    pass
                else:
                    time = decoded.t
                    # quotation marks for the names and a text as time, and no more: nothing is there twice
                    quotes = payload.count(b'"')
                    if (
                        (quotes == 4 and time is not None)
                        or quotes == 2
                        or (quotes == 6 and type(time) is str)
                        or route.plan.reader.is_plain(payload)
                    ):
                        add_tag(route.tag)
                        add_time(time)
                        add_value(decoded.v)
                        add_origin(index)
                        continue
            if route is None:
                found = self._route(topic)
                if isinstance(found, str):
                    batch.letters.append(_letter(topic, payload, found, arrival_ns))
                    batch.rejected += 1
                    continue
                route = found
            rows = None if index in examine else route.plan.reader.typed(payload)
            if rows is None or not route.knows(rows):
                self._examine(batch, index, topic, payload, route, arrival_ns)
                continue
            if not rows:
                batch.ignored += 1
            tags = route.tags
            for value_index, raw_time, value, quality in rows:
                add_tag(tags[value_index] | quality << 40)
                add_time(raw_time)
                add_value(value)
                add_origin(index)

    def _examine(
        self, batch: _Batch, index: int, topic: str, payload: bytes, route: _Route, arrival_ns: int
    ) -> None:
        """Everything that the payload says, one by one, and what is wrong with the rest."""
        found = route.plan.reader.examine(payload)
        reasons: list[tuple[int | None, str]] = list(found.faults)
        before = len(batch.tags)
        form = self._forms[route.plan.code]
        for row, element in zip(found.rows, found.elements, strict=True):
            try:
                ns, flags = read_time(row.time, form, arrival_ns, self.max_ahead_ns)
            except ValueError as error:
                reasons.append((element, str(error)))
                continue
            if route.tags[row.value_index] == _UNREGISTERED:
                reason = self._register(route, row.value_index)
                if reason is not None:
                    reasons.append((element, reason))
                    continue
            series = route.tags[row.value_index] & 0xFFFFFFFF  # and form 0, which is nanoseconds
            batch.tags.append(series | (row.quality | flags) << 40)
            batch.times.append(ns)
            batch.values.append(row.value)
            batch.origins.append(index)
        if reasons:
            self._write_letters(batch, topic, payload, reasons, arrival_ns)
        if len(batch.tags) == before:
            batch.rejected += bool(reasons)
            batch.ignored += not reasons

    def _write_letters(
        self,
        batch: _Batch,
        topic: str,
        payload: bytes,
        reasons: list[tuple[int | None, str]],
        arrival_ns: int,
    ) -> None:
        """A letter for each reason, with the element's own JSON; beyond the limit one that counts the rest."""
        raws = raw_elements(payload) if any(element is not None for element, _ in reasons) else None
        for element, reason in reasons[:LETTERS_A_MESSAGE_MAX]:
            if element is None:
                batch.letters.append(_letter(topic, payload, reason, arrival_ns))
            else:
                part = payload if raws is None else raws[element]
                batch.letters.append(_letter(topic, part, f"element {element}: {reason}", arrival_ns))
        if len(reasons) > LETTERS_A_MESSAGE_MAX:
            rest = len(reasons) - LETTERS_A_MESSAGE_MAX
            reason = f"{rest} more faults in this message; the next: {reasons[LETTERS_A_MESSAGE_MAX][1]}"
            batch.letters.append(_letter(topic, payload, reason, arrival_ns))

    def _route(self, topic: str) -> _Route | str:
        """The route of a topic that is not remembered, or the reason why there is none."""
        parts = topic.split("/")
        for plan in self._plans:
            names = plan.parsed.pattern.match(topic, parts)
            if names is not None:
                break
        else:
            return "expected a topic that a map of this source names, found none that fits"
        parsed = plan.parsed
        keys = []
        for value_index in range(len(parsed.value_names)):
            key = parsed.series.fill(parsed.names_of(names, value_index))
            try:
                check_key(key)
            except ValueError as error:
                return str(error)
            keys.append(key)
        return _Route(plan, topic, names, tuple(keys))

    def _remember(self, route: _Route) -> None:
        """Keep a route that has led to a series; the oldest half makes room when there are too many."""
        if len(route.topic) > ROUTE_TOPIC_CHARS_MAX or route.topic in self._routes:
            return
        if len(self._routes) >= self._routes_max:
            for old in list(islice(self._routes, self._routes_max // 2 + 1)):
                del self._routes[old]
        self._routes[route.topic] = route

    def _register(self, route: _Route, value_index: int) -> str | None:
        """Give a value of the route its series id; the reason if that is not possible."""
        parsed, key = route.plan.parsed, route.keys[value_index]
        names = parsed.names_of(route.names, value_index)
        texts = [None if t is None else t.fill(names) or None for t in parsed.attributes[value_index]]
        given = dict(zip(ATTRIBUTES, texts, strict=True))
        listed = self._known.get(key)
        if listed is not None:
            given.update({name: text for name in ATTRIBUTES if (text := getattr(listed, name)) is not None})
        attributes = SeriesAttributes(**given, external={} if listed is None else listed.external)
        try:
            series = self._registry.register(self._source, key, attributes)
            if series >= 0:
                self._complete(series, key, attributes)
        except ValueError as error:
            return str(error)
        if series < 0:
            return "expected a known series: this source has as many as [catalogue] max_series allows"
        route.tags[value_index] = series | route.plan.code << 32
        if value_index == 0:
            route.tag = route.tags[0]
            route.decode = route.plan.reader.simple
        if _UNREGISTERED not in route.tags:
            route.names, route.keys = {}, ()  # not needed any more, and there may be many routes
        self._remember(route)
        return None

    def _complete(self, series: int, key: str, attributes: SeriesAttributes) -> None:
        """Add what the map says of a series that was there before and lacks it, such as one listed beforehand."""
        catalogue = self._registry.catalogue
        if series >= len(catalogue):
            return
        old = catalogue.attributes_of(series)
        missing = {
            name: text
            for name in ATTRIBUTES
            if getattr(old, name) is None and (text := getattr(attributes, name))
        }
        if missing:
            self._registry.describe(self._source, key, SeriesAttributes(**missing))

    def _form_code(self, parsed: ParsedMap) -> int:
        zone: tzinfo = UTC if parsed.zone == "UTC" else ZoneInfo(parsed.zone)
        form = TimeForm(parsed.time_unit, zone)
        if form not in self._forms:
            if len(self._forms) == _FORMS_MAX:
                raise ValueError(
                    f"expected fewer than {_FORMS_MAX} pairs of time_unit and timezone in one source"
                )
            self._forms.append(form)
        return self._forms.index(form)


def _letter(topic: str, payload: bytes, reason: str, arrival_ns: int) -> Letter:
    if len(payload) <= MAX_LETTER_PAYLOAD:
        return Letter(topic, bytes(payload), reason, arrival_ns)
    return Letter(topic, bytes(payload[:MAX_LETTER_PAYLOAD]), reason, arrival_ns, len(payload))
