"""One program for all filters says what each filter says alone."""

from __future__ import annotations

import numpy as np
import pytest

from broker.bench.filters import ROWS, agree, made
from broker.errors import FilterError
from broker.filter import Filter
from broker.filters.compile import compile_filter
from broker.filters.evaluate import Program, compile_program, evaluate
from broker.filters.expression import Evaluator
from broker.filters.live import compile_set
from broker.table import Column, ColumnSpec, Table

SPECS = {
    "mag": ColumnSpec("mag", "mag", ""),
    "rise": ColumnSpec("rise", "", ""),
    "dipole": ColumnSpec("dipole", "", "", "bool"),
    "number": ColumnSpec("number", "", "", "int"),
    "band": ColumnSpec("band", "", "", "string"),
}
EDGES = [np.nan, -np.inf, np.inf, -1.5, -0.0, 0.0, 1e-300, 1.0, 19.0, 19.0, 20.0, 1e300]
CLAUSES = [
    *(f"mag {operator} {value}" for operator in ("<", "<=", ">", ">=", "=", "<>") for value in (0, 19, 25)),
    "mag is null", "mag is not null", "not (mag < 19)", "mag between 0 and 19", "mag not between 0 and 19",
    "dipole", "not dipole", "dipole is null", "dipole = true", "number = 9007199254740993", "number <> 3",
    "band = 'g'", "band in ('g', 'r')", "abs(mag) > 1", "mag + rise < 20", "mag < rise", "true", "false",
    "case when dipole then mag < 19 else rise > 0 end", "19 > mag", "null", "mag = -0.0", "mag in (1, 19)",
]  # fmt: skip


def table(rows: int) -> Table:
    rng = np.random.default_rng(rows)
    columns = {
        "mag": rng.choice(EDGES, rows),
        "rise": rng.choice(EDGES, rows),
        "dipole": rng.choice([0.0, 1.0, np.nan], rows),
        "number": rng.choice([0, 3, 9007199254740993, 9007199254740992], rows),
        "band": rng.choice([-1, 0, 1, 2], rows).astype(np.int32),
    }
    return Table([Column(SPECS[name], values, ("g", "r", "u")) for name, values in columns.items()], rows)


@pytest.mark.parametrize("rows", [0, 1, 63, 64, 65, 500])
def test_every_clause_and_random_joins_equal_their_own_evaluation(rows: int) -> None:
    rng = np.random.default_rng(7)
    joined = [
        f" {('and', 'or')[rng.integers(2)]} ".join(
            f"({text})" for text in rng.choice(CLAUSES, rng.integers(2, 6))
        )
        for _ in range(200)
    ]
    filters = [compile_filter(text, SPECS) for text in [*CLAUSES, *joined]]
    data = table(rows)
    found = compile_program(filters, SPECS).evaluate(data)
    alone = Evaluator(data, {})
    with np.errstate(all="ignore"):
        truth = [np.broadcast_to(alone.truth(item.expression, True), rows) for item in filters]
    assert found.failures == {}
    for item, mask, wanted in zip(filters, found.masks, truth, strict=True):
        assert np.array_equal(mask, wanted), item.text


@pytest.mark.parametrize("count", [5, 300])
def test_few_and_many_thresholds_of_a_column_are_placed_alike(count: int) -> None:
    """With few a column's thresholds are counted, with many they are searched."""
    rng = np.random.default_rng(1)
    values = np.concatenate([rng.normal(size=400), EDGES])
    data = Table([Column(SPECS["mag"], values)], len(values))
    half, finite = count // 2, np.isfinite(values)
    limits = np.concatenate([rng.choice(values[finite], half), rng.normal(size=half)])
    for operator, compare in (("<", np.less), (">=", np.greater_equal), ("=", np.equal)):
        filters = [compile_filter(f"mag {operator} {limit:.17g}", SPECS) for limit in limits.tolist()]
        masks = compile_program(filters, SPECS).evaluate(data).masks
        assert np.array_equal(masks, [compare(values, limit) & finite for limit in limits])


def test_the_benchmark_compares_equals() -> None:
    filters, data, specs = made(200, None)
    assert data.length == ROWS
    assert agree(filters, data, specs)
    shared, _, _ = made(400, 30)
    assert len({item.normalised for item in shared}) == 400
    assert len(compile_program(shared, specs).clauses) <= 30


def test_a_clause_that_many_ask_for_is_there_once() -> None:
    texts = ["mag < 19 and rise > 0", "rise > 0 and 19 > mag", "mag < 19 or dipole", "mag < 19"]
    program = compile_program([compile_filter(text, SPECS) for text in texts], SPECS)
    assert (len(program.clauses), len(program.joins), program.others) == (3, 2, ())
    assert program.roots[0] == program.roots[1]


def test_a_lost_column_fails_only_who_needs_it() -> None:
    nested = "rise > 5 and (mag < 1 or dipole)"
    texts = ["mag < 19 or rise > 0", "rise > 0", "abs(mag) > 1 and rise > 0", nested]
    program = compile_program([compile_filter(text, SPECS) for text in texts], SPECS)
    without = Table([column for name, column in table(70).items() if name != "mag"], 70)
    found = program.evaluate(without)
    assert set(found.failures) == {0, 2, 3}
    assert all("column 'mag' is not in this batch" in why for why in found.failures.values())
    assert not found.masks[[0, 2, 3]].any()
    assert np.array_equal(found.masks[1], evaluate([compile_filter("rise > 0", SPECS)], without).masks[0])


def test_what_stays_is_not_compiled_again() -> None:
    rules = [Filter("me", f"f{number}", 1, f"mag < {number + 15}") for number in range(3)]
    first = compile_set(1, rules, {}, SPECS)
    same = compile_set(2, rules, {}, SPECS, None, first)
    assert (same.epoch, same.program) == (2, first.program)
    assert same.program is first.program
    more = compile_set(3, [*rules, Filter("me", "f9", 1, "rise > 0"), Filter("me", "bad", 1, "nothing < 1")],
                       {}, SPECS, None, same)  # fmt: skip
    assert all(one is other for one, other in zip(more.compiled, first.compiled, strict=False))
    assert len(more.program.roots) == 4
    assert [name for name, _ in more.refused] == ["me.bad"]
    with pytest.raises(FilterError):
        compile_filter("nothing < 1", SPECS)


def test_no_filter_is_no_work() -> None:
    found = Program().evaluate(table(5))
    assert (found.masks.shape, found.failures) == ((0, 5), {})
