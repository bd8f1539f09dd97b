"""`ringmain password`: entries of a listener's password file."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from ringmain.cli.main import Refusal
from ringmain.sources.mqtt_auth import hash_password


@click.command(
    epilog="\b\nExamples:\n  ringmain password passwords.txt meter-0042\n"
    "  openssl rand -hex 24 | ringmain password passwords.txt meter-0043"
)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.argument("user")
@click.option(
    "--password",
    "given",
    help="Other users of this machine can see it: without this it is asked for, or is the first line of standard input.",
)
def password(file: Path, user: str, given: str | None) -> None:
    """Add USER to password FILE, or give it a new password. Only a salted hash is written.

    A running node reads the file again within seconds. A file that exists keeps its owner and mode.
    """
    if not user or ":" in user or any(ord(character) < 32 for character in user):
        raise Refusal(f"expected a user name without ':' and control characters, found {user!r}")
    if given is not None:
        secret = given
    elif sys.stdin.isatty():
        secret = click.prompt("Password", hide_input=True, confirmation_prompt=True)
    else:
        secret = sys.stdin.readline().rstrip("\r\n")
    if not secret:
        raise Refusal(
            "expected a password, found none: type it, or give it as the first line of standard input"
        )
    try:
        _write(file, user, secret)
    except OSError as error:
        raise Refusal(
            f"{file}: expected a file that can be written, found: {error.strerror or error}"
        ) from None
    click.echo(f"{file}: {user} may sign in")


def _write(file: Path, user: str, secret: str) -> None:
    """The file with the user's new entry, in one step: who reads it meanwhile sees the old one or the new one."""
    kept = (
        [line for line in file.read_text().splitlines() if line.partition(":")[0] != user]
        if file.exists()
        else []
    )
    new = file.with_name(file.name + ".new")
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as out:
        out.write("\n".join([*kept, f"{user}:{hash_password(secret)}"]) + "\n")
        if file.exists():
            before = file.stat()
            os.fchmod(out.fileno(), before.st_mode & 0o777)
            if (before.st_uid, before.st_gid) != (os.geteuid(), os.getegid()) and os.geteuid() == 0:
                os.fchown(out.fileno(), before.st_uid, before.st_gid)
    new.rename(file)
