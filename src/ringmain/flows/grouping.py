"""What rows are grouped or matched by: attributes of their series, parts of these, or columns of the rows.

    place           an attribute of the catalogue (or a column of the rows, which goes before)
    place[2]        the second level of a path `area/substation/feeder`; `place[-1]` is the last one
    place[:2]       the first two levels, joined again by `/`
    external.tariff an external name of the series

Texts become small numbers once (`Texts`), so that rows are grouped by arrays of integers. A missing attribute, or a
level that a path does not have, is no text (null) and a group of its own: nothing falls out silently.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ringmain.flows.attributes import ATTRIBUTES, Attributes
from ringmain.flows.block import Ints
from ringmain.flows.grouping_tuples import Tuples
from ringmain.flows.later import Part
from ringmain.flows.step import PlanError, Shape
from ringmain.flows.text_pieces import PIECE_TEXTS, TextPieces

Codes = NDArray[np.int32]
By = tuple[str, ...] | dict[str, str]
"""Terms as a configuration gives them: a list, or a table of the columns' names and their terms."""

TEXTS_MAX = 1 << 20
"""Distinct texts of one term; a text beyond is taken as missing."""
_TERM = re.compile(r"(?:(external)\.)?([^\s\[\]]+?)(?:\[(-?\d+|-?\d*:-?\d*)\])?")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LEVELS_MAX = 64


@dataclass(frozen=True, slots=True)
class Term:
    """One of the things that rows are grouped by. `name`: of the column that it makes."""

    name: str
    source: str
    external: bool = False
    levels: tuple[int | None, int | None] | None = None
    """Levels of a path from and up to, both included, from 1; one level counted from the end as (-1, -1). None: all."""
    column: bool = False
    """Whether `source` is a column of the rows."""

    @property
    def attribute(self) -> str:
        """The column of the catalogue that it is made of."""
        return "external" if self.external else self.source

    def part(self, text: str | None) -> str | None:
        """What the term makes of the text of its attribute or column."""
        if text is None:
            return None
        if self.external:
            return _external(text, self.source)
        if self.levels is None:
            return text
        begin, end = self.levels
        levels = text.split("/")
        if begin is not None and begin < 0:
            return levels[begin] if -begin <= len(levels) else None
        chosen = levels[(begin or 1) - 1 : end]
        return "/".join(chosen) if chosen and (end is None or len(levels) >= end) else None


def terms_of(by: By) -> tuple[Term, ...]:
    """The terms of a setting `by`. Raises ValueError with what to mend."""
    named = by.items() if isinstance(by, dict) else (("", text) for text in by)
    terms = tuple(_term(name, text) for name, text in named)
    names = [term.name for term in terms]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(
            f"two terms make a column {twice!r}: name them with a table, e.g. "
            '{ area = "place[1]", substation = "place[:2]" }'
        )
    return terms


def named_terms(by: By) -> dict[str, str]:
    """The terms by the name of their column, as a table has them. Raises ValueError."""
    texts = by.values() if isinstance(by, dict) else by
    return {term.name: text for term, text in zip(terms_of(by), texts, strict=True)}


def _term(name: str, text: str) -> Term:
    found = _TERM.fullmatch(text)
    if found is None:
        raise ValueError(
            f"expected an attribute or column such as place, place[2], place[:2] or external.tariff, found {text!r}"
        )
    external, source, levels = found.groups()
    if not name:
        name = re.sub(r"[^A-Za-z0-9_]+", "_", text.removeprefix("external.")).strip("_")
    if _NAME.fullmatch(name) is None:
        raise ValueError(f"expected a name of letters, digits and `_` for a column, found {name!r}")
    return Term(name, source, external is not None, None if levels is None else _levels(levels, text))


def _levels(levels: str, text: str) -> tuple[int | None, int | None]:
    first, colon, last = levels.partition(":")
    begin, end = (int(part) if part else None for part in (first, last))
    if not colon:
        end = begin
    least = 1 if colon else -_LEVELS_MAX
    outside = any(
        level is not None and (level == 0 or not least <= level <= _LEVELS_MAX) for level in (begin, end)
    )
    if outside or (colon and begin is not None and end is not None and end < begin):
        raise ValueError(
            f"levels count from 1 (place[2], place[:2], place[2:3]), one alone from the end too (place[-1]), found {text!r}"
        )
    return begin, end


def resolved(terms: Sequence[Term], shape: Shape, key: str = "by") -> tuple[Term, ...]:
    """The terms with `column` set for those that rows of this shape have as a column. Raises PlanError."""
    return tuple(_resolved(term, shape, key) for term in terms)


