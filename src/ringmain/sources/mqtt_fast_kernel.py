"""The compiled loops of the fast path: PUBLISH packets with a payload such as {"t": 1732351374125, "v": 230.1}.

Needs Numba (extra `fast`); imported by `mqtt_fast.py` only. Promises: takes a packet only if the general path
(`mqtt_publish.take`, then `Mapper.map`) would make exactly the same reading and reply of it, bit for bit, and
stops before any other. Topics are compared in full, never by their hash alone. A decimal becomes a double only
where one correctly rounded operation gives it: at most 2**53 as digits, and a power of ten up to 22, both of
which doubles hold exactly (Clinger, "How to read floating point numbers accurately", 1990).
"""

# To Numba, an int here is an int64; the stubs of NumPy tell the two apart, and Numba's decorator has no types.
# mypy: disable-error-code="untyped-decorator,no-any-return,return-value,assignment"

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Ints = NDArray[np.int64]

PROBES_MAX = 32
"""Slots looked at for a topic, so that topics made to collide cost a bounded time."""

PAYLOAD_BYTES_MAX = 512
POWERS = np.array([10.0**n for n in range(23)])
MANTISSA_MAX = np.int64(2**53)
TIME_MAX = np.int64(2**63 - 1)

# columns of the table of plans
TIME_AT, TIME_LENGTH, VALUE_AT, VALUE_LENGTH, UNIT_NS = range(5)


@njit(cache=True)
def topic_hash(data: Bytes, at: int, length: int, seed: np.uint64) -> np.uint64:
    """FNV-1a from a secret start, with a last mixing step."""
    state = seed
    for index in range(at, at + length):
        state = (state ^ np.uint64(data[index])) * np.uint64(1099511628211)
    return state ^ (state >> np.uint64(29))


@njit(cache=True)
def find_topic(
    data: Bytes, at: int, length: int, seed: np.uint64, slots: NDArray[np.int32], topics: Ints, arena: Bytes
) -> tuple[int, int]:
    """(index of the topic or -1, free slot or -1). `topics` has rows of (offset in arena, length)."""
    mask = np.uint64(slots.size - 1)
    state = topic_hash(data, at, length, seed)
    for probe in range(PROBES_MAX):
        slot = np.int64((state + np.uint64(probe)) & mask)
        index = np.int64(slots[slot])
        if index < 0:
            return -1, slot
        if topics[index, 1] == length:
            start = topics[index, 0]
            same = True
            for offset in range(length):
                if arena[start + offset] != data[at + offset]:
                    same = False
                    break
            if same:
                return index, slot
    return -1, -1


@njit(cache=True)
def _blank(data: Bytes, at: int, end: int) -> int:
    """Offset of the first byte from `at` on that is no JSON white space (RFC 8259, 2)."""
    while at < end and (data[at] == 32 or data[at] == 9 or data[at] == 10 or data[at] == 13):
        at += 1
    return at


@njit(cache=True)
def _time(data: Bytes, at: int, end: int, unit_ns: int) -> tuple[int, int]:
    """(offset behind a whole number, ns since 1970); offset -1: not for this path. As `mapping_times.epoch_ns`."""
    start = at
    number = np.int64(0)
    while at < end and 48 <= data[at] <= 57:
        number = number * np.int64(10) + np.int64(data[at]) - np.int64(48)
        at += 1
        if at - start > 18:
            return -1, 0
    if at == start or (data[start] == 48 and at - start > 1):
        return -1, 0
    scale = np.int64(unit_ns)
    if scale == 0:
        scale = np.int64(1)
        if number <= TIME_MAX // np.int64(1_000_000_000):
            scale = np.int64(1_000_000_000)
        elif number <= TIME_MAX // np.int64(1_000_000):
            scale = np.int64(1_000_000)
        elif number <= TIME_MAX // np.int64(1_000):
            scale = np.int64(1_000)
    elif number > TIME_MAX // scale:
        return -1, 0
    return at, number * scale


@njit(cache=True)
def _number(data: Bytes, at: int, end: int) -> tuple[int, float]:
    """(offset behind a number, its double); offset -1: not for this path. Grammar of RFC 8259, 6."""
    negative = at < end and data[at] == 45
    if negative:
        at += 1
    start = at
    mantissa = np.int64(0)
    significant = 0
    while at < end and 48 <= data[at] <= 57:
        mantissa = mantissa * np.int64(10) + np.int64(data[at]) - np.int64(48)
        at += 1
        significant += mantissa != 0
        if significant > 18:
            return -1, 0.0
    if at == start or (data[start] == 48 and at - start > 1):
        return -1, 0.0
    power = 0
    if at < end and data[at] == 46:
        at += 1
        start = at
        while at < end and 48 <= data[at] <= 57:
            mantissa = mantissa * np.int64(10) + np.int64(data[at]) - np.int64(48)
            at += 1
            significant += mantissa != 0
            if significant > 18:
                return -1, 0.0
        if at == start:
            return -1, 0.0
        power = start - at
    if at < end and (data[at] == 101 or data[at] == 69):
        at += 1
        sign = 1
        if at < end and (data[at] == 43 or data[at] == 45):
            sign = 44 - np.int64(data[at])
            at += 1
        start = at
        exponent = 0
        while at < end and 48 <= data[at] <= 57:
            exponent = exponent * 10 + np.int64(data[at]) - 48
            at += 1
            if at - start > 3:
                return -1, 0.0
        if at == start:
            return -1, 0.0
        power += sign * exponent
    if mantissa > MANTISSA_MAX or power > 22 or power < -22 or (negative and mantissa == 0):
        return -1, 0.0
    value = np.float64(mantissa)
    value = value * POWERS[power] if power >= 0 else value / POWERS[-power]
    return at, -value if negative else value


