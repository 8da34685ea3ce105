"""Whatever text comes, the parser answers with a tree or a FilterError, and reads over nothing.

BROKER_FUZZ_CASES sets how many texts of each kind are tried.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broker.errors import FilterError
from broker.filters import compile_filter, tree
from broker.filters.builtin import BUILTIN_FILTERS
from broker.filters.parse import parse, tokens
from broker.table import ColumnSpec

CASES = int(os.environ.get("BROKER_FUZZ_CASES", "1250"))
"""Of each of the four kinds below."""
QUICK = settings(
    max_examples=CASES,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
SPECS = {
    name: ColumnSpec(name, "", "", kind)
    for name, kind in (
        ("mag", "float"), ("ra", "float"), ("dec", "float"), ("dia_object_id", "int"),
        ("band", "string"), ("is_dipole", "bool"), ("solar_system.associated", "bool"),
    )
}  # fmt: skip
VALID = [
    *(item.where for item in BUILTIN_FILTERS),
    "band = 'g' and mag < 19 and not solar_system.associated and in_cone(187.7, 12.39, 2*degree)",
    "case when mag between 17 and 18.5 then 'it''s' else band end in ('g', 'it''s') or dia_object_id is null",
    "(greatest(abs(mag - 1.5e1), power(mag, 2) / 3, - ra % 360) >= coalesce(nullif(dec, 0), .1)) is not true",
    "near('sdss', 2*arcsec).class = 'QSO' and not near('vsx', 3*arcsec) or abs(near('s', 1).z) < mag",
    "not (is_dipole is not false or mag not in (1, .5, 2.) or ra not between 1 and 2) or mag + - ra <> 0",
]
GRAMMAR = {
    "and",
    "or",
    "not",
    "in",
    "between",
    "is",
    "case",
    "when",
    "then",
    "else",
    "end",
    "null",
    "true",
    "false",
}
VOCABULARY = """
mag band ( ) , . ' 'g' < > = <> <= ! != + - * / % and or not in between is null true false case when then else
end 1 2.5 1e9 abs( in_cone( select ; -- /* " ` [ ] { } : ? @ # $ \\ ~ ^ & | é \u200b over filter array map
struct extract trim values table lambda => -> :: distinct all any unnest current_date date timestamp exists
left right if row from as for prior next value at collate interval escape like using ignore within order by
"""
PIECES = [
    *VOCABULARY.split(),
    "(",
    ")",
    ",",
    "'",
    "''",
    "\x00",
    "\u202e",
    "\ud800",
    "\n",
    "9" * 50,
    "1e999",
    "is not null",
    ".z",
    ").z",
    "near('x', 1)",
]


def parts_of_text(text: str) -> Counter[str]:
    """Every name, string, number, sign and word of a text, but for what only groups and separates."""
    found: Counter[str] = Counter()
    for kind, characters, _ in tokens(text):
        lowered = characters.lower()
        if kind == "number":
            found[str(float(characters))] += 1
        elif kind == "operator" or lowered in GRAMMAR:
            found[{"!=": "<>"}.get(lowered, lowered)] += 1
        else:
            found[characters] += 1
    return without_uncounted(found)


def parts_of_tree(node: tree.Expression) -> Counter[str]:
    """The same of a tree."""
    found: Counter[str] = Counter()
    for part in tree.walk(node):
        match part:
            case tree.Number(value):
                found[str(float(value))] += 1
            case tree.String():
                found[part.text] += 1
            case tree.Column(name):
                found[name] += 1
            case tree.Call(name, _, member):
                found[name] += 1
                found.update([f".{member.name}"] if member else [])
            case tree.Binary(sign, _, _) | tree.Compare(sign, _, _):
                found[sign] += 1
            case tree.And(operands) | tree.Or(operands):
                found[type(part).__name__.lower()] += len(operands) - 1
            case tree.Negative():
                found["-"] += 1
            case tree.Between():
                found += Counter(["between", "and"])
            case tree.Case(branches, _):
                found += Counter(["case", *["when", "then"] * len(branches), "end"])
            case tree.Not() | tree.In() | tree.Is():
                found[type(part).__name__.lower()] += 1
    return without_uncounted(found)


def without_uncounted(found: Counter[str]) -> Counter[str]:
    """What a tree does not say how often was written; a plus before a number means nothing, too."""
    uncounted = {"(", ")", ",", "+", "else", "null", "true", "false"}
    return Counter({part: count for part, count in found.items() if part not in uncounted})


def place_of_refusal(read: Callable[[str], object], text: str) -> int | None:
    """Where a text is refused; None if it is not. Any other error goes through."""
    try:
        read(text)
    except FilterError as error:
        return error.position
    return None


def check(text: str) -> None:
    """Nothing but FilterError, at a place in the text; and what is read is read whole."""
    place = place_of_refusal(lambda text: compile_filter(text, SPECS), text)
    assert place is None or 0 <= place <= max(len(text), 1)
    if place_of_refusal(parse, text) is None:
        assert parts_of_tree(parse(text)) == parts_of_text(text)


def test_valid_texts_are_read_whole() -> None:
    for text in VALID:
        assert parts_of_tree(parse(text)) == parts_of_text(text)


@QUICK
@given(st.text(max_size=200))
def test_any_text(text: str) -> None:
    check(text)


@QUICK
@given(st.binary(max_size=300), st.sampled_from(["utf-8", "latin-1", "utf-16"]))
def test_any_bytes(data: bytes, encoding: str) -> None:
    check(data.decode(encoding, errors="replace"))
    check(data.decode("utf-8", errors="surrogateescape"))


def test_sentences_of_words_of_the_language_and_of_sql() -> None:
    rng = random.Random(5)
    for _ in range(CASES):
        check(rng.choice([" ", " ", ""]).join(rng.choices(PIECES, k=rng.randint(1, 14))))


def mutated(rng: random.Random) -> str:
    """A valid text after a few cuts, doublings, swaps and insertions."""
    text = rng.choice(VALID)
    for _ in range(rng.randint(1, 4)):
        a, b = sorted(rng.randint(0, len(text)) for _ in range(2))
        b = min(b, a + rng.randint(0, 30))
        other = rng.choice(VALID)
        start = rng.randrange(len(other))
        text = rng.choice(
            [
                text[:a] + text[b:],
                text[:b] + text[a:],
                text[:a] + rng.choice(PIECES) + text[a:],
                text[:a] + f" {rng.choice(PIECES)} " + text[b:],
                text[:a] + chr(rng.randrange(0x110000)) + text[a + 1 :],
                text[:a] + other[start : start + rng.randint(1, 40)] + text[b:],
                text[:a] + text[a:b] * rng.randint(2, 9) + text[b:],
            ]
        )
    return text


def test_mutations_of_valid_texts() -> None:
    rng = random.Random(7)
    for _ in range(CASES):
        check(mutated(rng))
