"""All filters of an epoch as one program: every distinct clause once a batch, whoever asks for it.

Most of what people write is a column compared with a number. All numbers that a column is compared with are
sorted when the program is made; a row's value is then placed among them once, and every comparison of that
column follows from its place. So a thousand comparisons of a column cost little more than one. A condition is
a row of bits, 64 rows a word: NULL is a bit that is set neither where the condition holds nor where its
opposite does, so AND and OR of three values are operations on words. What is no such clause (strings, exact
integers, arithmetic, functions) is worked out by `expression.Evaluator`, once each, and joins in as bits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt

from broker.filters import light_curve, tree
from broker.filters.compile import CompiledFilter
from broker.filters.expression import Evaluator, MissingColumn, explain
from broker.filters.functions import Bound
from broker.filters.tree import Expression
from broker.table import ColumnSpec, Table

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]
Mask = npt.NDArray[np.bool_]

ABOVE, AT_LEAST, BELOW, AT_MOST, EQUAL, UNEQUAL, KNOWN, UNKNOWN = range(8)
"""What a clause asks of a column's value and a threshold; the last two ask of the value alone."""
_OPERATION: dict[tree.Comparison, int] = {
    ">": ABOVE, ">=": AT_LEAST, "<": BELOW, "<=": AT_MOST, "=": EQUAL, "<>": UNEQUAL,
}  # fmt: skip
_ALL, _ANY = 0, 1
_FEW = 96
"""Thresholds of a column up to which counting beats searching."""

_Function = TypeVar("_Function", bound=Callable[..., Any])


def _compiled(function: _Function) -> _Function:
    return cast(_Function, numba.njit(cache=True, nogil=True)(function))


@dataclass(frozen=True)
class Evaluation:
    """Which rows pass which filters.

    masks : (n_filters, n_rows), False throughout for a filter that failed.
    failures : index of a filter that could not be evaluated -> why.
    cost_ns : (n_filters,) time that its conditions took that are no clauses; what filters share, they share
    """

    masks: Mask
    failures: dict[int, str]
    cost_ns: F64


def evaluate(filters: Sequence[CompiledFilter], table: Table) -> Evaluation:
    """Where each filter is true; a condition that is NULL does not pass."""
    return compile_program(filters, {name: column.spec for name, column in table.items()}).evaluate(table)


