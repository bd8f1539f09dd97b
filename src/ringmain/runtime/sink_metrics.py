"""What is counted around every sink, wherever its rows go."""

from __future__ import annotations

from ringmain.runtime.counters import Kind, declare

ROWS = declare(
    "ringmain_sink_rows_total",
    Kind.COUNTER,
    "Rows that a sink's receiver has accepted.",
    labels=("sink",),
    unit="rows",
)
BATCHES = declare(
    "ringmain_sink_batches_total",
    Kind.COUNTER,
    "Batches that a sink has answered for.",
    labels=("sink",),
    unit="batches",
)
REJECTED = declare(
    "ringmain_sink_rejected_total",
    Kind.COUNTER,
    "Rows that a sink's receiver will never take, by what was expected: they are dead letters.",
    labels=("sink", "reason"),
    unit="rows",
)
MISSED = declare(
    "ringmain_sink_missed_total",
    Kind.COUNTER,
    "Rows that were gone from the log before a sink could read them.",
    labels=("sink",),
    unit="rows",
)
RETRIES = declare(
    "ringmain_sink_retries_total",
    Kind.COUNTER,
    "Times that a sink asked for a batch again, or failed and was opened anew.",
    labels=("sink",),
    unit="retries",
)
RUNNING = declare(
    "ringmain_sink_running",
    Kind.GAUGE,
    "1 while a sink delivers or waits for rows, 0 while its receiver refuses or cannot be reached.",
    labels=("sink",),
)
LAG_SECONDS = declare(
    "ringmain_sink_lag_seconds",
    Kind.GAUGE,
    "How much arrival time of its streams a sink has not answered for.",
    labels=("sink",),
    unit="seconds",
)
LAG_ROWS = declare(
    "ringmain_sink_lag_rows",
    Kind.GAUGE,
    "Rows of its streams that a sink has not answered for.",
    labels=("sink",),
    unit="rows",
)
