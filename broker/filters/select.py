"""What a filter's messages carry besides the alert: expressions with names, worked out where it hits."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from broker.filters import tree, values
from broker.filters.compile import CompiledFilter, bind, compile_expression, has_members
from broker.filters.expression import Evaluator, explain
from broker.filters.functions import Bound, Members, Named
from broker.filters.parse import parse_list
from broker.filters.tree import refusal, shown
from broker.filters.values import Value
from broker.table import Column, ColumnSpec, Table

I64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class CompiledSelect:
    """A select list ready to run: names and their expressions, in the order they were given."""

    names: tuple[str, ...]
    items: tuple[CompiledFilter, ...]

    @property
    def columns(self) -> frozenset[str]:
        """What a table must have to evaluate it."""
        return frozenset().union(*(item.columns for item in self.items))

    @property
    def bound(self) -> dict[tuple[str, str], Bound]:
        """What its names stand for, by kind of state and name."""
        return {key: it for item in self.items for key, it in item.bound.items()}


@dataclass
class Selected:
    """What the filters of a batch select.

    values : of each filter that selects and hits, by its number: (name, values in the order of its hits); a
    value is a float, int, bool, str, or None for NULL
    failures : expressions that could not be evaluated, as (number of the filter, name) -> why; they are NULL
    cost_ns : time that each of those filters took
    """

    values: dict[int, tuple[tuple[str, list[Any]], ...]] = field(default_factory=dict)
    failures: dict[tuple[int, str], str] = field(default_factory=dict)
    cost_ns: dict[int, int] = field(default_factory=dict)


def compile_select(
    text: str, specs: Mapping[str, ColumnSpec], members: Members | None = None
) -> CompiledSelect:
    """Read and check a select list; raises FilterError with the place of the fault.

    specs, members : as compile_filter has them
    """
    names: list[str] = []
    items: list[CompiledFilter] = []
    for item in parse_list(text):
        compiled, kind = compile_expression(item.text, item.expression, specs, members)
        if kind == "null" and not has_members(compiled):  # whose kind may not be known yet
            raise refusal(f"{shown(item.text)} is always NULL", item.position, "select something")
        name = item.name or _own_name(compiled, item.position)
        if name in names:
            raise refusal(f"a second {shown(name)}", item.position, "give each expression its own name")
        names.append(name)
        items.append(compiled)
    return CompiledSelect(tuple(names), tuple(items))


def _own_name(compiled: CompiledFilter, position: int) -> str:
    if not isinstance(compiled.expression, tree.Column):
        raise refusal("an expression without a name", position, "write it as mag - 5 as distance")
    return compiled.expression.name


def bind_select(select: CompiledSelect, named: Named) -> CompiledSelect:
    """The list with its names standing for what they name."""
    return CompiledSelect(select.names, tuple(bind(item, named) for item in select.items))


def evaluate_select(selects: Sequence[CompiledSelect | None], masks: Mask, table: Table) -> Selected:
    """What each filter selects on the rows that it hits.

    selects : of every filter, None where it has no list;  masks : (filters, n)
    All of them share one table of the rows that any of them hits, so a part that several ask for is worked
    out once.
    """
    found = Selected()
    wanted = [(k, it) for k, it in enumerate(selects) if it is not None and masks[k].any()]
    if not wanted:
        return found
    rows = np.flatnonzero(masks[[k for k, _ in wanted]].any(axis=0))
    columns = frozenset().union(*(it.columns for _, it in wanted))
    bound = {key: it for _, select in wanted for key, it in select.bound.items()}
    evaluator = Evaluator(_rows(table, columns, rows), bound)
    for number, select in wanted:
        start = time.perf_counter_ns()
        hits = np.searchsorted(rows, np.flatnonzero(masks[number]))
        found.values[number] = tuple(
            (name, _plain(evaluator, item, hits, (number, name), found.failures))
            for name, item in zip(select.names, select.items, strict=True)
        )
        found.cost_ns[number] = time.perf_counter_ns() - start
    return found


def _rows(table: Table, columns: frozenset[str], rows: I64) -> Table:
    kept = [it for name, it in table.items() if name in columns]
    curves = None if table.light_curves is None else table.light_curves.take(rows)
    return Table([Column(it.spec, it.values[rows], it.categories) for it in kept], len(rows), curves)


def _plain(
    evaluator: Evaluator,
    item: CompiledFilter,
    hits: I64,
    which: tuple[int, str],
    failures: dict[tuple[int, str], str],
) -> list[Any]:
    """An expression's values on some rows; None throughout where it cannot be evaluated."""
    try:
        with np.errstate(all="ignore"):
            return plain_values(evaluator.value(item.expression), hits)
    except Exception as error:  # one expression may fail in any way; the message goes out without it
        failures[which] = explain(error)
        return [None] * len(hits)


def plain_values(value: Value, rows: I64) -> list[Any]:
    """A value on some rows as Python's own: float, int, bool, str, or None for NULL."""
    match value:
        case values.Floats(numbers):
            found = _at(numbers, rows)
        case values.Integers(numbers, _):
            found = _at(numbers, rows)
        case values.Strings(codes, names):
            found = [names[code] if code >= 0 else None for code in _at(codes, rows)]
        case values.Truths(true, _):
            found = _at(true, rows)
        case values.Nothing():
            found = [None] * len(rows)
    known = _at(values.known(value), rows)
    return [it if there else None for it, there in zip(found, known, strict=True)]


def _at(array: npt.NDArray[Any], rows: I64) -> list[Any]:
    """Entries of a column, or of a constant as often as there are rows."""
    return list((np.broadcast_to(array, rows.shape) if array.ndim == 0 else array[rows]).tolist())
