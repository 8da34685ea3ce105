"""Select lists and statements of hostile and mutilated text: refused with a place, and no other error."""

from __future__ import annotations

import random
from collections.abc import Mapping

import pytest

from broker.errors import FilterError
from broker.filters.store import Wanted, checked
from broker.table import ColumnSpec
from tests.unit.filters.test_hostile import HOSTILE

Specs = Mapping[str, ColumnSpec]
PIECES = [
    *("select", "SELECT", "from", "alerts", "where", "as", "case", "end", "null", "mag", "x", "1e400"),
    *(",", "(", ")", "'", " ", "\n", "--", ";", "*", ".", "band = 'where'", "\u202e"),
    "near('desi', 5*arcsec).z",
]
WHOLE = [
    "select mag, mag - 5 as x from alerts where mag < 19 and band = 'g'",
    "select case when mag < 1 then 1 else 2 end as y, band, is_dipole as d where ra between 1 and 2",
    "select greatest(mag, ra) as z where not (is_dipole or mag is null)",
]
CASES = 2_000


def place_of_refusal(asked: Wanted, specs: Specs) -> int | None:
    """Where a text is refused, -1 where it is not; any other error goes through."""
    try:
        checked(asked, specs)
    except FilterError as error:
        return error.position if str(error).isprintable() else -2
    return -1


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: ascii(text[:40]))
def test_a_hostile_condition_is_refused_in_a_statement_too(text: str, specs: Specs) -> None:
    whole = f"select mag where {text}"
    place = place_of_refusal(Wanted(whole), specs)
    assert place is None or 0 <= place <= len(whole)


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: ascii(text[:40]))
def test_what_a_list_has_is_a_value_or_refused(text: str, specs: Specs) -> None:
    listed = f"{text} as x"
    place = place_of_refusal(Wanted("mag < 19", select=listed), specs)
    assert place is None or -1 <= place <= len(listed)


def test_mutilated_statements_are_refused_at_a_place(specs: Specs) -> None:
    rng = random.Random(11)
    read = 0
    for _ in range(CASES):
        text = rng.choice(WHOLE)
        for _ in range(rng.randint(1, 3)):
            a, b = sorted(rng.randint(0, len(text)) for _ in range(2))
            text = rng.choice(
                [text[:a] + text[min(b, a + 12) :], f"{text[:a]} {rng.choice(PIECES)} {text[a:]}"]
            )
        place = place_of_refusal(Wanted(text), specs)
        assert place is None or -1 <= place <= len(text)
        read += place == -1
    assert 0 < read < CASES / 2
