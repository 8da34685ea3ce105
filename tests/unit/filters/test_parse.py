"""Errors say where and what to do, and large filters are read."""

from __future__ import annotations

import pytest

from broker.errors import FilterError
from broker.filters import compile_filter
from broker.table import ColumnSpec

Specs = dict[str, ColumnSpec]


@pytest.mark.parametrize(
    ("text", "position", "words"),
    [
        ("band = 'g' and psf_flx > 1", 15, "unknown column 'psf_flx' at 15; did you mean 'psf_flux'?"),
        ("mag < 1 and\n\tpsf_flx > 1", 13, "did you mean 'psf_flux'"),
        ("mag < 19 and band > 3", 20, "number '3' does not fit a string"),
        ("solar_system.assoc", 0, "did you mean 'solar_system.associated'"),
        ("mag > 1 and lgo10(mag) > 1", 12, "did you mean 'log10'"),
        ("mag < 1 ; drop", 8, "not a statement"),
        ("(mag < 1", 0, "is not closed"),
        ("mag < 1)", 7, "nothing is open"),
        ("mag < 1 and band like 'x'", 17, "compare strings with = or in"),
        ("mag < 'x", 6, "not closed"),
        ("mag < 1 1", 8, "wrong grammar near '1'"),
        ("mag < 1 and (select 1) > 0", 13, "not a query"),
        ("is_dipole and null + 'a' > 1", 21, "expected a number, found a string"),
        ("in_cone(10, -100, 1)", 13, "dec0 must be in -90..90"),
        ("mag < 1 and abs > 1", 12, "write abs(x)"),
        ("color('g', 'i') > 1", 11, "it takes 'g' or 'r', as in color('g', 'r') < 0.2"),
        ("is_dipole or mag", 13, "expected a boolean, found a number"),
    ],
)
def test_errors_say_where_and_what_to_do(text: str, position: int, words: str, specs: Specs) -> None:
    with pytest.raises(FilterError) as caught:
        compile_filter(text, specs)
    assert caught.value.position == position
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "(" * 20 + "mag < 1" + ")" * 20,
        " or ".join(f"mag < {k}" for k in range(370)),
        "dia_object_id in (" + ", ".join(str(10**6 + k) for k in range(900)) + ")",
        "mag" + " + 1" * 50 + " > 1",
        "not not not is_dipole",
        "mag > - - 1",
    ],
    ids=range(6),
)
def test_large_but_honest_filters_are_read(text: str, specs: Specs) -> None:
    assert compile_filter(text, specs).columns
