"""What the parts of a node count, declared as data and rendered for Prometheus.

Every room declares its metrics at module level with `declare`; the declarations form one catalogue, from
which `docs/metrics.md` is generated. A `Counters` instance holds the values of one node.

Promises
    - `render` gives the Prometheus text exposition format 0.0.4 (prometheus.io, "Exposition formats").
    - At most `LABEL_SETS_MAX` label sets a metric: what comes beyond is counted under the label value
      `other`, so that hostile input cannot fill memory through a label.
    - A cell is added to without a lock: it has one writing thread. Whoever has no thread of his own to
      count in uses `Counters.add`, which takes a lock.
    - What other processes of the node count (`snapshot`) is rendered with one's own (`include`); values with
      the same labels are added.

Left to others: serving the text (`serve`), and deciding what is worth counting.
"""

from __future__ import annotations

import math
import re
import threading
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

import msgspec

LABEL_SETS_MAX = 1000
"""Label sets that one metric may have in one `Counters`."""

OTHER = "other"
"""The value of every label of the cell that takes what came beyond `LABEL_SETS_MAX`."""

SECONDS_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds, in seconds, of the buckets of a histogram that declares none itself."""

_NAME = re.compile(r"ringmain_[a-z0-9]+(_[a-z0-9]+)*")
_LABEL = re.compile(r"[a-z][a-z0-9_]*")


class Kind(Enum):
    """How a metric behaves; the value is its `# TYPE`."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Metric:
    """A declared metric: `name` ends in its base unit (`_total`, `_seconds`, `_bytes`)."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    unit: str = ""
    buckets: tuple[float, ...] = ()


_catalogue: dict[str, Metric] = {}


def declare(
    name: str,
    kind: Kind,
    help: str,  # noqa: A002  (the format's own word for it)
    *,
    labels: tuple[str, ...] = (),
    unit: str = "",
    buckets: tuple[float, ...] = (),
) -> Metric:
    """Enter a metric into the catalogue; the same again is the same metric, another one raises ValueError."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"expected a metric name such as ringmain_source_readings_total, found {name!r}")
    if (kind is Kind.COUNTER) != name.endswith("_total"):
        raise ValueError(
            f"expected `_total` at the end of a counter's name only, found {name!r} ({kind.value})"
        )
    for label in labels:
        if not _LABEL.fullmatch(label) or label == "le":
            raise ValueError(
                f"expected a label of lower-case letters and digits, other than `le`, found {label!r}"
            )
    if not help:
        raise ValueError(f"metric {name} needs a help text")
    if kind is Kind.HISTOGRAM and not buckets:
        buckets = SECONDS_BUCKETS
    if list(buckets) != sorted(set(buckets)):
        raise ValueError(f"metric {name}: expected growing bucket bounds, found {buckets}")
    metric = Metric(name, kind, help, labels, unit, buckets)
    known = _catalogue.setdefault(name, metric)
    if known != metric:
        raise ValueError(f"metric {name} is declared already, differently: {known}")
    return known


def declared() -> tuple[Metric, ...]:
    """Every metric declared so far, by name."""
    return tuple(_catalogue[name] for name in sorted(_catalogue))


def metric_named(name: str) -> Metric:
    """The declared metric of that name. Raises LookupError when there is none."""
    try:
        return _catalogue[name]
    except KeyError:
        raise LookupError(f"no metric {name!r} is declared: use `runtime.counters.declare`") from None


class Cell:
    """One value of a counter or gauge. Written by one thread; read by any."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: float = 0

    def add(self, n: float = 1) -> None:
        """Add `n` (negative only for gauges)."""
        self.value += n

    def set(self, value: float) -> None:
        """Set a gauge."""
        self.value = value


class Histogram:
    """Counts of observations by bucket. Written by one thread; read by any."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count one observation, in the metric's unit. An observation equal to a bound is within it."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class MetricSnapshot(msgspec.Struct, frozen=True, array_like=True):
    """One metric at one moment: (labels, value) of each cell, (labels, counts, total) of each histogram."""

    metric: Metric
    values: list[tuple[tuple[str, ...], float]] = []
    histograms: list[tuple[tuple[str, ...], list[int], float]] = []