@dataclass(frozen=True)
class Program:
    """What is computed, in order; a slot is one condition's bits.

    columns : names of the k float and boolean columns that clauses look at
    thresholds : of all columns, ascending in each;  threshold_starts : (k+1,)
    clauses : (c, 2) threshold's place within its column and operation;  clause_starts : (k+1,)
    others : conditions that are no clauses; their slots come after the clauses'
    joins : (j,) _ALL or _ANY of some earlier slots;  operands, operand_starts : these
    roots : (f,) slot of each filter
    bound : what names in the filters stand for, by kind of state and name
    """

    columns: tuple[str, ...] = ()
    thresholds: F64 = field(default_factory=lambda: np.empty(0))
    threshold_starts: I64 = field(default_factory=lambda: np.zeros(1, dtype=np.int64))
    clauses: I64 = field(default_factory=lambda: np.empty((0, 2), dtype=np.int64))
    clause_starts: I64 = field(default_factory=lambda: np.zeros(1, dtype=np.int64))
    others: tuple[Expression, ...] = ()
    joins: I64 = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    operands: I64 = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    operand_starts: I64 = field(default_factory=lambda: np.zeros(1, dtype=np.int64))
    roots: I64 = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    bound: Mapping[tuple[str, str], Bound] = field(default_factory=dict)

    def evaluate(self, table: Table) -> Evaluation:
        """Where each filter is true; a condition that is NULL does not pass.

        A filter that cannot be evaluated passes nothing and is named with the reason; the others go on.
        """
        rows, missing = table.length, [name for name in self.columns if name not in table]
        words = -(-rows // 64)
        first_other = len(self.clauses)
        first_join = first_other + len(self.others)
        slots = np.zeros((first_join + len(self.joins), words), dtype=np.uint64)
        failed: dict[int, str] = {}
        spent = np.zeros(len(self.others))
        if words:
            self._run_clauses(table, missing, slots)
            failed = self._run_others(table, slots[first_other:first_join], spent)
            run_joins(self.joins, self.operands, self.operand_starts, first_join, slots)
        masks = np.unpackbits(slots[self.roots].view(np.uint8), axis=1, count=rows, bitorder="little")
        found = masks.view(np.bool_).reshape(len(self.roots), rows)
        failures = self._failures(missing, {first_other + place: why for place, why in failed.items()})
        found[list(failures)] = False
        return Evaluation(found, failures, self._shared(spent))

    def _run_clauses(self, table: Table, missing: Sequence[str], slots: Words) -> None:
        values = np.full((len(self.columns), table.length), np.nan)
        for place, name in enumerate(self.columns):
            if name not in missing:
                values[place] = table[name].values
        run_clauses(values, self.thresholds, self.threshold_starts, self.clauses, self.clause_starts, slots)

    def _run_others(self, table: Table, slots: Words, spent: F64) -> dict[int, str]:
        """Fill the slots of what is no clause, and the time of each [ns]; place of each that failed -> why.

        A part that several have in common is counted with the first.
        """
        evaluator, failed = Evaluator(table, self.bound), {}
        bits = np.zeros((slots.shape[1] * 64,), dtype=np.bool_)
        with np.errstate(all="ignore"):
            for place, node in enumerate(self.others):
                start = time.perf_counter_ns()
                # Anything at all may go wrong in one condition (its memory, a column gone); the others go on.
                try:
                    bits[: table.length] = evaluator.truth(node, True)
                except Exception as error:
                    failed[place] = explain(error)
                else:
                    slots[place] = np.packbits(bits, bitorder="little").view(np.uint64)
                spent[place] = time.perf_counter_ns() - start
        return failed

    def _shared(self, spent: F64) -> F64:
        """The time of each condition that is no clause, in equal parts among the filters that use it."""
        other, user = self._users
        each = spent / np.maximum(np.bincount(other, minlength=len(spent)), 1)
        return np.bincount(user, weights=each[other], minlength=len(self.roots)).astype(np.float64)

    @cached_property
    def _users(self) -> tuple[I64, I64]:
        """(place of a condition that is no clause, number of a filter that uses it), of every such pair."""
        first_other, first_join = len(self.clauses), len(self.clauses) + len(self.others)
        needs = {first_other + place: {place} for place in range(len(self.others))}
        for place in range(len(self.joins) if needs else 0):
            own = self.operands[self.operand_starts[place] : self.operand_starts[place + 1]]
            found = set().union(*(needs[slot] for slot in own.tolist() if slot in needs))
            if found:
                needs[first_join + place] = found
        pairs = [(it, k) for k, slot in enumerate(self.roots.tolist()) for it in needs.get(slot, ())]
        both = np.array(pairs, dtype=np.int64).reshape(-1, 2)
        return both[:, 0], both[:, 1]

    def _failures(self, missing: Sequence[str], failed: Mapping[int, str]) -> dict[int, str]:
        """Filter -> why it failed: one that needs a slot that failed, directly or through others."""
        why = dict(failed)
        for place, name in enumerate(self.columns):
            if name in missing:
                reason = explain(MissingColumn(name))
                why |= dict.fromkeys(range(self.clause_starts[place], self.clause_starts[place + 1]), reason)
        if not why:
            return {}
        first_join = len(self.clauses) + len(self.others)
        for place in range(len(self.joins)):
            own = self.operands[self.operand_starts[place] : self.operand_starts[place + 1]]
            bad = [slot for slot in own.tolist() if slot in why]
            if bad:
                why[first_join + place] = why[bad[0]]
        return {index: why[slot] for index, slot in enumerate(self.roots.tolist()) if slot in why}


def compile_program(filters: Sequence[CompiledFilter], specs: Mapping[str, ColumnSpec]) -> Program:
    """One program for all filters.  specs : the columns there are, by name."""
    builder = _Builder(specs)
    roots = [builder.slot(item.expression) for item in filters]
    bound = {name: it for item in filters for name, it in item.bound.items()}
    return replace(builder.program(roots), bound=bound)


_Slot = tuple[str, int]
"""Kind ('clause', 'other', 'join') and number in order of first sight."""


class _Builder:
    """Numbers every distinct condition of some filters."""

    def __init__(self, specs: Mapping[str, ColumnSpec]) -> None:
        self._specs = specs
        self._seen: dict[str, _Slot] = {}
        self._clauses: dict[tuple[str, float, int], _Slot] = {}
        self._others: list[Expression] = []
        self._joins: list[tuple[int, list[_Slot]]] = []

    def slot(self, node: Expression) -> _Slot:
        """The slot of a condition in its normal form."""
        found = self._seen.get(node.text)
        if found is None:
            found = self._seen[node.text] = self._new(node)
        return found

    def _new(self, node: Expression) -> _Slot:
        match node:
            case tree.And(operands) | tree.Or(operands):
                parts = [self.slot(part) for part in operands]
                return self._join(_ALL if isinstance(node, tree.And) else _ANY, parts)
            case tree.Between(tree.Column(name), tree.Number(low), tree.Number(high)) if self._is_float(name):
                return self._join(
                    _ALL,
                    [self._clause(name, float(low), AT_LEAST), self._clause(name, float(high), AT_MOST)],
                )
            case tree.Compare(operator, tree.Column(name), tree.Number(value)) if self._is_float(name):
                return self._clause(name, float(value), _OPERATION[operator])
            case tree.Is(tree.Column(name), None) if self._is_float(name):
                return self._clause(name, 0.0, UNKNOWN)
            case tree.Not(tree.Is(tree.Column(name), None)) if self._is_float(name):
                return self._clause(name, 0.0, KNOWN)
            case tree.Column(name) if self._is_bool(name):
                return self._clause(name, 0.0, UNEQUAL)
            case tree.Not(tree.Column(name)) if self._is_bool(name):
                return self._clause(name, 0.0, EQUAL)
            case _:
                self._others.append(node)
                return ("other", len(self._others) - 1)

    def _is_float(self, name: str) -> bool:
        return name in self._specs and self._specs[name].kind == "float"

    def _is_bool(self, name: str) -> bool:
        return name in self._specs and self._specs[name].kind == "bool"

    def _clause(self, name: str, threshold: float, operation: int) -> _Slot:
        key = (name, threshold + 0.0, operation)  # no -0.0 beside 0.0
        return self._clauses.setdefault(key, ("clause", len(self._clauses)))

    def _join(self, how: int, parts: list[_Slot]) -> _Slot:
        self._joins.append((how, parts))
        return ("join", len(self._joins) - 1)

    def program(self, roots: Sequence[_Slot]) -> Program:
        """Everything in its final order: clauses by column, then the rest as it was met."""
        keys = sorted(self._clauses)
        columns = sorted({name for name, _, _ in keys})
        number = {name: place for place, name in enumerate(columns)}
        column = np.array([number[name] for name, _, _ in keys], dtype=np.int64)
        threshold = np.array([value for _, value, _ in keys], dtype=np.float64)
        distinct = [np.unique(threshold[column == place]) for place in range(len(columns))]
        within = np.array(
            [np.searchsorted(distinct[c], t) for c, t in zip(column, threshold, strict=True)], dtype=np.int64
        )
        operation = np.array([operation for _, _, operation in keys], dtype=np.int64)
        final = {self._clauses[key]: place for place, key in enumerate(keys)}
        final |= {("other", place): len(keys) + place for place in range(len(self._others))}
        first_join = len(keys) + len(self._others)
        final |= {("join", place): first_join + place for place in range(len(self._joins))}
        operands = [[final[part] for part in parts] for _, parts in self._joins]
        return Program(
            columns=tuple(columns),
            thresholds=np.concatenate([*distinct, np.empty(0)]),
            threshold_starts=_starts([len(values) for values in distinct]),
            clauses=np.column_stack([within, operation]),
            clause_starts=np.searchsorted(column, np.arange(len(columns) + 1)).astype(np.int64),
            others=tuple(self._others),
            joins=np.array([how for how, _ in self._joins], dtype=np.int64),
            operands=np.array([slot for parts in operands for slot in parts], dtype=np.int64),
            operand_starts=_starts([len(parts) for parts in operands]),
            roots=np.array([final[slot] for slot in roots], dtype=np.int64),
        )


def _starts(lengths: Sequence[int]) -> I64:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


@_compiled
def run_clauses(
    values: F64, thresholds: F64, threshold_starts: I64, clauses: I64, clause_starts: I64, slots: Words
) -> None:
    """Fill the first slots with the clauses' bits.

    values : (k, n), NaN or infinite where NULL;  the rest as in Program;  slots : (at least c, words)
    """
    rows, words = values.shape[1], slots.shape[1]
    most = 0
    for column in range(values.shape[0]):
        most = max(most, threshold_starts[column + 1] - threshold_starts[column])
    above, at_least = np.empty((most + 1, words), np.uint64), np.empty((most + 1, words), np.uint64)
    known, full = np.empty(words, np.uint64), np.zeros(words, np.uint64)
    below = np.empty(rows, np.int64)
    for row in range(rows):
        full[row >> 6] |= np.uint64(1) << np.uint64(row & 63)
    for column in range(values.shape[0]):
        own = thresholds[threshold_starts[column] : threshold_starts[column + 1]]
        count = own.shape[0]
        above[: count + 1] = np.uint64(0)
        at_least[: count + 1] = np.uint64(0)
        known[:] = np.uint64(0)
        _place(values[column], own, below)
        for row in range(rows):
            value, low = values[column, row], below[row]
            if not np.isfinite(value):
                continue
            word, bit = row >> 6, np.uint64(1) << np.uint64(row & 63)
            known[word] |= bit
            above[low, word] |= bit
            at_least[low + (1 if low < count and own[low] == value else 0), word] |= bit
        # A row is above every threshold below its place: from the last to the first, all that came before.
        for place in range(count - 1, -1, -1):
            for word in range(words):
                above[place, word] |= above[place + 1, word]
                at_least[place, word] |= at_least[place + 1, word]
        for clause in range(clause_starts[column], clause_starts[column + 1]):
            place, operation = clauses[clause, 0] + 1, clauses[clause, 1]
            for word in range(words):
                if operation == ABOVE:
                    found = above[place, word]
                elif operation == AT_LEAST:
                    found = at_least[place, word]
                elif operation == BELOW:
                    found = known[word] & ~at_least[place, word]
                elif operation == AT_MOST:
                    found = known[word] & ~above[place, word]
                elif operation == EQUAL:
                    found = at_least[place, word] & ~above[place, word]
                elif operation == UNEQUAL:
                    found = known[word] & ~(at_least[place, word] & ~above[place, word])
                elif operation == KNOWN:
                    found = known[word]
                else:
                    found = full[word] & ~known[word]
                slots[clause, word] = found


@_compiled
def _place(values: F64, thresholds: F64, below: I64) -> None:
    """How many thresholds are below each value.

    values : (n,);  thresholds : ascending;  below : (n,) the result
    Few are counted, which takes several rows at a time; among many each value looks for its place.
    """
    if thresholds.shape[0] > _FEW:
        for row in range(values.shape[0]):
            below[row] = np.searchsorted(thresholds, values[row])
        return
    below[:] = 0
    for threshold in thresholds:
        for row in range(values.shape[0]):
            below[row] += threshold < values[row]


@_compiled
def run_joins(joins: I64, operands: I64, operand_starts: I64, first: int, slots: Words) -> None:
    """Fill the slots from `first` on with the joins of earlier ones, in order."""
    words = slots.shape[1]
    for join in range(joins.shape[0]):
        begin, end = operand_starts[join], operand_starts[join + 1]
        for word in range(words):
            found = slots[operands[begin], word]
            if joins[join] == _ALL:
                for place in range(begin + 1, end):
                    found &= slots[operands[place], word]
            else:
                for place in range(begin + 1, end):
                    found |= slots[operands[place], word]
            slots[first + join, word] = found


def warm_up() -> None:
    """Compile the kernels, or load them from disk, before the first alert has to wait for it."""
    Program().evaluate(Table([], 1))
    light_curve.warm_up()
