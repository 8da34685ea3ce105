"""Bins that keep the order of numbers, an index that behaves like a distance, files that cannot lie."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from broker.drift.histogram import (
    LEAST_KNOWN,
    NULL,
    REFERENCE_FILE,
    WIDTH,
    added,
    bins,
    column_psi,
    counted,
    known,
    null_share,
    psi,
    read_reference,
    reference_bytes,
    smoothed,
)
from broker.errors import BundleError
from broker.training.drift import write_reference

shares = hnp.arrays(np.float64, 8, elements=st.floats(0.0, 1000.0)).map(smoothed)


@given(shares, shares)
def test_the_index_is_zero_for_equals_symmetric_and_never_negative(p: np.ndarray, q: np.ndarray) -> None:  # type: ignore[type-arg]
    assert psi(p, p) == 0.0
    assert psi(p, q) >= 0.0
    assert psi(p, q) == pytest.approx(psi(q, p), rel=1e-9, abs=1e-12)


@given(hnp.arrays(np.float64, 50, elements=st.floats(allow_nan=True, allow_infinity=True)))
def test_bins_keep_the_order_and_nothing_unknown_has_one(values: np.ndarray) -> None:  # type: ignore[type-arg]
    found = bins(values)
    finite = np.isfinite(values)
    assert np.all((found == NULL) == ~finite)
    assert np.all(np.diff(found[finite][np.argsort(values[finite])].astype(int)) >= 0)


def test_a_bin_is_a_sixty_fourth_of_its_power_of_two_wide() -> None:
    edges = np.arange(16.0, 32.0, 0.25)
    assert np.all(np.diff(bins(edges).astype(int)) == 1)
    assert np.array_equal(bins(edges + 0.249), bins(edges))
    assert np.array_equal(bins(-edges).astype(int) + bins(edges), np.full(64, NULL - 1))
    assert len({int(bins(np.array([x]))[0]) for x in (0.0, -0.0, 1e-5, -1e-5)}) == 1
    assert bins(np.array([1e300]))[0] == bins(np.array([1e6]))[0] == NULL - 1


def test_two_samples_of_one_population_have_the_index_that_chance_gives() -> None:
    rng = np.random.default_rng(1)
    reference = counted(["mag"], rng.normal(19.0, 1.0, (40_000, 1)))["mag"]
    found = [
        column_psi(counted(["mag"], rng.normal(19.0, 1.0, (500, 1)))["mag"], reference) for _ in range(300)
    ]
    assert np.mean(found) == pytest.approx(9 * (1 / 500 + 1 / 40_000), rel=0.15)
    shifted = counted(["mag"], rng.normal(18.0, 1.0, (500, 1)))["mag"]
    assert column_psi(shifted, reference) > 0.7


def test_a_value_never_seen_before_counts_and_so_does_one_that_is_always_the_same() -> None:
    always = counted(["n"], np.ones((1000, 1)))["n"]
    other = counted(["n"], np.full((1000, 1), 2.0))["n"]
    assert column_psi(always, always) == 0.0
    assert column_psi(other, always) > 5.0


def test_too_few_known_values_have_no_index_and_nulls_are_a_share_of_all() -> None:
    values = np.full((1000, 1), np.nan)
    values[: LEAST_KNOWN - 1] = 1.0
    few, many = counted(["x"], values)["x"], counted(["x"], np.ones((1000, 1)))["x"]
    assert (known(few), null_share(few)) == (LEAST_KNOWN - 1, 1.0 - (LEAST_KNOWN - 1) / 1000)
    assert np.isnan(column_psi(few, many))
    assert np.isnan(column_psi(many, few))
    assert np.isnan(null_share(np.zeros(WIDTH, dtype=np.int64)))


def test_the_training_sample_of_all_stages_is_one_file_of_a_bundle(tmp_path) -> None:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(2)
    first, second = rng.normal(size=(300, 2)), rng.normal(size=(200, 2))
    path = write_reference(tmp_path, (["a", "b"], first), (["b", "c"], second))
    assert path == tmp_path / REFERENCE_FILE
    found = read_reference(path.read_bytes())
    wanted = added(counted(["a", "b"], first), counted(["b", "c"], second))
    assert {name: known(counts) for name, counts in found.items()} == {"a": 300, "b": 500, "c": 200}
    assert all(np.array_equal(found[name], counts) for name, counts in wanted.items())


def of_grid(grid: int) -> bytes:
    file = io.BytesIO()
    numbers = np.zeros(0, dtype=np.uint32)
    np.savez(file, grid=np.array(grid), names=np.array(["a"]), places=numbers, counts=numbers)
    return file.getvalue()


def outside() -> bytes:
    file = io.BytesIO()
    place, count = np.array([WIDTH], dtype=np.uint32), np.ones(1, dtype=np.uint32)
    np.savez(file, grid=np.array(1), names=np.array(["a"]), places=place, counts=count)
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "cannot be used"),
        (b"no arrays", "cannot be used"),
        (reference_bytes({})[:-30], "cannot be used"),
        (of_grid(2), "grid is of version 2"),
        (outside(), "no histograms"),
    ],
)
def test_a_file_that_is_no_reference_is_refused(content: bytes, words: str) -> None:
    with pytest.raises(BundleError, match=words):
        read_reference(content)
