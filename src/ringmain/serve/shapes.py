"""The JSON objects that the API answers with: the page and programs rely on them, `/openapi.json` is made of them.

Times are integers in milliseconds since the epoch, UTC, unless a name ends in `_ns`; ages are in seconds; what is
missing is null. NaN and infinity, which JSON lacks, are null.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ringmain.serve.alarmshapes import AlarmList


class Failure(msgspec.Struct, frozen=True):
    """What went wrong: a short name, what was expected and found, and a reference that the node's log has too."""

    error: str
    detail: str
    reference: str


class NodeInfo(msgspec.Struct, frozen=True):
    """The node: its name, the zone in which people read times, its version, when it started."""

    name: str
    timezone: str
    version: str
    started_ms: int


class MediumPower(msgspec.Struct, frozen=True):
    """Power of one medium now, in W: sums of the fresh latest values above and below zero, and of both.

    `fresh` of `series` series are in the sums; `quality` has the worst validity and every further bit of any of them.
    """

    medium: str
    load_w: float
    generation_w: float
    residual_w: float
    series: int
    fresh: int
    quality: int
    oldest_age_s: float | None


class Freshness(msgspec.Struct, frozen=True):
    """How many series had a reading within three of their usual intervals; the age of the oldest latest reading."""

    fresh: int
    total: int
    oldest_age_s: float | None


class StaleSeries(msgspec.Struct, frozen=True):
    """A series without a reading for more than three of its usual intervals; `age_s` since its newest one."""

    key: str
    medium: str | None
    time_ms: int
    age_s: float


class Tallies(msgspec.Struct, frozen=True):
    """What the node counted since it started."""

    received: int
    stored: int
    dead_letters: int
    late: int
    revisions: int
    ahead: int
    duplicates: int
    invalid: int
    events: int


class SourceInfo(msgspec.Struct, frozen=True):
    """A source: where it listens or what it is connected to, its state, what went through it."""

    name: str
    type: str
    address: str
    state: str
    since_ms: int
    last_error: str | None
    received: int
    readings: int
    dead_letters: int
    rate_per_s: float
    connections: int | None
    last_reading_ms: int | None


class FlowInfo(msgspec.Struct, frozen=True):
    """A flow: the stream that it writes, its state, how far it is behind, what it put out."""

    name: str
    to: str
    state: str
    lag_s: float | None
    rows: int
    late: int
    revisions: int
    ahead: int
    last_error: str | None
    """Why it does not run as it should, and what to do."""
    failed: int
    """Batches that became dead letters, because a step failed on them."""


class StepInfo(msgspec.Struct, frozen=True):
    """A step of a flow: its number and type, rows through it since the node started, and what it remembers."""

    step: str
    rows_in: int
    rows_out: int
    rows_aside: int
    """Sent past the later steps: late readings, routed rows."""
    state_bytes: int
    """As of the newest snapshot."""


class FlowDetail(msgspec.Struct, frozen=True):
    """A flow with its steps. Counts are since the node started."""

    name: str
    to: str
    state: str
    lag_s: float | None
    """Arrival time of its input that is not folded yet."""
    newest_ms: int | None
    """The newest event time that it has seen."""
    rows: int
    late: int
    revisions: int
    ahead: int
    duplicates: int
    failed: int
    """Batches that became dead letters."""
    last_error: str | None
    steps: list[StepInfo]


class FlowList(msgspec.Struct, frozen=True):
    """Every flow of the node."""

    now_ms: int
    flows: list[FlowDetail]


class SinkInfo(msgspec.Struct, frozen=True):
    """A sink: where its rows go, its state, how far it is behind, what went through it since the node started.

    `rows` were accepted, `rejected` are dead letters, `missed` were gone from the log before they could be read.
    """

    name: str
    type: str
    streams: list[str]
    address: str
    state: str
    since_ms: int
    last_error: str | None
    lag_s: float | None
    lag_rows: int | None
    rows: int
    batches: int
    retries: int
    rejected: int
    missed: int


class LogInfo(msgspec.Struct, frozen=True):
    """The log: its size, whether it stores (`ok`, `full`, `failing`), the age of what is durable."""

    bytes: int
    segments: int
    state: str
    durable_age_s: float | None


