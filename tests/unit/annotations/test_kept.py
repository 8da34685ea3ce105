"""What is kept of an object's annotations: the newest of each kind, whatever the order they came in."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from broker.annotations.columns import ANNOTATION_COLUMNS, annotation_columns, no_annotations
from broker.annotations.kept import MAX_LINES, addition, kept, line, sound
from broker.annotations.record import Annotation

DAY_MS = 86_400_000


def said(name: str, class_name: str, kind: str = "class", by: str = "alice") -> Annotation:
    return Annotation(name, "ztf", "5", kind, by, class_name=class_name)  # type: ignore[arg-type]


LINES = [
    line(said("a", "SN Ia"), 1000),
    line(said("b", "SN II"), 3000),
    line(said("c", "AGN"), 2000),
    line(said("d", "IIn", "spectrum-type", "bob"), 4000),
]


def test_the_order_makes_no_difference_nor_does_repetition() -> None:
    found = {str(kept(b"".join(order * 2)).newest["class"]) for order in itertools.permutations(LINES)}
    assert len(found) == 1
    assert kept(b"".join(LINES)).of("class")["class"] == "SN II"
    assert kept(b"".join(LINES)).last["by"] == "bob"


def test_of_two_at_once_the_larger_id_counts() -> None:
    both = [line(said("x", "one"), 5), line(said("y", "two"), 5)]
    assert {kept(b"".join(order)).of("class")["class"] for order in (both, both[::-1])} == {"two"}


DAMAGED = [
    b"\xff\x00\n", b"[" * 100_000 + b"\n", b"5\n", b"null\n", b"[]\n", b'{"kind":"class"}\n', b"\n",
    b'{"kind":"class","id":"z","t":1e999}\n', b'{"kind":"class","id":"z","t":"9"}\n',
    b'{"kind":["class"],"id":"z","t":9000}\n', b'{"kind":"class","id":"z","t":9000,"class":{}}\n',
    b'{"kind":"class","id":"z","t":9000,"class":"a","probability":"high"}\n',
    b'{"kind":"class","id":"z","t":9000,"class":"\\ud83d","by":"x"}\n',
    b'{"kind":"class","id":"z","t":9000,"class":"a","by":7}\n', b'{"kind":"note","id":3,"t":9000}\n',
    b'{"kind":"class","id":"z","t":%d,"class":"a"}\n' % 10**30,
    b'{"kind":"redshift","id":"z","t":9000,"redshift":NaN}\n',
    b'{"kind":"class","id":"z","t":9000,"class":"a"',
]  # fmt: skip


@pytest.mark.parametrize("bad", DAMAGED, ids=range(len(DAMAGED)))
def test_a_damaged_line_harms_no_other(bad: bytes) -> None:
    assert not sound(bad)
    assert not sound(LINES[0] + bad + LINES[1])
    assert kept(LINES[0] + bad.rstrip() + b"\n" + LINES[1]).newest == kept(LINES[0] + LINES[1]).newest
    more = addition(b"ztf:5", LINES[0] + bad, [LINES[1]])
    assert more.replace_length == len(LINES[0] + bad)
    assert kept(more.points).newest == kept(LINES[0] + LINES[1]).newest
    assert sound(more.points)
    columns = annotation_columns([LINES[0] + bad], np.array([5 * DAY_MS]))
    assert next(column.values[0] for column in columns if column.spec.name == "annotation_age_days") > 4


def test_every_line_we_write_is_sound() -> None:
    assert sound(b"")
    assert all(sound(one) for one in LINES)
    assert sound(b"".join(LINES))


def test_what_cannot_be_read_is_passed_over() -> None:
    assert kept(b"no\n[]\n{}\n" + LINES[0] + b'{"kind":"class","t":"x').of("class")["class"] == "SN Ia"
    assert kept(b"").last == {}


def test_a_long_string_is_rewritten_with_what_counts() -> None:
    stored = LINES[0] * (MAX_LINES - 1)
    short = addition(b"ztf:5", stored, [LINES[1]])
    assert (short.key, short.points, short.replace_length) == (b"an:{ztf:5}", LINES[1], None)
    long = addition(b"ztf:5", stored, [LINES[1], LINES[3]])
    assert long.replace_length == len(stored)
    assert long.points.count(b"\n") == 2
    assert kept(long.points) == kept(stored + LINES[1] + LINES[3])


def test_columns_of_a_batch() -> None:
    at_ms = np.array([4000 + DAY_MS, 4000 + DAY_MS, 0])
    columns = {c.spec.name: c for c in annotation_columns([b"".join(LINES), b"", LINES[0]], at_ms)}
    assert list(columns) == [spec.name for spec in ANNOTATION_COLUMNS]
    classes = columns["annotation_class"]
    assert [classes.categories[code] if code >= 0 else None for code in classes.values] == [
        "SN II", None, "SN Ia",
    ]  # fmt: skip
    np.testing.assert_array_equal(columns["annotation_age_days"].values, [1.0, np.nan, 0.0])
    assert np.isnan(columns["annotation_redshift"].values).all()


def test_columns_of_objects_of_which_nobody_said_anything() -> None:
    for one, other in zip(annotation_columns([b""] * 3, np.zeros(3)), no_annotations(3), strict=True):
        assert one.spec == other.spec
        np.testing.assert_array_equal(one.values, other.values)
        assert len(one.values) == 3
