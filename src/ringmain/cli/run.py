"""`ringmain run` and `ringmain lint`: a node from its configuration file."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import click

from ringmain.cli.main import Refusal
from ringmain.config import ConfigError, NodeConfig, load
from ringmain.log.interface import LogError
from ringmain.model.series_csv import SeriesFileError

_STOPPING_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def load_or_refuse(file: Path) -> NodeConfig:
    """The configuration; its warnings go to standard error. Raises Refusal with every problem, one a line."""
    try:
        config, warnings = load(file)
    except ConfigError as error:
        raise Refusal(f"the configuration has {_count(len(error.problems))}:\n{error}") from None
    for warning in warnings:
        click.echo(str(warning), err=True)
    return config


def _cannot_write(data: Path, error: OSError) -> str:
    """The message for a data directory that the operating system refuses, with the remedy."""
    found = f"{error.strerror or error} ({error.filename})" if error.filename else str(error)
    match error.errno:
        case errno.EACCES | errno.EPERM:
            user = os.geteuid()
            remedy = f"give it to the user that runs the node (chown -R {user}) or run the node as its owner"
        case errno.EROFS:
            remedy = "mount it writable, or give another directory as `data` under [node]"
        case _:
            remedy = "see `ringmain doctor`, or give another directory as `data` under [node]"
    return f"{data}: expected a directory that this process may write, found: {found}; {remedy}"


def _count(problems: int) -> str:
    return "one problem" if problems == 1 else f"{problems} problems"


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


@click.command(
    epilog="\b\nExamples:\n  ringmain run ringmain.toml\n  ringmain run /etc/ringmain/node.toml --verbose"
)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--verbose", "-v", is_flag=True, help="Say more on standard error.")
def run(file: Path, verbose: bool) -> None:
    """Run the node that FILE describes, until SIGTERM or Ctrl-C.

    Prints one line with "ready" and the addresses once every listener accepts. On SIGTERM everything that was
    accepted becomes durable, and the exit status is 0.
    """
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    config = load_or_refuse(file)
    from ringmain.node import Node

    with stop_on_signal() as stop:
        try:
            node = Node(config)
        except OSError as error:
            raise Refusal(_cannot_write(config.data, error)) from None
        except (LogError, SeriesFileError) as error:
            raise Refusal(str(error)) from None
        try:
            addresses = node.start(stop)
            if not stop.is_set():
                click.echo("ready " + " ".join(f"{name}={address}" for name, address in addresses.items()))
            stop.wait()
        finally:
            node.stop()


@contextlib.contextmanager
def stop_on_signal() -> Iterator[threading.Event]:
    """An event that SIGTERM and SIGINT set; a second signal kills at once."""
    stop = threading.Event()

    def on_signal(number: int, _frame: object) -> None:
        stop.set()
        signal.signal(number, signal.SIG_DFL)

    before = {number: signal.signal(number, on_signal) for number in _STOPPING_SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@click.command(epilog="\b\nExample:\n  ringmain lint ringmain.toml && systemctl restart ringmain")
@click.argument("file", type=click.Path(path_type=Path))
def lint(file: Path) -> None:
    """Check FILE without running it: every problem with its line, what was expected, what was found.

    Exit status 0: it can be run (warnings may be printed). 1: it cannot.
    """
    config = load_or_refuse(file)
    click.echo(
        f"{file}: node {config.node.name!r}, {_plural(len(config.sources), 'source')}, "
        f"{_plural(len(config.flows), 'flow')}, "
        f"{'serving on ' + config.serve.listen if config.serve else 'not serving'}: no errors"
    )
