"""Searches of a SkyIndex against astropy, on random, polar and wrapped-around positions."""

from __future__ import annotations

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord

from broker.astro.healpix import separation_one
from broker.astro.sky import separation_deg
from broker.context.match import SkyIndex, sky_order

EDGE_DEG = 1e-9


def everywhere(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A third all over the sky, a third near the poles, a third at base cells' borders."""
    rng = np.random.default_rng(seed)
    third = n // 3
    ra, dec = rng.uniform(0, 360, n), np.degrees(np.arcsin(rng.uniform(-1, 1, n)))
    from_pole = 10 ** rng.uniform(-2.5, 1, third)
    from_pole[:40] *= 1e-4
    dec[:third] = rng.choice([-1, 1], third) * (90 - from_pole)
    seams = slice(third, 2 * third)
    ra[seams] = (rng.choice([0, 45, 90, 180, 270], third) + rng.normal(0, 0.3, third)) % 360
    dec[seams] = rng.choice([0, 41.81, -41.81, 20, -60], third) + rng.normal(0, 0.3, third)
    return ra, dec


@pytest.mark.parametrize("radius_deg", [0.001, 0.02, 1.0, 6.0])
def test_pairs_equal_astropy(radius_deg: float) -> None:
    ra, dec = everywhere(10_000 if radius_deg < 1 else 3_000, seed=1)
    asked_ra, asked_dec = everywhere(10_000 if radius_deg < 1 else 1_000, seed=2)
    index, order = SkyIndex.of(ra, dec)
    starts, rows, separations = index.pairs(asked_ra, asked_dec, radius_deg)
    search = np.repeat(np.arange(len(asked_ra)), np.diff(starts))
    found = search * len(ra) + order[rows]

    there, here = SkyCoord(ra, dec, unit="deg"), SkyCoord(asked_ra, asked_dec, unit="deg")
    first, second, apart, _ = there.search_around_sky(here, (radius_deg + 2 * EDGE_DEG) * u.deg)
    inside = apart.deg < radius_deg - EDGE_DEG
    possible = first * len(ra) + second
    assert inside.sum() > 500
    assert np.isin(possible[inside], found).all()
    assert np.isin(found, possible).all()
    assert len(np.unique(found)) == len(found)
    exact = here[search].separation(there[order[rows]]).deg
    assert np.abs(exact - separations).max() < EDGE_DEG
    assert (index.count(asked_ra, asked_dec, radius_deg) == np.diff(starts)).all()


@pytest.mark.parametrize("radius_deg", [0.002, 0.5, 8.0])
def test_the_nearest_equals_astropy(radius_deg: float) -> None:
    ra, dec = everywhere(10_000, seed=3)
    asked_ra, asked_dec = everywhere(10_000, seed=4)
    index, order = SkyIndex.of(ra, dec)
    rows, separations = index.nearest(asked_ra, asked_dec, radius_deg)
    there, here = SkyCoord(ra, dec, unit="deg"), SkyCoord(asked_ra, asked_dec, unit="deg")
    nearest, apart, _ = here.match_to_catalog_sky(there)
    inside = apart.deg <= radius_deg
    assert np.abs(apart.deg - radius_deg).min() > EDGE_DEG
    assert ((rows >= 0) == inside).all()
    assert np.abs(separations[inside] - apart.deg[inside]).max() < EDGE_DEG
    same = order[rows[inside]] == nearest[inside]
    assert np.abs(here[inside][~same].separation(there[order[rows[inside]]][~same]).deg
                  - apart.deg[inside][~same]).max(initial=0) < EDGE_DEG  # fmt: skip
    assert np.isnan(separations[~inside]).all()
    assert (index.any_within(asked_ra, asked_dec, radius_deg) == inside).all()


def test_a_search_that_cannot_be_answered_is_not_a_miss() -> None:
    index, _ = SkyIndex.of(np.array([10.0]), np.array([20.0]))
    nan = np.nan
    ra = np.array([10.0, nan, 10.0, 10.0, 10.0, 10.0, np.inf, 100.0])
    dec = np.array([20.0, 20.0, nan, 20.0, 20.0, 90.5, 20.0, 20.0])
    radius = np.array([1.0, 1.0, 1.0, nan, -1.0, 1.0, 1.0, 1.0])
    rows, separations = index.nearest(ra, dec, radius)
    assert rows.tolist() == [0] + [-1] * 7
    assert np.isnan(separations).tolist() == [False] + [True] * 7
    assert index.count(ra, dec, radius).tolist() == [1, -1, -1, -1, -1, -1, -1, 0]
    expected = [1, nan, nan, nan, nan, nan, nan, 0]
    np.testing.assert_array_equal(index.any_within(ra, dec, radius), expected)
    assert index.pairs(ra, dec, radius)[0].tolist() == [0] + [1] * 8


def test_edges_are_inside_and_a_radius_of_zero_finds_the_place_itself() -> None:
    ra, dec = everywhere(3_000, seed=5)
    index, order = SkyIndex.of(ra, dec)
    rows, separations = index.nearest(ra, dec, 0.0)
    assert (separations == 0).all()
    assert (ra[order[rows]] == ra).all()
    one, _ = SkyIndex.of(np.array([0.0]), np.array([0.0]))
    exact = float(separation_one(359.5, 0.25, 0.0, 0.0))
    assert one.count(np.array([359.5]), np.array([0.25]), exact).tolist() == [1]
    assert one.count(np.array([359.5]), np.array([0.25]), np.nextafter(exact, 0)).tolist() == [0]


def test_of_equals_the_first_row_is_the_nearest_and_a_count_can_stop() -> None:
    index, order = SkyIndex.of(np.full(100, 33.0), np.full(100, -44.0))
    assert order.tolist() == list(range(100))
    assert index.nearest(np.array([33.0]), np.array([-44.001]), 1.0)[0].tolist() == [0]
    assert index.count(np.array([33.0]), np.array([-44.0]), 1.0).tolist() == [100]
    assert index.count(np.array([33.0]), np.array([-44.0]), 1.0, 7).tolist() == [7]


def test_an_empty_index_and_no_searches() -> None:
    nothing = np.empty(0)
    empty, _ = SkyIndex.of(nothing, nothing)
    assert empty.nearest(np.array([1.0]), np.array([2.0]), 3.0)[0].tolist() == [-1]
    assert len(SkyIndex.of(np.array([1.0]), np.array([2.0]))[0].pairs(nothing, nothing, 1.0)[1]) == 0


def test_mapped_files_are_searched_as_arrays_are(tmp_path) -> None:  # type: ignore[no-untyped-def]
    ra, dec = everywhere(3_000, seed=8)
    order, cells = sky_order(ra, dec)
    for name, values in (("cells", cells), ("ra", ra[order]), ("dec", dec[order])):
        np.save(tmp_path / name, values)
    mapped = SkyIndex(*(np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in ("cells", "ra", "dec")))
    asked = everywhere(500, seed=9)
    in_memory = SkyIndex.of(ra, dec)[0]
    for ours, theirs in zip(mapped.pairs(*asked, 2.0), in_memory.pairs(*asked, 2.0), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    with pytest.raises(ValueError, match="read-only"):
        mapped.cells[0] = 1


def test_a_row_without_a_position_is_refused() -> None:
    with pytest.raises(ValueError, match="row 1 has no position"):
        sky_order(np.array([1.0, np.nan]), np.array([2.0, 2.0]))


def test_one_separation_is_that_of_columns() -> None:
    ra, dec = everywhere(2_000, seed=10)
    ra2, dec2 = everywhere(2_000, seed=11)
    one = [separation_one(*pair) for pair in zip(ra, dec, ra2, dec2, strict=True)]
    np.testing.assert_allclose(one, separation_deg(ra, dec, ra2, dec2), rtol=1e-12)
