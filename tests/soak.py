"""Long campaigns in parts: what has been run is remembered, so that the next `make soak` goes on where one stopped.

    make soak PART_MINUTES=20        20 minutes of each campaign, then the rest another time

The record of a campaign is a small file under `test-output/soak`. It belongs to the code that it was run with: a change
of that begins the campaign anew.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import msgspec

ROOT = Path(__file__).parents[1]
RECORDS = ROOT / "test-output" / "soak"
PART_MINUTES = "RINGMAIN_SOAK_PART_MINUTES"
_CODE = ("src/ringmain/log", "src/ringmain/testing")
FLOWS_CODE = ("src/ringmain/flows", "tests/flows")


class _Record(msgspec.Struct):
    """How far a campaign has come: the first item that was not run yet, and what the others add up to."""

    code: str
    following: int = 0
    reached: int = 0
    seconds: float = 0.0


@cache
def _hash(folders: Sequence[str]) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()


def part_minutes() -> float:
    """How long a campaign may take now, in minutes."""
    return float(os.environ.get(PART_MINUTES) or "inf")


def run_campaign(
    name: str, goal: int, run: Callable[[int], int], unit: str, code: tuple[str, ...] = _CODE
) -> str:
    """Run items 0, 1, ... until what they return adds up to the goal, or this part's time is over; says how far it is.

    `code`: the folders whose change begins it anew.

    `run(item)` returns how many things it checked, and raises where one does not hold: that item comes again next
    time. An item should take seconds.
    """
    path = RECORDS / f"{name}.json"
    record = _Record(_hash(code))
    if path.exists():
        found = msgspec.json.decode(path.read_bytes(), type=_Record)
        if found.code == record.code:
            record = found
    logging.disable()  # the test runner keeps every line until the end: gigabytes
    try:
        _run(record, goal, run, path)
    finally:
        logging.disable(logging.NOTSET)
    state = "complete" if record.reached >= goal else "not complete: run `make soak` again to go on"
    return (
        f"{name}: {record.reached} of {goal} {unit}, items 0 to {record.following - 1}, "
        f"{record.seconds:.0f} s; {state}"
    )


def _run(record: _Record, goal: int, run: Callable[[int], int], path: Path) -> None:
    minutes = part_minutes()
    started = time.monotonic()
    before = record.seconds
    while record.reached < goal and time.monotonic() - started < 60 * minutes:
        record.reached += run(record.following)
        record.following += 1
        record.seconds = before + time.monotonic() - started
        RECORDS.mkdir(parents=True, exist_ok=True)
        path.write_bytes(msgspec.json.encode(record))
