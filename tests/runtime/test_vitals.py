"""The process and the log are measured when somebody asks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from ringmain.log import connect_log, open_log
from ringmain.log.interface import Batch
from ringmain.model.schemas import TICK
from ringmain.runtime.counters import Counters
from ringmain.runtime.vitals import watch_log, watch_process, watch_socket


def test_the_figures_of_process_and_log_are_those_of_the_moment(tmp_path: Path) -> None:
    log = open_log(tmp_path / "data")
    counters = Counters()
    watch_process(counters, "node")
    watch_log(counters, log)
    before = counters.value("ringmain_log_rows_total")
    times = pa.array(np.arange(5), pa.int64()).view(TICK.field("time").type)
    batch = Batch("ticks", pa.RecordBatch.from_arrays([times], schema=TICK))
    log.append([batch], claim=log.claim("ticks"), sequence=1)
    assert counters.value("ringmain_log_rows_total") >= before + 5
    assert 0 <= counters.value("ringmain_log_newest_age_seconds") < 60
    assert 1e6 < counters.value("ringmain_process_resident_bytes") < 1e11
    text = counters.render()
    assert "# TYPE ringmain_process_cpu_seconds_total counter\n" in text
    assert "\nringmain_series 0\n" in text
    assert 'ringmain_process_threads{part="node"} ' in text
    log.close()


def test_connections_to_the_socket_of_the_log_are_counted(tmp_path: Path) -> None:
    counters = Counters()
    with open_log(tmp_path) as log:
        watch_socket(counters, log.listen().counts)
        with connect_log(tmp_path):
            text = counters.render()
            assert "ringmain_log_socket_connections 1" in text
            assert "ringmain_log_socket_refused_total 0" in text
            assert "ringmain_log_socket_violations_total 0" in text
