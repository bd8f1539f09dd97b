"""A node that may open few files: connections run out before the journal does, and everything goes on afterwards."""

from __future__ import annotations

import contextlib
from pathlib import Path

from tests.conftest import free_port, wait_until
from tests.node.hostile_client import opened
from tests.node.publisher import Publisher
from tests.node.running import RunningNode
from tests.node.stored import assert_all_stored, assert_no_traceback, configuration, http_json, metric, query

DESCRIPTORS = 200
SILENT = 400


def test_more_connections_than_file_descriptors_stop_neither_the_journal_nor_other_clients(
    tmp_path: Path,
) -> None:
    port, http = free_port(), free_port()
    text = configuration(port=port, http=http).replace(
        f'listen = "127.0.0.1:{port}"', f'listen = "127.0.0.1:{port}"\nconnect_timeout = "20s"'
    )
    text = text.replace('segment = "2MiB"', 'segment = "64KiB"')  # new files all the time
    publisher = Publisher(port, "p0", rate=1000)
    limited = ["prlimit", f"--nofile={DESCRIPTORS}:{DESCRIPTORS}"]
    with RunningNode(tmp_path, text, command=limited) as node:
        publisher.start()
        wait_until(lambda: len(publisher.acknowledged) > 500, what="acknowledgements")
        with contextlib.ExitStack() as stack:
            for _ in range(SILENT):
                stack.enter_context(opened(port))
            before = len(publisher.acknowledged)
            wait_until(
                lambda: len(publisher.acknowledged) > before + 3000, 60, "acknowledgements beside them"
            )
            assert query(tmp_path / "data", "select count(*) as n from readings")[0]["n"] > before
        wait_until(
            lambda: metric(http, "ringmain_mqtt_connections") == 1, 60, "one connection", interval_s=0.1
        )
        before = len(publisher.acknowledged)
        wait_until(lambda: len(publisher.acknowledged) > before + 1000, 60, "acknowledgements after them")
        publisher.finish()
        assert http_json(http, "/readyz")
        assert publisher.connections == 1
        assert node.stop() == 0
    assert_no_traceback(node)
    assert_all_stored(tmp_path / "data", publisher.acknowledged)
