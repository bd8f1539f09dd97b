"""`ringmain flow`: what a person does with a flow; and `ringmain replay`."""

from __future__ import annotations

import time
from pathlib import Path

import click

from ringmain.cli.flow_graph import graph
from ringmain.cli.located import located
from ringmain.cli.log import reader_of
from ringmain.cli.main import Refusal
from ringmain.flows.control import Action, Command, Replayed, give, given, replayed
from ringmain.log import connect_log, open_log
from ringmain.log.interface import Log, LogError, LogLockedError
from ringmain.serve.instants import instant_ns

_LOOK_S = 0.5

data_of_node = click.option(
    "--data",
    type=click.Path(path_type=Path),
    default=Path("data"),
    show_default=True,
    help="Directory of the log, or the configuration file of its node.",
)


@click.group()
def flow() -> None:
    """What a person does with a flow that stands still, and how flows hang together."""


flow.add_command(graph)


def log_of(data: Path) -> Log:
    """The log for writing: of the running node, or itself where none runs."""
    directory = located(data).data
    try:
        return open_log(directory)
    except LogLockedError:
        return connect_log(directory, connect_s=5.0, program="ringmain flow")


def _give(name: str, data: Path, command: Command, what: str) -> None:
    try:
        log = log_of(data)
        try:
            known = sorted(
                {
                    place.split("/")[1]
                    for place in log.positions("flow/")
                    if place.endswith("/definition") and place.count("/") >= 2
                }
            )
            if name not in known:
                raise Refusal(
                    f"no flow {name!r} has run on this log; "
                    + (f"it knows {', '.join(known)}" if known else "none has run on it yet")
                )
            give(log, name, command)
        finally:
            log.close()
    except LogError as error:
        raise Refusal(f"{data}: {error}") from None
    click.echo(f"flow {name}: told to {what}; `ringmain status` shows how it goes")


@flow.command(epilog="\b\nExample:\n  ringmain flow retry area-load")
@click.argument("name", metavar="FLOW")
@data_of_node
def retry(name: str, data: Path) -> None:
    """Have a flow that stands still begin again at once, with tries counted anew."""
    _give(name, data, Command(Action.RETRY), "begin again")


@flow.command(epilog="\b\nExample:\n  ringmain flow skip area-load")
@click.argument("name", metavar="FLOW")
@data_of_node
def skip(name: str, data: Path) -> None:
    """Have a flow make a dead letter of the batch on which a step fails, and go on without it.

    Where a step does not return from a call, it does so when the node is started again.
    """
    _give(name, data, Command(Action.SKIP), "pass over the batch on which it fails")


@flow.command("continue", epilog="\b\nExample:\n  ringmain flow continue area-load")
@click.argument("name", metavar="FLOW")
@data_of_node
def continue_(name: str, data: Path) -> None:
    """Have a flow whose definition changed go on from where it is; what was written stays as it is."""
    _give(name, data, Command(Action.CONTINUE), "go on under its new definition")


@click.command(
    epilog="\b\nExamples:\n  ringmain replay area-load\n  ringmain replay area-load --from 2026-10-01 --data ringmain.toml"
)
@click.argument("name", metavar="FLOW")
@click.option(
    "--from", "since", metavar="TIME", help="Event time from which rows are compared; everything if left out."
)
@click.option("--wait", is_flag=True, help="Until it is done, and say what differed, stream by stream.")
@data_of_node
def replay(name: str, since: str | None, wait: bool, data: Path) -> None:
    """Compute a flow's outputs anew from the log, and write what differs, as revisions.

    The flow goes on meanwhile. Compared with what its streams hold, from TIME on: its output by key (rows that changed get
    the next revision, rows that would no longer be lose their values), and the other streams that it writes, such as late
    rows and routes, row by row (what is missing is added). Not taken back, but counted: events, rows of those other streams,
    and rows whose columns cannot be empty. Alarms that would not be open any more are closed.
    """
    try:
        from_ns = None if since is None else instant_ns(since)
    except ValueError as error:
        raise Refusal(f"--from: {error}") from None
    command = Command(Action.REPLAY, from_ns=from_ns)
    _give(name, data, command, "compute its outputs anew")
    if not wait:
        return
    found = _done(name, data, command)
    click.echo(f"compared from {'the beginning' if since is None else since} on:")
    for stream, differing in found.streams.items():
        click.echo(f"  {stream}: {differing}")


def _done(name: str, data: Path, command: Command) -> Replayed:
    """What a replay found, once it is done. Raises Refusal where the flow was told something else meanwhile."""
    while True:
        try:
            log = reader_of(data)
            try:
                found, newest = replayed(log, name, command), given(log, name)
            finally:
                log.close()
        except LogError as error:
            raise Refusal(f"{data}: {error}") from None
        if found is not None:
            return found
        if newest is None or newest.id != command.id:
            raise Refusal(f"flow {name} was told something else before its replay was done")
        time.sleep(_LOOK_S)
