"""`ringmain tap FLOW`: rows in and out of each step of a running flow, rates, lag, watermark and state size.

Asks the node's server once a second; a row of output is a step at that moment.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from ringmain.cli.main import Refusal
from ringmain.cli.output import print_rows
from ringmain.cli.status import ask
from ringmain.config import NodeConfig
from ringmain.serve.settings import ServeSettings

SCHEMA = pa.schema(
    [
        ("at", pa.timestamp("s", tz="UTC")),
        ("state", pa.string()),
        ("lag_s", pa.float64()),
        ("newest", pa.timestamp("ms", tz="UTC")),
        ("step", pa.string()),
        ("rows_in", pa.int64()),
        ("rows_out", pa.int64()),
        ("aside", pa.int64()),
        ("in_per_s", pa.float64()),
        ("out_per_s", pa.float64()),
        ("state_bytes", pa.int64()),
    ]
)
_EVERY_S = 1.0


def tap_flow(config: NodeConfig, name: str, limit: int | None, output: str) -> None:
    """Print the steps of a flow once a second, `limit` times or until Ctrl-C. Raises Refusal."""
    if config.serve is None:
        raise Refusal(
            f"{config.path}: expected a table [serve], found none: only a node that serves can be asked"
        )
    print_rows(SCHEMA, _looks(config.serve, name, limit), output)


def flow_named(path: Path, match: str) -> NodeConfig | None:
    """The configuration in `path` if it is one and has a flow of that name."""
    if not path.is_file():
        return None
    from ringmain.cli.run import load_or_refuse

    config = load_or_refuse(path)
    return config if match in config.flows else None


def _looks(serve: ServeSettings, name: str, limit: int | None) -> Iterator[pa.RecordBatch]:
    before = _look(serve, name)
    looks = 0
    while limit is None or looks < limit:
        time.sleep(_EVERY_S)
        now = _look(serve, name)
        yield _rows(before, now)
        before = now
        looks += 1


def _look(serve: ServeSettings, name: str) -> dict[str, Any]:
    """The flow at this moment, with `now_ms`."""
    _, answer = ask(serve, "/api/v1/flows")
    for flow in answer["flows"]:
        if flow["name"] == name:
            return {**flow, "now_ms": answer["now_ms"]}
    known = ", ".join(flow["name"] for flow in answer["flows"])
    raise Refusal(f"the running node has no flow {name!r}; it has {known or 'none'}")


def _rows(before: dict[str, Any], now: dict[str, Any]) -> pa.RecordBatch:
    passed_s = (now["now_ms"] - before["now_ms"]) / 1000
    earlier = {step["step"]: step for step in before["steps"]}

    def rate(step: dict[str, Any], key: str) -> float | None:
        then = earlier.get(step["step"])
        grown = None if then is None else step[key] - then[key]
        return None if grown is None or grown < 0 or passed_s <= 0 else round(grown / passed_s, 1)

    about = {
        "at": now["now_ms"] // 1000,
        "state": now["state"],
        "lag_s": now["lag_s"],
        "newest": now["newest_ms"],
    }
    rows = [
        {
            **about,
            "step": step["step"],
            "rows_in": step["rows_in"],
            "rows_out": step["rows_out"],
            "aside": step["rows_aside"],
            "in_per_s": rate(step, "rows_in"),
            "out_per_s": rate(step, "rows_out"),
            "state_bytes": step["state_bytes"],
        }
        for step in now["steps"]
    ] or [about]
    return pa.RecordBatch.from_pylist(rows, schema=SCHEMA)
