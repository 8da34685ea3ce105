"""Features against the independent `light-curve` package, where the definitions are the same."""

from __future__ import annotations

import light_curve
import numpy as np
import pytest

from broker.features.catalog import FEATURES, extract
from broker.features.measurements import Reference
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


TOTAL_ORACLES = {
    "total_std": light_curve.StandardDeviation(),
    "total_range_90": light_curve.InterPercentileRange(0.05),
    "total_skew": light_curve.Skew(),
    "total_amplitude": light_curve.Amplitude(),
}


@pytest.mark.parametrize("name", TOTAL_ORACLES)
@pytest.mark.parametrize("count", [4, 30, 200])
def test_total_magnitudes(name: str, count: int) -> None:
    """Two fluxes that the reference does not lift above nothing are left out."""
    rng = np.random.default_rng(count)
    points = empty_points(count)
    points["midpoint_mjd_tai"] = np.sort(rng.uniform(60_000, 60_100, count))
    points["psf_flux"], points["psf_flux_err"], points["band"] = rng.normal(0, 2e3, count), 300.0, 2
    points["psf_flux"][-2:] = -2e4
    curves = LightCurves(points, np.array([0, count], dtype=np.int64))
    reference = Reference(np.array([2], dtype=np.uint8), np.array([1.5e4]))
    matrix = extract(curves, np.array([60_100.0]), reference)
    ours = matrix[0, [feature.name for feature in FEATURES].index(name)]
    if count == 4 and name == "total_skew":
        assert np.isnan(ours)  # of two magnitudes
        return
    mag = 31.4 - 2.5 * np.log10(points["psf_flux"][:-2].astype(float) + 1.5e4)
    expected = TOTAL_ORACLES[name](points["midpoint_mjd_tai"][:-2], mag, np.ones(count - 2))[0]
    assert ours == pytest.approx(expected, rel=1e-6)


def test_level_of_the_median_in_its_range() -> None:
    points = empty_points(101)
    points["midpoint_mjd_tai"] = 60_000.0 + np.arange(101)
    mag = np.concatenate([np.linspace(15.0, 15.5, 51), np.linspace(15.52, 16.5, 50)])
    points["psf_flux"], points["psf_flux_err"], points["band"] = 10 ** (0.4 * (31.4 - mag)), 300.0, 2
    curves = LightCurves(points, np.array([0, 101], dtype=np.int64))
    reference = Reference(np.array([2], dtype=np.uint8), np.zeros(1))
    value = dict(
        zip([f.name for f in FEATURES], extract(curves, np.array([60_101.0]), reference)[0], strict=True)
    )
    assert value["total_level_90"] == pytest.approx((15.5 - 15.0455) / (16.409 - 15.0455), abs=0.005)
    assert value["total_level_96"] == pytest.approx((15.5 - 15.0152) / (16.469 - 15.0152), abs=0.005)
