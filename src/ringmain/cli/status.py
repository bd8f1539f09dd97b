"""`ringmain status`: what a running node tells of its processes, sources, flows and sinks."""

from __future__ import annotations

import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import click
import msgspec
import pyarrow as pa

from ringmain.cli.main import Refusal
from ringmain.cli.output import Format, print_rows
from ringmain.cli.run import load_or_refuse
from ringmain.serve.settings import ServeSettings, parse_listen

ANSWER_S = 10.0
_SCHEMA = pa.schema(
    [
        ("kind", pa.string()),
        ("name", pa.string()),
        ("state", pa.string()),
        ("since", pa.timestamp("ms", tz="UTC")),
        ("pid", pa.int64()),
        ("restarts", pa.int64()),
        ("last_error", pa.string()),
    ]
)


@click.command(
    epilog="\b\nExamples:\n  ringmain status ringmain.toml\n  ringmain status node.toml --format json"
)
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "output",
    type=click.Choice([Format.TABLE.value, Format.JSON.value, Format.CSV.value]),
    default=Format.TABLE.value,
    show_default=True,
    help="How the rows are printed.",
)
def status(file: Path, output: str) -> None:
    """Show the processes, sources, flows and sinks of the running node that FILE describes.

    Asks the node's server. Exit status 0: the node is ready. 1: it is not, or does not answer.
    """
    config = load_or_refuse(file)
    if config.serve is None:
        raise Refusal(f"{file}: expected a table [serve], found none: only a node that serves can be asked")
    _, overview = ask(config.serve, "/api/v1/overview")
    print_rows(_SCHEMA, [pa.RecordBatch.from_pylist(_rows(overview), schema=_SCHEMA)], output)
    code, health = ask(config.serve, "/readyz")
    if output == Format.TABLE.value:
        log = overview["log"]
        click.echo(
            f"\nnode {overview['node']['name']}: {'ready' if code == 200 else health.get('detail', 'not ready')}; "
            f"log {log['state']}, {log['bytes'] / 1e6:,.1f} MB in {log['segments']} segment(s)"
        )
    if code != 200:
        sys.exit(1)


def _rows(overview: dict[str, Any]) -> list[dict[str, Any]]:
    rows = [{**part, "kind": "process", "since": part["since_ms"]} for part in overview["parts"]]
    rows += [{**source, "kind": "source", "since": source["since_ms"]} for source in overview["sources"]]
    rows += [{**flow, "kind": "flow", "since": None} for flow in overview["flows"]]
    rows += [{**sink, "kind": "sink", "since": sink["since_ms"]} for sink in overview.get("sinks", [])]
    return [{name: row.get(name) for name in _SCHEMA.names} for row in rows]


def ask(serve: ServeSettings, path: str) -> tuple[int, Any]:
    """Status and JSON of an answer. Raises Refusal when there is none within `ANSWER_S`."""
    host, port = parse_listen(serve.listen)
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    request = urllib.request.Request(address + path)
    if serve.token is not None:
        request.add_header("Authorization", f"Bearer {serve.token}")
    began = time.monotonic()
    try:
        with urllib.request.urlopen(request, timeout=ANSWER_S) as answer:
            return answer.status, msgspec.json.decode(answer.read())
    except urllib.error.HTTPError as error:
        body = error.read()
        if error.code == 503:
            return error.code, msgspec.json.decode(body)
        raise Refusal(f"{address}: expected the node's status, found HTTP {error.code}") from None
    except (OSError, msgspec.DecodeError) as error:
        waited_s = time.monotonic() - began
        raise Refusal(
            f"{address}: expected a running node, found {error} after {waited_s:.1f} s; start it with `ringmain run`"
        ) from None
