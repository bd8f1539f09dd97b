"""The compiled loops of the fast path: PUBLISH packets with a payload such as {"t": 1732351374125, "v": 230.1}.

Needs Numba (extra `fast`); imported by `mqtt_fast.py` only. Promises: takes a packet only if the general path
(`mqtt_publish.take`, then `Mapper.map`) would make exactly the same reading and reply of it, bit for bit, and
stops before any other; looks at no byte beyond the packet's. Topics are compared in full, never by their hash
alone. A decimal becomes a double only where one correctly rounded operation gives it: at most 2**53 as digits,
and a power of ten up to 22, both of which doubles hold exactly (Clinger, "How to read floating point numbers
accurately", 1990).
"""

# To Numba, an int here is an int64; the stubs of NumPy tell the two apart, and Numba's decorator has no types.
# mypy: disable-error-code="untyped-decorator,no-any-return,return-value,assignment"

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ringmain.sources.mqtt_fast_memory import (
    byte_at,
    eight_bytes,
    put_byte,
    put_f64,
    put_i64,
    put_u32,
    word_at,
)

PROBES_MAX = 32
"""Slots looked at for a topic, so that topics made to collide cost a bounded time."""

PAYLOAD_BYTES_MAX = 512
POWERS = np.array([10.0**n for n in range(23)])
MANTISSA_MAX = 2**53
TIME_MAX = 2**63 - 1

# The state of a `FastReader`, an array of int64: addresses of its tables and columns, and their sizes.
(SLOTS, SLOT_MASK, TOPICS, ARENA, PLANS, KEYS, SEED, SERIES, TIMES, VALUES, ACKS, ROWS_MAX) = range(12)
STATE_SIZE = 12

# Rows of the tables, int64 each.
TOPIC_AT, TOPIC_LENGTH, TOPIC_SERIES, TOPIC_PLAN = range(4)
TOPIC_COLUMNS = 4
TIME_KEY_AT, TIME_KEY_LENGTH, VALUE_KEY_AT, VALUE_KEY_LENGTH, UNIT_NS = range(5)
PLAN_COLUMNS = 5


def _compiled(function: Callable[..., Any]) -> Any:
    """The function as machine code, kept between starts where Numba finds a directory that it may write."""
    try:
        return njit(cache=True, error_model="numpy")(function)
    except RuntimeError:  # no such directory: compiled at each start
        return njit(error_model="numpy")(function)


@_compiled
def topic_hash(address: int, length: int, seed: int) -> int:
    """A hash of the bytes from `address` on, from a secret start: a multiplication for each eight bytes."""
    state = np.uint64(seed) ^ (np.uint64(length) * np.uint64(0x9E3779B97F4A7C15))
    at = 0
    while at + 8 <= length:
        state = (state ^ eight_bytes(address, at)) * np.uint64(0xFF51AFD7ED558CCD)
        state ^= state >> np.uint64(32)
        at += 8
    while at < length:
        state = (state ^ np.uint64(byte_at(address, at))) * np.uint64(0x00000100000001B3)
        at += 1
    return np.int64((state ^ (state >> np.uint64(29))) >> np.uint64(1))


@_compiled
def same_bytes(one: int, other: int, length: int) -> bool:
    """Whether `length` bytes at both addresses are equal."""
    at = 0
    while at + 8 <= length:
        if eight_bytes(one, at) != eight_bytes(other, at):
            return False
        at += 8
    while at < length:
        if byte_at(one, at) != byte_at(other, at):
            return False
        at += 1
    return True


@_compiled
def find_topic(address: int, length: int, state: NDArray[np.int64]) -> tuple[int, int]:
    """(index of the topic whose bytes are at `address`, or -1; a free slot for it, or -1)."""
    mask, slots, topics, arena = state[SLOT_MASK], state[SLOTS], state[TOPICS], state[ARENA]
    start = topic_hash(address, length, state[SEED])
    for probe in range(PROBES_MAX):
        slot = (start + probe) & mask
        index = word_at(slots, slot)
        if index < 0:
            return -1, slot
        row = index * TOPIC_COLUMNS
        if word_at(topics, row + TOPIC_LENGTH) == length and same_bytes(
            address, arena + word_at(topics, row + TOPIC_AT), length
        ):
            return index, slot
    return -1, -1


