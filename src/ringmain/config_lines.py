"""Where in a TOML text a key stands, so that a message about a configuration file can name the line."""

from __future__ import annotations

import re


class LineFinder:
    """Finds the line of a key in a TOML text, for messages only (a wrong guess costs nothing but convenience)."""

    def __init__(self, text: str) -> None:
        self._lines: dict[tuple[str | int, ...], int] = {}
        table: tuple[str | int, ...] = ()
        arrays: dict[tuple[str, ...], int] = {}
        for number, line in enumerate(text.splitlines(), 1):
            if match := re.match(r"\s*\[\[([^\]]+)\]\]", line):
                name = key_parts(match[1])
                index = arrays[name] = arrays.get(name, -1) + 1
                table = (*name, index)
            elif match := re.match(r"\s*\[([^\]]+)\]", line):
                table = key_parts(match[1])
            elif match := re.match(
                r'\s*((?:"[^"]*"|\'[^\']*\'|[A-Za-z0-9_-]+)(?:\s*\.\s*(?:"[^"]*"|[A-Za-z0-9_-]+))*)\s*=', line
            ):
                self._lines.setdefault((*table, *key_parts(match[1])), number)
                continue
            else:
                continue
            self._lines.setdefault(table, number)

    def find(self, key: tuple[str | int, ...]) -> int:
        """The line of the key, or of the nearest thing that holds it; 1 if nothing does."""
        while key:
            if key in self._lines:
                return self._lines[key]
            inside = [line for known, line in self._lines.items() if known[: len(key)] == key]
            if inside:
                return min(inside)
            key = key[:-1]
        return 1


def key_parts(dotted: str) -> tuple[str, ...]:
    """The parts of a dotted TOML key, quotes removed."""
    return tuple(part.strip().strip("\"'") for part in re.findall(r'"[^"]*"|\'[^\']*\'|[^.\s]+', dotted))
