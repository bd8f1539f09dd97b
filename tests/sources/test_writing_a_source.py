"""The source that the documentation shows works as the documentation says."""

from __future__ import annotations

import re
import socket
import sys
import types
from pathlib import Path

import pytest

from ringmain.log import open_log
from ringmain.log.catalogue import SeriesRegistry
from ringmain.runtime.counters import Counters
from ringmain.runtime.supervisor import Supervisor
from ringmain.sources.types import SourceType, Surroundings

PAGE = Path(__file__).parents[2] / "docs" / "sources.md"


def test_the_documented_source_stores_lines_and_answers_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = next(
        block
        for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S)
        if "SOURCE_TYPE" in block
    )
    module = types.ModuleType("documented_source")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(code, str(PAGE), "exec"), module.__dict__)
    kind: SourceType = module.SOURCE_TYPE  # type: ignore[attr-defined]

    log = open_log(tmp_path / "data")
    registry = SeriesRegistry(log)
    around = Surroundings(node="n", directory=tmp_path, timezone="UTC", registry=registry, maps={})
    supervisor = Supervisor(log, registry, Counters())
    supervisor.add("lines", "lines", kind.build("lines", kind.settings(port=0), around))
    supervisor.start()
    try:
        assert supervisor.wait_started(60) == []
        host, _, port = supervisor.statuses()[0].address.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=60) as client:
            client.sendall(b"a/p 1.5\nnonsense\na/p 2.5\n")
            answers = b""
            while answers.count(b"\n") < 3:
                answers += client.recv(100)
        assert answers == b"ok\n" * 3
    finally:
        assert supervisor.stop() == []
    values = [v for frame in log.read("readings") for v in frame.rows.column("value").to_pylist()]
    letters = [p for frame in log.read("deadletters") for p in frame.rows.column("payload").to_pylist()]
    assert (values, letters) == ([1.5, 2.5], [b"nonsense"])
    assert log.catalogue().id_of("a/p") == 0
    log.close()