@_compiled
def _blank(data: int, at: int, end: int) -> int:
    """Offset of the first byte from `at` on that is no JSON white space (RFC 8259, 2)."""
    while at < end:
        byte = byte_at(data, at)
        if byte > 32 or not (byte == 32 or byte == 9 or byte == 10 or byte == 13):
            break
        at += 1
    return at


@_compiled
def _time(data: int, at: int, end: int, unit_ns: int) -> tuple[int, int]:
    """(offset behind a whole number, ns since 1970); offset -1: not for this path. As `mapping_times.epoch_ns`."""
    start = at
    number = 0
    while at < end:
        digit = byte_at(data, at) - 48
        if digit < 0 or digit > 9:
            break
        number = number * 10 + digit
        at += 1
        if at - start > 18:
            return -1, 0
    if at == start or (byte_at(data, start) == 48 and at - start > 1):
        return -1, 0
    scale = unit_ns
    if scale == 0:
        scale = 1
        if number <= TIME_MAX // 1_000_000_000:
            scale = 1_000_000_000
        elif number <= TIME_MAX // 1_000_000:
            scale = 1_000_000
        elif number <= TIME_MAX // 1_000:
            scale = 1_000
    elif number > TIME_MAX // scale:
        return -1, 0
    return at, number * scale


@_compiled
def _number(data: int, at: int, end: int) -> tuple[int, float]:
    """(offset behind a number, its double); offset -1: not for this path. Grammar of RFC 8259, 6."""
    negative = at < end and byte_at(data, at) == 45
    if negative:
        at += 1
    start = at
    mantissa = 0
    significant = 0
    while at < end:
        digit = byte_at(data, at) - 48
        if digit < 0 or digit > 9:
            break
        mantissa = mantissa * 10 + digit
        at += 1
        significant += mantissa != 0
        if significant > 18:
            return -1, 0.0
    if at == start or (byte_at(data, start) == 48 and at - start > 1):
        return -1, 0.0
    power = 0
    if at < end and byte_at(data, at) == 46:
        at += 1
        start = at
        while at < end:
            digit = byte_at(data, at) - 48
            if digit < 0 or digit > 9:
                break
            mantissa = mantissa * 10 + digit
            at += 1
            significant += mantissa != 0
            if significant > 18:
                return -1, 0.0
        if at == start:
            return -1, 0.0
        power = start - at
    if at < end and (byte_at(data, at) == 101 or byte_at(data, at) == 69):
        at += 1
        sign = 1
        if at < end and (byte_at(data, at) == 43 or byte_at(data, at) == 45):
            sign = 44 - byte_at(data, at)
            at += 1
        start = at
        exponent = 0
        while at < end:
            digit = byte_at(data, at) - 48
            if digit < 0 or digit > 9:
                break
            exponent = exponent * 10 + digit
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


@_compiled
def _key(data: int, at: int, end: int, key: int, length: int) -> int:
    """Offset of what follows `"KEY":`, whose opening quotation mark is at `at`; -1: another key."""
    close = at + length + 1
    if close >= end or byte_at(data, close) != 34 or not same_bytes(data + at + 1, key, length):
        return -1
    at = _blank(data, close + 1, end)
    if at >= end or byte_at(data, at) != 58:
        return -1
    return _blank(data, at + 1, end)


