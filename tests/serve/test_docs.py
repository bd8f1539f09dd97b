"""What the documents show works as shown."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from ringmain.model.catalogue import SeriesAttributes
from tests.serve.rig import MINUTE_NS, Rig, ServerRig

DOCS = Path(__file__).parent.parent.parent / "docs"
FEEDER = "leipzig-west/ss-07/feeder-3/p"


def blocks(document: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (DOCS / document).read_text(), re.DOTALL | re.MULTILINE)


def fill(rig: Rig) -> None:
    now = time.time_ns()
    rig.id_of(FEEDER, SeriesAttributes(unit="W", quantity="power", medium="electricity"))
    rig.put([(FEEDER, now, 48_200.0), (FEEDER, now - 120 * 1_000_000_000, 48_000.0)])
    start = now // MINUTE_NS * MINUTE_NS - MINUTE_NS
    rig.put_window(FEEDER, start, 1.0)
    rig.put_window(FEEDER, start, 2.0, revision=1)
    rig.put_letter(b"?")


@pytest.mark.parametrize("number", range(len(blocks("sql.md", "sql"))))
def test_each_statement_of_the_sql_page_gives_rows(rig: Rig, number: int) -> None:
    fill(rig)
    statement = blocks("sql.md", "sql")[number]
    assert rig.engine().query(statement).table.num_rows >= 1


def test_each_table_and_column_of_the_sql_page_is_there(rig: Rig) -> None:
    listed = re.findall(r"^\| `(\"?[a-z_.0-9]+\"?)` \|(.*)\|$", (DOCS / "sql.md").read_text(), re.MULTILINE)
    tables = [(name, re.findall(r"`([a-z_]+)`", about)) for name, about in listed]
    assert [name for name, _ in tables] == [
        "readings",
        "readings_current",
        '"readings.1m"',
        '"readings.1m.all"',
        "deadletters",
        "events",
        "series",
        "streams",
        "ledger",
    ]
    for name, columns in tables:
        chosen = ", ".join(f'"{column}"' for column in columns) or "*"
        rig.engine().query(f"SELECT {chosen} FROM {name}")


def test_the_python_page_runs_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile("\n".join(blocks("python.md", "python")), "docs/python.md", "exec"), {})


def test_each_request_of_the_api_page_is_answered(rig: Rig, serve: Callable[..., ServerRig]) -> None:
    fill(rig)
    server = serve()
    lines = [line for block in blocks("http-api.md", "sh") for line in block.splitlines()]
    assert len(lines) == 5
    for line in lines:
        match = re.fullmatch(r"curl '([^']+)'(?: -d '([^']+)')?", line)
        assert match is not None, line
        place = urlsplit(match[1])
        path = place.path + (f"?{place.query}" if place.query else "")
        status, found, _ = server.request(path, match[2].encode() if match[2] else None, {})
        assert status == 200, found
        json.dumps(found)
    operations = re.findall(
        r"^\| `(?:GET|POST) (/[a-z0-9/]+)", (DOCS / "http-api.md").read_text(), re.MULTILINE
    )
    described = server.get("/openapi.json")[1]["paths"]
    assert set(operations) | {"/readyz", "/openapi.json"} == set(described)
