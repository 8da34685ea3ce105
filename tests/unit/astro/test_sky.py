"""Directions against astropy's coordinates."""

from __future__ import annotations

import astropy.units as u
import numpy as np
from astropy.coordinates import BarycentricMeanEcliptic, SkyCoord

from broker.astro.sky import ecliptic_latitude_deg, galactic_latitude_deg, separation_deg

RNG = np.random.default_rng(4)
RA = RNG.uniform(0.0, 360.0, 300)
DEC = np.degrees(np.arcsin(RNG.uniform(-1.0, 1.0, 300)))
SKY = SkyCoord(RA * u.deg, DEC * u.deg)
ARCSEC = 1.0 / 3600.0


def test_separations() -> None:
    other = SKY[::-1]
    expected = SKY.separation(other).deg
    np.testing.assert_allclose(separation_deg(RA, DEC, other.ra.deg, other.dec.deg), expected, atol=1e-9)


def test_small_separations() -> None:
    got = separation_deg(10.0, 80.0, 10.0, 80.0 + 1e-6 * ARCSEC)
    np.testing.assert_allclose(got, 1e-6 * ARCSEC, rtol=1e-3)
    assert separation_deg(359.9999, 0.0, 0.0001, 0.0) < 0.00021
    assert np.isnan(separation_deg(np.nan, 0.0, 0.0, 0.0))


def test_latitudes() -> None:
    assert np.abs(galactic_latitude_deg(RA, DEC) - SKY.galactic.b.deg).max() < ARCSEC
    ecliptic = SKY.transform_to(BarycentricMeanEcliptic(equinox="J2000"))
    assert np.abs(ecliptic_latitude_deg(RA, DEC) - ecliptic.lat.deg).max() < ARCSEC
