"""Charts of a log: what a bucket holds, and which frames are read."""

from __future__ import annotations

import math
from threading import Event

from ringmain.serve import history
from tests.serve.rig import MINUTE_NS, SECOND_NS, Rig

INVALID = 2
STALE = 0x1000


def test_a_bucket_leaves_invalid_values_and_nan_out_and_says_so_in_its_quality(rig: Rig) -> None:
    rig.put([("a/p", n * SECOND_NS, float(n)) for n in range(10)])
    rig.put([("a/p", 3 * SECOND_NS, 1e30), ("a/p", 70 * SECOND_NS, 5e30)], quality=INVALID | STALE)
    rig.put([("a/p", 4 * SECOND_NS, math.nan)])
    series = rig.id_of("a/p")
    resolution, points, truncated = history.readings(rig.log, series, 0, 2 * MINUTE_NS, 3, Event())
    assert (resolution, truncated) == ("1m buckets", False)
    assert points.time_ms == [0, 60_000]
    assert points.count == [8, 0]
    assert points.mean == [38 / 8, None]
    assert (points.min, points.max) == ([0.0, None], [9.0, None])
    assert points.quality == [INVALID | STALE, INVALID | STALE]


def test_one_point_is_one_bucket_that_begins_with_the_stretch(rig: Rig) -> None:
    rig.put([("a/p", n * MINUTE_NS, float(n)) for n in range(120)])
    low = 45 * MINUTE_NS
    _, points, _ = history.readings(rig.log, rig.id_of("a/p"), low, low + 60 * MINUTE_NS, 1, Event())
    assert points.time_ms == [45 * 60_000]
    assert (points.count, points.min, points.max) == ([60], [45.0], [104.0])
