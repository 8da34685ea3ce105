"""Every text is either a tree or a FilterError that says where, and soon."""

from __future__ import annotations

import contextlib
import random

import pytest

from broker.errors import FilterError
from broker.filters import compile_filter
from broker.filters.parse import MAX_CHARACTERS, parse
from broker.table import ColumnSpec

Specs = dict[str, ColumnSpec]

HOSTILE = [
    # statements and queries
    "select 1",
    "(select 1) > 0",
    "mag in (select mag from alerts)",
    "exists (select 1)",
    "mag > any (select 1)",
    "mag < 1; drop table alerts",
    "mag < 1;",
    "mag < 1 union select 2",
    "with x as (select 1) select * from x",
    "where mag < 1",
    "mag < 1 limit 3",
    "mag < 1 order by mag",
    "insert into alerts values (1)",
    "pragma_table_info('alerts') is null",
    # reading files, environment, code
    "read_csv('/etc/passwd') is null",
    "read_parquet('s3://bucket/x') is null",
    "load_extension('x.so')",
    "getenv('HOME') = 'x'",
    "system('id') = 0",
    "pg_sleep(100) is null",
    "version() = 'x'",
    "__import__('os') = 1",
    "eval('1') = 1",
    "sleep(10) = 0",
    "range(1000000000) = 1",
    "repeat('x', 1000000000) = 'x'",
    # attribute and element access
    "mag.__class__ = 1",
    "solar_system.__dict__ is null",
    "solar_system.associated.x",
    "abs(mag).real > 1",
    "mag[0] > 1",
    "a.b.c.d.e.f > 1",
    "mag.* is null",
    "* is null",
    "count(*) > 1",
    "abs(mag) over () > 1",
    "sum(mag) filter (where is_dipole) > 1",
    "abs(distinct mag) > 1",
    "abs(mag order by mag) > 1",
    # types, casts, patterns
    "cast(mag as varchar) = 'x'",
    "mag::text = 'x'",
    "try_cast(mag as int) = 1",
    "interval '1 day' > 0",
    "date '2020-01-01' is null",
    "band like '%x%'",
    "band not like 'x'",
    "band ilike 'x'",
    "band similar to '(a+)+$'",
    "band ~ '(a+)+$'",
    "regexp_matches(band, '(a*)*b')",
    "band || 'x' = 'gx'",
    "band rlike '(x+x+)+y'",
    "band glob '*'",
    # comments, quoting, placeholders
    "mag < 1 -- and is_dipole",
    "mag < 1 /* hidden */",
    "mag < 1 # hidden",
    "mag < 1 and \"band\" = 'g'",
    "`mag` < 1",
    "mag < :limit",
    "mag < ?",
    "mag < $1",
    "mag < @x",
    "{mag} < 1",
    "[mag] = 1",
    "band = 'g",
    'band = "g"',
    "band = x'67'",
    "band = 'g' 'h'",
    "band = $$g$$",
    "band = 'g\\'' or 1=1",
    # unicode tricks and controls
    "mag < 1\x00",
    "mag\u200b < 1",
    "\u043cag < 1",
    "mag \uff1c 1",
    "mag < \u0661",
    "band = '\u202eg'",
    "band = 'g\x00'",
    "mag\u00a0< 1",
    "\ufeffmag < 1",
    "mag < 1\ud800",
    # numbers
    "mag < 1e999",
    "mag < 0x1F",
    "mag < 1_000",
    "mag < 1.2.3",
    "dia_object_id = 9223372036854775808",
    "mag < " + "9" * 5000,
    # grammar
    "",
    "   \n ",
    "mag <",
    "< mag",
    "mag < 1 and",
    "and",
    "mag 1",
    "mag < 1, ra < 2",
    "mag as x",
    "(mag < 1",
    "mag < 1)",
    ")(",
    "case when mag < 1 then true",
    "end",
    "(mag, ra) = (1, 2)",
    "mag in 1",
    "mag in ()",
    "mag in band",
    "1 < mag < 2",
    "mag = ra = dec",
    "is_dipole = mag is null",
    "mag == 1",
    "mag <=> 1",
    "mag ** 2 > 1",
    "mag ^ 2 > 1",
    "mag // 2 > 1",
    "mag << 2 > 1",
    "mag & 2 > 1",
    "mag -> 1",
    "mag => 1",
    "mag is 3",
    "mag is distinct from 1",
    "is_dipole xor is_dipole",
    "mag between symmetric 2 and 1",
    "case mag when 1 then true end",
    "if(is_dipole, true, false)",
    "x -> x + 1",
    "mag div 2 > 1",
    "mag at time zone 'x' > 1",
    "mag collate x > 1",
    # types that do not fit
    "mag",
    "1",
    "'g'",
    "band > 1",
    "mag = 'g'",
    "is_dipole = 1",
    "is_dipole < true",
    "mag and is_dipole",
    "not mag",
    "- band = 'g'",
    "mag + band > 1",
    "abs(band) > 1",
    "mag in (1, 'g')",
    "band between 1 and 2",
    "case when mag then 1 else 2 end > 1",
    "case when is_dipole then 1 else 'g' end > 1",
    "coalesce(mag, band) > 1",
    "mag is true",
    "is_dipole between false and true",
    # names and arguments
    "psf_flx > 1",
    "foo(mag) > 1",
    "abs() > 1",
    "abs(mag, ra) > 1",
    "abs > 1",
    "in_cone(1, 2)",
    "in_cone(1, 91, 1)",
    "in_cone(1, 2, -1*arcsec)",
    # size
    "mag < 1 or " * 1000 + "mag < 1",
    "x" * 1_000_000,
    "(" * 5000,
    "(" * 500 + "mag < 1" + ")" * 500,
    "not " * 2000 + "is_dipole",
    "- " * 3000 + "mag > 1",
    "abs(" * 60 + "mag" + ")" * 60 + " > 1",
    "case when " * 100 + "is_dipole" + " then true end" * 100,
    "mag + " * 1400 + "mag > 1",
    "mag in (" + "1," * 4000 + "1)",
    "'" * 9001,
    "." * 9000,
    "1" * 9000,
    "a" * 9000 + " > 1",
    "mag <" * 1500,
    "a." * 4000 + "a > 1",
    "a." * 45 + "a > 1",
    # size just within the limits, so that the grammar is read
    "mag < 1 or " * 490 + "mag < x",
    "mag + " * 990 + "mag > 1",
    "mag <" * 990,
    "mag in (" + "1," * 990 + "x)",
    "abs(" * 20 + "mag < " * 500 + "1" + ")" * 20,
    "not (" * 24 + "mag" + ")" * 24,
    "mag > - - - - - - - - - - - - - - - - - - - - band",
    "case when is_dipole then " * 24 + "1" + " end" * 24,
    "coalesce(" * 24 + "mag" + ", 1)" * 24,
    "is_dipole and " * 990 + "mag",
]


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: ascii(text[:40]))
def test_hostile_text_is_refused_clearly(text: str, specs: Specs) -> None:
    with pytest.raises(FilterError) as caught:
        compile_filter(text, specs)
    message = str(caught.value)
    assert 10 < len(message) < 250
    if len(text) <= MAX_CHARACTERS:
        position = caught.value.position
        assert position is not None
        assert 0 <= position <= max(len(text), 1)


