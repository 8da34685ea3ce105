"""What an expression is worth on a batch: columns that know where they are NULL.

Numbers are finite or NULL: whatever overflows, divides by zero or leaves a function's domain is NULL.
Arrays are (n,) or, for constants, () and broadcast.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from broker.filters.tree import Arithmetic, Comparison
from broker.table import Column

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Floats:
    """Numbers; NaN is NULL."""

    values: F64


@dataclass(frozen=True, slots=True)
class Integers:
    """Exact 64-bit integers, and where they are NULL."""

    values: I64
    null: Mask


@dataclass(frozen=True, slots=True)
class Strings:
    """Codes into categories; -1 is NULL."""

    codes: npt.NDArray[np.int64]
    categories: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Truths:
    """Where a condition is true and where it is false; NULL is neither."""

    true: Mask
    false: Mask


@dataclass(frozen=True, slots=True)
class Nothing:
    """NULL of no particular kind."""


Value = Floats | Integers | Strings | Truths | Nothing

_COMPARE: dict[Comparison, Callable[[Any, Any], Any]] = {
    "=": operator.eq,
    "<>": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_ARITHMETIC: dict[Arithmetic, Callable[[Any, Any], Any]] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": np.divide,
    "%": np.fmod,  # SQL's remainder has the sign of the dividend
}


def finite(values: npt.ArrayLike) -> F64:
    """The numbers, NaN in place of infinity."""
    array = np.asarray(values, dtype=np.float64)
    return array if not np.isinf(array).any() else np.where(np.isinf(array), np.nan, array)


def number(value: int | float) -> Floats | Integers:
    """A constant number."""
    if isinstance(value, int):
        return Integers(np.asarray(value, dtype=np.int64), np.asarray(False))
    return Floats(finite(value))


def string(value: str) -> Strings:
    """A constant string."""
    return Strings(np.asarray(0, dtype=np.int64), (value,))


def column_value(column: Column) -> Value:
    """A table's column; see broker.table.ColumnSpec for what is missing in each kind."""
    values = column.values
    match column.spec.kind:
        case "float":
            return Floats(finite(values))
        case "int":
            return Integers(values.astype(np.int64, copy=False), values == 0)
        case "bool":
            return Truths((values != 0) & ~np.isnan(values), values == 0)
        case "string":
            return Strings(values.astype(np.int64, copy=False), column.categories)


def floats(value: Value) -> F64:
    """A number as float64, NaN where NULL. Integers beyond 2^53 lose their last digits here."""
    match value:
        case Floats(values):
            return values
        case Integers(values, null):
            return np.where(null, np.nan, values.astype(np.float64))
        case Nothing():
            return np.asarray(np.nan)
        case _:
            raise TypeError(f"{type(value).__name__} are not numbers")


def known(value: Value) -> Mask:
    """Where a value is not NULL."""
    match value:
        case Floats(values):
            return np.asarray(~np.isnan(values))
        case Integers(_, null):
            return np.asarray(~null)
        case Strings(codes, _):
            return np.asarray(codes >= 0)
        case Truths(true, false):
            return np.asarray(true | false)
        case Nothing():
            return np.asarray(False)


def arithmetic(operation: Arithmetic, left: Value, right: Value) -> Floats | Integers:
    """The result of + - * / % in float64; the remainder of two integers is exact."""
    if operation == "%" and isinstance(left, Integers) and isinstance(right, Integers):
        zero = right.values == 0
        remainder = np.fmod(left.values, np.where(zero, 1, right.values))
        return Integers(np.asarray(remainder), np.asarray(left.null | right.null | zero))
    return Floats(finite(_ARITHMETIC[operation](floats(left), floats(right))))


def negative(value: Value) -> Floats | Integers:
    """Minus a number, exact for integers."""
    if isinstance(value, Integers):
        return Integers(np.asarray(-value.values), value.null)
    return Floats(np.asarray(-floats(value)))


