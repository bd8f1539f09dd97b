"""`ringmain run` and `ringmain lint`: a node from its configuration file.

Imports little by itself: with `layout = "split"` this process only watches over the others.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

import ringmain
from ringmain.cli.main import Refusal
from ringmain.config_layout import Layout, Outline, read_outline

if TYPE_CHECKING:
    from ringmain.config import NodeConfig

_STOPPING_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_LOOK_S = 0.5


def load_or_refuse(file: Path) -> NodeConfig:
    """The configuration; its warnings go to standard error. Raises Refusal with every problem, one a line."""
    from ringmain.parts.opening import RefusedError, load_config

    try:
        config, warnings = load_config(file)
    except RefusedError as error:
        raise Refusal(str(error)) from None
    for warning in warnings:
        click.echo(str(warning), err=True)
    return config


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
    fill_standard_streams()
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    outline = read_outline(file)
    with stop_on_signal() as stop, reload_on_signal() as reload:
        if outline is not None and outline.layout is Layout.SPLIT:
            _run_split(file, outline, verbose, stop, reload)
        else:
            _run_single(file, stop, reload)


def _run_single(file: Path, stop: threading.Event, reload: threading.Event) -> None:
    """Everything in this process."""
    config = load_or_refuse(file)
    from ringmain.node import Node
    from ringmain.parts.opening import refusal, reloaded, tell

    try:
        node = Node(config)
    except Exception as error:
        refused = refusal(error, config.data)
        if refused is None:
            raise
        raise Refusal(str(refused)) from None
    try:
        addresses = node.start(stop)
        if not stop.is_set():
            _say_ready(addresses)
        while not stop.wait(_LOOK_S):  # see `wait_for`
            if reload.is_set():
                reload.clear()
                changed = reloaded(file)
                if changed is not None:
                    tell(node.reload(changed))
    finally:
        node.stop()


def _run_split(
    file: Path, outline: Outline, verbose: bool, stop: threading.Event, reload: threading.Event
) -> None:
    """Each part in a process of its own; this one watches over them."""
    from ringmain.parts.supervised import Limits, PartPlan
    from ringmain.parts.supervision import Supervision

    package = str(Path(ringmain.__file__).parent.parent)
    paths = [package, *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(path for path in paths if path))

    def plan(name: str, *, has_log: bool = False, informed: bool = False) -> PartPlan:
        # -P: nothing is imported from the directory in which the node happens to run
        command = (sys.executable, "-P", "-m", "ringmain.parts.process", name, str(file), str(verbose))
        return PartPlan(name, command, has_log, informed)

    def plans(outline: Outline) -> list[PartPlan]:
        wanted = [plan("intake", has_log=True)]
        if outline.flows:
            wanted.append(plan("flows"))
        if outline.sinks:
            wanted.append(plan("sinks"))
        if outline.serve:
            wanted.append(plan("server", informed=True))
        return wanted

    def changed() -> list[PartPlan] | None:
        if not reload.is_set():
            return None
        reload.clear()
        nonlocal outline
        outline = read_outline(file) or outline  # what is wrong in the file, the parts say
        return plans(outline)

    limits = Limits(silence_s=outline.silence_s)
    refused = Supervision(plans(outline), _say_ready, limits).run(stop, changed)
    if refused is not None:
        raise Refusal(refused)


def _say_ready(addresses: dict[str, str]) -> None:
    click.echo("ready " + " ".join(f"{name}={address}" for name, address in addresses.items()))


def wait_for(stop: threading.Event) -> None:
    """Wait until a signal has set the event.

    Not `stop.wait()`: a signal that comes when the interpreter has just looked for signals and is about to wait for the
    lock interrupts nothing, and its handler would run only after the wait (at another signal, or never).
    """
    while not stop.wait(_LOOK_S):
        pass


def fill_standard_streams() -> None:
    """Open /dev/null where standard input, output or error came closed.

    Their descriptors would go to the next files that are opened, and what somebody prints into the log.
    """
    for handle, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(handle)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest descriptor that is free: this one
            os.set_inheritable(handle, True)
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(handle, "r" if handle == 0 else "w", closefd=False))


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


@contextlib.contextmanager
def reload_on_signal() -> Iterator[threading.Event]:
    """An event that SIGHUP sets."""
    asked = threading.Event()
    before = signal.signal(signal.SIGHUP, lambda _number, _frame: asked.set())
    try:
        yield asked
    finally:
        signal.signal(signal.SIGHUP, before)


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
        + (f"{_plural(len(config.sinks), 'sink')}, " if config.sinks else "")
        + f"{'serving on ' + config.serve.listen if config.serve else 'not serving'}: no errors"
    )