def test_the_hostile_list_is_long_enough() -> None:
    assert len(set(HOSTILE)) >= 60


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
        ("is_dipole or mag", 13, "expected a boolean, found a number"),
    ],
)
def test_errors_say_where_and_what_to_do(text: str, position: int, words: str, specs: Specs) -> None:
    with pytest.raises(FilterError) as caught:
        compile_filter(text, specs)
    assert caught.value.position == position
    assert words in str(caught.value)


def test_one_megabyte_is_refused_by_its_length(specs: Specs) -> None:
    with pytest.raises(FilterError, match=r"1,000,000 characters; at most 10,000"):
        compile_filter("(" * 1_000_000, specs)


@pytest.mark.parametrize(
    "text",
    [
        "(" * 20 + "mag < 1" + ")" * 20,
        " or ".join(f"mag < {k}" for k in range(500)),
        "dia_object_id in (" + ", ".join(str(10**6 + k) for k in range(900)) + ")",
        "mag" + " + 1" * 50 + " > 1",
        "not not not is_dipole",
        "mag > - - 1",
    ],
    ids=range(6),
)
def test_large_but_honest_filters_are_read(text: str, specs: Specs) -> None:
    assert compile_filter(text, specs).columns


VOCABULARY = """
mag band ( ) , . ' 'g' < > = <> <= ! != + - * / % and or not in between is null true false case when then else
end 1 2.5 1e9 abs( in_cone( select ; -- /* " ` [ ] { } : ? @ # $ \\ ~ ^ & | é \u200b over filter array map
struct extract trim values table lambda => -> :: distinct all any unnest current_date date timestamp exists
left right if row from as for prior next value at collate interval
"""


def test_random_text_never_raises_anything_else() -> None:
    rng = random.Random(5)
    pieces = VOCABULARY.split()
    for _ in range(1500):
        text = " ".join(rng.choices(pieces, k=rng.randint(1, 12)))
        with contextlib.suppress(FilterError):
            parse(text)