class PartInfo(msgspec.Struct, frozen=True):
    """A process of the node: its state, since when, how often it was started again, why it ended last.

    A node that is one process has one part, `node`. `pid` is null while there is no process.
    """

    name: str
    pid: int | None
    state: str
    since_ms: int
    restarts: int
    last_error: str | None


class LetterInfo(msgspec.Struct, frozen=True):
    """A message that could not become a reading, with the beginning of its payload."""

    time_ms: int
    source: str
    topic: str
    reason: str
    payload: str
    payload_bytes: int


class RowsInfo(msgspec.Struct, frozen=True):
    """Rows of a source in one stream: handed over = found + evicted + quarantined + cut + lost + conflict + difference."""

    stream: str
    handed_over: int
    found: int
    evicted: int
    quarantined: int
    cut: int
    lost: int
    conflict: int
    difference: int


class UnknownInfo(msgspec.Struct, frozen=True):
    """A stretch of time in which messages may have been lost that nobody could count."""

    from_ms: int
    to_ms: int
    reason: str


class AccountInfo(msgspec.Struct, frozen=True):
    """What became of everything that a source received: messages, and the rows that it made of them.

    received = accepted + rejected + ignored + dropped + difference_messages. `counted`: false for a producer that
    does not say what it received; there is no equation then. Since `since_ms`, over all starts of the node.
    """

    source: str
    counted: bool
    since_ms: int
    received: int
    accepted: int
    rejected: int
    ignored: int
    dropped: int
    difference_messages: int
    rows: list[RowsInfo]
    unknown: list[UnknownInfo]


class AccountsInfo(msgspec.Struct, frozen=True):
    """The accounts of all sources as they were at `at_ms`, counted by scanning the log."""

    at_ms: int
    closes: bool
    sources: list[AccountInfo]


class Overview(msgspec.Struct, frozen=True):
    """The whole node at a glance: what the page's first screen shows."""

    node: NodeInfo
    now_ms: int
    power: list[MediumPower]
    fresh: Freshness
    counts: Tallies
    sources: list[SourceInfo]
    flows: list[FlowInfo]
    log: LogInfo
    dead_letters: list[LetterInfo]
    stale: list[StaleSeries]
    """The series that are stale, longest first, at most 20."""
    parts: list[PartInfo]
    """The processes of the node."""
    accounts: AccountsInfo | None
    """Null until the log has been scanned for the first time."""
    sinks: list[SinkInfo] = []
    window_streams: list[str] = []
    """Streams of windows, which charts can show, those of flows in the order of the configuration first."""


class LastReading(msgspec.Struct, frozen=True):
    """The newest reading of a series."""

    time_ms: int
    value: float | None
    quality: int
    arrived_ms: int


class SeriesInfo(msgspec.Struct, frozen=True):
    """A series of the catalogue and its newest reading."""

    key: str
    id: int
    unit: str | None
    quantity: str | None
    medium: str | None
    device: str | None
    place: str | None
    owner: str | None
    external: dict[str, str]
    last: LastReading | None


class SeriesList(msgspec.Struct, frozen=True):
    """The first of `total` series that match, among the `of` series of the catalogue."""

    total: int
    of: int
    series: list[SeriesInfo]


class LatestValue(msgspec.Struct, frozen=True):
    """The newest reading of a series, with its key and unit."""

    key: str
    time_ms: int
    time_ns: str
    value: float | None
    quality: int
    arrived_ms: int
    unit: str | None


class LatestList(msgspec.Struct, frozen=True):
    """Newest readings of the series that match."""

    latest: list[LatestValue]


class Points(msgspec.Struct, frozen=True):
    """Columns of equal length. A raw point has one value as mean, min and max, and count 1."""

    time_ms: list[int]
    mean: list[float | None]
    min: list[float | None]
    max: list[float | None]
    count: list[int]
    quality: list[int]


class ReadingsAnswer(msgspec.Struct, frozen=True):
    """Readings of a series, newest revision of each time; `resolution` is `raw` or the length of the buckets.

    Invalid values are in no bucket's numbers (a bucket may hold none: count 0), but in its `quality`, which is the worst
    of all. `truncated`: the time for answering was up before all was read.
    """

    series: str
    unit: str | None
    resolution: str
    points: Points
    truncated: bool


