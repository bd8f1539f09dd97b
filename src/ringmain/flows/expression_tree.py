"""An expression as a small closed tree of literals, names and calls, and the error that tells what is wrong with one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass


class ExpressionError(ValueError):
    """An expression that cannot be used. `at`: the character (from 0) of its text that the message is about."""

    def __init__(self, message: str, at: int | None = None) -> None:
        super().__init__(message if at is None else f"{message} (at character {at + 1})")
        self.at = at


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'value'?`, or nothing where no known word is near."""
    names = sorted(set(known))
    folded = [name for name in names if name.lower() == word.lower()]
    found = folded or difflib.get_close_matches(word.lower(), names, 1, 0.65)
    return f"; did you mean {found[0]!r}?" if found else ""


@dataclass(frozen=True, slots=True)
class Literal:
    """A constant: NULL, TRUE, a number or a text."""

    value: bool | int | float | str | None
    at: int


@dataclass(frozen=True, slots=True)
class Span:
    """An INTERVAL of a fixed length in ns."""

    ns: int
    at: int


@dataclass(frozen=True, slots=True)
class Name:
    """A column: `value`, or with what it is of: `series.source`, `external.MeLo`."""

    name: str
    of: str | None
    at: int


@dataclass(frozen=True, slots=True)
class Call:
    """A function or operator of these arguments. Operators have their SQL sign, keywords are in lower case."""

    name: str
    arguments: tuple[Tree, ...]
    at: int
    function: bool = False


Tree = Literal | Span | Name | Call
