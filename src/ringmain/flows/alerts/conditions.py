"""When an alert is due: conditions over the readings of one series, alone or put together by `all` and `any`.

A condition tree is flattened into leaves. Each leaf is true or false for a series, and stays what it is until a reading
(or, for silence, log time) says otherwise: one bit a leaf and series. The tree over the bits is what the alert follows.

    above, below        a value beyond the limit; true until it is back at `clear_below` / `clear_above`
    rate_above, ..      change from one reading to the next, per `per` of event time
    silent              nothing has arrived for so long (log time)
    bad, of             at least `bad` of the last `of` readings are not good; true until at most `clear_bad` are

A reading without valid value leaves thresholds and rates as they are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated

import msgspec

from ringmain.model.duration import parse_duration

LEAVES_MAX = 16
DEPTH_MAX = 4
BAD_OF_MAX = 64

Above = Annotated[float | None, msgspec.Meta(description="true when the value is greater")]
Below = Annotated[float | None, msgspec.Meta(description="true when the value is less")]
ClearBelow = Annotated[
    float | None,
    msgspec.Meta(description="with `above`: false again when the value is this or less; default: the limit"),
]
ClearAbove = Annotated[
    float | None,
    msgspec.Meta(description="with `below`: false again when the value is this or more; default: the limit"),
]
RateAbove = Annotated[
    float | None,
    msgspec.Meta(
        description="true when the value rises by more, from one reading to the next, for each `per`"
    ),
]
RateBelow = Annotated[
    float | None,
    msgspec.Meta(description="true when the change for each `per` is less: a negative number, for a fall"),
]
Per = Annotated[str, msgspec.Meta(description="what rates of change are told for, e.g. 1s, 1m, 1h")]
Silent = Annotated[
    str | None,
    msgspec.Meta(
        description="true when nothing has arrived for so long, in log time; see `never_sent` for series that never sent"
    ),
]
Bad = Annotated[
    Annotated[int, msgspec.Meta(ge=1, le=BAD_OF_MAX)] | None,
    msgspec.Meta(
        description="true when at least so many of the last `of` readings are not good (questionable, invalid or NaN)"
    ),
]
Of = Annotated[int, msgspec.Meta(description="readings that `bad` looks back on", ge=1, le=BAD_OF_MAX)]
ClearBad = Annotated[
    Annotated[int, msgspec.Meta(ge=0, le=BAD_OF_MAX)] | None,
    msgspec.Meta(description="false again when at most so many are not good; default: `bad` - 1"),
]


class Condition(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """One condition: a threshold, a rate of change, silence, bad quality, or several of them by `all` or `any`."""

    above: Above = None
    below: Below = None
    clear_below: ClearBelow = None
    clear_above: ClearAbove = None
    rate_above: RateAbove = None
    rate_below: RateBelow = None
    per: Per = "1m"
    silent: Silent = None
    bad: Bad = None
    of: Of = 20
    clear_bad: ClearBad = None
    all: Annotated[tuple[Condition, ...], msgspec.Meta(description="true when all of these are")] = ()
    any: Annotated[tuple[Condition, ...], msgspec.Meta(description="true when at least one of these is")] = ()


class LeafKind(StrEnum):
    """What a leaf looks at."""

    THRESHOLD = "threshold"
    RATE = "rate"
    SILENCE = "silence"
    QUALITY = "quality"


class Leaf(msgspec.Struct, frozen=True):
    """A condition without parts. Limits that are not set are infinite; `hold_ns` is the silence or the `per`."""

    kind: LeafKind
    above: float = math.inf
    below: float = -math.inf
    clear_below: float = math.inf
    clear_above: float = -math.inf
    duration_ns: int = 0
    bad: int = 0
    of: int = 0
    clear_bad: int = 0
    text: str = ""

    @property
    def limit(self) -> float | None:
        """The limit, where there is just one."""
        if self.kind is LeafKind.QUALITY:
            return float(self.bad)
        limits = [limit for limit in (self.above, self.below) if math.isfinite(limit)]
        return limits[0] if len(limits) == 1 else None


class Node(msgspec.Struct, frozen=True):
    """A place in the tree: a leaf by number, or several nodes together. `every`: all of them, else any."""

    leaf: int = -1
    every: bool = True
    parts: tuple[Node, ...] = ()


class Tree(msgspec.Struct, frozen=True):
    """A condition as its leaves and how they go together."""

    leaves: tuple[Leaf, ...]
    root: Node
    text: str

    @property
    def of_silence_only(self) -> bool:
        """Whether values do not matter."""
        return all(leaf.kind is LeafKind.SILENCE for leaf in self.leaves)

    @property
    def has_silence(self) -> bool:
        """Whether log time matters."""
        return any(leaf.kind is LeafKind.SILENCE for leaf in self.leaves)

    @property
    def measured(self) -> int | None:
        """The leaf whose quantity an alarm tells: the first with a limit."""
        return next(
            (n for n, leaf in enumerate(self.leaves) if leaf.kind is not LeafKind.SILENCE),
            None,
        )


_KINDS: dict[str, tuple[str, ...]] = {
    "threshold": ("above", "below", "clear_below", "clear_above"),
    "rate": ("rate_above", "rate_below"),
    "silent": ("silent",),
    "bad": ("bad", "clear_bad"),
    "all": ("all",),
    "any": ("any",),
}


def _kinds(condition: Condition) -> list[str]:
    return [
        kind
        for kind, names in _KINDS.items()
        if any(getattr(condition, name) not in (None, ()) for name in names)
    ]


def check_condition(condition: Condition, depth: int = 1) -> Iterator[tuple[str, str]]:
    """What is wrong with a condition, each as (key, message)."""
    kinds = _kinds(condition)
    if len(kinds) != 1:
        found = "nothing" if not kinds else " and ".join(f"`{kind}`" for kind in kinds)
        expected = (
            "above or below, rate_above or rate_below, silent, bad, or several conditions by `all` or `any`"
        )
        yield (
            ("above" if not kinds else _first_key(condition, kinds[1])),
            f"expected one condition ({expected}), found {found}: put several into `all` or `any`",
        )
        return
    if kinds[0] in ("all", "any"):
        parts: tuple[Condition, ...] = getattr(condition, kinds[0])
        if depth >= DEPTH_MAX:
            yield kinds[0], f"expected conditions at most {DEPTH_MAX} deep"
            return
        for number, part in enumerate(parts):
            for key, message in check_condition(part, depth + 1):
                yield f"{kinds[0]}.{number}.{key}", message
        if depth == 1 and (count := _count(condition)) > LEAVES_MAX:
            yield kinds[0], f"expected at most {LEAVES_MAX} conditions in all, found {count}"
        return
    yield from _check_leaf(condition, kinds[0])


def _check_leaf(condition: Condition, kind: str) -> Iterator[tuple[str, str]]:
    for name in _KINDS[kind]:
        number = getattr(condition, name)
        if isinstance(number, float) and not math.isfinite(number):
            yield name, f"expected a finite number, found {number}"
            return
    if kind == "threshold":
        if condition.above is None and condition.below is None:
            yield "above", "expected a limit (`above` or `below`) beside the one to clear at"
        above, below = condition.above, condition.below
        clear_below, clear_above = condition.clear_below, condition.clear_above
        if clear_below is not None and (above is None or clear_below > above):
            yield "clear_below", f"expected a value not above `above` ({above}), found {clear_below}"
        if clear_above is not None and (below is None or clear_above < below):
            yield "clear_above", f"expected a value not below `below` ({below}), found {clear_above}"
        if above is not None and below is not None:
            low = below if clear_above is None else clear_above
            high = above if clear_below is None else clear_below
            if low > high:
                yield "below", f"expected room between the limits, found {low} above {high}"
    elif kind == "rate":
        for name, limit, sign in (
            ("rate_above", condition.rate_above, 1),
            ("rate_below", condition.rate_below, -1),
        ):
            if limit is not None and limit * sign < 0:
                yield name, f"expected {'0 or more' if sign > 0 else '0 or less'}, found {limit}"
        if (found := _duration(condition.per, "per")) is not None:
            yield found
    elif kind == "silent":
        if (found := _duration(condition.silent or "", "silent", SILENCE_MIN_NS)) is not None:
            yield found
    else:
        bad = condition.bad
        if bad is None:
            yield "bad", "expected a number of readings beside `clear_bad`"
        elif bad > condition.of:
            yield "bad", f"expected at most `of` ({condition.of}), found {bad}"
        elif condition.clear_bad is not None and condition.clear_bad >= bad:
            yield "clear_bad", f"expected less than `bad` ({bad}), found {condition.clear_bad}"


SILENCE_MIN_NS = 5_000_000_000
"""Log time moves by ticks of a second; a shorter silence cannot be told from a tick that came a little late."""


def _duration(text: str, key: str, least_ns: int = 1) -> tuple[str, str] | None:
    try:
        duration_ns = parse_duration(text)
    except ValueError as error:
        return key, str(error)
    if duration_ns < least_ns:
        return key, f"expected {'5s or more' if least_ns > 1 else 'more than 0s'}, found {text}"
    return None


def _first_key(condition: Condition, kind: str) -> str:
    return next(name for name in _KINDS[kind] if getattr(condition, name) not in (None, ()))


def _count(condition: Condition) -> int:
    parts = (*condition.all, *condition.any)
    return sum(_count(part) for part in parts) if parts else 1


def tree_of(condition: Condition) -> Tree:
    """A condition that `check_condition` finds nothing wrong with, as leaves."""
    leaves: list[Leaf] = []

    def node_of(found: Condition) -> Node:
        parts = found.all or found.any
        if parts:
            return Node(every=bool(found.all), parts=tuple(node_of(part) for part in parts))
        leaves.append(_leaf(found))
        return Node(leaf=len(leaves) - 1)

    root = node_of(condition)
    return Tree(tuple(leaves), root, _text(root, leaves))


def _leaf(found: Condition) -> Leaf:
    if found.silent is not None:
        return Leaf(
            LeafKind.SILENCE, duration_ns=parse_duration(found.silent), text=f"silent for {found.silent}"
        )
    if found.bad is not None:
        return Leaf(
            LeafKind.QUALITY,
            bad=found.bad,
            of=found.of,
            clear_bad=found.bad - 1 if found.clear_bad is None else found.clear_bad,
            text=f"{found.bad} of {found.of} readings not good",
        )
    if found.rate_above is not None or found.rate_below is not None:
        above = math.inf if found.rate_above is None else found.rate_above
        below = -math.inf if found.rate_below is None else found.rate_below
        told = [f"rise above {above:g}"] if found.rate_above is not None else []
        told += [f"change below {below:g}"] if found.rate_below is not None else []
        return Leaf(
            LeafKind.RATE,
            above,
            below,
            above,
            below,
            parse_duration(found.per),
            text=f"{' or '.join(told)} in {found.per}",
        )
    above = math.inf if found.above is None else found.above
    below = -math.inf if found.below is None else found.below
    told = [f"above {above:g}"] if found.above is not None else []
    told += [f"below {below:g}"] if found.below is not None else []
    return Leaf(
        LeafKind.THRESHOLD,
        above,
        below,
        above if found.clear_below is None else found.clear_below,
        below if found.clear_above is None else found.clear_above,
        text=" or ".join(told),
    )


def _text(node: Node, leaves: list[Leaf]) -> str:
    if node.leaf >= 0:
        return leaves[node.leaf].text
    word = " and " if node.every else " or "
    return word.join(
        f"({_text(part, leaves)})" if part.parts and len(part.parts) > 1 else _text(part, leaves)
        for part in node.parts
    )