@_compiled
def _object(data: int, at: int, end: int, plan: int, keys: int) -> tuple[bool, int, float]:
    """(whether it is an object of exactly the two members, time in ns, value)."""
    time_ns = 0
    value = 0.0
    seen = 0
    at = _blank(data, at, end)
    if at >= end or byte_at(data, at) != 123:
        return False, time_ns, value
    for member in range(2):
        at = _blank(data, at + 1, end)
        if at >= end or byte_at(data, at) != 34:
            return False, time_ns, value
        time_key = keys + word_at(plan, TIME_KEY_AT)
        behind = _key(data, at, end, time_key, word_at(plan, TIME_KEY_LENGTH))
        if behind >= 0:
            seen |= 1
            at, time_ns = _time(data, behind, end, word_at(plan, UNIT_NS))
        else:
            value_key = keys + word_at(plan, VALUE_KEY_AT)
            behind = _key(data, at, end, value_key, word_at(plan, VALUE_KEY_LENGTH))
            if behind < 0:
                return False, time_ns, value
            seen |= 2
            at, value = _number(data, behind, end)
        if at < 0:
            return False, time_ns, value
        at = _blank(data, at, end)
        if at >= end or byte_at(data, at) != (44 if member == 0 else 125):
            return False, time_ns, value
    return seen == 3 and _blank(data, at + 1, end) == end, time_ns, value


@_compiled
def take_simple(
    data: int,
    at: int,
    end: int,
    v5: bool,
    packet_bytes_max: int,
    replies_max: int,
    state: NDArray[np.int64],
    row: int,
) -> tuple[int, int, int]:
    """Take packets of the bytes `at` to `end` behind address `data` until one is incomplete or not for this path,
    or a column is full.

    Returns (offset behind the last packet taken, next free row, PUBACK packets written to the column of them).
    """
    replied = 0
    rows_max = state[ROWS_MAX]
    while at + 2 <= end and row < rows_max:
        first = byte_at(data, at)
        qos1 = first & 0xF6 == 0x32
        if not qos1 and first & 0xFE != 0x30:
            break
        if qos1 and (replied >= replies_max or replied >= rows_max):
            break
        length = byte_at(data, at + 1)
        body = at + 2
        if length > 127:
            length &= 127
            shift = 7
            more = True
            while more and shift < 28 and body < end:
                byte = byte_at(data, body)
                length |= (byte & 127) << shift
                more = byte > 127
                shift += 7
                body += 1
            if more:
                break
        stop = body + length
        overhead = 3 if qos1 else 1
        if stop > end or stop - at > packet_bytes_max or length < 2 + overhead:
            break
        topic_length = byte_at(data, body) << 8 | byte_at(data, body + 1)
        content = body + 2 + topic_length
        if topic_length == 0 or content + overhead + 1 > stop or stop - content > PAYLOAD_BYTES_MAX:
            break
        high, low = 0, 0
        if qos1:
            high, low = byte_at(data, content), byte_at(data, content + 1)
            if high == 0 and low == 0:
                break
            content += 2
        if v5:
            if byte_at(data, content) != 0:
                break
            content += 1
        index, _ = find_topic(data + body + 2, topic_length, state)
        if index < 0:
            break
        topic = state[TOPICS] + index * (TOPIC_COLUMNS * 8)
        plan = state[PLANS] + word_at(topic, TOPIC_PLAN) * (PLAN_COLUMNS * 8)
        simple, time_ns, value = _object(data, content, stop, plan, state[KEYS])
        if not simple:
            break
        put_u32(state[SERIES], row, word_at(topic, TOPIC_SERIES))
        put_i64(state[TIMES], row, time_ns)
        put_f64(state[VALUES], row, value)
        row += 1
        if qos1:
            put_byte(state[ACKS], replied * 4, 0x40)
            put_byte(state[ACKS], replied * 4 + 1, 2)
            put_byte(state[ACKS], replied * 4 + 2, high)
            put_byte(state[ACKS], replied * 4 + 3, low)
            replied += 1
        at = stop
    return at, row, replied


def compiled() -> Any:
    """`take_simple`, compiled for the types it is called with now and not at the first packet."""
    slots = np.full(1, -1, np.int64)
    state = np.zeros(STATE_SIZE, np.int64)
    state[SLOTS] = slots.ctypes.data
    find_topic(slots.ctypes.data, 8, state)
    take_simple(slots.ctypes.data, 0, 0, False, 1024, 1, state, 0)
    return take_simple
