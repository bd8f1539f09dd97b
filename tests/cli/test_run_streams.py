"""A node whose standard streams came closed, as from a service manager or `2>&-`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from tests.conftest import free_port

CONFIGURATION = """\
[node]
name = "streams"
layout = "{layout}"

[sources.field]
type   = "mqtt-listener"
listen = "127.0.0.1:{port}"

[[sources.field.map]]
topic  = "meters/{{meter}}"
series = "{{meter}}"
time   = "t"
value  = "v"
"""


@pytest.mark.parametrize("layout", ["single", "split"])
def test_a_node_without_standard_input_and_error_runs_and_opens_nothing_in_their_place(
    tmp_path: Path, layout: str
) -> None:
    file = tmp_path / "ringmain.toml"
    file.write_text(CONFIGURATION.format(layout=layout, port=free_port()))
    node = subprocess.Popen(
        [
            "/bin/sh",
            "-c",
            'exec "$@" 0<&- 2>&-',
            "sh",
            sys.executable,
            "-m",
            "ringmain.cli.main",
            "run",
            file,
        ],
        stdout=subprocess.PIPE,
        cwd=tmp_path,
    )
    try:
        assert node.stdout is not None
        assert node.stdout.readline().startswith(b"ready field="), "the node did not start"
        for process in (psutil.Process(node.pid), *psutil.Process(node.pid).children()):
            for handle in (0, 2):
                assert os.readlink(f"/proc/{process.pid}/fd/{handle}") == os.devnull
        node.send_signal(signal.SIGTERM)
        assert node.wait(60) == 0
    finally:
        node.kill()
        node.wait()