def _resolved(term: Term, shape: Shape, key: str) -> Term:
    names = [name for name in shape.schema.names if name not in ("series", "time", "value", "quality")]
    if not term.external and term.source in names:
        kind = shape.schema.field(term.source).type
        if not groupable(kind):
            raise PlanError(
                key, f"column {term.source!r} holds {kind}: expected text, whole numbers or booleans"
            )
        return Term(term.name, term.source, False, term.levels, column=True)
    if not term.external and term.source not in ATTRIBUTES:
        expected = ", ".join([*names, *ATTRIBUTES, "external.NAME"])
        raise PlanError(key, f"expected one of {expected}, found {term.source!r}")
    if "series" not in shape.schema.names:
        raise PlanError(
            key, f"rows without series have no attribute {term.source!r}; they have {', '.join(names)}"
        )
    return term


def groupable(kind: pa.DataType) -> bool:
    """Whether a column of this type can be grouped by."""
    if pa.types.is_dictionary(kind):
        return bool(pa.types.is_string(kind.value_type))
    return bool(
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_integer(kind)
        or pa.types.is_boolean(kind)
    )


def attributes_of(terms: Sequence[Term]) -> frozenset[str]:
    """The columns of the catalogue that terms need, for `Plan.attributes`."""
    return frozenset(term.attribute for term in terms if not term.column)


def _external(text: str, name: str) -> str | None:
    try:
        found = msgspec.json.decode(text, type=dict[str, object]).get(name)
    except msgspec.MsgspecError:
        return None
    if found is None or isinstance(found, str):
        return found
    return msgspec.json.encode(found).decode()


class Texts:
    """Texts and their numbers, in order of appearance; -1 is no text."""

    def __init__(self, texts: Sequence[str] = ()) -> None:
        self.texts = list(texts)
        self._numbers = {text: number for number, text in enumerate(texts)}
        self._pieces = TextPieces()
        self._piece_at = PIECE_TEXTS

    def number(self, text: str | None) -> int:
        """The number of a text, a new one if need be."""
        if text is None:
            return -1
        number = self._numbers.get(text, -1)
        if number < 0 and len(self.texts) < TEXTS_MAX:
            number = self._numbers[text] = len(self.texts)
            self.texts.append(text)
            if len(self.texts) >= self._piece_at:
                self._pieces.keep_up(self.texts)
                self._piece_at = len(self.texts) + PIECE_TEXTS
        return number

    def known(self, text: str) -> int:
        """The number of a text, -2 if it has none."""
        return self._numbers.get(text, -2)

    def text(self, number: int) -> str | None:
        """The text of a number."""
        return None if number < 0 else self.texts[number]

    def state(self, name: str) -> dict[str, bytes]:
        """All of them, under names that begin with this."""
        return self._pieces.state(name, self.texts)

    @classmethod
    def restored(cls, state: Mapping[str, Part], name: str) -> Texts:
        """What `state` gave, among other things."""
        pieces = TextPieces()
        found = cls(pieces.restore(name, state))
        found._pieces = pieces
        found._piece_at = len(found.texts) - len(found.texts) % PIECE_TEXTS + PIECE_TEXTS
        return found


def coded_state(name: str, texts: Sequence[Texts], tuples: Tuples) -> dict[str, Part]:
    """Texts of terms and tuples of their numbers, under names that begin with this."""
    state: dict[str, Part] = {f"{name}.rows": tuples.rows[: tuples.count].reshape(-1)}
    for place, known in enumerate(texts):
        state |= known.state(f"{name}.{place}")
    return state


def coded(name: str, state: Mapping[str, Part], terms: int) -> tuple[list[Texts], Tuples]:
    """What `coded_state` gave, of so many terms."""
    texts = [Texts.restored(state, f"{name}.{place}") for place in range(terms)]
    rows = np.asarray(state[f"{name}.rows"], np.int32)
    return texts, Tuples(terms, rows.reshape(-1, terms) if len(rows) else None)


