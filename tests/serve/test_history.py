"""Charts of a log: what a bucket holds, and which frames are read."""

from __future__ import annotations

import math
from collections.abc import Callable
from threading import Event

import pytest

from ringmain.serve import history
from tests.serve.rig import MINUTE_NS, SECOND_NS, Rig, ServerRig

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


@pytest.mark.parametrize("max_points", [1, 2, 3])
@pytest.mark.parametrize(
    "stretch",
    [
        "from=0&to=9223372036854",
        "from=-9999999999999&to=9999999999999",
        "from=1677-09-21T00:12:44Z&to=2262-04-11T23:47:16.854775807Z",
    ],
)
def test_stretches_as_long_as_time_are_answered(
    rig: Rig, serve: Callable[..., ServerRig], stretch: str, max_points: int
) -> None:
    rig.put([("a/p", n * MINUTE_NS, float(n)) for n in range(120)])
    status, answer = serve().get(f"/api/v1/readings?series=a%2Fp&{stretch}&max_points={max_points}")
    assert (status, answer["points"]["count"]) == (200, [120])
    assert (answer["points"]["min"], answer["points"]["max"]) == ([0.0], [119.0])


def test_from_is_part_of_the_stretch_and_to_is_not(rig: Rig, serve: Callable[..., ServerRig]) -> None:
    rig.put([("a/p", n, float(n)) for n in (999_999, 1_000_000, 1_999_999, 2_000_000)])
    server = serve()
    for stretch, values in (
        ("from=1&to=2", [1_000_000.0, 1_999_999.0]),
        ("from=1970-01-01T00:00:00.000999999Z&to=1970-01-01T00:00:00.001000001Z", [999_999.0, 1_000_000.0]),
        ("from=3&to=4", []),
    ):
        status, answer = server.get(f"/api/v1/readings?series=a%2Fp&{stretch}")
        assert (status, answer["points"]["mean"], answer["resolution"]) == (200, values, "raw")


@pytest.mark.parametrize(
    "stretch", ["from=5&to=5", "from=6&to=5", "from=--5&to=5", "from=&to=5", "from=1e3&to=5"]
)
def test_a_stretch_that_is_none_is_refused_in_words(
    rig: Rig, serve: Callable[..., ServerRig], stretch: str
) -> None:
    rig.put([("a/p", 0, 0.0)])
    status, answer = serve().get(f"/api/v1/readings?series=a%2Fp&{stretch}")
    assert (status, answer["error"]) == (400, "parameter")
    assert "expected" in answer["detail"]
