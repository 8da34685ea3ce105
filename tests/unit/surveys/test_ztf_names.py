"""ZTF object names as numbers and back."""

from __future__ import annotations

import numpy as np

from broker.surveys.ztf import int_to_object_id, object_id_to_int


def test_both_ways_for_all_kinds_of_names() -> None:
    rng = np.random.default_rng(1)
    letters = rng.integers(ord("a"), ord("z") + 1, (1000, 7))
    names = [f"ZTF{n % 100:02d}" + "".join(map(chr, row)) for n, row in enumerate(letters.tolist())]
    names += ["ZTF00aaaaaaa", "ZTF99zzzzzzz"]
    numbers = object_id_to_int(names)
    assert int_to_object_id(numbers).tolist() == [name.encode() for name in names]
    assert numbers.min() == 1
    assert numbers.max() == 100 * 26**7 < 2**40
    assert len(set(numbers.tolist())) == len(set(names))


def test_the_order_of_names_is_kept() -> None:
    names = ["ZTF17aaaaaaa", "ZTF17aaaaaab", "ZTF17zzzzzzz", "ZTF18aaaaaaa"]
    assert object_id_to_int(names).tolist() == sorted(object_id_to_int(names).tolist())


def test_what_is_no_name_is_zero() -> None:
    wrong = [
        "",
        "ZTF",
        "ztf18aaaaaaa",
        "ZTF1xaaaaaaa",
        "ZTF18aaaaaa",
        "ZTF18aaaaaaaa",
        "ZTF18AAAAAAA",
        "ÄTF18aaaaaaa",
    ]
    assert object_id_to_int(wrong).tolist() == [0] * len(wrong)
    assert int_to_object_id([0, -5, 100 * 26**7 + 1, 2**62]).tolist() == [b""] * 4


def test_no_names_at_all() -> None:
    assert object_id_to_int(np.zeros(0, dtype="U1")).tolist() == []
    assert int_to_object_id(np.zeros(0, dtype=np.int64)).tolist() == []
