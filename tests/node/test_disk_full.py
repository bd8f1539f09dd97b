"""A full disk is a state that a node lives through: nothing is acknowledged, nothing crashes, it goes on by itself."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError, URLError

import pytest

from tests.conftest import free_port, wait_until
from tests.node.publisher import Publisher
from tests.node.running import RunningNode
from tests.node.stored import (
    assert_account_closes,
    assert_all_stored,
    assert_no_traceback,
    assert_windows_equal_an_undisturbed_fold,
    configuration,
    http_json,
    metric,
    wait_for_windows,
)

MIB = 1 << 20
DISK_BYTES = 24 * MIB


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own."""
    directory = tmp_path / "disk"
    directory.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(directory)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        reason = f"a tmpfs cannot be mounted here: {mounted.stderr.strip()}"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    yield directory
    subprocess.run(["umount", "-l", str(directory)], check=True)


def fill(disk: Path, leave_bytes: int) -> Path:
    """A file that leaves that much free."""
    ballast = disk / "ballast"
    free = os.statvfs(disk)
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, free.f_bavail * free.f_frsize - leave_bytes)
    return ballast


def state(http: int) -> str:
    """What the page shows of the log."""
    try:
        told: str = http_json(http, "/api/v1/overview")["log"]["state"]
    except URLError:
        return "no answer"
    return told


@pytest.mark.timeout(300)
def test_a_disk_that_fills_up_stops_acknowledgements_and_a_disk_with_space_again_brings_them_back(
    tmp_path: Path, disk: Path
) -> None:
    data = disk / "data"
    ballast = fill(disk, 3 * MIB)
    port, http = free_port(), free_port()
    publisher = Publisher(port, "p0", window=500, rate=4000, series=20)
    with RunningNode(tmp_path / "node", configuration(port=port, http=http, data=data)) as node:
        publisher.start()
        wait_until(lambda: state(http) == "full", 60, "the state `full`", interval_s=0.1)
        assert http_json(http, "/healthz")
        with pytest.raises(HTTPError, match="503"):
            http_json(http, "/readyz")
        retries = "ringmain_source_append_retries_total"
        tried = metric(http, retries)
        wait_until(lambda: metric(http, retries) > tried, 60, "another try")  # what was on its way has come
        acknowledged = len(publisher.acknowledged)
        wait_until(lambda: metric(http, retries) >= tried + 4, 60, "three more tries")
        assert len(publisher.acknowledged) == acknowledged
        assert publisher.unacknowledged
        # Another process sees what was acknowledged, and nothing but that and what could not be answered.
        assert_all_stored(data, publisher.acknowledged, publisher.unacknowledged.values())
        ballast.unlink()
        wait_until(lambda: len(publisher.acknowledged) > acknowledged + 2000, 60, "acknowledgements")
        wait_until(lambda: state(http) == "ok", what="the state `ok`", interval_s=0.1)
        assert http_json(http, "/readyz")
        publisher.finish()
        wait_for_windows(data)
        assert publisher.connections == 1, "the node dropped a connection"
        assert node.stop() == 0
    assert_no_traceback(node)
    assert_all_stored(data, publisher.acknowledged)
    assert_account_closes(data)
    assert_windows_equal_an_undisturbed_fold(data, tmp_path / "empty")


@pytest.mark.timeout(300)
def test_a_node_stops_with_status_0_on_a_full_disk_and_starts_on_it_and_goes_on_when_there_is_space(
    tmp_path: Path, disk: Path
) -> None:
    data = disk / "data"
    ballast = fill(disk, 3 * MIB)
    port, http = free_port(), free_port()
    text = configuration(port=port, http=http, data=data)
    publisher = Publisher(port, "p0", window=500, rate=4000, series=20)
    with RunningNode(tmp_path / "node", text) as node:
        publisher.start()
        wait_until(lambda: state(http) == "full", 60, "the state `full`", interval_s=0.1)
        assert node.stop(60) == 0
    with RunningNode(tmp_path / "node", text, wait=False) as node:
        wait_until(lambda: state(http) == "full", 60, "the state `full` after the start", interval_s=0.1)
        acknowledged = list(publisher.acknowledged)
        assert http_json(http, "/healthz")
        assert_all_stored(data, acknowledged, publisher.unacknowledged.values())
        assert len(publisher.acknowledged) == len(acknowledged)
        ballast.unlink()
        node.wait_ready()
        wait_until(lambda: len(publisher.acknowledged) > len(acknowledged) + 1000, 60, "acknowledgements")
        wait_until(lambda: state(http) == "ok", what="the state `ok`", interval_s=0.1)
        publisher.finish()
        wait_for_windows(data)
        assert node.stop() == 0
    assert_no_traceback(node)
    assert_all_stored(data, publisher.acknowledged)
    assert_account_closes(data)
    assert_windows_equal_an_undisturbed_fold(data, tmp_path / "empty")
