"""Works out any expression on a batch, every distinct part of it once.

A condition is asked for where it is true or where it is false, never for both unless something needs
both: NULL is where it is neither, so AND, OR and NOT of three values are operations on plain masks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import Any, cast

import numpy as np

from broker.filters import tree, values
from broker.filters.functions import FUNCTION_BY_NAME, Bound, BoundMembers, FilterFunction, Parameter
from broker.filters.tree import COMPLEMENT, Expression
from broker.filters.values import F64, Mask, Truths, Value
from broker.measured import MeasuredPoints, points_with_roles, reference_times
from broker.table import Table


def explain(error: Exception) -> str:
    """Why an expression could not be worked out, for its owner."""
    if isinstance(error, MissingColumn):
        return f"column {error.args[0]!r} is not in this batch; was a model or catalogue removed?"
    return f"{type(error).__name__}: {error}"


class MissingColumn(KeyError):
    """A compiled filter needs a column that the table does not have."""


class Evaluator:
    """Values and truths of expressions on one table, each worked out once.

    bound : what names stand for, by kind of state and name; the same for all expressions
    """

    def __init__(self, table: Table, bound: Mapping[tuple[str, str], Bound]) -> None:
        self._table = table
        self._bound = bound
        self._memo: dict[Any, Any] = {}
        self._points: MeasuredPoints | None = None
        self._values: dict[str, Value] = {}
        self._truths: tuple[dict[str, Mask], dict[str, Mask]] = ({}, {})

    def value(self, node: Expression) -> Value:
        """What an expression is worth on every row."""
        found = self._values.get(node.text)
        if found is None:
            found = self._values[node.text] = self._value(node)
        return found

    def truth(self, node: Expression, wanted: bool) -> Mask:
        """Where a condition is true (wanted) or false (not wanted)."""
        cache = self._truths[wanted]
        found = cache.get(node.text)
        if found is None:
            found = cache[node.text] = self._truth(node, wanted)
        return found

    def _value(self, node: Expression) -> Value:
        match node:
            case tree.Column(name):
                if name not in self._table:
                    raise MissingColumn(name)
                return values.column_value(self._table[name])
            case tree.Number(number):
                return values.number(number)
            case tree.String(string):
                return values.string(string)
            case tree.Null():
                return values.Nothing()
            case tree.Negative(operand):
                return values.negative(self.value(operand))
            case tree.Binary(operator, left, right):
                return values.arithmetic(operator, self.value(left), self.value(right))
            case tree.Case(branches, otherwise):
                return self._case(branches, otherwise)
            case tree.Call(name, arguments, None):
                return self._call(FUNCTION_BY_NAME[name], arguments)
            case tree.Call(name, arguments, tree.Member(member)):
                return self._member(FUNCTION_BY_NAME[name], arguments, member)
            case _:
                return Truths(self.truth(node, True), self.truth(node, False))

    def _truth(self, node: Expression, wanted: bool) -> Mask:
        match node:
            case tree.And(operands):
                return self._join(operands, wanted, np.logical_and if wanted else np.logical_or)
            case tree.Or(operands):
                return self._join(operands, wanted, np.logical_or if wanted else np.logical_and)
            case tree.Not(operand):
                return self.truth(operand, not wanted)
            case tree.Compare(operator, left, right):
                operation = operator if wanted else COMPLEMENT[operator]
                return values.compare(operation, self.value(left), self.value(right))
            case tree.Between(operand, low, high):
                return self._between(operand, low, high, wanted)
            case tree.In(operand, items):
                return self._in(operand, items, wanted)
            case tree.Is(operand, None):
                return np.asarray(values.known(self.value(operand)) != wanted)
            case tree.Is(operand, bool(value)):
                return np.asarray(self.truth(operand, value) == wanted)
            case tree.Boolean(value):
                return np.asarray(value == wanted)
            case _:
                return _truth_of(self.value(node), wanted)

    def _join(self, operands: Sequence[Expression], wanted: bool, join: Callable[..., Any]) -> Mask:
        return np.asarray(reduce(join, (self.truth(operand, wanted) for operand in operands)))

    def _between(self, operand: Expression, low: Expression, high: Expression, wanted: bool) -> Mask:
        subject = self.value(operand)
        if wanted:
            return values.compare(">=", subject, self.value(low)) & values.compare(
                "<=", subject, self.value(high)
            )
        return values.compare("<", subject, self.value(low)) | values.compare(">", subject, self.value(high))

    def _in(self, operand: Expression, items: tuple[Expression, ...], wanted: bool) -> Mask:
        subject = self.value(operand)
        if isinstance(subject, values.Integers | values.Strings) and _all_constant(subject, items):
            found = _among(subject, items)
            return found if wanted else values.known(subject) & ~found
        operation: tree.Comparison = "=" if wanted else "<>"
        masks = (values.compare(operation, subject, self.value(item)) for item in items)
        return np.asarray(reduce(np.logical_or if wanted else np.logical_and, masks))

    def _case(self, branches: tuple[tuple[Expression, Expression], ...], otherwise: Expression) -> Value:
        result = self.value(otherwise)
        for condition, then in reversed(branches):
            result = values.select(self.truth(condition, True), self.value(then), result)
        return result

    def _call(self, function: FilterFunction, arguments: tuple[Expression, ...]) -> Value:
        if function.state:
            return self._call_of_state(function, arguments)
        if function.result == "any":
            result: Value = function.implementation(*(self.value(argument) for argument in arguments))
            return result
        columns: list[Any] = [self._measured_points()] if function.light_curve else []
        columns += [values.floats(self.value(tree.Column(name))) for name in function.reads]
        columns += self._arguments(function, arguments)
        numbers = [column for column in columns if isinstance(column, np.ndarray)]
        return _result(function, function.implementation(*columns), numbers)

    def _arguments(self, function: FilterFunction, arguments: tuple[Expression, ...]) -> list[F64 | str]:
        """What a call gives: a choice as it is written, a number within its parameter's limits."""
        last = function.parameters[-1:]
        parameters = [*function.parameters, *last * (len(arguments) - len(function.parameters))]
        parameters = parameters[: len(arguments)]
        return [
            argument.value
            if isinstance(argument, tree.String)
            else _bounded(values.floats(self.value(argument)), parameter)
            for argument, parameter in zip(arguments, parameters, strict=True)
        ]

    def _measured_points(self) -> MeasuredPoints:
        """The points of the rows' light curves that count, looked at once a batch."""
        if self._points is None:
            if self._table.light_curves is None:
                raise MissingColumn("light curve")
            curves, midpoint = self._table.light_curves, self._table["midpoint_mjd_tai"].values
            self._points = points_with_roles(curves, reference_times(curves, midpoint))
        return self._points

    def _call_of_state(self, function: FilterFunction, arguments: tuple[Expression, ...]) -> Value:
        bound = self._bound_of(function, arguments)
        if bound is None:
            return values.Nothing()
        columns = self._columns_for(bound, function, arguments)
        found = function.implementation(bound, self._memo, *columns)
        if isinstance(found, values.Strings):
            return found
        return _result(function, found, [it for it in columns if isinstance(it, np.ndarray)])

    def _bound_of(self, function: FilterFunction, arguments: tuple[Expression, ...]) -> Bound | None:
        name = arguments[0]
        return self._bound.get((function.state, name.value)) if isinstance(name, tree.String) else None

    def _columns_for(
        self, bound: Bound, function: FilterFunction, arguments: tuple[Expression, ...]
    ) -> list[Any]:
        """What a Bound is called with after the memo: the columns that it reads, the other arguments."""
        reads = [self.value(tree.Column(column)) for column in bound.reads]
        columns = [_as_column(it) for it in reads]
        return [*columns, *self._arguments(function, arguments)[1:]]

    def _member(self, function: FilterFunction, arguments: tuple[Expression, ...], member: str) -> Value:
        bound = cast(BoundMembers | None, self._bound_of(function, arguments))
        if bound is None:
            return values.Nothing()
        return bound.member(member, self._memo, *self._columns_for(bound, function, arguments))

    def failures(self, call: tree.Call) -> values.Strings | None:
        """Why a call has no answer on a row, -1 where it has one; None of a function that cannot fail.

        Tri-state: a row with an answer, also that nothing was found, is no failure.
        """
        function = FUNCTION_BY_NAME[call.name]
        bound = self._bound_of(function, call.arguments) if function.state else None
        if why := getattr(bound, "failure", ""):
            return values.Strings(np.zeros(self._table.length, dtype=np.int64), (why,))
        if bound is None or not function.members:
            return None
        columns = self._columns_for(bound, function, call.arguments)
        return cast(BoundMembers, bound).failures(self._memo, *columns)


