"""A log named on the command line: by its directory, or by the configuration file of its node."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ringmain.cli.main import Refusal


@dataclass(frozen=True, slots=True)
class Located:
    """Where a log lies. `configuration`: the file that named it, if one did."""

    data: Path
    configuration: Path | None


def located(path: Path) -> Located:
    """The log's directory. Raises Refusal where there is none, or where the configuration file cannot be read."""
    if path.is_file():
        from ringmain.cli.run import load_or_refuse

        data = load_or_refuse(path).data
        if not data.is_dir():
            raise Refusal(f"{path}: its log would lie in {data}, where there is none yet")
        return Located(data, path)
    if not path.is_dir():
        raise Refusal(
            f"no log in {path}: expected the directory of a log, or the configuration file of its node"
        )
    return Located(path, None)


def one_place(argument: Path | None, option: Path | None) -> Path:
    """What was named as an argument or with `--data`, which say the same; `data` without. Raises Refusal where they differ."""
    if argument is not None and option is not None and argument != option:
        raise Refusal(f"expected one directory, found {argument} and --data {option}: leave one of them out")
    return argument or option or Path("data")


def shown_bytes(size: int) -> str:
    """A size for people, in powers of 1024."""
    amount, unit = float(size), "bytes"
    for following in ("KiB", "MiB", "GiB", "TiB"):
        if amount < 1024:
            break
        amount, unit = amount / 1024, following
    return f"{size} bytes" if unit == "bytes" else f"{amount:.1f} {unit}"
