"""Random expressions against an interpreter of one row at a time, written apart from the code under test."""

from __future__ import annotations

import math
import operator
import random
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

from broker.filters import compile_filter, evaluate
from broker.filters.compile import CompiledFilter
from broker.filters.parse import parse
from broker.table import Column, ColumnSpec, Table, string_column

Row = dict[str, Any]
NUMBERS, IDS, STRINGS, FLAGS = ("x", "y", "z"), ("i", "j"), ("s", "t"), ("p", "sol.q")
COMPARE = {
    "=": operator.eq, "<>": operator.ne, "<": operator.lt,
    "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip


class Part(NamedTuple):
    """A piece of text and what it is worth on a row, None for NULL."""

    text: str
    worth: Callable[[Row], Any]


def strict(function: Callable[..., Any], *parts: Part) -> Callable[[Row], Any]:
    """NULL if an argument is; NULL where the function has no finite result."""

    def worth(row: Row) -> Any:
        given = [part.worth(row) for part in parts]
        if None in given:
            return None
        try:
            result = function(*given)
        except (ZeroDivisionError, OverflowError, ValueError):
            return None
        return None if isinstance(result, float) and not math.isfinite(result) else result

    return worth


def logic_and(a: Any, b: Any) -> Any:
    return False if a is False or b is False else None if None in (a, b) else True


def logic_not(a: Any) -> Any:
    return None if a is None else not a


def first_known(*given: Any) -> Any:
    return next((item for item in given if item is not None), None)


class Maker:
    """Makes random parts of each type."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)

    def number(self, depth: int) -> Part:
        choice = self.rng.randrange(9) if depth else self.rng.randrange(3)
        if choice == 0:
            value = self.rng.choice([0, 1, -2, 3, 0.5, -1.25, 7.1, 1e3])
            return Part(repr(value), lambda row: float(value))
        if choice < 3:
            name = self.rng.choice(NUMBERS)
            return Part(name, lambda row: row[name])
        if choice < 5:
            return self._arithmetic(depth)
        if choice == 5:
            return self._function(depth)
        return self._generic(self.number, depth)

    def _arithmetic(self, depth: int) -> Part:
        a, b = self.number(depth - 1), self.number(depth - 1)
        symbol, function = self.rng.choice(
            [
                ("+", operator.add),
                ("-", operator.sub),
                ("*", operator.mul),
                ("/", operator.truediv),
                ("%", math.fmod),
            ]
        )
        return Part(f"({a.text} {symbol} {b.text})", strict(function, a, b))

    def _function(self, depth: int) -> Part:
        a, b = self.number(depth - 1), self.number(depth - 1)
        if self.rng.random() < 0.3:
            name, pick = self.rng.choice([("least", min), ("greatest", max)])
            return Part(
                f"{name}({a.text}, {b.text})",
                lambda row: pick([v for v in (a.worth(row), b.worth(row)) if v is not None], default=None),
            )
        name, function = self.rng.choice(
            [
                ("abs", abs),
                ("sqrt", math.sqrt),
                ("floor", lambda v: float(math.floor(v))),
                ("- ", operator.neg),
            ]
        )
        return Part(f"({name}({a.text}))", strict(function, a))

    def _generic(self, make: Callable[[int], Part], depth: int) -> Part:
        """CASE, COALESCE or NULLIF of one type."""
        a, b, test = make(depth - 1), make(depth - 1), self.condition(depth - 1)
        match self.rng.randrange(3):
            case 0:
                return Part(
                    f"case when {test.text} then {a.text} else {b.text} end",
                    lambda row: a.worth(row) if test.worth(row) is True else b.worth(row),
                )
            case 1:
                return Part(
                    f"coalesce({a.text}, {b.text})", lambda row: first_known(a.worth(row), b.worth(row))
                )
            case _:
                return Part(
                    f"nullif({a.text}, {b.text})",
                    lambda row: (
                        None if a.worth(row) is not None and a.worth(row) == b.worth(row) else a.worth(row)
                    ),
                )

    def identifier(self, depth: int) -> Part:
        if depth and self.rng.random() < 0.2:
            return self._generic(self.identifier, depth)
        if self.rng.random() < 0.5:
            value = 2**60 + self.rng.randrange(3)
            return Part(str(value), lambda row: value)
        name = self.rng.choice(IDS)
        return Part(name, lambda row: row[name])

    def string(self, depth: int) -> Part:
        if depth and self.rng.random() < 0.2:
            return self._generic(self.string, depth)
        if self.rng.random() < 0.5:
            value = self.rng.choice(["g", "r", "it's", "", "Z"])
            return Part("'" + value.replace("'", "''") + "'", lambda row: value)
        name = self.rng.choice(STRINGS)
        return Part(name, lambda row: row[name])

    def condition(self, depth: int) -> Part:
        if depth <= 0:
            name = self.rng.choice(FLAGS)
            return self.rng.choice(
                [
                    Part(name, lambda row: row[name]),
                    Part("true", lambda row: True),
                    Part("null", lambda row: None),
                ]
            )
        makers = [
            self._compare,
            self._compare,
            self._between,
            self._in,
            self._is,
            self._logic,
            self._logic,
            self._not,
        ]
        return self.rng.choice(makers)(depth)

    def _typed(self) -> Callable[[int], Part]:
        return self.rng.choice([self.number, self.number, self.identifier, self.string])

    def _compare(self, depth: int) -> Part:
        make = self._typed()
        a, b = make(depth - 1), make(depth - 1)
        symbol = self.rng.choice(list(COMPARE))
        return Part(f"{a.text} {symbol} {b.text}", strict(COMPARE[symbol], a, b))

    def _between(self, depth: int) -> Part:
        make = self._typed()
        a, low, high = make(depth - 1), make(depth - 1), make(depth - 1)
        above, below = strict(operator.ge, a, low), strict(operator.le, a, high)
        return Part(
            f"{a.text} between {low.text} and {high.text}", lambda row: logic_and(above(row), below(row))
        )

    def _in(self, depth: int) -> Part:
        make = self._typed()
        a, items = make(depth - 1), [make(self.rng.choice([0, 0, 1])) for _ in range(self.rng.randint(1, 4))]
        equal = [strict(operator.eq, a, item) for item in items]

        def worth(row: Row) -> Any:
            found = [test(row) for test in equal]
            return True if True in found else None if None in found else False

        negated = self.rng.random() < 0.3
        listed = ", ".join(item.text for item in items)
        if negated:
            return Part(f"{a.text} not in ({listed})", lambda row: logic_not(worth(row)))
        return Part(f"{a.text} in ({listed})", worth)

    def _is(self, depth: int) -> Part:
        a = self.rng.choice([self.number, self.condition, self.string])(depth - 1)
        if self.rng.random() < 0.5:
            return Part(f"({a.text}) is null", lambda row: a.worth(row) is None)
        b = self.condition(depth - 1)
        return Part(f"({b.text}) is not true", lambda row: b.worth(row) is not True)

    def _logic(self, depth: int) -> Part:
        a, b = self.condition(depth - 1), self.condition(depth - 1)
        if self.rng.random() < 0.5:
            return Part(f"(({a.text}) and ({b.text}))", lambda row: logic_and(a.worth(row), b.worth(row)))
        return Part(
            f"(({a.text}) or ({b.text}))",
            lambda row: logic_not(logic_and(logic_not(a.worth(row)), logic_not(b.worth(row)))),
        )

    def _not(self, depth: int) -> Part:
        a = self.condition(depth - 1)
        return Part(f"not ({a.text})", lambda row: logic_not(a.worth(row)))


def random_table(rows: int) -> tuple[Table, list[Row]]:
    rng = np.random.default_rng(11)
    columns = []
    for name in NUMBERS:
        values = rng.choice([0.0, 1.0, -2.0, 3.0, 0.5, 7.1, 1e300, -40.25, np.nan], rows)
        columns.append(Column(ColumnSpec(name, "", ""), values))
    for name in IDS:
        columns.append(
            Column(ColumnSpec(name, "", "", "int"), rng.choice([0, 2**60, 2**60 + 1, 2**60 + 2], rows))
        )
    columns.append(string_column(ColumnSpec("s", "", "", "string"), rng.choice(["", "g", "r", "it's"], rows)))
    codes = rng.integers(-1, 3, rows).astype(np.int32)
    columns.append(Column(ColumnSpec("t", "", "", "string"), codes, ("r", "Z", "g")))
    for name in FLAGS:
        columns.append(Column(ColumnSpec(name, "", "", "bool"), rng.choice([0.0, 1.0, np.nan], rows)))
    return Table(columns, rows), [{c.spec.name: cell(c, k) for c in columns} for k in range(rows)]


def cell(column: Column, row: int) -> Any:
    value = column.values[row]
    match column.spec.kind:
        case "float":
            return None if np.isnan(value) else float(value)
        case "int":
            return None if value == 0 else int(value)
        case "bool":
            return None if np.isnan(value) else bool(value)
        case _:
            return None if value < 0 else column.categories[value]


@pytest.mark.parametrize("seed", range(4))
def test_random_expressions_agree_with_the_interpreter(seed: int) -> None:
    table, rows = random_table(60)
    specs = {name: column.spec for name, column in table.items()}
    maker = Maker(seed)
    parts = [maker.condition(maker.rng.randint(1, 4)) for _ in range(300)]
    evaluation = evaluate([compile_filter(part.text, specs) for part in parts], table)
    assert evaluation.failures == {}
    for part, mask in zip(parts, evaluation.masks, strict=True):
        assert mask.tolist() == [part.worth(row) is True for row in rows], part.text


def test_the_normal_form_means_the_same_and_reads_back_as_itself() -> None:
    table, _ = random_table(60)
    specs = {name: column.spec for name, column in table.items()}
    maker = Maker(99)
    texts = [maker.condition(3).text for _ in range(300)]
    compiled = [compile_filter(text, specs) for text in texts]
    as_written = [CompiledFilter(text, text, frozenset(), parse(text)) for text in texts]
    assert np.array_equal(evaluate(compiled, table).masks, evaluate(as_written, table).masks)
    for item in compiled:
        assert compile_filter(item.normalised, specs).normalised == item.normalised
