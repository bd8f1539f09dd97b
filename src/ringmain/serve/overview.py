"""The node at a glance: power by medium, freshness, counts, sources, flows, dead letters.

Computed from the newest values when asked for, at most once in `KEPT_S` however many ask. Which series are power
series, and of which medium, is read from the catalogue when the catalogue changes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ringmain.model.catalogue import Catalogue
from ringmain.model.quality import VALIDITY_MASK
from ringmain.runtime.counters import Counters
from ringmain.serve.latest import KeptLetter, Latest
from ringmain.serve.shapes import (
    AccountsInfo,
    FlowInfo,
    Freshness,
    LetterInfo,
    LogInfo,
    MediumPower,
    NodeInfo,
    Overview,
    PartInfo,
    SinkInfo,
    SourceInfo,
    StaleSeries,
    Tallies,
)
from ringmain.serve.status import NodeStatus, StatusProvider

KEPT_S = 0.9
FRESH_INTERVALS = 3
FRESH_LEAST_S = 10.0
FRESH_UNKNOWN_S = 180.0
LETTER_CHARACTERS = 200
STALE_TOLD = 20

_NEVER = np.iinfo(np.int64).min
_CONNECTIONS = "ringmain_mqtt_connections"


_WATTS = {"mW": 1e-3, "W": 1.0, "kW": 1e3, "MW": 1e6, "GW": 1e9}
"""What a value in a unit of power is in W."""


class PowerSeries:
    """Ids of the power series of each medium, kept up to date with the catalogue.

    Those without unit are taken as W; those in a unit that is not of power are left out.
    """

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._lock = threading.Lock()
        self._version = -1
        self._of: dict[str, NDArray[np.uint32]] = {}
        self._factors: NDArray[np.float64] = np.empty(0)

    def by_medium(self) -> dict[str, NDArray[np.uint32]]:
        """Medium -> ids, in order of the medium's name."""
        with self._lock:
            version = self._catalogue.version
            if version != self._version:
                self._of = self._read()
                self._version = version
            return self._of

    def in_watts(self, ids: NDArray[np.uint32], values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Values of power series, which `by_medium` gave, in W."""
        return values * self._factors[ids]

    def _read(self) -> dict[str, NDArray[np.uint32]]:
        found: dict[str, list[NDArray[np.uint32]]] = {}
        batches = self._catalogue.to_batches()
        factors = np.ones(max((int(batch.column("id")[-1].as_py()) + 1 for batch in batches), default=0))
        units, scales = pa.array(list(_WATTS)), np.array(list(_WATTS.values()))
        for batch in batches:
            places = pa.compute.index_in(batch.column("unit").fill_null("W"), units)
            factors[batch.column("id").to_numpy()] = scales[places.fill_null(0).to_numpy()]
            power = pa.compute.equal(batch.column("quantity"), "power").fill_null(False)
            rows = batch.filter(pa.compute.and_(power, places.is_valid()))
            if not rows.num_rows:
                continue
            media = rows.column("medium").fill_null("other").dictionary_encode()
            ids, codes = rows.column("id").to_numpy(), media.indices.to_numpy()
            for code, medium in enumerate(media.dictionary.to_pylist()):
                found.setdefault(medium, []).append(ids[codes == code])
        self._factors = factors
        return {medium: np.concatenate(found[medium]) for medium in sorted(found)}


class OverviewMaker:
    """Makes the overview. Usable from any thread."""

    def __init__(
        self,
        latest: Latest,
        counters: Counters,
        status: StatusProvider,
        clock_ns: Callable[[], int],
        accounts: Callable[[], AccountsInfo | None] = lambda: None,
    ) -> None:
        self.power_series = PowerSeries(latest.catalogue)
        self._latest = latest
        self._counters = counters
        self._status = status
        self._clock_ns = clock_ns
        self._accounts = accounts
        self._lock = threading.Lock()
        self._made_at = -1e9
        self._made: Overview | None = None
        self._encoded = b""
        self._rates: dict[str, tuple[int, int, float]] = {}

    def overview(self) -> Overview:
        """The overview as it is now, or was a moment ago."""
        with self._lock:
            if self._made is None or time.monotonic() - self._made_at > KEPT_S:
                self._made = self._make()
                self._made_at = time.monotonic()
                self._encoded = b""
            return self._made

    def encoded(self) -> bytes:
        """The overview as JSON."""
        overview = self.overview()
        with self._lock:
            if not self._encoded:
                self._encoded = msgspec.json.encode(overview)
            return self._encoded

    def node(self) -> NodeInfo:
        """Who the node is."""
        return _node(self._status())

    def status(self) -> NodeStatus:
        """What the node says of itself."""
        return self._status()

    def _make(self) -> Overview:
        now_ns = self._clock_ns()
        status = self._status()
        latest = self._latest
        power = self.power_series.by_medium()
        with latest.lock:
            times, order, values = latest.times, latest.order, latest.values
            ages_s = (now_ns - times) / 1e9
            known = times != _NEVER
            # by `order`, so that a clock that runs ahead does not look fresh for ever
            fresh = known & ((now_ns - order) / 1e9 <= _fresh_s(latest.intervals))
            watts = values.copy()
            for ids in power.values():
                here = ids[ids < len(watts)]
                watts[here] = self.power_series.in_watts(here, values[here])
            media = [
                _medium(
                    medium,
                    ids[ids < len(times)],
                    len(ids),
                    fresh,
                    watts,
                    latest.qualities,
                    ages_s,
                    known,
                )
                for medium, ids in power.items()
            ]
            oldest = float(ages_s[known].max()) if known.any() else None
            freshness = Freshness(
                int(np.count_nonzero(fresh)),
                int(np.count_nonzero(known)),
                None if oldest is None else max(oldest, 0.0),
            )
            gone = np.flatnonzero(known & ~fresh)
            if len(gone) > STALE_TOLD:
                gone = gone[np.argpartition(order[gone], STALE_TOLD)[:STALE_TOLD]]
            gone = gone[np.argsort(order[gone], kind="stable")]
            gone_ages_s, gone_ms = (now_ns - order[gone]) / 1e9, times[gone] // 1_000_000
            letters = [_letter(letter) for letter in latest.letters]
            invalid = latest.invalid
        flows = status.flows
        counts = Tallies(
            received=sum(source.received for source in status.sources),
            stored=sum(source.readings for source in status.sources),
            dead_letters=sum(source.letters for source in status.sources),
            late=sum(flow.late for flow in flows),
            revisions=sum(flow.revisions for flow in flows),
            ahead=sum(flow.ahead for flow in flows),
            duplicates=sum(flow.duplicates for flow in flows),
            invalid=invalid,
            events=sum(source.events for source in status.sources),
        )
        durable_ns = status.log.durable_ns or latest.last_arrival_ns
        return Overview(
            node=_node(status),
            now_ms=now_ns // 1_000_000,
            power=media,
            fresh=freshness,
            counts=counts,
            sources=self._sources(status, now_ns),
            flows=[
                FlowInfo(
                    f.name,
                    f.to,
                    f.state,
                    f.lag_s,
                    f.rows,
                    f.late,
                    f.revisions,
                    f.ahead,
                    f.last_error,
                    f.failed,
                )
                for f in flows
            ],
            log=LogInfo(
                bytes=status.log.size_bytes,
                segments=status.log.segments,
                state=status.log.state.value,
                durable_age_s=max((now_ns - durable_ns) / 1e9, 0.0) if durable_ns else None,
            ),
            dead_letters=letters,
            stale=self._stale(gone.tolist(), gone_ms.tolist(), gone_ages_s.tolist()),
            parts=[
                PartInfo(
                    part.name,
                    part.pid or None,
                    part.state.value,
                    part.since_ns // 1_000_000,
                    part.restarts,
                    part.last_error,
                )
                for part in status.parts
            ],
            accounts=self._accounts(),
            window_streams=_in_order(latest.window_streams(), [flow.to for flow in flows]),
            sinks=[
                SinkInfo(
                    one.name,
                    one.type,
                    list(one.streams),
                    one.address,
                    one.state.value,
                    one.since_ns // 1_000_000,
                    one.last_error,
                    one.lag_s,
                    one.lag_rows,
                    one.rows,
                    one.batches,
                    one.retries,
                    one.rejected,
                    one.missed,
                )
                for one in status.sinks
            ],
        )

    def _stale(self, ids: list[int], times_ms: list[int], ages_s: list[float]) -> list[StaleSeries]:
        catalogue = self._latest.catalogue
        return [
            StaleSeries(catalogue.key_of(series), catalogue.attributes_of(series).medium, time_ms, age_s)
            for series, time_ms, age_s in zip(ids, times_ms, ages_s, strict=True)
        ]

    def _sources(self, status: NodeStatus, now_ns: int) -> list[SourceInfo]:
        infos = []
        for source in status.sources:
            before_ns, before, rate = self._rates.get(source.name, (now_ns, source.received, 0.0))
            passed_s = (now_ns - before_ns) / 1e9
            if passed_s > 0:
                rate = (
                    0.5 * rate + 0.5 * max(source.received - before, 0) / passed_s
                    if passed_s < 5
                    else (max(source.received - before, 0) / passed_s)
                )
            self._rates[source.name] = (now_ns, source.received, rate)
            infos.append(
                SourceInfo(
                    name=source.name,
                    type=source.type,
                    address=source.address,
                    state=source.state.value,
                    since_ms=source.since_ns // 1_000_000,
                    last_error=source.last_error,
                    received=source.received,
                    readings=source.readings,
                    dead_letters=source.letters,
                    rate_per_s=round(rate, 1),
                    connections=self._connections(source.name, source.type),
                    last_reading_ms=source.last_reading_ns // 1_000_000 or None,
                )
            )
        return infos

    def _connections(self, name: str, kind: str) -> int | None:
        return int(self._counters.value(_CONNECTIONS, name)) if kind == "mqtt-listener" else None


def _in_order(names: list[str], first: list[str]) -> list[str]:
    """The names, in the order of `first` as far as that has them."""
    known = set(names)
    return list(dict.fromkeys([*(name for name in first if name in known), *names]))


def _fresh_s(intervals: NDArray[np.float32]) -> NDArray[np.float64]:
    """Ages up to which series are fresh, from their usual intervals."""
    bounded = np.maximum(intervals.astype(np.float64) * FRESH_INTERVALS, FRESH_LEAST_S)
    return np.where(intervals > 0, bounded, FRESH_UNKNOWN_S)


def _medium(
    medium: str,
    ids: NDArray[np.uint32],
    series: int,
    fresh: NDArray[np.bool_],
    values: NDArray[np.float64],
    qualities: NDArray[np.uint16],
    ages_s: NDArray[np.float64],
    known: NDArray[np.bool_],
) -> MediumPower:
    good = ids[fresh[ids] & ((qualities[ids] & VALIDITY_MASK) < 2)]
    summed, bits = values[good], qualities[good]
    load, generation = float(summed[summed > 0].sum()), float(summed[summed < 0].sum())
    have = ids[known[ids]]
    return MediumPower(
        medium=medium,
        load_w=load,
        generation_w=generation,
        residual_w=load + generation,
        series=series,
        fresh=len(good),
        quality=worst_quality(bits),
        oldest_age_s=max(float(ages_s[have].max()), 0.0) if len(have) else None,
    )


def worst_quality(bits: NDArray[np.uint16]) -> int:
    """The worst validity among quality bits, and every further bit that any of them has."""
    if not len(bits):
        return 0
    validity = int(np.minimum(bits & VALIDITY_MASK, 2).max())
    return validity | int(np.bitwise_or.reduce(bits & ~np.uint16(VALIDITY_MASK)))


def _letter(letter: KeptLetter) -> LetterInfo:
    return LetterInfo(
        time_ms=letter.time_ns // 1_000_000,
        source=letter.source,
        topic=letter.topic[:LETTER_CHARACTERS],
        reason=letter.reason[:LETTER_CHARACTERS],
        payload=letter.payload[: 4 * LETTER_CHARACTERS].decode("utf-8", "replace")[:LETTER_CHARACTERS],
        payload_bytes=letter.payload_bytes,
    )


def _node(status: NodeStatus) -> NodeInfo:
    return NodeInfo(status.name, status.timezone, status.version, status.started_ns // 1_000_000)
