"""Features against the independent `light-curve` package, where the definitions are the same."""

from __future__ import annotations

import light_curve
import numpy as np
import pytest

from broker.features.catalog import FEATURES, extract
from broker.lightcurves import LightCurves, empty_points

ORACLES = {
    "std_flux_g": light_curve.StandardDeviation(),
    "mad_flux_g": light_curve.MedianAbsoluteDeviation(),
    "skew_g": light_curve.Skew(),
    "reduced_chi2_g": light_curve.ReducedChi2(),
    "excess_variance_g": light_curve.ExcessVariance(),
    "von_neumann_g": light_curve.Eta(),
    "stetson_k_g": light_curve.StetsonK(),
    "beyond_1_std_g": light_curve.BeyondNStd(1.0),
    "mean_flux_g": light_curve.WeightedMean(),
    "median_flux_g": light_curve.Median(),
    "range_50_flux_g": light_curve.InterPercentileRange(0.25),
    "range_80_flux_g": light_curve.InterPercentileRange(0.1),
    "percentile_ratio_mid20_g": light_curve.MagnitudePercentageRatio(0.4, 0.05),
    "kurtosis_g": light_curve.Kurtosis(),
    "anderson_darling_g": light_curve.AndersonDarlingNormal(),
    "eta_e_g": light_curve.EtaE(),
    "cusum_g": light_curve.Cusum(),
}


@pytest.mark.parametrize("name", ORACLES)
@pytest.mark.parametrize("count", [4, 30, 200])
def test_flux_features(name: str, count: int) -> None:
    rng = np.random.default_rng(count)
    points = empty_points(count)
    points["midpoint_mjd_tai"] = np.sort(rng.uniform(60_000, 60_100, count))
    points["psf_flux"], points["psf_flux_err"] = rng.gamma(3, 2e3, count), rng.uniform(100, 400, count)
    points["band"] = 1
    matrix = extract(LightCurves(points, np.array([0, count], dtype=np.int64)), np.array([60_100.0]))
    ours = matrix[0, [feature.name for feature in FEATURES].index(name)]
    flux, err = points["psf_flux"].astype(float), points["psf_flux_err"].astype(float)
    # The package keeps its fractions in single precision, which shows in a ratio of quantiles.
    precision = 1e-6 if name.startswith("percentile_ratio") else 1e-9
    assert ours == pytest.approx(ORACLES[name](points["midpoint_mjd_tai"], flux, err)[0], rel=precision)


def test_slope_and_amplitude_of_magnitudes() -> None:
    rng = np.random.default_rng(9)
    points = empty_points(25)
    points["midpoint_mjd_tai"] = np.sort(rng.uniform(60_000, 60_030, 25))
    points["psf_flux"], points["psf_flux_err"], points["band"] = rng.gamma(9, 900, 25), 300.0, 2
    matrix = extract(LightCurves(points, np.array([0, 25], dtype=np.int64)), np.array([60_030.0]))[0]
    value = dict(zip([feature.name for feature in FEATURES], matrix.tolist(), strict=True))
    flux = points["psf_flux"].astype(float)
    mag, err = 31.4 - 2.5 * np.log10(flux), 2.5 / np.log(10) * 300.0 / flux
    time = points["midpoint_mjd_tai"].astype(float)
    slope, slope_err, _ = light_curve.LinearFit()(time, mag, err)
    assert (value["slope_r"], value["slope_r_err"]) == pytest.approx((slope, slope_err), rel=1e-6)
    assert value["amplitude_r"] == pytest.approx(light_curve.Amplitude()(time, mag, err)[0], rel=1e-9)
