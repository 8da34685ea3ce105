"""What docs/filters.md says of the language and of the built-in filters is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from broker.filters.builtin import BUILTIN_FILTERS
from broker.filters.functions import FILTER_FUNCTIONS, UNITS
from tests.builtin_yields import measure
from tests.data import shared_data
from tests.unit.filters.test_builtin_recipes import RECIPES

TEXT = (Path(__file__).parents[3] / "docs" / "filters.md").read_text()
NAMES = [item.name for item in BUILTIN_FILTERS]
RECIPE_TEXT = {item.name: item.where for item in BUILTIN_FILTERS}
DATA = shared_data()


def section(heading: str) -> dict[str, str]:
    """The table under a heading: the rest of the row of each filter."""
    body = TEXT.split(f"\n{heading}\n", 1)[1].split("\n##", 1)[0].split("\n| filter | passes |")[0]
    rows = [line.split(" | ", 1) for line in body.splitlines() if line.startswith("| `")]
    return {name: rest for names, rest in rows for name in re.findall(r"`([a-z-]+)`", names)}


def by_models(name: str) -> bool:
    """Whether a filter looks at scores: what it passes changes with the bundle."""
    return bool(re.search(r"prob_|anomaly", RECIPE_TEXT[name]))


def test_every_function_and_unit_of_the_language_is_there() -> None:
    for word in [*(f"`{function.name}(" for function in FILTER_FUNCTIONS), *(f"`{unit}`" for unit in UNITS)]:
        assert word in TEXT, word


@pytest.mark.parametrize(
    "heading", ["## The built-in filters", "### NULL and failure", "### How much they let through"]
)
def test_every_built_in_filter_is_in_every_table(heading: str) -> None:
    assert set(section(heading)) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_what_must_be_known_is_said(name: str) -> None:
    row = section("### NULL and failure")[name]
    for columns in RECIPES[name].needed:
        errors = all(column.endswith(("_g_err", "_r_err")) for column in columns)
        words = ["with its error"] if errors else [f"`{re.sub('_[gr]$', '', column)}`" for column in columns]
        assert any(word in row for word in words), columns


@pytest.mark.skipif(DATA is None, reason="needs the real alerts")
def test_real_alerts_pass_about_as_often_as_is_said() -> None:
    assert DATA is not None
    found = measure(DATA)
    for name, row in section("### How much they let through").items():
        said = [float(number) for number in re.findall(r"\d+\.\d", row)]
        for survey, rate in zip(("ztf", "lsst"), said, strict=True):
            measured = found[survey].per_1000(name)
            low, high = (0.0, 300.0) if by_models(name) else (rate - 10.0, rate + 10.0)
            assert low <= measured <= high, (survey, name, measured)
