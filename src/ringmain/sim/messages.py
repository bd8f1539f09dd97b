"""How devices put their readings: payloads as in the mapping contract, and malformed ones.

Times are epoch ms or RFC 3339 with ms. Values are written as Python writes them (shortest form that reads
back as the same float64), so what the node stores can be compared bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import IntEnum
from functools import lru_cache
from time import gmtime, strftime

from ringmain.sim.fleet import Speech

_MEZ_MS = 3_600_000


@lru_cache(maxsize=64)
def _second(epoch_s: int) -> str:
    return strftime("%Y-%m-%dT%H:%M:%S", gmtime(epoch_s))


def rfc_3339(time_ms: int) -> str:
    """`2026-11-23T08:00:00.250Z`."""
    epoch_s, ms = divmod(time_ms, 1000)
    return f"{_second(epoch_s)}.{ms:03d}Z"


def _rfc_3339_mez(time_ms: int) -> str:
    epoch_s, ms = divmod(time_ms + _MEZ_MS, 1000)
    return f"{_second(epoch_s)}.{ms:03d}+01:00"


def single(speech: Speech, time_ms: int, value: float) -> bytes:
    """One reading as an object."""
    if speech == Speech.EPOCH_MS:
        return f'{{"t":{time_ms},"v":{value}}}'.encode()
    return f'{{"t":"{rfc_3339(time_ms)}","v":{value}}}'.encode()


def plug(time_ms: int, power_w: float, total_kwh: float) -> bytes:
    """Two readings as Tasmota sends them."""
    return (
        f'{{"Time":"{_rfc_3339_mez(time_ms)}","ENERGY":{{"Power":{power_w},"Total":{total_kwh}}}}}'.encode()
    )


def array(speech: Speech, times_ms: Sequence[int], values: Sequence[float]) -> bytes:
    """Several readings of one series, as [time, value] pairs or as objects."""
    if speech == Speech.PAIRS:
        inner = ",".join(f"[{t},{v}]" for t, v in zip(times_ms, values, strict=True))
    else:
        inner = ",".join(f'{{"t":{t},"v":{v}}}' for t, v in zip(times_ms, values, strict=True))
    return f"[{inner}]".encode()


class Malformed(IntEnum):
    """In what way a message is no reading."""

    TRUNCATED = 0
    NOT_UTF8 = 1
    TEXT_VALUE = 2
    NO_VALUE = 3
    NOT_A_NUMBER = 4
    TOO_LARGE = 5
    BAD_TIME = 6
    EMPTY = 7
    DEEP = 8
    UNKNOWN_TOPIC = 9
    BAD_ELEMENT = 10


_PAYLOADS: dict[Malformed, Callable[[int, float], bytes]] = {
    Malformed.TRUNCATED: lambda t, v: f'{{"t":{t},"v":'.encode(),
    Malformed.NOT_UTF8: lambda t, v: b'{"t":' + str(t).encode() + b',"v":"\xff\xfe"}',
    Malformed.TEXT_VALUE: lambda t, v: f'{{"t":{t},"v":"n/a"}}'.encode(),
    Malformed.NO_VALUE: lambda t, v: f'{{"t":{t}}}'.encode(),
    Malformed.NOT_A_NUMBER: lambda t, v: f'{{"t":{t},"v":NaN}}'.encode(),
    Malformed.TOO_LARGE: lambda t, v: f'{{"t":{t},"v":1e400}}'.encode(),
    Malformed.BAD_TIME: lambda t, v: f'{{"t":"yesterday","v":{v}}}'.encode(),
    Malformed.EMPTY: lambda t, v: b"",
    Malformed.DEEP: lambda t, v: b"[" * 1000,
    Malformed.UNKNOWN_TOPIC: lambda t, v: f'{{"t":{t},"v":{v}}}'.encode(),
}


def malformed(
    kind: Malformed, topic: str, time_ms: int, value: float
) -> tuple[str, bytes, tuple[float, ...]]:
    """Topic, payload and the readings in it that are good; one dead letter is to be expected.

    BAD_ELEMENT is an array of three, the middle one without a number: elements fail singly.
    """
    if kind == Malformed.BAD_ELEMENT:
        good = (
            f'{{"t":{time_ms},"v":{value}}},{{"t":{time_ms + 1},"v":"?"}},{{"t":{time_ms + 2},"v":{value}}}'
        )
        return topic, f"[{good}]".encode(), (value, value)
    payload = _PAYLOADS[kind](time_ms, value)
    return (f"unknown/{topic}" if kind == Malformed.UNKNOWN_TOPIC else topic), payload, ()
