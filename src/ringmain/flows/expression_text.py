"""What expressions do with text: Arrow kernels over string arrays.

Text is compared by its bytes in UTF-8. Patterns are RE2's, whose time grows with the text only. Most text is of the
catalogue and is worked on once a series, not once a row.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ringmain.flows import expression_numbers as numbers
from ringmain.flows.block import Bools
from ringmain.flows.expression_values import Column, Kernel, texts, truths

TEXT_BYTES_MAX = 4096
"""A text that is put together out of others and would be longer is NULL: nested REPLACE could make it any size."""
_NUMBER = r"^\s*[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,3})?\s*$"
_WHOLE = r"^\s*[+-]?\d{1,18}\s*$"
_TRUE = ("true", "t", "yes", "y", "1")
_FALSE = ("false", "f", "no", "n", "0")


def compared(function: str) -> Kernel:
    """A comparison by Arrow's function of that name."""

    def kernel(left: Column, right: Column) -> Column:
        return answers(_call(function, left.data, right.data))

    return kernel


def asked(question: Callable[[pa.Array], pa.Array]) -> Kernel:
    """A question about each text."""

    def kernel(value: Column) -> Column:
        return answers(question(value.data))

    return kernel


def changed(change: Callable[[pa.Array], pa.Array]) -> Kernel:
    """Each text made into another."""

    def kernel(value: Column) -> Column:
        return texts(change(value.data))

    return kernel


def length(value: Column) -> Column:
    """Characters (code points) of each text."""
    counted = pc.utf8_length(value.data).cast(pa.int64())
    return Column(counted.fill_null(0).to_numpy(), value.null)


def among(values: list[str], with_null: bool) -> Kernel:
    """IN a list of constants; `with_null`: NULL is one of them."""
    known = pa.array(values, pa.string())

    def kernel(value: Column) -> Column:
        found = pc.is_in(value.data, value_set=known).to_numpy(zero_copy_only=False)
        null = value.null
        if with_null:
            null = ~found if null is None else null | ~found
        return truths(found, null)

    return kernel


def first_known(*parts: Column) -> Column:
    """COALESCE."""
    return texts(_call("coalesce", *(part.data for part in parts)))


def case(*parts: Column) -> Column:
    """CASE: condition, value, condition, value ..., the value otherwise."""
    size = max(len(part) for part in parts)
    result = _full(parts[-1].data, size)
    for when, then in zip(reversed(parts[:-1:2]), reversed(parts[1::2]), strict=True):
        mask = pa.array(np.broadcast_to(when.data, size))
        result = pc.if_else(mask, _full(then.data, size), result)
    return texts(result)


def null_if(left: Column, right: Column) -> Column:
    """NULLIF."""
    same = _call("equal", left.data, right.data).fill_null(False)
    return texts(pc.if_else(same, pa.scalar(None, pa.string()), _full(left.data, len(same))))


def joined(*parts: Column) -> Column:
    """Texts one after the other; NULL where one is (`||`), or where they are too long together."""
    sizes = sum(pc.binary_length(part.data).fill_null(0).to_numpy().astype(np.int64) for part in parts)
    arrays = [part.data for part in parts]
    long = np.atleast_1d(sizes > TEXT_BYTES_MAX)
    if long.any():
        arrays[0] = _without(_full(arrays[0], len(long)), long)
    return texts(_call("binary_join_element_wise", *arrays, pa.scalar("")))


def concatenated(*parts: Column) -> Column:
    """CONCAT: NULLs do not count."""
    return joined(*(Column(part.data.fill_null("")) for part in parts))


def lower(array: pa.Array) -> pa.Array:
    """LOWER."""
    return pc.utf8_lower(array)


def upper(array: pa.Array) -> pa.Array:
    """UPPER."""
    return pc.utf8_upper(array)


def trim(array: pa.Array) -> pa.Array:
    """TRIM of blanks at both ends."""
    return pc.utf8_trim(array, " ")


def substring(start: int, size: int | None = None) -> Kernel:
    """SUBSTRING from a place (from 1), `size` characters or the rest."""
    if start < 1 or (size is not None and size < 0):
        raise ValueError("expected a start of 1 or more and no negative length")
    stop = None if size is None else start - 1 + size
    return changed(lambda array: pc.utf8_slice_codeunits(array, start - 1, stop))


def part_of(separator: str, place: int) -> Kernel:
    """SPLIT_PART: the part at a place, '' where there is none."""
    if not separator or not place:
        raise ValueError("expected a separator and a place from 1, or from the end below 0")
    return changed(split_part(separator, place, ""))


def replaced(old: str, new: str) -> Kernel:
    """REPLACE of every occurrence."""
    if not old:
        raise ValueError("expected a text to replace, found an empty one")
    growth = max(len(new.encode()) - len(old.encode()), 0)

    def change(array: pa.Array) -> pa.Array:
        if growth:
            found = pc.count_substring(array, old).fill_null(0).to_numpy().astype(np.int64)
            size = pc.binary_length(array).fill_null(0).to_numpy() + found * growth
            array = _without(array, (size > TEXT_BYTES_MAX) & (found > 0))
        return pc.replace_substring(array, old, new)

    return changed(change)


def starting(prefix: str) -> Kernel:
    """STARTS_WITH."""
    return asked(lambda array: pc.starts_with(array, prefix))


def ending(suffix: str) -> Kernel:
    """ENDS_WITH."""
    return asked(lambda array: pc.ends_with(array, suffix))


def containing(part: str) -> Kernel:
    """CONTAINS."""
    return asked(lambda array: pc.match_substring(array, part))


def found(pattern: str) -> Kernel:
    """REGEXP_MATCHES: whether RE2 finds the pattern somewhere."""
    return asked(matching(pattern))


