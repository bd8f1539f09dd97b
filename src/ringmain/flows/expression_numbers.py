"""The arithmetic, comparisons and logic of expressions as NumPy kernels over whole columns.

Every kernel gives for a row what it gives for that row alone, whatever rows stand beside it: no kernel may depend on
how rows were cut into blocks (`power` shows that this is no matter of course). Whole numbers that leave 64 bits,
division by zero and everything else without a result are NULL.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ringmain.flows.block import Bools, Floats, Ints
from ringmain.flows.expression_values import Column, Kernel, either, settled, truths

_INT_MIN = np.iinfo(np.int64).min


def compared(operator: Callable[[Any, Any], Any]) -> Kernel:
    """A comparison of two columns of one kind, in NumPy's form."""

    def kernel(left: Column, right: Column) -> Column:
        return truths(operator(left.data, right.data), either(left.null, right.null))

    return kernel


def between(value: Column, low: Column, high: Column) -> Column:
    """low <= value and value <= high."""
    return all_of(compared(np.greater_equal)(value, low), compared(np.less_equal)(value, high))


def all_of(*parts: Column) -> Column:
    """AND: FALSE where one is, else NULL where one is."""
    data = parts[0].data
    for part in parts[1:]:
        data = data & part.data
    if all(part.null is None for part in parts):
        return Column(data)
    some_false: Bools = np.zeros(1, np.bool_)
    some_null: Bools = np.zeros(1, np.bool_)
    for part in parts:
        if part.null is None:
            some_false = some_false | ~part.data
        else:
            some_null = some_null | part.null
            some_false = some_false | ~(part.data | part.null)
    return truths(data, some_null & ~some_false)


def any_of(*parts: Column) -> Column:
    """OR: TRUE where one is, else NULL where one is."""
    data = parts[0].data
    null = parts[0].null
    for part in parts[1:]:
        data = data | part.data
        null = either(null, part.null)
    return Column(data, None if null is None else null & ~data)


def negation(value: Column) -> Column:
    """NOT."""
    return truths(~value.data, value.null)


def is_null(value: Column) -> Column:
    """IS NULL."""
    return Column(np.zeros(len(value), np.bool_) if value.null is None else value.null)


def is_true(value: Column) -> Column:
    """IS TRUE."""
    return Column(value.data)


def is_false(value: Column) -> Column:
    """IS FALSE."""
    return Column(~value.data if value.null is None else ~(value.data | value.null))


def distinct(equal: Kernel) -> Kernel:
    """IS DISTINCT FROM, from the kernel of `=`."""

    def kernel(left: Column, right: Column) -> Column:
        same = equal(left, right).data
        if left.null is not None and right.null is not None:
            same = same | (left.null & right.null)
        return Column(~same)

    return kernel


def among(values: NDArray[Any], with_null: bool) -> Kernel:
    """IN a list of constants; `with_null`: NULL is one of them."""

    def kernel(value: Column) -> Column:
        if len(values) <= 8:
            found: Bools = np.zeros(len(value), np.bool_)
            for one in values:
                found |= value.data == one
        else:
            found = np.isin(value.data, values)
        null = either(value.null, ~found if with_null else None)
        return truths(found, null)

    return kernel


def first_known(*parts: Column) -> Column:
    """COALESCE of numbers, times or truth values."""
    data, null = parts[-1].data, parts[-1].null
    for part in reversed(parts[:-1]):
        if part.null is None:
            data, null = part.data, None
        else:
            data = np.where(part.null, data, part.data)
            null = None if null is None else part.null & null
    return Column(data, null)


def case(*parts: Column) -> Column:
    """CASE: condition, value, condition, value ..., the value otherwise."""
    data, null = parts[-1].data, parts[-1].null
    for when, then in zip(reversed(parts[:-1:2]), reversed(parts[1::2]), strict=True):
        if null is not None or then.null is not None:
            no = np.zeros(1, np.bool_)
            null = np.where(when.data, no if then.null is None else then.null, no if null is None else null)
        data = np.where(when.data, then.data, data)
    return Column(data, null)


def null_if(equal: Kernel) -> Kernel:
    """NULLIF, from the kernel of `=`."""

    def kernel(left: Column, right: Column) -> Column:
        same = equal(left, right).data
        data = np.broadcast_to(left.data, same.shape) if len(left.data) != len(same) else left.data
        null = either(left.null, same)
        return truths(data, null) if data.dtype == np.bool_ else Column(data, null)

    return kernel


def extreme(better: Callable[[Any, Any], Any]) -> Kernel:
    """LEAST or GREATEST: the first that no later one is `better` than; NULLs do not count.

    Not NumPy's minimum and maximum: which of 0.0 and -0.0 they give depends on the place of a row in its array.
    """

    def kernel(*parts: Column) -> Column:
        data, null = parts[0].data, parts[0].null
        for part in parts[1:]:
            take = better(part.data, data)
            if null is not None:
                take = take | null
            if part.null is not None:
                take = take & ~part.null
            data = np.where(take, part.data, data)
            null = None if null is None or part.null is None else null & part.null
        return Column(data, null)

    return kernel


# Floating point


def floats(operator: Callable[..., Any]) -> Kernel:
    """An operation of IEEE 754 whose NaN is NULL."""

    def kernel(*parts: Column) -> Column:
        null: Bools | None = None
        for part in parts:
            null = either(null, part.null)
        return settled(operator(*(part.data for part in parts)), null)

    return kernel


