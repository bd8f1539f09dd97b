"""`ringmain status` tells of a running node what its page tells."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.conftest import free_port
from tests.node.running import RunningNode
from tests.node.stored import configuration


def ringmain(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ringmain.cli.main", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_status_names_processes_sources_and_flows_and_says_whether_the_node_is_ready(tmp_path: Path) -> None:
    text = configuration(port=free_port(), http=free_port()).replace(
        "[node]\n", '[node]\nlayout = "split"\n', 1
    )
    with RunningNode(tmp_path, text) as node:
        told = ringmain("status", "ringmain.toml", "--format", "json", cwd=tmp_path)
        assert (told.returncode, told.stderr) == (0, "")
        rows = {(row["kind"], row["name"]): row for row in json.loads(told.stdout)}
        assert set(rows) == {
            ("process", "intake"),
            ("process", "flows"),
            ("process", "server"),
            ("source", "field"),
            ("flow", "minute"),
        }
        assert {name: row["pid"] for (kind, name), row in rows.items() if kind == "process"} == node.parts()
        flow = rows.pop(("flow", "minute"))
        assert flow["state"] in ("starting", "running")
        assert {row["state"] for row in rows.values()} == {"running"}
        assert node.stop() == 0
    gone = ringmain("status", "ringmain.toml", cwd=tmp_path)
    assert (gone.returncode, gone.stdout) == (1, "")
    assert "expected a running node" in gone.stderr
