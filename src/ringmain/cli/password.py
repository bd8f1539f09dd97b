"""`ringmain password`: entries of a listener's password file."""

from __future__ import annotations

import os
from pathlib import Path

import click

from ringmain.cli.main import Refusal
from ringmain.sources.mqtt_auth import hash_password


@click.command(epilog="\b\nExample:\n  ringmain password passwords.txt meter-0042")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.argument("user")
@click.option(
    "--password", prompt=True, hide_input=True, confirmation_prompt=True, help="Asked for when not given."
)
def password(file: Path, user: str, password: str) -> None:
    """Add USER to password FILE, or give it a new password. Only a salted hash is written."""
    if not user or ":" in user or any(ord(character) < 32 for character in user):
        raise Refusal(f"expected a user name without ':' and control characters, found {user!r}")
    kept = (
        [line for line in file.read_text().splitlines() if line.partition(":")[0] != user]
        if file.exists()
        else []
    )
    new = file.with_name(file.name + ".new")
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as out:
        out.write("\n".join([*kept, f"{user}:{hash_password(password)}"]) + "\n")
    new.rename(file)
    click.echo(f"{file}: {user} may sign in")