class WindowColumns(msgspec.Struct, frozen=True):
    """Windows of a series, newest revision of each, by start. A column that the flow does not put out holds nulls."""

    start_ms: list[int]
    count: list[int | None]
    mean: list[float | None]
    min: list[float | None]
    max: list[float | None]
    revision: list[int]


class WindowsAnswer(msgspec.Struct, frozen=True):
    """Windows of one series."""

    stream: str
    series: str
    unit: str | None
    window_ms: int | None
    rows: WindowColumns
    truncated: bool


class MediumColumns(msgspec.Struct, frozen=True):
    """By window start: the means of a medium's power series summed above and below zero and together, and how many."""

    start_ms: list[int]
    load: list[float]
    generation: list[float]
    net: list[float]
    series: list[int]


class MediumWindowsAnswer(msgspec.Struct, frozen=True):
    """Windows of all power series of one medium, summed."""

    stream: str
    medium: str
    unit: str
    window_ms: int | None
    rows: MediumColumns
    truncated: bool


class ColumnInfo(msgspec.Struct, frozen=True):
    """A column: its name and type."""

    name: str
    type: str


class StreamInfo(msgspec.Struct, frozen=True):
    """A stream: what its frames hold, how many rows and frames were ever appended, its newest position."""

    name: str
    kind: str
    rows: int
    frames: int
    last_position: str | None
    last_arrival_ms: int | None
    columns: list[ColumnInfo]


class StreamList(msgspec.Struct, frozen=True):
    """Every stream of the log."""

    streams: list[StreamInfo]


class SqlRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A reading SQL statement, values for its `?` or `$name` parameters, and how many rows are wanted at most."""

    query: str
    parameters: list[Any] | dict[str, Any] | None = None
    limit: int = 10_000


class SqlAnswer(msgspec.Struct, frozen=True):
    """The rows of a statement. Timestamps are RFC 3339 texts in UTC; `truncated`: there are more rows."""

    columns: list[ColumnInfo]
    rows: list[list[Any]]
    row_count: int
    truncated: bool
    seconds: float


class Health(msgspec.Struct, frozen=True):
    """Whether the node is alive or ready."""

    status: str
    detail: str = ""


class Batch(msgspec.Struct, frozen=True, tag_field="type", tag="batch", omit_defaults=True):
    """What changed since the batch before, coalesced: the newest of each series, nothing older.

    values   [key, time_ms, value, quality, arrived_ms] of the watched series
    windows  [key, start_ms, end_ms, count, mean, min, max, revision] of the watched series
    media    [medium, start_ms, load, generation, net, series] of the newest windows
    alarms   as they stand, when one changed
    """

    seq: int
    now_ms: int
    values: list[list[Any]]
    windows: list[list[Any]]
    media: list[list[Any]]
    overview: msgspec.Raw | None = None
    alarms: AlarmList | None = None


class Welcome(msgspec.Struct, frozen=True, tag_field="type", tag="welcome"):
    """The answer to `hello`."""

    heartbeat_s: float
    node: NodeInfo


class Heartbeat(msgspec.Struct, frozen=True, tag_field="type", tag="heartbeat"):
    """Sent when there was nothing else to send."""

    now_ms: int


class LiveError(msgspec.Struct, frozen=True, tag_field="type", tag="error"):
    """The last message before the server closes."""

    error: str
    detail: str


class Hello(msgspec.Struct, frozen=True, tag_field="op", tag="hello"):
    """The client's first message; `token` where the node has one."""

    token: str | None = None


class Watch(msgspec.Struct, frozen=True, tag_field="op", tag="watch"):
    """Which series the client wants from now on, and the window stream of their windows."""

    series: list[str]
    stream: str | None = None


class Ack(msgspec.Struct, frozen=True, tag_field="op", tag="ack"):
    """The batch `seq` has been taken in; the next may come."""

    seq: int


class Hidden(msgspec.Struct, frozen=True, tag_field="op", tag="hidden"):
    """Whether the page is in a tab that nobody sees."""

    hidden: bool


ClientMessage = Hello | Watch | Ack | Hidden
