"""Period, fit and random walk against independent oracles, and on light curves whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.timeseries import LombScargle
from scipy.optimize import least_squares

from broker.features.gated import GATED_NAMES, compute
from broker.features.model_fit import fit_bazin
from broker.features.periodicity import best_period, log10_false_alarm, periodogram
from broker.features.random_walk import fit_walk, log_likelihood
from broker.features.series import MAX_POINTS, measured_series
from broker.lightcurves import DETECTION, FLAG_UNUSED, FORCED, LIMIT, LightCurves, Points, empty_points

REF = 60_000.0
Arrays = tuple[np.ndarray, np.ndarray, np.ndarray]


def noisy(seed: int, count: int, span: float = 60.0) -> Arrays:
    """Times, white noise of unequal errors, and the errors."""
    rng = np.random.default_rng(seed)
    err = rng.uniform(50.0, 200.0, count)
    return np.sort(rng.uniform(-span, 0.0, count)), err * rng.normal(size=count), err


def in_points(time: np.ndarray, flux: np.ndarray, err: np.ndarray, band: np.ndarray | int) -> Points:
    points = empty_points(len(time))
    points["midpoint_mjd_tai"], points["psf_flux"], points["psf_flux_err"] = REF + time, flux, err
    points["band"] = band
    return points


def features(points: Points) -> dict[str, float]:
    curves = LightCurves(points, np.array([0, len(points)], dtype=np.int64))
    return dict(zip(GATED_NAMES, compute(curves, np.array([REF]))[0].tolist(), strict=True))


@pytest.mark.parametrize("count", [12, 60, 250])
def test_power_in_one_band_is_astropys(count: int) -> None:
    time, flux, err = noisy(count, count)
    step, grid = 0.003, 2000
    weight = err**-2.0
    centred = flux - (weight * flux).sum() / weight.sum()
    ours = periodogram(time, flux, weight, np.array([0, count]), step, 1, grid) / (weight * centred**2).sum()
    theirs = LombScargle(time, flux, err).power(step * np.arange(1, grid + 1), method="slow")
    np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-9)


def test_power_in_two_bands_is_the_mean_weighted_by_chi2() -> None:
    parts = [noisy(1, 40), noisy(2, 25)]
    step, grid = 0.004, 500
    frequency = step * np.arange(1, grid + 1)
    centred = [flux - np.average(flux, weights=err**-2.0) for _, flux, err in parts]
    chi2 = [(y**2 / err**2).sum() for y, (_, _, err) in zip(centred, parts, strict=True)]
    theirs = sum(
        c * LombScargle(time, flux, err).power(frequency, method="slow")
        for c, (time, flux, err) in zip(chi2, parts, strict=True)
    ) / sum(chi2)
    time, err = (np.concatenate([part[k] for part in parts]) for k in (0, 2))
    flux = np.concatenate([part[1] for part in parts])
    ours = periodogram(time, flux, err**-2.0, np.array([0, 40, 65]), step, 1, grid) / sum(chi2)
    np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("power", [0.05, 0.3, 0.6, 0.95])
def test_false_alarm_probability_of_one_band_is_astropys(power: float) -> None:
    time, flux, err = noisy(3, 80)
    highest = 4.0
    model = LombScargle(time, flux, err)
    theirs = model.false_alarm_probability(power, method="naive", maximum_frequency=highest)
    ours = log10_false_alarm(power, 80, 1, highest * float(np.ptp(time)))
    # astropy counts frequencies up to the last of a grid, which is not quite the highest asked for.
    assert ours == pytest.approx(np.log10(theirs), abs=1e-3)


def test_false_alarm_probability_of_two_bands_is_right_within_a_factor_of_three() -> None:
    """Of 400 series of noise about a tenth should have a peak whose probability is below a tenth."""
    parts = []
    for seed in range(400):
        parts += [noisy(2 * seed, 30, 8.0), noisy(2 * seed + 1, 30, 8.0)]
    starts = 30 * np.arange(len(parts) + 1)
    found = best_period(*(np.concatenate([part[k] for part in parts]) for k in range(3)), starts)
    assert 0.1 / 3 < (found[:, 2] < -1.0).mean() < 0.3


@pytest.mark.parametrize("period", [0.2345, 0.5723, 3.77, 17.3])
def test_a_sawtooth_in_two_bands_has_its_period_and_shape(period: float) -> None:
    rng = np.random.default_rng(7)
    time = np.sort(np.round(rng.uniform(-90, 0, 120)) + rng.normal(0.3, 0.12, 120))
    band = rng.choice([1, 2], 120, p=[0.6, 0.4])
    phase = 2 * np.pi * time / period
    cycle = np.cos(phase) + 0.4 * np.cos(2 * phase + 1.0) + 0.2 * np.cos(3 * phase + 2.0)
    flux = 1000.0 * cycle + np.where(band == 1, 700.0, -300.0) + rng.normal(0, 20, 120)
    f = features(in_points(time, flux, np.full(120, 20.0), band))
    assert f["period_days"] == pytest.approx(period, rel=5e-3)
    assert f["period_log10_fap"] < -20
    assert f["fourier_amplitude"] == pytest.approx(1000.0, rel=0.05)
    assert (f["fourier_r21"], f["fourier_r31"]) == (
        pytest.approx(0.4, abs=0.06),
        pytest.approx(0.2, abs=0.06),
    )
    assert f["fourier_phi21"] == pytest.approx(1.0, abs=0.15)
    assert f["fourier_phi31"] == pytest.approx(2.0, abs=0.3)


def test_the_rhythm_of_the_nights_is_no_period() -> None:
    time = np.sort(-np.arange(60.0) - 0.02 * np.sin(np.arange(60.0)))
    flux = 500.0 * np.sin(2 * np.pi * time * 1.001) + 2000.0
    period = features(in_points(time, flux, np.full(60, 10.0), 1))["period_days"]
    assert np.isnan(period) or all(abs(1.0 / period - k) > 0.019 for k in range(1, 20))


def test_too_few_or_too_short_a_series_has_no_period() -> None:
    time, flux, err = noisy(5, 40, 1.5)
    assert np.isnan(features(in_points(time, flux, err, 1))["period_days"])
    time, flux, err = noisy(5, 9)
    assert np.isnan(features(in_points(time, flux, err, 1))["period_days"])


def bazin(time: np.ndarray, peak: float, rise: float, fall: float) -> np.ndarray:
    """Bazin's function, written as in the paper, scaled to a largest value of one."""
    start = peak - rise * np.log(fall / rise - 1.0)

    def shape(t: np.ndarray) -> np.ndarray:
        return np.exp(-(t - start) / fall) / (1.0 + np.exp(-(t - start) / rise))

    return shape(time) / shape(np.array([peak]))


