"""Magnitudes and fluxes against astropy's units."""

from __future__ import annotations

import astropy.units as u
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from broker.astro.bands import BANDS, band_index
from broker.astro.photometry import (
    limit_to_njy_err,
    mag_err_to_njy_err,
    mag_to_njy,
    njy_err_to_limit,
    njy_err_to_mag_err,
    njy_to_mag,
    vega_to_ab,
)

MAGS = np.linspace(-2.0, 32.0, 200)
ZERO_FLUX = {"J": 1594 * u.Jy, "H": 1024 * u.Jy}
"""Of 2MASS."""


def test_ab_magnitudes_are_astropys() -> None:
    expected = (MAGS * u.ABmag).to_value(u.nJy)
    np.testing.assert_allclose(mag_to_njy(MAGS), expected, rtol=1e-9)
    np.testing.assert_allclose(njy_to_mag(expected), MAGS, atol=1e-9)


def test_no_magnitude_without_a_positive_flux() -> None:
    assert np.isnan(njy_to_mag(np.array([0.0, -5.0, np.nan]))).all()
    assert np.isnan(mag_to_njy(np.nan))


@given(st.floats(-1e9, 1e9).filter(lambda f: abs(f) > 1e-3), st.floats(1e-6, 10.0))
def test_errors_go_both_ways(flux: float, mag_err: float) -> None:
    error = mag_err_to_njy_err(np.array([flux]), np.array([mag_err]))
    assert error[0] > 0.0
    np.testing.assert_allclose(njy_err_to_mag_err(np.array([flux]), error), mag_err, rtol=1e-12)


def test_a_small_error_is_the_slope() -> None:
    flux = mag_to_njy(MAGS)
    slope = (mag_to_njy(MAGS - 1e-6) - mag_to_njy(MAGS + 1e-6)) / 2e-6
    np.testing.assert_allclose(mag_err_to_njy_err(flux, np.full_like(flux, 1.0)), slope, rtol=1e-6)


def test_limits_are_five_sigma() -> None:
    np.testing.assert_allclose(5.0 * limit_to_njy_err(MAGS[MAGS > 0]), mag_to_njy(MAGS[MAGS > 0]))
    np.testing.assert_allclose(njy_err_to_limit(limit_to_njy_err(MAGS[MAGS > 0])), MAGS[MAGS > 0])
    assert np.isnan(limit_to_njy_err(np.array([-1.0, np.nan]))).all()


def test_vega_magnitudes_become_ab_by_the_flux_of_magnitude_0() -> None:
    for name, zero_flux in ZERO_FLUX.items():
        expected = (zero_flux * 10 ** (-0.4 * MAGS)).to_value(u.ABmag)
        band = np.full(len(MAGS), band_index(name), dtype=np.uint8)
        np.testing.assert_allclose(vega_to_ab(MAGS, band), expected, atol=1e-9)


def test_a_band_without_a_vega_zero_point_has_no_magnitude() -> None:
    others = [band_index(name) for name in BANDS if name not in ZERO_FLUX]
    band = np.array([*others, 255], dtype=np.uint8)
    assert np.isnan(vega_to_ab(np.full(len(band), 15.0), band)).all()
