"""AB magnitudes and fluxes in nJy (1 nJy = AB 31.4, as Rubin defines it)."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from broker.astro.bands import NO_BAND, PASSBANDS

F64 = npt.NDArray[np.float64]
U8 = npt.NDArray[np.uint8]

AB_ZERO_POINT_NJY = 31.4
MAG_PER_LN_FLUX = 2.5 / math.log(10.0)
"""d(mag) / d(ln flux): 1.0857."""
LIMIT_SIGMA = 5.0
"""Significance at which the surveys quote a limiting magnitude."""
NJY_PER_JY = 1e9
NJY_PER_UJY = 1e3


def mag_to_njy(mag: F64 | float) -> F64:
    """Flux of an AB magnitude.  mag : (n,) [AB mag];  returns (n,) [nJy] > 0; NaN in, NaN out."""
    return np.asarray(10.0 ** ((AB_ZERO_POINT_NJY - np.asarray(mag, dtype=np.float64)) / 2.5))


def njy_to_mag(flux: F64 | float) -> F64:
    """AB magnitude of a flux.  flux : (n,) [nJy];  returns (n,) [AB mag]; NaN where flux <= 0 or NaN."""
    flux = np.asarray(flux, dtype=np.float64)
    positive = np.where(flux > 0.0, flux, np.nan)
    return np.asarray(AB_ZERO_POINT_NJY - 2.5 * np.log10(positive))


def mag_err_to_njy_err(flux: F64, mag_err: F64) -> F64:
    """Flux error of a magnitude error, to first order.

    flux : (n,) [nJy, any sign];  mag_err : (n,) [mag];  returns (n,) [nJy] >= 0: |flux| ln(10)/2.5 mag_err.
    """
    return np.asarray(np.abs(flux) * np.asarray(mag_err, dtype=np.float64) / MAG_PER_LN_FLUX)


def njy_err_to_mag_err(flux: F64, flux_err: F64) -> F64:
    """Magnitude error of a flux error, to first order.

    flux, flux_err : (n,) [nJy];  returns (n,) [mag]; NaN where flux is 0 or either is NaN.
    """
    flux = np.asarray(flux, dtype=np.float64)
    return np.asarray(MAG_PER_LN_FLUX * flux_err / np.where(flux == 0.0, np.nan, np.abs(flux)))


def limit_to_njy_err(limiting_mag: F64) -> F64:
    """One-sigma flux error of an image with a 5-sigma limiting magnitude.

    limiting_mag : (n,) [AB mag];  returns (n,) [nJy]; NaN where it is NaN or negative (no meaning).
    """
    mag = np.asarray(limiting_mag, dtype=np.float64)
    return mag_to_njy(np.where(mag >= 0.0, mag, np.nan)) / LIMIT_SIGMA


def njy_err_to_limit(flux_err: F64) -> F64:
    """Five-sigma limiting magnitude of a flux error.  flux_err : (n,) [nJy];  returns (n,) [AB mag]."""
    return njy_to_mag(LIMIT_SIGMA * np.asarray(flux_err, dtype=np.float64))


def vega_to_ab(mag: F64, band: U8) -> F64:
    """AB magnitudes of Vega ones: in J 0.89 fainter, in H 1.37.

    mag : (n,) [Vega mag];  band : (n,) index into BANDS;  returns (n,) [AB mag]; NaN in a band whose Vega
    zero point is not in PASSBANDS.
    """
    return np.asarray(mag, dtype=np.float64) + _AB_MINUS_VEGA[band]


def _ab_minus_vega() -> F64:
    offsets = np.full(NO_BAND + 1, np.nan)
    zero_points = np.array([passband.vega_zero_jy for passband in PASSBANDS])
    offsets[: len(PASSBANDS)] = njy_to_mag(zero_points * NJY_PER_JY)
    return offsets


_AB_MINUS_VEGA = _ab_minus_vega()