def split_part(separator: str, place: int, otherwise: str | None) -> Callable[[pa.Array], pa.Array]:
    """The part at a place (from 1, from the end where negative), `otherwise` where there is none."""

    def change(array: pa.Array) -> pa.Array:
        lists = pc.split_pattern(array, separator)
        starts = lists.offsets.to_numpy()[:-1]
        counts = np.diff(lists.offsets.to_numpy())
        index = starts + place - 1 if place > 0 else starts + counts + place
        there = (counts >= abs(place)) & array.is_valid().to_numpy(zero_copy_only=False)
        found = lists.values.take(pa.array(np.where(there, index, 0), pa.int64(), mask=~there))
        if otherwise is None:
            return found
        return pc.if_else(array.is_valid(), found.fill_null(otherwise), pa.scalar(None, pa.string()))

    return change


def like(pattern: str, escape: str | None, ignore_case: bool) -> Callable[[pa.Array], pa.Array]:
    """LIKE with a constant pattern: `%` any text, `_` one character. Raises ValueError for a stray escape sign."""
    parts: list[str] = []
    wild = ""
    signs = iter(pattern)
    for sign in signs:
        if sign == escape:
            sign = next(signs, "")
            if not sign:
                raise ValueError(f"expected a character after the escape sign {escape!r}")
            parts.append(re.escape(sign))
        elif sign in "%_":
            parts.append(".*" if sign == "%" else ".")
            wild += sign
        else:
            parts.append(re.escape(sign))
    body = pattern.strip("%")
    if wild.strip("%") == "" and escape is None and "%" not in body and not ignore_case:
        if not wild:
            return lambda array: pc.equal(array, pa.scalar(pattern))
        if body == "":
            return lambda array: pc.if_else(array.is_valid(), True, None)
        if pattern == body + "%":
            return lambda array: pc.starts_with(array, body)
        if pattern == "%" + body:
            return lambda array: pc.ends_with(array, body)
    return matching(f"(?s{'i' if ignore_case else ''})^{''.join(parts)}$")


def matching(pattern: str) -> Callable[[pa.Array], pa.Array]:
    """Whether RE2 finds the pattern in each text. Raises ValueError for a pattern that is none."""
    try:
        pc.match_substring_regex(pa.array([""]), pattern)
    except pa.ArrowInvalid as error:
        raise ValueError(f"expected a regular expression (RE2): {error}") from error
    return lambda array: pc.match_substring_regex(array, pattern)


def number_of(value: Column) -> Column:
    """CAST to double: NULL where the text is no number."""
    usable = pc.match_substring_regex(value.data, _NUMBER).fill_null(False)
    data = _digits(value.data, usable).cast(pa.float64()).to_numpy()
    missing = ~usable.to_numpy(zero_copy_only=False)
    return Column(data, missing if missing.any() else None)


def whole_of(value: Column) -> Column:
    """CAST to bigint: digits as they are, other numbers rounded half away from zero."""
    number = number_of(value)
    rounded = numbers.whole_of(Column(numbers.nearest_whole(number.data), number.null))
    plain = pc.match_substring_regex(value.data, _WHOLE).fill_null(False)
    digits = _digits(value.data, plain).cast(pa.int64()).to_numpy()
    exact = plain.to_numpy(zero_copy_only=False)
    null = None if rounded.null is None else rounded.null & ~exact
    return Column(np.where(exact, digits, rounded.data), null)


def _digits(array: pa.Array, usable: pa.Array) -> pa.Array:
    """Numbers as Arrow reads them: without blanks and plus signs; "0" where they are not usable."""
    trimmed = pc.utf8_trim_whitespace(pc.if_else(usable, array, "0"))
    return pc.if_else(pc.starts_with(trimmed, "+"), pc.utf8_slice_codeunits(trimmed, 1), trimmed)


def truth_of(value: Column) -> Column:
    """CAST to boolean: NULL where the text is neither true nor false."""
    lower = pc.utf8_lower(value.data)
    yes = pc.is_in(lower, value_set=pa.array(_TRUE)).to_numpy(zero_copy_only=False)
    no = pc.is_in(lower, value_set=pa.array(_FALSE)).to_numpy(zero_copy_only=False)
    return truths(yes, ~(yes | no))


def text_of(value: Column) -> Column:
    """CAST of whole numbers or truth values to text."""
    written = pa.array(value.data).cast(pa.string())
    if value.null is None:
        return texts(written)
    missing = pa.array(np.broadcast_to(value.null, len(written)))
    return texts(pc.if_else(missing, pa.scalar(None, pa.string()), written))


def answers(array: pa.Array) -> Column:
    """An Arrow array of truth values as a column."""
    if array.null_count:
        null = array.is_null().to_numpy(zero_copy_only=False)
        return Column(array.fill_null(False).to_numpy(zero_copy_only=False), null)
    return Column(array.to_numpy(zero_copy_only=False))


def _call(function: str, *arrays: Any) -> pa.Array:
    """Arrow's function over arrays of one length and constants (arrays of one element)."""
    sizes = {len(array) for array in arrays if not isinstance(array, pa.Scalar)}
    if len(sizes) > 1:
        arrays = tuple(
            array[0] if not isinstance(array, pa.Scalar) and len(array) == 1 else array for array in arrays
        )
    return pc.call_function(function, list(arrays))


def _without(array: pa.Array, where: Bools) -> pa.Array:
    """NULL at these places."""
    return pc.if_else(pa.array(where), pa.scalar(None, pa.string()), array) if where.any() else array


def _full(array: pa.Array, size: int) -> pa.Array:
    return array if len(array) == size else pa.repeat(array[0], size)
