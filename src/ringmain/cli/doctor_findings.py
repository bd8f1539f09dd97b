"""What `ringmain doctor` says of one thing that it examined."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Grade(Enum):
    """How a finding is to be taken."""

    GOOD = "good"
    NOTE = "note"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing examined: what it is, what was found, how that is to be taken (`Grade`), and what to do."""

    check: str
    found: str
    grade: str
    remedy: str = ""


def good(check: str, found: str) -> Finding:
    """As it should be."""
    return Finding(check, found, Grade.GOOD.value)


def note(check: str, found: str, remedy: str) -> Finding:
    """A node works, but worse or less safely than it could."""
    return Finding(check, found, Grade.NOTE.value, remedy)


def bad(check: str, found: str, remedy: str) -> Finding:
    """A node does not work, or what it acknowledges is not safe."""
    return Finding(check, found, Grade.BAD.value, remedy)
