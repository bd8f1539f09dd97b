"""`ringmain log backup` and `ringmain log restore`: a log's copy elsewhere, made while its node runs, and back again."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click

from ringmain.cli.located import located, shown_bytes
from ringmain.cli.main import Refusal
from ringmain.log.interface import LogError
from ringmain.runtime.priority import yield_disk, yield_processor

_NICENESS = 10


@contextlib.contextmanager
def progress_bar(label: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on standard error where that is a terminal; to be called with what is done and all there is."""
    if not sys.stderr.isatty():
        yield lambda done, whole: None
        return
    with click.progressbar(length=1000, label=label, file=sys.stderr) as bar:
        shown = 0

        def progress(done: int, whole: int) -> None:
            nonlocal shown
            place = max(shown, min(1000, done * 1000 // max(whole, 1)))
            bar.update(place - shown)
            shown = place

        yield progress


@click.command(
    epilog="\b\nExamples:\n  ringmain log backup data /mnt/backup/node7\n"
    "  ringmain log backup /etc/ringmain/node.toml /mnt/backup/node7\n"
    "\b\nRun it again with the same TARGET, say every night: what is there already is not copied again."
)
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("target", type=click.Path(path_type=Path))
@click.option(
    "--unpaced", is_flag=True, help="As quickly as the disks can; for a log whose node does not run."
)
def backup(source: Path, target: Path, unpaced: bool) -> None:
    """Copy the log in SOURCE to TARGET while its node runs: everything that was durable at one moment.

    SOURCE is the directory of a log, or the configuration file of its node, which is then kept beside it. TARGET
    is a new or empty directory, or holds an earlier backup of the same log, which stays whole until the new one is
    complete and then gives way to it. Every file is read back and compared before it counts.
    """
    from ringmain.log.backup.backup import backup as copy

    found = located(source)
    if not unpaced:
        yield_processor(_NICENESS)
        yield_disk()
    try:
        with progress_bar(f"backing up {found.data}") as progress:
            report = copy(
                found.data, target, configuration=found.configuration, paced=not unpaced, progress=progress
            )
    except LogError as error:
        raise Refusal(str(error)) from None
    manifest = report.manifest
    click.echo(
        f"backup of {_moment(manifest.taken_ns)} in {target}: up to position {manifest.end}, "
        f"{report.copied_segments + report.kept_segments} segments ({shown_bytes(report.copied_bytes + report.kept_bytes)}), "
        f"{report.copied_segments} of them ({shown_bytes(report.copied_bytes)}) copied now"
    )
    for note in manifest.notes:
        click.echo(f"note: {note}")
    for problem in report.problems:
        click.echo(f"problem: damaged in the log itself, and copied as it is: {problem}", err=True)


def _moment(time_ns: int) -> str:
    from ringmain.log.backup.restored import iso

    return iso(time_ns)


@click.command(
    epilog="\b\nExamples:\n  ringmain log restore /mnt/backup/node7 data\n"
    "  ringmain log restore /mnt/backup/node7 --verify-only"
)
@click.argument("backup", type=click.Path(path_type=Path))
@click.argument("directory", type=click.Path(path_type=Path), required=False)
@click.option("--verify-only", is_flag=True, help="Check every file of the backup, restore nothing.")
def restore(backup: Path, directory: Path | None, verify_only: bool) -> None:
    """Put the log in BACKUP into DIRECTORY, which must be empty or missing, and verify it.

    A node that runs there goes on as a new incarnation of the log: positions within the backup stay valid, whoever
    was further gets an error that says so, and the ledger says that what came behind the backup is not here.
    """
    from ringmain.log.backup.restore import check
    from ringmain.log.backup.restore import restore as put_back

    if directory is None and not verify_only:
        raise click.UsageError("expected BACKUP and DIRECTORY, or BACKUP with --verify-only")
    try:
        with progress_bar(f"{'checking' if verify_only else 'restoring'} {backup}") as progress:
            if directory is None or verify_only:
                report = check(backup, progress=progress)
            else:
                report = put_back(backup, directory, progress=progress)
    except LogError as error:
        raise Refusal(str(error)) from None
    manifest = report.manifest
    what = f"backup of {_moment(manifest.taken_ns)}, up to position {manifest.end}"
    size = f"{report.files} files, {shown_bytes(report.bytes)}"
    if report.restored is None or report.verified is None:
        click.echo(f"{what}: {size}, every one as it was written: sound")
        return
    click.echo(
        f"{what}: {size}, restored into {directory}; the log goes on as incarnation {report.restored.incarnation:016x}"
    )
    for note in report.notes:
        click.echo(f"note: {note}")
    for problem in report.verified.problems:
        click.echo(f"problem: so in the backup, and so before it: {problem}", err=True)
    if manifest.configuration is not None:
        stored = backup / manifest.configuration.file.stored
        click.echo(f"note: the node's configuration ({manifest.configuration.name}) is kept as {stored}")
