"""`ringmain bench`: the benchmarks of a source checkout, one row each."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import click
import msgspec

from ringmain.cli.main import Refusal

_FOLDER = Path(__file__).resolve().parents[3] / "bench"


@click.command(
    epilog="\b\nExamples:\n  ringmain bench append\n  ringmain bench mqtt-listener --json\n  ringmain bench all --quick --json"
)
@click.argument("name", default="all")
@click.option("--quick", is_flag=True, help="Seconds instead of a minute a benchmark; figures are rough.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a row.")
def bench(name: str, quick: bool, as_json: bool) -> None:
    """Run benchmark NAME (or all) and print a row for each figure, with the machine and what it was compared with."""
    if not (_FOLDER / "harness.py").is_file():
        raise Refusal(
            f"the benchmarks are part of the source checkout, and {_FOLDER} has none: run this from a clone"
        )
    sys.path.insert(0, str(_FOLDER.parent))
    harness = importlib.import_module("bench.harness")
    known = harness.benchmarks()
    if name != "all" and name not in known:
        raise Refusal(f"unknown benchmark {name!r}; expected all or one of {', '.join(known)}")
    for chosen in known if name == "all" else [name]:
        for row in known[chosen](quick):
            if as_json:
                click.echo(msgspec.json.encode(row).decode())
            else:
                click.echo(harness.describe(row))