def transient(rise: float, fall: float, peak: float, seed: int = 1) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    time, band = np.sort(rng.uniform(-60.0, 0.0, 50)), rng.choice([1, 2], 50)
    flux = np.where(band == 1, 5e3, 8e3) * bazin(time, peak, rise, fall) + rng.normal(0, 60, 50)
    return time, flux, np.full(50, 60.0), band


@pytest.mark.parametrize(
    ("rise", "fall", "peak"), [(3.0, 20.0, -30.0), (1.0, 8.0, -20.0), (8.0, 40.0, -25.0)]
)
def test_a_transient_gives_its_times_back(rise: float, fall: float, peak: float) -> None:
    f = features(in_points(*transient(rise, fall, peak)))
    assert f["fit_rise_days"] == pytest.approx(rise, rel=0.15)
    assert f["fit_fall_days"] == pytest.approx(fall, rel=0.15)
    assert f["fit_days_since_peak"] == pytest.approx(-peak, abs=0.6)
    assert f["fit_peak_flux_g"] == pytest.approx(5e3, rel=0.05)
    assert f["fit_peak_flux_r"] == pytest.approx(8e3, rel=0.05)
    assert 0.6 < f["fit_chi2"] < 1.5
    assert f["fit_gain"] > 0.95


@pytest.mark.parametrize("seed", range(6))
def test_no_fit_near_ours_is_better(seed: int) -> None:
    """scipy, started at our solution with free peaks, finds at most a thousandth more."""
    time, flux, err, band = transient(3.0 + seed, 20.0 + 5 * seed, -10.0 * seed, seed)
    order = np.argsort(band, kind="stable")
    time, flux, err, band = time[order], flux[order], err[order], band[order]
    split = int((band == 1).sum())
    fit = fit_bazin(time, flux, err, np.array([0, split, 50]))[0]

    def residuals(x: np.ndarray) -> np.ndarray:
        scale = np.where(np.arange(50) < split, x[3], x[4])
        rise = np.exp(x[1])
        return (flux - scale * bazin(time, x[0], rise, rise * (1.0 + np.exp(x[2])))) / err

    start = [fit[0], np.log(fit[1]), np.log(fit[2] / fit[1] - 1.0), fit[3], fit[4]]
    ours = (residuals(np.array(start)) ** 2).sum()
    assert ours / 45 == pytest.approx(fit[5], rel=1e-6)
    better = 2.0 * least_squares(residuals, start, x_scale=[1.0, 0.1, 0.1, 1e3, 1e3]).cost
    assert ours <= better * 1.001


def test_the_errors_are_those_of_a_full_covariance() -> None:
    """All five parameters at once, by scipy's Jacobian, instead of the peak fluxes projected out."""
    time, flux, err, band = transient(3.0, 20.0, -30.0)
    order = np.argsort(band, kind="stable")
    time, flux, err, band = time[order], flux[order], err[order], band[order]
    split = int((band == 1).sum())
    fit = fit_bazin(time, flux, err, np.array([0, split, 50]))[0]

    def residuals(x: np.ndarray) -> np.ndarray:
        scale = np.where(np.arange(50) < split, x[3], x[4])
        return (flux - scale * bazin(time, x[0], x[1], x[2])) / err

    found = least_squares(residuals, fit[:5], x_scale=[1.0, 1.0, 1.0, 1e3, 1e3], xtol=1e-12, ftol=1e-12)
    covariance = np.linalg.inv(found.jac.T @ found.jac)
    np.testing.assert_allclose(fit[7:], np.sqrt(np.diag(covariance)), rtol=0.03)