class TermCodes:
    """Codes of one term: of series by their attribute, or of rows by their column."""

    def __init__(self, term: Term, texts: Texts | None = None) -> None:
        self.term = term
        self.texts = Texts() if texts is None else texts
        self._of_attribute: Codes = np.empty(0, np.int32)
        """By code of the attribute: code of the term."""

    def of_series(self, series: Ints, attributes: Attributes) -> Codes:
        """The codes of series as the catalogue stands."""
        name = self.term.attribute
        codes = attributes.codes(name)
        texts = attributes.texts(name)
        known = len(self._of_attribute)
        if len(texts) > known:
            more = [self.texts.number(self.term.part(text)) for text in texts[known:]]
            self._of_attribute = np.concatenate((self._of_attribute, np.array(more, np.int32)))
        found = np.full(len(series), -1, np.int32)
        if not len(codes) or not len(self._of_attribute):
            return found
        within = series < len(codes)
        attribute = codes[np.where(within, series, 0)]
        have = within & (attribute >= 0)
        found[have] = self._of_attribute[attribute[have]]
        return found

    def of_column(self, column: pa.Array) -> Codes:
        """The codes of rows by their column."""
        texts = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
        indices = texts.indices
        used = texts.dictionary
        if len(used) > len(indices):  # more words than rows: look at those that occur
            encoded = indices.dictionary_encode()
            used, indices = used.take(encoded.dictionary), encoded.indices
        words = used.cast(pa.string()).to_pylist()
        numbers = np.array([self.texts.number(self.term.part(word)) for word in words] or [-1], np.int32)
        if indices.null_count:
            places = indices.fill_null(0).to_numpy(zero_copy_only=False)
            valid = indices.is_valid().to_numpy(zero_copy_only=False)
            return np.where(valid, numbers[places], np.int32(-1))
        found: Codes = numbers[indices.to_numpy(zero_copy_only=False)]
        return found


def known_texts(texts: Texts, column: pa.Array) -> Codes:
    """The numbers of texts, -2 for one that has none."""
    encoded = column.dictionary_encode()
    numbers = np.array([texts.known(word) for word in encoded.dictionary.to_pylist()] or [-1], np.int32)
    places = encoded.indices.fill_null(0).to_numpy(zero_copy_only=False)
    valid = encoded.indices.is_valid().to_numpy(zero_copy_only=False)
    return np.where(valid, numbers[places], np.int32(-1))


class SeriesGroups:
    """Groups of series by attributes, as the catalogue stands, and of rows by columns.

    `of(series, columns)` gives numbers of groups: codes of the column terms come from the caller.
    """

    def __init__(self, terms: Sequence[Term], attributes: Attributes) -> None:
        self.terms = tuple(terms)
        self._attributes = attributes
        self.codes = [TermCodes(term) for term in self.terms]
        self.tuples = Tuples(len(self.terms))

    @property
    def by_column(self) -> tuple[int, ...]:
        """Places of the terms that are columns of rows."""
        return tuple(place for place, term in enumerate(self.terms) if term.column)

    @property
    def count(self) -> int:
        """How many groups there are."""
        return self.tuples.count if self.terms else 1

    def of(self, series: Ints, columns: Mapping[int, Codes]) -> Ints:
        """The group of each series; `columns`: codes of the column terms by their place."""
        if not self.terms:
            return np.zeros(len(series), np.int64)
        codes = [
            columns[place] if term.column else self.codes[place].of_series(series, self._attributes)
            for place, term in enumerate(self.terms)
        ]
        return self.tuples.numbers(codes)

    def columns(self, groups: Ints) -> list[pa.Array]:
        """The text of each term for groups, as columns."""
        rows = self.tuples.rows[groups] if self.terms else None
        arrays = []
        for place, codes in enumerate(self.codes):
            assert rows is not None
            arrays.append(
                pa.array([codes.texts.text(number) for number in rows[:, place].tolist()], pa.string())
            )
        return arrays

    def find(self, columns: Sequence[pa.Array]) -> Ints:
        """The groups that columns tell as `columns` gave them, -1 for one that there is not."""
        return self.tuples.find(
            [known_texts(codes.texts, column) for codes, column in zip(self.codes, columns, strict=True)]
        )

    def state(self) -> dict[str, Part]:
        """Texts and groups, with names that begin with `groups.`."""
        return coded_state("groups", [codes.texts for codes in self.codes], self.tuples)

    def restore(self, state: Mapping[str, Part]) -> None:
        """Take over what `state` gave, among other things."""
        texts, self.tuples = coded("groups", state, len(self.terms))
        self.codes = [TermCodes(term, known) for term, known in zip(self.terms, texts, strict=True)]


def group_fields(terms: Sequence[Term]) -> list[pa.Field]:
    """The columns that terms make."""
    return [pa.field(term.name, pa.string()) for term in terms]


def unit_kept(terms: tuple[Term, ...], shape: Shape) -> tuple[Term, ...]:
    """The terms and the unit, unless all rows have one: values of different units are never added up."""
    if shape.unit is not None or any(term.source == "unit" and term.levels is None for term in terms):
        return terms
    return (*terms, Term("unit", "unit", column="unit" in shape.schema.names))