def _as_column(value: Value) -> values.Strings | F64:
    """A column as a Bound gets it."""
    match value:
        case values.Strings():
            return value
        case Truths(true, false):
            return np.where(true, 1.0, np.where(false, 0.0, np.nan))
        case _:
            return values.floats(value)


def _result(function: FilterFunction, found: F64, columns: Sequence[F64]) -> Value:
    """What a function gave as a value.  columns : all that it was given"""
    numbers = values.finite(found)
    if not function.skips_null:
        numbers = _strict(numbers, columns)
    return values.Floats(numbers) if function.result == "number" else Truths(numbers == 1, numbers == 0)


def _truth_of(value: Value, wanted: bool) -> Mask:
    if isinstance(value, values.Nothing):
        return np.asarray(False)
    if not isinstance(value, Truths):
        raise TypeError(f"{type(value).__name__} are neither true nor false")
    return value.true if wanted else value.false


def _bounded(column: F64, parameter: Parameter) -> F64:
    """An argument, NULL where it is outside the parameter's limits."""
    if parameter.lowest == -np.inf and parameter.highest == np.inf:
        return column
    return np.where((column >= parameter.lowest) & (column <= parameter.highest), column, np.nan)


def _strict(numbers: F64, columns: Sequence[F64]) -> F64:
    """NULL where an argument is: numpy holds that NaN to the power 0 is 1."""
    null = reduce(np.logical_or, (np.isnan(column) for column in columns), np.asarray(False))
    return np.where(null, np.nan, numbers)


def _all_constant(subject: Value, items: tuple[Expression, ...]) -> bool:
    if isinstance(subject, values.Strings):
        return all(isinstance(item, tree.String) for item in items)
    return all(isinstance(item, tree.Number) and isinstance(item.value, int) for item in items)


def _among(subject: values.Integers | values.Strings, items: tuple[Expression, ...]) -> Mask:
    """Where a subject is one of many constants, without a comparison for each."""
    constants = [item.value for item in items if isinstance(item, tree.Number | tree.String)]
    if isinstance(subject, values.Integers):
        return np.asarray(np.isin(subject.values, np.array(constants, dtype=np.int64)) & ~subject.null)
    wanted = set(constants)
    table = np.array([*(name in wanted for name in subject.categories), False])
    return np.asarray(table[subject.codes])