def test_the_errors_are_as_large_as_the_scatter() -> None:
    draws = [features(in_points(*transient(3.0, 20.0, -30.0, seed))) for seed in range(60)]
    for name, truth in (("fit_rise_days", 3.0), ("fit_fall_days", 20.0), ("fit_peak_flux_g", 5e3)):
        pulls = np.array([(one[name] - truth) / one[f"{name}_err"] for one in draws])
        assert 0.7 < np.sqrt(np.median(pulls**2) / 0.4549) < 1.4, name


def test_what_was_not_measured_has_no_error() -> None:
    time, flux, err, band = transient(3.0, 20.0, -30.0)
    one_band = features(in_points(time, flux, err, np.ones(50, dtype=np.int64)))
    assert np.isnan(one_band["fit_peak_flux_r_err"])
    assert one_band["fit_peak_flux_g_err"] > 0.0
    few = features(in_points(time[:5], flux[:5], err[:5], band[:5]))
    assert all(np.isnan(few[name]) for name in few if name.endswith("_err"))


def test_a_constant_is_no_transient() -> None:
    time, flux, err = noisy(8, 60)
    assert features(in_points(time, flux + 3000.0, err, 1))["fit_gain"] < 0.5


def walk(tau: float, sigma: float, count: int, seed: int) -> Arrays:
    rng = np.random.default_rng(seed)
    time = np.sort(rng.uniform(-400.0, 0.0, count))
    flux = np.empty(count)
    flux[0] = sigma * rng.normal()
    for i in range(1, count):
        keep = np.exp(-(time[i] - time[i - 1]) / tau)
        flux[i] = keep * flux[i - 1] + sigma * np.sqrt(1 - keep**2) * rng.normal()
    return time, flux + 5e3 + 30.0 * rng.normal(size=count), np.full(count, 30.0)


@pytest.mark.parametrize(("tau", "sigma"), [(1.0, 200.0), (20.0, 500.0), (300.0, 80.0), (0.0, 100.0)])
def test_likelihood_is_that_of_the_dense_covariance(tau: float, sigma: float) -> None:
    time, flux, err = walk(20.0, 400.0, 40, 1)
    lag = np.abs(time[:, None] - time[None, :])
    kernel = np.exp(-lag / tau) if tau > 0 else (lag == 0.0).astype(float)
    covariance = sigma**2 * kernel + np.diag(err**2)
    inverse, ones = np.linalg.inv(covariance), np.ones(40)
    mean = (ones @ inverse @ flux) / (ones @ inverse @ ones)
    rest = flux - mean
    expected = -0.5 * (rest @ inverse @ rest + np.linalg.slogdet(covariance)[1])
    assert log_likelihood(time, flux, err, tau, sigma) == pytest.approx(expected, rel=1e-9)


def test_a_walk_is_told_from_noise_and_has_about_its_relaxation_time() -> None:
    parts = [walk(20.0, 500.0, 200, seed) for seed in range(20)]
    columns = [np.concatenate([part[k] for part in parts]) for k in range(3)]
    starts = np.repeat(200 * np.arange(21), 2)[1:]
    found = fit_walk(*columns, starts)
    assert 10.0 < np.median(found[:, 0]) < 40.0
    assert np.median(found[:, 1]) == pytest.approx(500.0, rel=0.25)
    assert found[:, 2].min() > 10.0
    white = fit_walk(*noisy(3, 200, 400.0), np.array([0, 200, 200]))
    assert white[0, 2] < 5.0


def test_series_hold_the_two_best_bands_of_any_survey_and_forced_points() -> None:
    time = np.sort(np.random.default_rng(1).uniform(-50, -1, 30))
    points = in_points(time, np.full(30, 500.0), np.full(30, 10.0), np.repeat([4, 3, 1], [14, 11, 5]))
    points["kind"] = np.tile([DETECTION, FORCED], 15)
    points["kind"][0] = LIMIT
    points["flags"][1] = FLAG_UNUSED
    points["psf_flux_err"][2] = 0.0
    s = measured_series(LightCurves(points, np.array([0, 30], dtype=np.int64)), np.array([REF]))
    assert s.band.tolist() == [[3, 4]] or s.band.tolist() == [[4, 3]]
    assert np.diff(s.starts).tolist() == [11, 11]


def test_series_are_bounded_to_the_newest_points() -> None:
    count = MAX_POINTS + 40
    _, flux, err = noisy(1, count)
    points = in_points(np.linspace(-60.0, -1.0, count), flux, err, 2)
    s = measured_series(LightCurves(points, np.array([0, count], dtype=np.int64)), np.array([REF]))
    np.testing.assert_array_equal(s.time, (points["midpoint_mjd_tai"] - REF)[-MAX_POINTS:])
