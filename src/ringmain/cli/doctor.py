"""`ringmain doctor`: what about this machine will or will not carry a node, each finding with its remedy.

The checks are in `doctor_disk.py`, `doctor_machine.py` and `doctor_log.py`, a generator of findings each; this module
decides what is examined and prints it. Nothing is changed: files and sockets that are tried out are gone afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import click
import pyarrow as pa

from ringmain.cli.doctor_disk import disk, file_system_type
from ringmain.cli.doctor_findings import Finding, Grade
from ringmain.cli.doctor_log import state_of_log
from ringmain.cli.doctor_machine import clock, limits, memory, time_zones, versions
from ringmain.cli.main import Refusal
from ringmain.cli.output import Format, format_option, print_rows
from ringmain.config import NodeConfig
from ringmain.log.settings import parse_size

__all__ = ["doctor", "examine", "file_system_type"]


@click.command(
    epilog="\b\nExamples:\n  ringmain doctor\n  ringmain doctor /etc/ringmain/node.toml\n"
    "  ringmain doctor --data /var/lib/ringmain --json"
)
@click.argument("place", type=click.Path(path_type=Path), required=False)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="Directory of the log, the same as PLACE.  [default: data]",
)
@format_option
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
def doctor(place: Path | None, data: Path | None, output: str, as_json: bool) -> None:
    """Examine this machine for a node: disk, sync latency, clock, limits, versions, and the state of its log.

    PLACE is the configuration file of the node, or the directory of its log, which need not exist yet. Exit status
    1 if anything is bad enough to keep a node from working or its data from being kept.
    """
    if place is not None and data is not None:
        raise click.UsageError("give PLACE or --data, not both")
    findings = list(examine(place or data or Path("data")))
    schema = pa.schema([(name, pa.string()) for name in ("check", "found", "grade", "remedy")])
    rows = pa.RecordBatch.from_pylist([asdict(finding) for finding in findings], schema)
    print_rows(schema, [rows], Format.JSON.value if as_json else output)
    if any(finding.grade == Grade.BAD.value for finding in findings):
        raise SystemExit(1)


def examine(place: Path) -> Iterator[Finding]:
    """Every finding for a node whose log lies in `place`, or that the file `place` configures.

    Nothing of it need exist yet. Leaves no file behind. Raises Refusal for a configuration that cannot be used.
    """
    config: NodeConfig | None = None
    data = place.absolute()
    if place.is_file():
        from ringmain.cli.run import load_or_refuse

        config = load_or_refuse(place)
        data = config.data.absolute()
    elif place.suffix == ".toml" and not place.exists():
        raise Refusal(f"{place}: expected a configuration file or a directory, found neither")
    yield from versions()
    keep_size = None if config is None else config.log.keep_size
    yield from disk(data, None if keep_size is None else parse_size(keep_size))
    yield from limits()
    yield from memory()
    yield from clock()
    yield from time_zones(None if config is None else config.node.timezone)
    yield from state_of_log(data)
