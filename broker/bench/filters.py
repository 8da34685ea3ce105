"""What many filters cost: one program for all of them, next to Arrow's compute functions one by one."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from broker.filters import tree
from broker.filters.compile import CompiledFilter, compile_filter
from broker.filters.evaluate import compile_program, warm_up
from broker.table import Column, ColumnSpec, Table

ROWS, COLUMNS = 500, 150
SHARED_CLAUSES = 300
FEW, MANY = 1_000, 10_000
_UNKNOWN = 0.1
"""Share of the values that are NULL."""
_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "<": pc.less, "<=": pc.less_equal, ">": pc.greater, ">=": pc.greater_equal,
}  # fmt: skip


@dataclass(frozen=True)
class FiltersCost:
    """CPU milliseconds a batch of ROWS alerts by COLUMNS columns on one core, medians over the repeats.

    few, many : of FEW and MANY filters whose clauses are all different
    shared_few, shared_many : of as many whose clauses are drawn from the same SHARED_CLAUSES
    arrow : of FEW filters by pyarrow.compute, one after the other;  ratio : arrow / few, in each round
    compile_s : to parse and check MANY texts;  program_s : to make one program of them
    """

    repeats: int
    few: float
    many: float
    shared_few: float
    shared_many: float
    growth: float
    arrow: float
    ratio: float
    compile_s: float
    program_s: float

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def measure(repeats: int) -> FiltersCost:
    """Made-up filters of three to five clauses on made-up columns with NULLs."""
    start = time.process_time()
    many, table, specs = made(MANY, None)
    compiled = time.process_time() - start
    start = time.process_time()
    programs = {"many": compile_program(many, specs)}
    program_s = time.process_time() - start
    drawn, _, _ = made(MANY, SHARED_CLAUSES)
    programs |= {
        "few": compile_program(many[:FEW], specs),
        "shared_few": compile_program(drawn[:FEW], specs),
        "shared_many": compile_program(drawn, specs),
    }
    warm_up()
    columns = _arrow(table)
    rounds = [
        {name: _cpu_ms(partial(program.evaluate, table)) for name, program in programs.items()}
        | {"arrow": _cpu_ms(lambda: [_by_arrow(item.expression, columns) for item in many[:FEW]])}
        for _ in range(repeats + 1)  # the first is thrown away
    ][1:]
    middle = {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}
    return FiltersCost(
        repeats,
        **middle,
        growth=statistics.median(one["shared_many"] / one["shared_few"] for one in rounds),
        ratio=statistics.median(one["arrow"] / one["few"] for one in rounds),
        compile_s=compiled,
        program_s=program_s,
    )


def made(count: int, clauses: int | None) -> tuple[list[CompiledFilter], Table, dict[str, ColumnSpec]]:
    """Different filters, the table that they judge, and its columns.

    clauses : how many there are to draw from; None makes each anew
    """
    rng = np.random.default_rng(1)
    values = np.where(rng.random((COLUMNS, ROWS)) < _UNKNOWN, np.nan, rng.normal(size=(COLUMNS, ROWS)))
    specs = {f"c{k}": ColumnSpec(f"c{k}", "", "") for k in range(COLUMNS)}
    table = Table([Column(spec, values[k].copy()) for k, spec in enumerate(specs.values())], ROWS)
    pool = [_clause(rng) for _ in range(clauses or 0)]
    texts = _texts(rng, count, lambda: pool[rng.integers(len(pool))] if pool else _clause(rng))
    return [compile_filter(text, specs) for text in texts], table, specs


def _clause(rng: np.random.Generator) -> str:
    operator = ("<", "<=", ">", ">=")[rng.integers(4)]
    return f"c{rng.integers(COLUMNS)} {operator} {rng.normal():.6f}"


def _texts(rng: np.random.Generator, count: int, clause: Callable[[], str]) -> list[str]:
    """So many different filters: clauses joined by AND, the last pair by OR in every third."""
    found: dict[tuple[frozenset[str], frozenset[str]], str] = {}
    while len(found) < count:
        clauses = [clause() for _ in range(rng.integers(3, 6))]
        either = clauses[-2:] if rng.random() < 1.0 / 3.0 else []
        both = clauses[: len(clauses) - len(either)]
        if len(set(clauses)) == len(clauses):
            text = " and ".join([*both, *([f"({' or '.join(either)})"] if either else [])])
            found[frozenset(both), frozenset(either)] = text
    return list(found.values())


def _by_arrow(node: tree.Expression, columns: dict[str, pa.Array]) -> Any:
    """The condition by Arrow's compute functions, whose logic has three values too."""
    match node:
        case tree.And(operands) | tree.Or(operands):
            join = pc.and_kleene if isinstance(node, tree.And) else pc.or_kleene
            parts = [_by_arrow(part, columns) for part in operands]
            found = parts[0]
            for part in parts[1:]:
                found = join(found, part)
            return found
        case tree.Compare(operator, tree.Column(name), tree.Number(value)):
            return _COMPARE[operator](columns[name], float(value))
        case _:
            raise TypeError(f"no filter of this benchmark has {node.text}")


def agree(filters: Sequence[CompiledFilter], table: Table, specs: Mapping[str, ColumnSpec]) -> bool:
    """Whether the program and Arrow say the same."""
    columns = _arrow(table)
    masks = compile_program(filters, specs).evaluate(table).masks
    others = [_by_arrow(item.expression, columns).fill_null(False).to_numpy(False) for item in filters]
    return np.array_equal(masks, np.array(others))


def _arrow(table: Table) -> dict[str, pa.Array]:
    return {name: pa.array(column.values, from_pandas=True) for name, column in table.items()}


def _cpu_ms(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return (time.process_time() - start) * 1e3
