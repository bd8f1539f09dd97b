"""The newest windows of flows with any choice of values."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
import pytest

from ringmain.log.interface import Batch, StreamKind
from ringmain.model.schemas import TIMESTAMP
from tests.conftest import wait_until
from tests.serve.rig import MINUTE_NS, Rig, ServerRig


@pytest.mark.parametrize("with_mean", [False, True])
def test_a_window_that_lost_its_last_value_does_not_stop_live_values(
    rig: Rig, serve: Callable[..., ServerRig], with_mean: bool
) -> None:
    numbers = [("count", pa.int64()), ("sum", pa.float64())] + [("mean", pa.float64())] * with_mean
    times = [("start", TIMESTAMP), ("end", TIMESTAMP)]
    schema = pa.schema([("series", pa.uint32()), *times, *numbers, ("revision", pa.uint32())])
    rig.log.create_stream("sums", StreamKind.ROW, schema)
    row = {"series": rig.id_of("a/p"), "start": 0, "end": MINUTE_NS, "count": 0, "revision": 1}
    server = serve()
    rig.append([Batch("sums", pa.RecordBatch.from_pylist([row], schema=schema))])
    rig.put([("a/p", 5, 7.0)])
    wait_until(lambda: server.get("/api/v1/latest")[1]["latest"], 60, "the reading behind the window")