def divided(left: Column, right: Column) -> Column:
    """A quotient; NULL for a divisor of zero."""
    zero = right.data == 0.0
    null = either(either(left.null, right.null), zero if zero.any() else None)
    return settled(left.data / right.data, null)


def remainder(left: Column, right: Column) -> Column:
    """What is left of a division, with the sign of the dividend; NULL for a divisor of zero."""
    return settled(np.fmod(left.data, right.data), either(left.null, right.null))


def power(left: Column, right: Column) -> Column:
    """left to the power of right; NULL for zero to a negative power, which divides by zero.

    NumPy squares where a constant exponent is 2, but not in an array of one row, where it takes the general way, with
    another last bit. So the square is taken here, and the general way always gets a full array.
    """
    null = either(left.null, right.null)
    divides = (left.data == 0.0) & (right.data < 0.0)
    null = either(null, divides if divides.any() else None)
    if len(right) == 1 and right.data[0] == 2.0:
        return settled(left.data * left.data, null)
    size = np.broadcast_shapes(left.data.shape, right.data.shape)[0]
    full = np.empty(max(size, 2)), np.empty(max(size, 2))
    full[0][:], full[1][:] = 1.0, 3.0
    full[0][:size], full[1][:size] = left.data, right.data
    return settled(np.power(*full)[:size], null)


def nearest_whole(data: Floats) -> Floats:
    """Rounded half away from zero, as SQL rounds."""
    whole = np.trunc(data)
    return whole + np.where(np.abs(data - whole) >= 0.5, np.copysign(1.0, data), 0.0)


def rounded(places: int) -> Kernel:
    """ROUND to so many decimal places (negative: left of the point)."""
    scale = 10.0 ** abs(places)

    def kernel(value: Column) -> Column:
        data = value.data
        if places == 0:
            result = nearest_whole(data)
        elif places > 0:
            result = nearest_whole(data * scale) / scale
            result = np.where(np.isfinite(result), result, data)
        else:
            result = nearest_whole(data / scale) * scale
        return settled(np.where(np.isinf(data), data, result), value.null)

    return kernel


def positive_log(operator: Callable[[Any], Any]) -> Kernel:
    """A logarithm: NULL for numbers that are not positive."""

    def kernel(value: Column) -> Column:
        outside = value.data <= 0.0
        return settled(operator(value.data), either(value.null, outside if outside.any() else None))

    return kernel


# Whole numbers


def added(left: Column, right: Column) -> Column:
    """Sum of whole numbers, or of a time and an interval."""
    result = left.data + right.data
    return _within(result, ((left.data ^ result) & (right.data ^ result)) < 0, left, right)


def subtracted(left: Column, right: Column) -> Column:
    """Difference of whole numbers or times."""
    result = left.data - right.data
    return _within(result, ((left.data ^ right.data) & (left.data ^ result)) < 0, left, right)


def multiplied(left: Column, right: Column) -> Column:
    """Product of whole numbers."""
    a, b = np.broadcast_arrays(left.data, right.data)
    result = a * b
    safe = np.where((a == 0) | (a == -1), 1, a)
    wrong = (np.floor_divide(result, safe) != b) & (a != 0) & (a != -1)
    return _within(result, wrong | ((a == -1) & (b == _INT_MIN)), left, right)


def whole_divided(left: Column, right: Column) -> Column:
    """The whole part of a quotient of whole numbers."""
    a, b = np.broadcast_arrays(left.data, right.data)
    safe = np.where((b == 0) | (b == -1), 1, b)
    result = np.floor_divide(a, safe)
    result = result + ((np.fmod(a, safe) != 0) & ((a < 0) != (safe < 0)))
    result = np.where(b == -1, -a, result)
    return _within(result, (b == 0) | ((b == -1) & (a == _INT_MIN)), left, right)


def whole_remainder(left: Column, right: Column) -> Column:
    """The remainder of whole numbers, with the sign of the dividend."""
    safe = np.where((right.data == 0) | (right.data == -1), 1, right.data)
    return _within(np.fmod(left.data, safe), right.data == 0, left, right)


def negated(value: Column) -> Column:
    """Minus a whole number."""
    return _within(-value.data, value.data == _INT_MIN, value)


def absolute(value: Column) -> Column:
    """ABS of a whole number."""
    return _within(np.abs(value.data), value.data == _INT_MIN, value)


def bits(operator: Callable[..., Any]) -> Kernel:
    """An operation on the bits of whole numbers."""

    def kernel(*parts: Column) -> Column:
        null: Bools | None = None
        for part in parts:
            null = either(null, part.null)
        return Column(operator(*(part.data for part in parts)), null)

    return kernel


def whole_of(value: Column) -> Column:
    """A number to the nearest whole number (half to even); NULL beyond 64 bits."""
    result = np.rint(value.data)
    outside = ~(np.abs(result) < 2.0**63)
    return _within(np.where(outside, 0.0, result).astype(np.int64), outside, value)


def _within(result: Ints, overflow: Bools, *parts: Column) -> Column:
    null: Bools | None = overflow if overflow.any() else None
    for part in parts:
        null = either(null, part.null)
    return Column(result, null)
