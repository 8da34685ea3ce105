"""in_cone beside astropy, everywhere on the sky."""

from __future__ import annotations

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord

from broker.filters import compile_filter, evaluate
from broker.table import Column, ColumnSpec, Table

SPECS = {name: ColumnSpec(name, "deg", "") for name in ("ra", "dec")}
COUNT = 10_000
EDGE_DEG = 1e-9


def around(ra0: float, dec0: float, radius: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions about a place, half of them beyond the radius."""
    rng = np.random.default_rng(seed)
    distance, angle = rng.uniform(0, 2 * radius, COUNT), rng.uniform(0, 360, COUNT)
    places = SkyCoord(ra0, dec0, unit="deg").directional_offset_by(angle * u.deg, distance * u.deg)
    return np.asarray(places.ra.deg), np.asarray(places.dec.deg)


@pytest.mark.parametrize(
    ("ra0", "dec0", "radius"),
    [
        (187.7, 12.39, 2.0),
        (0.0, -30.0, 1.0),
        (359.9999, 5.0, 0.001),
        (123.0, 90.0, 0.5),
        (10.0, -89.999, 0.01),
        (200.0, 45.0, 80.0),
        (266.4, -29.0, 1 / 3600),
    ],
)
def test_it_is_astropy_s_separation(ra0: float, dec0: float, radius: float) -> None:
    ra, dec = around(ra0, dec0, radius, seed=8)
    table = Table([Column(SPECS["ra"], ra), Column(SPECS["dec"], dec)], COUNT)
    found = evaluate([compile_filter(f"in_cone({ra0}, {dec0}, {radius!r})", SPECS)], table).masks[0]
    there = SkyCoord(ra, dec, unit="deg").separation(SkyCoord(ra0, dec0, unit="deg")).deg
    clear = np.abs(there - radius) > EDGE_DEG
    assert clear.sum() > 0.99 * COUNT
    assert np.array_equal(found[clear], there[clear] < radius)
    assert 0 < found.sum() < COUNT


def test_everywhere_on_the_sky_it_is_astropy_s_separation() -> None:
    rng = np.random.default_rng(9)
    ra, dec = rng.uniform(0, 360, COUNT), np.degrees(np.arcsin(rng.uniform(-1, 1, COUNT)))
    table = Table([Column(SPECS["ra"], ra), Column(SPECS["dec"], dec)], COUNT)
    found = evaluate([compile_filter("in_cone(ra + 0.3, dec * 0.99, 0.5)", SPECS)], table).masks[0]
    there = SkyCoord(ra, dec, unit="deg").separation(SkyCoord(ra + 0.3, dec * 0.99, unit="deg")).deg
    clear = np.abs(there - 0.5) > EDGE_DEG
    assert np.array_equal(found[clear], there[clear] < 0.5)
    assert 0 < found.sum() < COUNT
