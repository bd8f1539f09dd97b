"""The `ringmain` command: one group, each subject's commands in a module beside this one, loaded when asked for."""

from __future__ import annotations

import difflib
import importlib
import os
import sys

import click

from ringmain import __version__

_COMMANDS = {
    "demo": ("ringmain.cli.demo", "demo", "A small municipal utility, simulated, live in the browser."),
    "run": ("ringmain.cli.run", "run", "Run the node that a configuration file describes."),
    "reload": (
        "ringmain.cli.reload",
        "reload",
        "Have a running node take over what changed in its configuration.",
    ),
    "status": ("ringmain.cli.status", "status", "Processes, sources, flows and sinks of a running node."),
    "lint": ("ringmain.cli.run", "lint", "Check a configuration file without running it."),
    "schema": (
        "ringmain.cli.schema",
        "schema",
        "Print the JSON Schema of the configuration file, for editors.",
    ),
    "test": ("ringmain.cli.test", "test", "Run recorded input through flows, and compare what comes out."),
    "flow": ("ringmain.cli.flow", "flow", "Flows: retry, skip, continue."),
    "alarm": ("ringmain.cli.alarm", "alarm", "Alarms: list, acknowledge."),
    "replay": ("ringmain.cli.flow", "replay", "Compute a flow's outputs anew, and write what differs."),
    "sql": ("ringmain.cli.data", "sql", "Ask the log a question in SQL."),
    "tap": ("ringmain.cli.data", "tap", "Watch readings as they become durable."),
    "log": ("ringmain.cli.log", "log", "Look into a log: its streams, their frames, their integrity."),
    "password": ("ringmain.cli.password", "password", "Add a device to a password file."),
    "doctor": ("ringmain.cli.doctor", "doctor", "Examine this machine: disk, clock, limits, versions."),
    "bench": ("ringmain.cli.bench", "bench", "Measure this machine and this version."),
}

_LOG_COMMANDS = ("streams", "read", "verify", "backup", "restore", "export", "account")


class _Commands(click.Group):
    """Imports a command's module only when that command is used: `ringmain --help` stays quick."""

    def invoke(self, ctx: click.Context) -> object:
        """Run the command. A reader that has gone, as of `| head`, ends it quietly; click would say 1."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise click.exceptions.Exit(0) from None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command of that name; for one that does not exist, a usage error with the nearest that does."""
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            known = {name: name for name in _COMMANDS} | {name: f"log {name}" for name in _LOG_COMMANDS}
            near = difflib.get_close_matches(args[0], known, 1)
            meant = f"did you mean '{known[near[0]]}'?" if near else f"expected one of {', '.join(_COMMANDS)}"
            raise click.UsageError(f"no command '{args[0]}': {meant}", ctx)
        return super().resolve_command(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, name, _ = _COMMANDS[cmd_name]
        command = getattr(importlib.import_module(module), name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, _, summary) in _COMMANDS.items()])


@click.command(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="\b\nExamples:\n  ringmain demo\n  ringmain run ringmain.toml\n"
    '  ringmain sql "select * from readings order by time desc limit 5" --data data',
)
@click.version_option(__version__, prog_name="ringmain")
def cli() -> None:
    """The event-streaming backbone of an energy utility."""


class Refusal(click.ClickException):
    """What went wrong and what to do, on standard error without a traceback; exit status 1 (2: wrong usage)."""

    def show(self, file: object = None) -> None:
        click.echo(f"ringmain: {self.format_message()}", err=True)


def main() -> None:
    """Entry point. A closed pipe ends quietly; Ctrl-C ends with status 130; an error is one plain message."""
    try:
        cli(prog_name="ringmain", standalone_mode=False)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except OSError as error:  # a file or a disk, not a mistake in the program
        found = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        Refusal(found).show()
        sys.exit(1)


if __name__ == "__main__":
    main()
