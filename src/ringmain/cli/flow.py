"""`ringmain flow`: what a person does with a flow; and `ringmain replay`."""

from __future__ import annotations

import time
from pathlib import Path

import click

from ringmain.cli.flow_graph import graph
from ringmain.cli.located import located
from ringmain.cli.log import reader_of
from ringmain.cli.main import Refusal
from ringmain.flows.control import (
    Action,
    Command,
    Replayed,
    Standing,
    give,
    given,
    replayed,
    standing,
)
from ringmain.flows.flow_status import FlowState
from ringmain.log import connect_log, open_log
from ringmain.log.interface import Log, LogError, LogLockedError
from ringmain.serve.instants import instant_ns

_LOOK_S = 0.5
_CONNECT_S = 1.0
_UNHEARD_S = 60.0
"""Without a word of the flow, or without a node, `replay --wait` gives up."""
_STANDS_STILL_S = 30.0
"""For so long a flow may be in a state that it leaves by itself."""

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
@click.option(
    "--wait",
    is_flag=True,
    help="Until it is done, and say what differed, stream by stream; exit status 1 where the flow stands still.",
)
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
    """What a replay found, once it is done. Raises Refusal where nothing more is to be waited for."""
    waits_since_s = told_since_s = time.monotonic()
    told: Standing | None = None
    while True:
        try:
            log = reader_of(data)
            try:
                found, newest = replayed(log, name, command), given(log, name)
                how = standing(log, name, command)
            finally:
                log.close()
        except LogError as error:
            raise Refusal(f"{data}: {error}") from None
        if found is not None:
            return found
        if newest is None or newest.id != command.id:
            raise Refusal(f"flow {name} was told something else before its replay was done")
        now_s = time.monotonic()
        if how != told:
            told, told_since_s = how, now_s
        if told is not None and told.refused:
            raise Refusal(f"the replay of flow {name} is refused: {told.reason}")
        if told is not None and told.reason:
            still_s = 0.0 if told.state is FlowState.FAILED else _STANDS_STILL_S
            if now_s - told_since_s >= still_s:
                raise Refusal(_why_it_waits(name, told))
        if _node_runs(data):
            waits_since_s = waits_since_s if told is None else now_s
        elif now_s - waits_since_s >= _UNHEARD_S:
            raise Refusal(
                f"its replay is not done: no node runs on {data}; flow {name} does it when one is started "
                "(`ringmain run`)"
            )
        if told is None and now_s - waits_since_s >= _UNHEARD_S:
            raise Refusal(
                f"its replay is not done: for {_UNHEARD_S:.0f} s no flow {name} of the running node has taken it up. "
                "Either the node's configuration has no such flow any more, or one of its steps is in a call for so "
                "long; `ringmain status` shows it"
            )
        time.sleep(_LOOK_S)


def _why_it_waits(name: str, told: Standing) -> str:
    if told.state is FlowState.FAILED:
        more = f"its replay is done once that is mended and the flow told to go on (`ringmain flow retry {name}`)"
        if "ringmain flow retry" in told.reason:
            more = "its replay is done after that"
    else:
        more = "it tries again by itself, and its replay is done when it can: `ringmain status` shows how it goes"
    return f"flow {name} stands still (state {told.state.value}): {told.reason}; {more}"


def _node_runs(data: Path) -> bool:
    """Whether a process that serves the log has it open."""
    try:
        connect_log(located(data).data, connect_s=_CONNECT_S, program="ringmain replay").close()
    except LogError:
        return False
    return True
