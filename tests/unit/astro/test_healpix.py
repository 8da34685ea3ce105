"""Cell numbers and centres against cdshealpix, and the two bounds that searches rely on."""

from __future__ import annotations

import astropy.units as u
import cdshealpix.nested as oracle
import numpy as np
import pytest
from astropy.coordinates import Latitude, Longitude

from broker.astro.healpix import CELL_RADIUS_DEG, MAX_ORDER, REACH_PER_RADIAN, cells_of, centre_of, place
from broker.astro.sky import separation_deg

ORDERS = (0, 1, 2, 7, 14, 29)


def positions(n: int = 10_000) -> tuple[np.ndarray, np.ndarray]:
    """All over the sky, and a fifth of them within ten degrees to a milliarcsecond of the poles."""
    rng = np.random.default_rng(6)
    ra, dec = rng.uniform(0, 360, n), np.degrees(np.arcsin(rng.uniform(-1, 1, n)))
    polar = n // 10
    dec[:polar] = 90 - 10 ** rng.uniform(-6.5, 1, polar)
    dec[polar : 2 * polar] = 10 ** rng.uniform(-6.5, 1, polar) - 90
    return ra, dec


@pytest.mark.parametrize("order", ORDERS)
def test_cells_equal_cdshealpix(order: int) -> None:
    ra, dec = positions()
    expected = oracle.lonlat_to_healpix(Longitude(ra * u.deg), Latitude(dec * u.deg), order)
    assert (cells_of(order, ra, dec) == expected.astype(np.int64)).all()


@pytest.mark.parametrize("order", ORDERS)
def test_centres_equal_cdshealpix(order: int) -> None:
    cells = cells_of(order, *positions(2_000))
    lon, lat = oracle.healpix_to_lonlat(cells.astype(np.uint64), order)
    ours = np.array([centre_of(order, cell) for cell in cells.tolist()])
    assert separation_deg(ours[:, 0], ours[:, 1], lon.deg, lat.deg).max() < 1e-12


def test_right_ascension_may_be_any_number_and_nan_has_no_cell() -> None:
    ra, dec = np.array([-10.0, 350.0, 710.0, -1e-20, 0.0]), np.array([5.0, 5.0, 5.0, 0.0, 0.0])
    cells = cells_of(MAX_ORDER, ra, dec).tolist()
    assert len(set(cells[:3])) == 1
    assert cells[3] == cells[4]
    bad = cells_of(MAX_ORDER, np.array([np.nan, 1.0, np.inf, 1.0]), np.array([0.0, np.nan, 0.0, 90.1]))
    assert bad.tolist() == [-1] * 4


@pytest.mark.parametrize("order", range(5))
def test_no_position_is_farther_from_its_cells_centre_than_the_radius(order: int) -> None:
    cells = np.arange(12 * 4**order, dtype=np.uint64)
    lon, lat = oracle.vertices(cells, order, step=8)
    centres = np.array([centre_of(order, cell) for cell in cells.tolist()])
    far = separation_deg(lon.deg, lat.deg, centres[:, :1], centres[:, 1:])
    assert far.max() <= CELL_RADIUS_DEG[order] + 1e-10
    assert far.max() > 0.97 * CELL_RADIUS_DEG[order], "a bound that is not close hides a wrong formula"


def test_a_step_changes_the_place_in_a_base_cell_by_no_more_than_the_reach() -> None:
    ra, dec = positions(20_000)
    rng = np.random.default_rng(7)
    step = 1e-7
    ra2 = ra + step * rng.uniform(-1, 1, len(ra)) / np.maximum(np.cos(np.radians(dec)), 1e-3)
    dec2 = np.clip(dec + step * rng.uniform(-1, 1, len(dec)), -90, 90)
    moved = np.radians(separation_deg(ra, dec, ra2, dec2))
    before = np.array([place(*here) for here in zip(ra, dec, strict=True)])
    after = np.array([place(*here) for here in zip(ra2, dec2, strict=True)])
    same = before[:, 0] == after[:, 0]
    ratio = np.abs(before - after)[same, 1:] / moved[same, None]
    assert same.mean() > 0.99
    assert 1.40 < ratio.max() <= REACH_PER_RADIAN + 1e-5  # differences of 1e-9 keep six digits
