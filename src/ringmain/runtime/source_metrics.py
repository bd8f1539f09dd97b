"""What is counted around every source, whatever its protocol."""

from __future__ import annotations

from ringmain.runtime.counters import Kind, declare

RECEIVED = declare(
    "ringmain_source_messages_received_total",
    Kind.COUNTER,
    "Messages that a source received, before mapping and before they are durable.",
    labels=("source",),
    unit="messages",
)
READINGS = declare(
    "ringmain_source_readings_total",
    Kind.COUNTER,
    "Readings of a source that are durable.",
    labels=("source",),
    unit="readings",
)
LETTERS = declare(
    "ringmain_source_letters_total",
    Kind.COUNTER,
    "Dead letters of a source that are durable, by what was expected.",
    labels=("source", "reason"),
    unit="letters",
)
EVENTS = declare(
    "ringmain_source_events_total",
    Kind.COUNTER,
    "Events of a source that are durable.",
    labels=("source",),
    unit="events",
)
BYTES = declare(
    "ringmain_source_appended_bytes_total",
    Kind.COUNTER,
    "Bytes that a source's durable appends took in memory, catalogue entries included.",
    labels=("source",),
    unit="bytes",
)
APPENDS = declare(
    "ringmain_source_appends_total",
    Kind.COUNTER,
    "Appends of a source that are durable.",
    labels=("source",),
    unit="appends",
)
APPEND_SECONDS = declare(
    "ringmain_source_append_seconds",
    Kind.HISTOGRAM,
    "Time from handing an append to the log until it is known to be durable, retries included.",
    labels=("source",),
    unit="seconds",
)
RETRIES = declare(
    "ringmain_source_append_retries_total",
    Kind.COUNTER,
    "Appends tried again because the log was full or failing.",
    labels=("source", "cause"),
    unit="appends",
)
QUEUE_ROWS = declare(
    "ringmain_source_queue_rows",
    Kind.GAUGE,
    "Rows that a source handed over and that are not durable yet.",
    labels=("source",),
    unit="rows",
)
READY = declare(
    "ringmain_source_ready",
    Kind.GAUGE,
    "1 while a source may read from its connections, 0 while its queue is full.",
    labels=("source",),
)
CALLBACK_ERRORS = declare(
    "ringmain_source_callback_errors_total",
    Kind.COUNTER,
    "Exceptions that a source's own callbacks raised; each is logged.",
    labels=("source",),
    unit="exceptions",
)
RUNNING = declare(
    "ringmain_source_running",
    Kind.GAUGE,
    "1 while a source accepts or is connected, else 0.",
    labels=("source",),
)
RESTARTS = declare(
    "ringmain_source_restarts_total",
    Kind.COUNTER,
    "How often a source was started again after it raised.",
    labels=("source",),
    unit="restarts",
)
