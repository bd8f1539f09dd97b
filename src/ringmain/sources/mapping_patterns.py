"""Topic patterns and templates of a mapping: which topics it is for, and what names follow from them.

A pattern is a topic whose levels are text, `{name}` (exactly one level, not empty), `+` (the same, unnamed) or,
at the end, `#` (all remaining levels, also none; `{#}` in templates). As in MQTT 5.0, 4.7.2, a pattern that
begins with `{name}`, `+` or `#` is not for topics that begin with `$`.

A template is text with `{name}` in it, filled from the levels that the pattern named.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

REST = "#"
"""The name under which the levels that `#` stands for are known."""

_NAME = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
_PLACE = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*|#)\}")


@dataclass(frozen=True, slots=True)
class TopicPattern:
    """A parsed pattern. `levels` holds text, or None where any level fits; `names` the name of each of those."""

    text: str
    levels: tuple[str | None, ...]
    names: tuple[tuple[int, str], ...]
    open_ended: bool

    @classmethod
    def parse(cls, text: str) -> TopicPattern:
        """Raises ValueError that says what was expected."""
        if not text:
            raise ValueError("expected a topic such as meters/{meter}/{quantity}, found nothing")
        parts = text.split("/")
        open_ended = parts[-1] == REST
        if open_ended:
            parts.pop()
        levels: list[str | None] = []
        names: list[tuple[int, str]] = []
        for index, part in enumerate(parts):
            named = _NAME.fullmatch(part)
            if named is not None:
                if any(name == named[1] for _, name in names):
                    raise ValueError(f"expected each name once, found {{{named[1]}}} twice in {text!r}")
                names.append((index, named[1]))
            elif part == REST:
                raise ValueError(f"expected # only as the last level, found {text!r}")
            elif part != "+" and re.search(r"[{}+#\x00]", part):
                raise ValueError(
                    f"expected a level to be text, {{name}} or +, found {part!r} in {text!r}: "
                    "a name takes a whole level"
                )
            levels.append(None if named is not None or part == "+" else part)
        return cls(text, tuple(levels), tuple(names), open_ended)

    def match(self, topic: str, parts: Sequence[str]) -> dict[str, str] | None:
        """The named levels of `topic`, whose levels are `parts`; None when the pattern is not for it."""
        count = len(self.levels)
        if len(parts) != count and not (self.open_ended and len(parts) > count):
            return None
        if topic.startswith("$") and (not self.levels or self.levels[0] is None):
            return None
        for level, part in zip(self.levels, parts, strict=False):
            if level != part and (level is not None or not part):
                return None
        found = {name: parts[index] for index, name in self.names}
        if self.open_ended:
            found[REST] = "/".join(parts[count:])
        return found

    def filter(self) -> str:
        """The MQTT topic filter that covers this pattern."""
        levels = ["+" if level is None else level for level in self.levels]
        return "/".join([*levels, REST] if self.open_ended else levels)

    @property
    def known(self) -> frozenset[str]:
        """The names that a template may use."""
        return frozenset(name for _, name in self.names) | ({REST} if self.open_ended else set())


@dataclass(frozen=True, slots=True)
class Template:
    """Text with named places."""

    text: str
    parts: tuple[str, ...]

    @classmethod
    def parse(cls, text: str, known: Collection[str]) -> Template:
        """Raises ValueError for a place that has no name among `known`, and for stray braces."""
        parts = _PLACE.split(text)
        for literal in parts[::2]:
            if "{" in literal or "}" in literal:
                raise ValueError(f"expected {{name}} around a name, found {text!r}")
        for name in parts[1::2]:
            if name not in known:
                names = ", ".join(f"{{{name}}}" for name in sorted(known)) or "no names"
                raise ValueError(f"expected a name of the topic ({names}), found {{{name}}} in {text!r}")
        return cls(text, tuple(parts))

    def fill(self, names: Mapping[str, str]) -> str:
        """The text with every place filled."""
        return "".join(names[part] if index % 2 else part for index, part in enumerate(self.parts))
