"""`ringmain reload`: a running node takes over what changed in its configuration file."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import click

from ringmain.cli.main import Refusal
from ringmain.cli.run import load_or_refuse
from ringmain.log.lock import LOCK_NAME


@click.command(epilog="\b\nExample:\n  ringmain reload ringmain.toml")
@click.argument("file", type=click.Path(path_type=Path))
def reload(file: Path) -> None:
    """Check FILE, and have the node that runs it take over what changed; the rest goes on undisturbed.

    Sources, flows and sinks that changed end and begin anew, nothing lost or doubled. [node] and [log] need a start.
    """
    config = load_or_refuse(file)
    lock = config.data / LOCK_NAME
    try:
        holder = int(lock.read_text())
        command = Path(f"/proc/{holder}/cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError):
        raise Refusal(f"no node runs on {config.data}: start it with `ringmain run {file}`") from None
    if b"run" not in command and not any(b"ringmain" in word for word in command):
        raise Refusal(f"the log in {config.data} is held by process {holder}, which is no node")
    try:
        os.kill(holder, signal.SIGHUP)
    except OSError as error:
        raise Refusal(f"the node (process {holder}) cannot be told: {error.strerror}") from None
    click.echo(
        f"node {config.node.name!r} (process {holder}): told to take over {file}; its log says what changed"
    )
