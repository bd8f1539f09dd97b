"""What a wrong configuration is told: msgspec's and tomllib's findings in the words of somebody who writes the file."""

from __future__ import annotations

import difflib
import re
from typing import Any

import msgspec

_WORDS = {
    "str": "text in quotes",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "array": "a list in brackets",
    "object": "a table",
}
_TOML_HINTS = {
    "Cannot overwrite a value": "this key stands in its table already",
    "Cannot declare": "this table is in the file already; a list of tables has two brackets, [[...]]",
    "Invalid value": "a text needs quotes",
    "Illegal character": "a text ends with its quote on the same line",
}


def not_toml(error: str) -> str:
    """tomllib's message with its column and, where the mistake is a usual one, what is meant."""
    text, _, place = error.partition(" (at ")
    column = re.search(r"column (\d+)", place)
    hint = next((hint for start, hint in _TOML_HINTS.items() if text.startswith(start)), "")
    return (
        f"not valid TOML: {text}"
        + (f" (column {column[1]})" if column else "")
        + (f": {hint}" if hint else "")
    )


def explained(
    text: str, table: Any, struct: type[Any], key: tuple[str | int, ...]
) -> tuple[tuple[str | int, ...], str, str | None]:
    """Where below `key` the value stands that msgspec refused, what was expected and found, and which key is missing."""
    where: tuple[str | int, ...] = ()
    if match := re.fullmatch(r"(.*) - at `(?:key in )?\$(.*)`", text, re.DOTALL):
        text, where = match[1], _resolve(match[2], table)
    if unknown := re.fullmatch(r"Object contains unknown field `(.*)`", text):
        fields = _fields_of(struct, where)
        expected = f"; expected one of {', '.join(fields)}" if fields else ""
        return (*where, unknown[1]), f"unknown key{nearest(unknown[1], fields)}{expected}", None
    if missing := re.fullmatch(r"Object missing required field `(.*)`", text):
        return where, f"expected a key `{missing[1]}`, found none: add it", missing[1]
    if wrong := re.fullmatch(r"Invalid enum value (.*)", text):
        return where, f"expected one of {', '.join(_choices_of(struct, where))}, found {wrong[1]}", None
    if kinds := re.fullmatch(r"Expected `(.*)`, got `(.*)`", text):
        return where, _kinds(kinds[1].split(" | "), kinds[2], (*key, *where)), None
    return where, f"{text[0].lower()}{text[1:]}, found {_at(table, where)!r}", None


def follows(missing: str, where: tuple[str | int, ...], removed: set[tuple[str | int, ...]]) -> bool:
    """Whether a key is missing only because it, or what looks like it misspelt, was refused before."""
    beside = [str(gone[-1]) for gone in removed if gone[:-1] == where]
    return any(nearest(name, [missing]) for name in beside)


def _kinds(expected: list[str], found: str, key: tuple[str | int, ...]) -> str:
    wanted = " or ".join(_WORDS.get(kind, kind) for kind in expected if kind != "null")
    hint = ""
    if "array" in expected and found == "object":
        hint = f": write [[{dotted(key)}]], with two brackets"
    elif "array" in expected and "str" not in expected and found == "str":
        hint = ': write ["..."], even for one'
    return f"expected {wanted}, found {_WORDS.get(found, found).removesuffix(' in quotes')}{hint}"


def remove(table: Any, where: tuple[str | int, ...]) -> tuple[str | int, ...]:
    """Take the value at `where`, or the list that holds it, out of the table; where it was, () if nowhere."""
    while where and isinstance(where[-1], int):
        where = where[:-1]
    holder = _at(table, where[:-1])
    if not where or not isinstance(holder, dict) or where[-1] not in holder:
        return ()
    del holder[where[-1]]
    return where


def dotted(key: tuple[str | int, ...]) -> str:
    """A key as it is written in messages, such as sources.field.map[0].topic."""
    text = ""
    for part in key:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _resolve(path: str, table: Any) -> tuple[str | int, ...]:
    """msgspec's `.a[0].b` as a key; `[...]` (a mapping's value) cannot be told and ends the key."""
    key: list[str | int] = []
    for name, index in re.findall(r"\.([^.\[\]]+)|\[([0-9]+|\.\.\.)\]", path):
        if index == "...":
            break
        key.append(name or int(index))
    return tuple(key)


def _at(table: Any, key: tuple[str | int, ...]) -> Any:
    for part in key:
        try:
            table = table[part]
        except (KeyError, IndexError, TypeError):
            return None
    return table


def _kinds_at(struct: type[Any], key: tuple[str | int, ...]) -> list[Any]:
    """The types (msgspec.inspect) that the value at `key` below `struct` may have; empty where it cannot be told."""
    kinds = _alternatives(msgspec.inspect.type_info(struct))
    for part in key:
        inner: list[Any] = []
        for kind in kinds:
            if isinstance(part, int) and isinstance(
                kind, msgspec.inspect.ListType | msgspec.inspect.VarTupleType
            ):
                inner += _alternatives(kind.item_type)
            elif isinstance(kind, msgspec.inspect.StructType):
                inner += [k for f in kind.fields if f.encode_name == part for k in _alternatives(f.type)]
        kinds = inner
    return kinds


def _alternatives(kind: Any) -> list[Any]:
    if isinstance(kind, msgspec.inspect.Metadata):
        return _alternatives(kind.type)
    if isinstance(kind, msgspec.inspect.UnionType):
        return [inner for option in kind.types for inner in _alternatives(option)]
    return [kind]


def _fields_of(struct: type[Any], key: tuple[str | int, ...]) -> list[str]:
    """Names of the keys that the table at `key` below `struct` accepts."""
    kinds = _kinds_at(struct, key)
    return [
        f.encode_name for kind in kinds if isinstance(kind, msgspec.inspect.StructType) for f in kind.fields
    ]


def _choices_of(struct: type[Any], key: tuple[str | int, ...]) -> list[str]:
    """The values that an enumeration at `key` below `struct` accepts."""
    found: list[str] = []
    for kind in _kinds_at(struct, key):
        if isinstance(kind, msgspec.inspect.EnumType):
            found += [str(member.value) for member in kind.cls]
        elif isinstance(kind, msgspec.inspect.LiteralType):
            found += [str(value) for value in kind.values]
    return found


def nearest(word: str, known: Any) -> str:
    """` (did you mean ...?)` with what resembles the word most, or nothing."""
    near = difflib.get_close_matches(word, list(known), 1, 0.6)
    return f" (did you mean {near[0]!r}?)" if near else ""
