"""What every function of the filter language keeps, whoever wrote it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from broker.errors import FilterError
from broker.filters import FILTER_FUNCTIONS, FilterFunction, compile_filter, evaluate
from broker.filters.compile import CompiledFilter, bind, names_in
from broker.filters.functions import Parameter
from broker.filters.tree import Call, walk
from broker.lightcurves import LightCurves, empty_points
from broker.table import Column, ColumnSpec, Table

COLUMNS = (
    "ra",
    "dec",
    "gal_b",
    "mag",
    "psf_flux",
    "psf_flux_err",
    "reliability",
    "color_gr",
    "midpoint_mjd_tai",
)
SPECS = {name: ColumnSpec(name, "", "") for name in COLUMNS}
EXTREMES = [np.nan, 0.0, -0.0, 1.0, -1.0, 0.5, 90.0, -90.0, 360.0, 1e-300, -1e300, 1e308, np.inf, -np.inf]

every_function = pytest.mark.parametrize("function", FILTER_FUNCTIONS, ids=lambda function: function.name)


class Made:
    """Stands for whatever is named: some columns summed, row by row."""

    reads = ("mag", "psf_flux")

    def __call__(self, memo: dict[Any, Any], /, *columns: Any) -> Any:
        return sum(columns)

    def entries(self, memo: dict[Any, Any], /, *columns: Any) -> Any:
        found = self(memo, *columns)
        return np.where(np.isnan(found), -1, found > 1).astype(np.int64), ("first", "second")


def compiled(text: str) -> CompiledFilter:
    found = compile_filter(text, SPECS)
    named: dict[str, dict[str, Made]] = {}
    for place in names_in(found):
        named.setdefault(place.state, {})[place.name] = Made()
    return bind(found, named)


def argument(parameter: Parameter, value: str) -> str:
    """A value for a parameter; a name or one of its choices where it takes these."""
    if parameter.kind == "choice":
        return repr(parameter.choices[0])
    return "'somebody'" if parameter.kind == "name" else value


def table(rows: int, fill: float | None = None) -> Table:
    """Random extremes, or one value everywhere."""
    rng = np.random.default_rng(3)
    values = [rng.choice(EXTREMES, rows) if fill is None else np.full(rows, fill) for _ in COLUMNS]
    columns = [Column(SPECS[name], column) for name, column in zip(COLUMNS, values, strict=True)]
    return Table(columns, rows, light_curves(columns[-1].values))


def light_curves(midpoint: np.ndarray) -> LightCurves:
    """Three detections of each object in the year before its alert."""
    points = empty_points(3 * len(midpoint))
    points["midpoint_mjd_tai"] = (midpoint[:, None] - [300.0, 30.0, 0.0]).ravel()
    points["psf_flux"], points["band"] = 1.0, 1
    return LightCurves(points, np.arange(0, 3 * len(midpoint) + 1, 3))


def row(whole: Table, k: int) -> Table:
    assert whole.light_curves is not None
    columns = [Column(it.spec, it.values[k : k + 1]) for it in whole.values()]
    return Table(columns, 1, whole.light_curves.take(np.array([k])))


def passing(text: str, rows: Table) -> np.ndarray:
    evaluation = evaluate([compiled(text)], rows)
    assert evaluation.failures == {}
    return evaluation.masks[0]


def call(function: FilterFunction, arguments: list[str]) -> str:
    return f"{function.name}({', '.join(arguments)})"


def test_names_are_words_and_no_two_are_alike() -> None:
    names = [function.name for function in FILTER_FUNCTIONS]
    assert len(set(names)) == len(names)
    assert all(name == name.lower() and name.isidentifier() for name in names)


@every_function
def test_it_is_documented_with_an_example_that_uses_it(function: FilterFunction) -> None:
    assert function.doc.endswith(".")
    example = compiled(function.example)
    assert function.name in {node.name for node in walk(example.expression) if isinstance(node, Call)}
    assert set(function.reads) <= example.columns
    assert not function.state or set(Made.reads) <= example.columns
    assert passing(function.example, table(64)).shape == (64,)


@every_function
def test_each_row_is_judged_alone(function: FilterFunction) -> None:
    whole = table(64)
    alone = [passing(function.example, row(whole, k))[0] for k in range(64)]
    assert passing(function.example, whole).tolist() == alone


@every_function
def test_extremes_are_true_false_or_null_and_never_an_error(function: FilterFunction) -> None:
    arguments = [argument(it, COLUMNS[k % len(COLUMNS)]) for k, it in enumerate(function.parameters)]
    text = call(function, arguments)
    limit = "'n'" if function.result == "string" else "0.5"
    test = text if function.result == "boolean" else f"{text} > {limit}"
    rows = table(500)
    true, false = passing(test, rows), passing(f"not ({test})", rows)
    null = passing(f"({test}) is null", rows)
    assert (true.astype(int) + false + null == 1).all()
    if function.result in {"number", "any"}:
        assert not passing(f"abs({text}) > 1.7e308", table(4, 1.0)).any()


@every_function
def test_all_null_gives_null(function: FilterFunction) -> None:
    if not (function.parameters or function.reads):
        pytest.skip("a constant")
    text = call(function, [argument(it, "mag") for it in function.parameters])
    assert passing(f"({text}) is null", table(3, np.nan)).all()


@pytest.mark.parametrize("function", [it for it in FILTER_FUNCTIONS if it.state], ids=lambda it: it.name)
def test_a_name_that_nothing_has_gives_null(function: FilterFunction) -> None:
    text = call(function, [argument(it, "1") for it in function.parameters])
    nobody = compile_filter(f"({text}) is null", SPECS)
    assert evaluate([nobody], table(3, 1.0)).masks.all()


@every_function
def test_wrong_numbers_and_kinds_of_arguments_are_refused(function: FilterFunction) -> None:
    count = len(function.parameters)
    least = sum(not it.optional for it in function.parameters)
    wrong = [least - 1] if count else []
    wrong += [] if function.repeats else [count + 1]
    for number in wrong:
        with pytest.raises(FilterError, match="arguments at"):
            compile_filter(f"{call(function, ['mag'] * number)} is null", SPECS)
    if function.state:
        with pytest.raises(FilterError, match="takes a name in single quotes"):
            compile_filter(f"{call(function, ['mag'] * count)} is null", SPECS)
    elif any(it.kind == "choice" for it in function.parameters):
        for wrong_choice in ("mag", "'nothing'", "1", "null"):
            with pytest.raises(FilterError, match="it takes"):
                compile_filter(f"{call(function, [wrong_choice] * count)} is null", SPECS)
    elif count and function.result != "any":
        with pytest.raises(FilterError, match="expected a number"):
            compile_filter(f"{call(function, [repr('g')] * count)} is null", SPECS)


@every_function
def test_limits_of_constant_arguments_are_checked(function: FilterFunction) -> None:
    for index, parameter in enumerate(function.parameters):
        for limit in (parameter.lowest - 1, parameter.highest + 1):
            arguments = [argument(it, "1") for it in function.parameters]
            arguments[index] = repr(limit)
            if np.isfinite(limit):
                with pytest.raises(FilterError, match=parameter.name):
                    compile_filter(f"{call(function, arguments)} is null", SPECS)