@njit(cache=True)
def _key(data: Bytes, at: int, end: int, keys: Bytes, key_at: int, length: int) -> int:
    """Offset behind `"KEY"` and its colon, whose opening quotation mark is at `at`; -1: another key."""
    if at + length + 1 >= end or data[at + length + 1] != 34:
        return -1
    for offset in range(length):
        if data[at + 1 + offset] != keys[key_at + offset]:
            return -1
    at = _blank(data, at + length + 2, end)
    if at >= end or data[at] != 58:
        return -1
    return _blank(data, at + 1, end)


@njit(cache=True)
def _object(data: Bytes, at: int, end: int, plan: Ints, keys: Bytes) -> tuple[bool, int, float]:
    """(whether it is an object of exactly the two members, time in ns, value)."""
    time_ns = np.int64(0)
    value = 0.0
    seen = 0
    at = _blank(data, at, end)
    if at >= end or data[at] != 123:
        return False, time_ns, value
    for member in range(2):
        at = _blank(data, at + 1, end)
        if at >= end or data[at] != 34:
            return False, time_ns, value
        behind = _key(data, at, end, keys, plan[TIME_AT], plan[TIME_LENGTH])
        if behind >= 0:
            seen |= 1
            at, time_ns = _time(data, behind, end, plan[UNIT_NS])
        else:
            behind = _key(data, at, end, keys, plan[VALUE_AT], plan[VALUE_LENGTH])
            if behind < 0:
                return False, time_ns, value
            seen |= 2
            at, value = _number(data, behind, end)
        if at < 0:
            return False, time_ns, value
        at = _blank(data, at, end)
        if at >= end or data[at] != (44 if member == 0 else 125):
            return False, time_ns, value
    return seen == 3 and _blank(data, at + 1, end) == end, time_ns, value


@njit(cache=True)
def take_simple(
    data: Bytes,
    at: int,
    end: int,
    v5: bool,
    packet_bytes_max: int,
    replies_max: int,
    seed: np.uint64,
    slots: NDArray[np.int32],
    topics: Ints,
    arena: Bytes,
    plans: Ints,
    keys: Bytes,
    row: int,
    series: NDArray[np.uint32],
    times: Ints,
    values: NDArray[np.float64],
    acks: Bytes,
) -> tuple[int, int, int]:
    """Take packets of `data[at:end]` until one is incomplete or not for this path, or a column is full.

    `topics` has rows of (offset, length, series id, plan). Returns (offset behind the last packet taken, next
    free row, bytes of PUBACK packets written to `acks`).
    """
    replied = 0
    rows_max = series.size
    while at + 2 <= end and row < rows_max:
        first = data[at]
        qos1 = first & 0xF6 == 0x32
        if not qos1 and first & 0xFE != 0x30:
            break
        if qos1 and (replied >= replies_max or replied * 4 + 4 > acks.size):
            break
        length = np.int64(data[at + 1])
        body = at + 2
        if length > 127:
            length &= 127
            shift = 7
            more = True
            while more and shift < 28 and body < end:
                length |= (np.int64(data[body]) & 127) << shift
                more = data[body] > 127
                shift += 7
                body += 1
            if more:
                break
        stop = body + length
        overhead = 3 if qos1 else 1
        if stop > end or stop - at > packet_bytes_max or length < 2 + overhead:
            break
        topic_length = (np.int64(data[body]) << 8) | np.int64(data[body + 1])
        content = body + 2 + topic_length
        if topic_length == 0 or content + overhead + 1 > stop or stop - content > PAYLOAD_BYTES_MAX:
            break
        if qos1:
            if data[content] == 0 and data[content + 1] == 0:
                break
            content += 2
        if v5:
            if data[content] != 0:
                break
            content += 1
        index, _ = find_topic(data, body + 2, topic_length, seed, slots, topics, arena)
        if index < 0:
            break
        simple, time_ns, value = _object(data, content, stop, plans[topics[index, 3]], keys)
        if not simple:
            break
        series[row] = topics[index, 2]
        times[row] = time_ns
        values[row] = value
        row += 1
        if qos1:
            packet_id_at = body + 2 + topic_length
            acks[replied * 4] = 0x40
            acks[replied * 4 + 1] = 2
            acks[replied * 4 + 2] = data[packet_id_at]
            acks[replied * 4 + 3] = data[packet_id_at + 1]
            replied += 1
        at = stop
    return at, row, replied


def compiled() -> Any:
    """`take_simple`, with every argument's type compiled now and not at the first packet."""
    nothing = np.zeros(16, np.uint8)
    one = np.zeros((1, 5), np.int64)
    slots = np.full(2, -1, np.int32)
    column = np.zeros(1, np.int64)
    seed = np.uint64(1)
    find_topic(nothing, 0, 1, seed, slots, one, nothing)
    take_simple(
        nothing,
        0,
        0,
        False,
        1024,
        1,
        seed,
        slots,
        one,
        nothing,
        one,
        nothing,
        0,
        np.zeros(1, np.uint32),
        column,
        np.zeros(1, np.float64),
        nothing,
    )
    return take_simple