def _like(value: Value) -> Value:
    """A constant NULL of the same kind; of no kind where the value is of none."""
    match value:
        case Nothing():
            return value
        case Floats():
            return Floats(np.asarray(np.nan))
        case Integers():
            return Integers(np.asarray(0, dtype=np.int64), np.asarray(True))
        case Strings():
            return Strings(np.asarray(-1, dtype=np.int64), ())
        case Truths():
            return Truths(np.asarray(False), np.asarray(False))


def _recode(value: Strings, index: dict[str, int]) -> Strings:
    # The entry after the last category is -1, which is also where code -1 lands.
    table = np.array([*(index[name] for name in value.categories), -1], dtype=np.int64)
    return Strings(np.asarray(table[value.codes]), tuple(index))


def unify(left: Value, right: Value) -> tuple[Value, Value]:
    """Two values as the same kind: NULL takes the other's, integers become float64 beside floats.

    Strings come back coded by one list of categories in code-point order, so codes compare like strings.
    """
    if isinstance(left, Nothing):
        left = _like(right)
    if isinstance(right, Nothing):
        right = _like(left)
    if isinstance(left, Strings) and isinstance(right, Strings):
        names = sorted({*left.categories, *right.categories})
        index = {name: code for code, name in enumerate(names)}
        return _recode(left, index), _recode(right, index)
    if isinstance(left, Floats | Integers) and type(left) is not type(right):
        return Floats(floats(left)), Floats(floats(right))
    return left, right


def _compare_with_text(operation: Comparison, value: Strings, text: str) -> Mask:
    compare = _COMPARE[operation]
    table = np.array([*(compare(name, text) for name in value.categories), False])
    return np.asarray(table[value.codes])


def compare(operation: Comparison, left: Value, right: Value) -> Mask:
    """Where a comparison is true; where it is false is where its COMPLEMENT is true."""
    if (
        isinstance(left, Strings)
        and isinstance(right, Strings)
        and right.codes.ndim == 0
        and right.codes >= 0
    ):
        return _compare_with_text(operation, left, right.categories[int(right.codes)])
    left, right = unify(left, right)
    compare = _COMPARE[operation]
    match left, right:
        case Floats(a), Floats(b):
            # NaN <> x is true in floating point and NULL here; the other five are false either way.
            return np.asarray((a < b) | (a > b) if operation == "<>" else compare(a, b))
        case Integers(a, a_null), Integers(b, b_null):
            return np.asarray(compare(a, b) & ~(a_null | b_null))
        case Strings(a, _), Strings(b, _):
            return np.asarray(compare(a, b) & (a >= 0) & (b >= 0))
        case Truths(a, a_false), Truths(b, b_false) if operation == "=":
            return np.asarray((a & b) | (a_false & b_false))
        case Truths(a, a_false), Truths(b, b_false) if operation == "<>":
            return np.asarray((a & b_false) | (a_false & b))
        case Nothing(), Nothing():
            return np.asarray(False)
        case _:
            raise TypeError(f"{type(left).__name__} {operation} {type(right).__name__} has no meaning")


def select(mask: Mask, left: Value, right: Value) -> Value:
    """The left value where the mask is true, the right one elsewhere."""
    left, right = unify(left, right)
    match left, right:
        case Floats(a), Floats(b):
            return Floats(np.where(mask, a, b))
        case Integers(a, a_null), Integers(b, b_null):
            return Integers(np.where(mask, a, b), np.where(mask, a_null, b_null))
        case Strings(a, names), Strings(b, _):
            return Strings(np.where(mask, a, b), names)
        case Truths(a, a_false), Truths(b, b_false):
            return Truths(np.where(mask, a, b), np.where(mask, a_false, b_false))
        case Nothing(), Nothing():
            return left
        case _:
            raise TypeError(f"cannot choose between {type(left).__name__} and {type(right).__name__}")