class _Merged:
    """A metric's values by labels, of one or several processes."""

    __slots__ = ("histograms", "metric", "values")

    def __init__(self, metric: Metric) -> None:
        self.metric = metric
        self.values: dict[tuple[str, ...], float] = {}
        self.histograms: dict[tuple[str, ...], Histogram] = {}

    def take(self, snapshot: MetricSnapshot) -> None:
        for labels, value in snapshot.values:
            self.values[labels] = self.values.get(labels, 0) + value
        for labels, counts, total in snapshot.histograms:
            held = self.histograms.setdefault(labels, Histogram(self.metric.buckets))
            if len(counts) == len(held.counts):
                held.counts = [a + b for a, b in zip(held.counts, counts, strict=True)]
                held.total += total


class Counters:
    """The values of one node's metrics, or of one process of it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._others: Callable[[], Iterable[MetricSnapshot]] = tuple
        self._cells: dict[str, dict[tuple[str, ...], Cell]] = {}
        self._histograms: dict[str, dict[tuple[str, ...], Histogram]] = {}
        self._functions: dict[str, dict[tuple[str, ...], Callable[[], float]]] = {}

    def cell(self, metric: Metric, *labels: str) -> Cell:
        """The cell of a counter or gauge with these label values (in declared order); made at first use."""
        _check(metric, labels, histogram=False)
        with self._lock:
            return self._cell(metric, labels)

    def histogram(self, metric: Metric, *labels: str) -> Histogram:
        """The histogram with these label values; made at first use."""
        _check(metric, labels, histogram=True)
        with self._lock:
            held = self._histograms.setdefault(metric.name, {})
            labels = _bounded(held, labels)
            if labels not in held:
                held[labels] = Histogram(metric.buckets)
            return held[labels]

    def observe_with(self, metric: Metric, value: Callable[[], float], *labels: str) -> Callable[[], None]:
        """Ask `value` (quick, thread-safe) whenever the metric is rendered; returns what ends that."""
        _check(metric, labels, histogram=False)
        with self._lock:
            held = self._functions.setdefault(metric.name, {})
            labels = _bounded(held, labels)
            held[labels] = value

        def end() -> None:
            with self._lock:
                if held.get(labels) is value:
                    del held[labels]

        return end

    def add(self, metric: Metric, n: float = 1, *labels: str) -> None:
        """Add from any thread, under a lock. Not to be mixed with `cell(...).add` on the same labels."""
        _check(metric, labels, histogram=False)
        with self._lock:
            self._cell(metric, labels).value += n

    def include(self, others: Callable[[], Iterable[MetricSnapshot]]) -> None:
        """Have `value` and `render` add what `others` (quick, thread-safe) gives."""
        self._others = others

    def value(self, name: str, *labels: str) -> float:
        """The value of a counter or gauge, 0 if never counted; without label values the sum over all."""
        with self._lock:
            cells = dict(self._cells.get(name, {}))
            functions = dict(self._functions.get(name, {}))
        values = {key: cell.value for key, cell in cells.items()}
        values.update((key, function()) for key, function in functions.items())
        for other in self._others():
            if other.metric.name == name:
                for key, value in other.values:
                    values[key] = values.get(key, 0) + value
        return values.get(labels, 0) if labels else sum(values.values())

    def snapshot(self) -> list[MetricSnapshot]:
        """Every metric that has a value here, without what is included, by name."""
        with self._lock:
            cells = {name: dict(held) for name, held in self._cells.items()}
            histograms = {name: dict(held) for name, held in self._histograms.items()}
            functions = {name: dict(held) for name, held in self._functions.items()}
        snapshots: list[MetricSnapshot] = []
        for metric in declared():
            values: dict[tuple[str, ...], float] = {
                key: c.value for key, c in cells.get(metric.name, {}).items()
            }
            values.update((key, function()) for key, function in functions.get(metric.name, {}).items())
            held = histograms.get(metric.name, {})
            if values or held:
                counted = [(key, list(one.counts), one.total) for key, one in held.items()]
                snapshots.append(MetricSnapshot(metric, list(values.items()), counted))
        return snapshots

    def render(self) -> str:
        """Every metric that has a value, in the Prometheus text exposition format 0.0.4."""
        merged: dict[str, _Merged] = {}
        for snapshot in (*self.snapshot(), *self._others()):
            merged.setdefault(snapshot.metric.name, _Merged(snapshot.metric)).take(snapshot)
        lines: list[str] = []
        for _, one in sorted(merged.items()):
            metric = one.metric
            lines.append(f"# HELP {metric.name} {_escape_help(metric.help)}")
            lines.append(f"# TYPE {metric.name} {metric.kind.value}")
            for labels, value in sorted(one.values.items()):
                lines.append(f"{metric.name}{_labels(metric.labels, labels)} {_number(value)}")
            for labels, histogram in sorted(one.histograms.items(), key=lambda item: item[0]):
                lines.extend(_histogram_lines(metric, labels, histogram))
        return "\n".join(lines) + "\n" if lines else ""

    def _cell(self, metric: Metric, labels: tuple[str, ...]) -> Cell:
        held = self._cells.setdefault(metric.name, {})
        labels = _bounded(held, labels)
        if labels not in held:
            held[labels] = Cell()
        return held[labels]


def reference() -> str:
    """The catalogue as Markdown: the text of `docs/metrics.md`."""
    lines = [
        "# Metrics",
        "",
        "What a node counts, as `GET /metrics` gives it (Prometheus text format 0.0.4).",
        f"A metric has at most {LABEL_SETS_MAX} label sets; what comes beyond is counted under `{OTHER}`.",
        "This page is generated from the declarations in the source: `make docs`.",
        "",
        "| metric | type | labels | unit | meaning |",
        "|---|---|---|---|---|",
    ]
    for metric in declared():
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        meaning = metric.help.replace("|", "\\|").replace("\n", " ")
        lines.append(f"| `{metric.name}` | {metric.kind.value} | {labels} | {metric.unit} | {meaning} |")
    return "\n".join(lines) + "\n"


def _check(metric: Metric, labels: tuple[str, ...], *, histogram: bool) -> None:
    if len(labels) != len(metric.labels):
        raise ValueError(f"metric {metric.name}: expected values for labels {metric.labels}, found {labels}")
    if histogram != (metric.kind is Kind.HISTOGRAM):
        raise ValueError(
            f"metric {metric.name} is a {metric.kind.value}: `histogram` is for those, `cell` for others"
        )


def _bounded(held: Mapping[tuple[str, ...], object], labels: tuple[str, ...]) -> tuple[str, ...]:
    if labels in held or len(held) < LABEL_SETS_MAX or not labels:
        return labels
    return (OTHER,) * len(labels)


def _histogram_lines(metric: Metric, labels: tuple[str, ...], histogram: Histogram) -> list[str]:
    counts = list(histogram.counts)
    names = (*metric.labels, "le")
    lines = []
    cumulative = 0
    for bound, count in zip((*histogram.bounds, math.inf), counts, strict=True):
        cumulative += count
        lines.append(f"{metric.name}_bucket{_labels(names, (*labels, _number(bound)))} {cumulative}")
    lines.append(f"{metric.name}_sum{_labels(metric.labels, labels)} {_number(histogram.total)}")
    lines.append(f"{metric.name}_count{_labels(metric.labels, labels)} {cumulative}")
    return lines


def _labels(names: tuple[str, ...], values: tuple[str, ...]) -> str:
    if not names:
        return ""
    pairs = ",".join(f'{name}="{_escape_label(value)}"' for name, value in zip(names, values, strict=True))
    return "{" + pairs + "}"


def _escape_help(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n")


def _escape_label(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: float) -> str:
    if isinstance(value, int):
        return str(value)
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return repr(float(value)) if value != int(value) or abs(value) >= 1e15 else str(int(value))
