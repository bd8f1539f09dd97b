"""The Arrow schemas of everything that is kept in a log's built-in streams.

`READING` is one value of one series at one time. Inside a log `series` is a dense uint32 id of that
log's catalogue; towards users (`*_KEYED`) it is the series' key.
"""

import pyarrow as pa

TIMESTAMP = pa.timestamp("ns", tz="UTC")

READING = pa.schema(
    [
        pa.field("series", pa.uint32(), nullable=False),
        pa.field("time", TIMESTAMP, nullable=False),
        pa.field("value", pa.float64(), nullable=False),
        pa.field("quality", pa.uint16(), nullable=False),
    ]
)
"""A reading as stored: series id, time by the source's clock, value in the series' unit, quality bits."""

READING_KEYED = pa.schema(
    [
        pa.field("series", pa.dictionary(pa.int32(), pa.string()), nullable=False),
        pa.field("time", TIMESTAMP, nullable=False),
        pa.field("value", pa.float64(), nullable=False),
        pa.field("quality", pa.uint16(), nullable=False),
        pa.field("arrived", TIMESTAMP, nullable=False),
    ]
)
"""A reading as `read()` yields it: series key, and the time at which its batch first arrived in Ringmain."""

DEAD_LETTER = pa.schema(
    [
        pa.field("source", pa.string(), nullable=False),
        pa.field("topic", pa.string(), nullable=False),
        pa.field("payload", pa.binary(), nullable=False),
        pa.field("payload_bytes", pa.int64(), nullable=False),
        pa.field("time", TIMESTAMP, nullable=False),
        pa.field("reason", pa.string(), nullable=False),
    ]
)
"""What could not become a reading: payload (its first `MAX_LETTER_PAYLOAD` bytes), full size, arrival time, why."""

MAX_LETTER_PAYLOAD = 4096
"""Bytes of a rejected payload that a dead letter keeps."""

EVENT = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("type", pa.string(), nullable=False),
        pa.field("subject", pa.string()),
        pa.field("time", TIMESTAMP, nullable=False),
        pa.field("datacontenttype", pa.string()),
        pa.field("data", pa.binary()),
    ]
)
"""Something that happened: the attributes of CloudEvents 1.0 and their data."""

SERIES = pa.schema(
    [
        pa.field("id", pa.uint32(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("unit", pa.string()),
        pa.field("quantity", pa.string()),
        pa.field("medium", pa.string()),
        pa.field("device", pa.string()),
        pa.field("place", pa.string()),
        pa.field("owner", pa.string()),
        pa.field("source", pa.string()),
        pa.field("external", pa.string()),
    ]
)
"""One entry of the series catalogue. `external` is a JSON object of external names (MeLo, OBIS, mRID ...).
A later entry of the same id replaces the earlier one; `unit` and `quantity` of an id, once set, never change."""

TICK = pa.schema([pa.field("time", TIMESTAMP, nullable=False)])
"""One row a second: the node's clock as flows may see it."""
