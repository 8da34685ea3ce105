"""Period and cycle on stars whose truth is known: aliases, long series, eclipses, any band."""

from __future__ import annotations

import numpy as np
import pytest

from broker.features.cycle import NAMES
from broker.features.gated import GATED_NAMES, compute
from broker.features.harmonics import harmonics_chi2
from broker.features.periodicity import periodogram
from broker.lightcurves import LightCurves, empty_points

REF = 60_000.0


def features(time: np.ndarray, flux: np.ndarray, err: float, band: int = 2) -> dict[str, float]:
    """The expensive features of one star."""
    points = empty_points(len(time))
    points["midpoint_mjd_tai"], points["psf_flux"], points["psf_flux_err"] = REF + time, flux, err
    points["band"] = band
    curves = LightCurves(points, np.array([0, len(points)], dtype=np.int64))
    return dict(zip(GATED_NAMES, compute(curves, np.array([REF]))[0].tolist(), strict=True))


def nights(count: int, span: float, seed: int) -> np.ndarray:
    """Times from one place on the ground: once a night, within four hours."""
    rng = np.random.default_rng(seed)
    return np.sort(-rng.choice(int(span), count, replace=False) + rng.uniform(-0.08, 0.08, count))


def sine(time: np.ndarray, period: float) -> np.ndarray:
    return 1e4 + 3e3 * np.sin(2.0 * np.pi * time / period)


def sawtooth(time: np.ndarray, period: float) -> np.ndarray:
    """A fifth of the cycle up, the rest down, as RR Lyrae stars do."""
    phase = time / period % 1.0
    return 1e4 + 6e3 * np.where(phase < 0.2, phase / 0.2, (1.0 - phase) / 0.8)


def eclipses(time: np.ndarray, period: float, second: float) -> np.ndarray:
    """Two eclipses a cycle, the second one so deep as a fraction of the first."""
    phase = time / period % 1.0
    dips = [np.exp(-0.5 * ((phase - at) / 0.06) ** 2) for at in (0.25, 0.75)]
    return np.asarray(1e4 - 5e3 * (dips[0] + second * dips[1]))


@pytest.mark.parametrize("period", [0.0713, 0.31, 5.37, 431.0])
def test_a_series_of_years_has_its_period_found_by_windows(period: float) -> None:
    time = nights(500, 3000.0, 1)
    f = features(time, sine(time, period) + np.random.default_rng(2).normal(0.0, 300.0, 500), 300.0)
    assert f["period_days"] == pytest.approx(period, rel=1e-4 if period < 100.0 else 5e-3)


@pytest.mark.parametrize("seed", [21, 33])
def test_harmonics_tell_a_period_from_its_alias_of_a_day(seed: int) -> None:
    time = nights(60, 2500.0, seed)
    flux = sawtooth(time, 0.5671) + np.random.default_rng(seed).normal(0.0, 200.0, 60)
    step = 1.0 / (4.0 * np.ptp(time))
    power = periodogram(time, flux, np.ones(60), np.array([0, 60]), step, 1, int(5.0 / step))
    assert abs(1.0 / (step * (1 + power.argmax())) - 0.5671) > 0.1  # the best sinusoid is an alias
    assert features(time, flux, 200.0)["period_days"] == pytest.approx(0.5671, rel=1e-4)


def test_harmonics_are_a_least_squares_fit() -> None:
    rng = np.random.default_rng(3)
    time, err = np.sort(rng.uniform(-90.0, 0.0, 80)), rng.uniform(50.0, 200.0, 80)
    flux, weight = rng.normal(1e3, 400.0, 80), err**-2.0
    turns = 2.0 * np.pi * 0.37 * time
    terms = [np.ones(80), *(wave(k * turns) for k in (1, 2, 3) for wave in (np.cos, np.sin))]
    design = np.stack(terms, axis=1) / err[:, np.newaxis]
    rest = flux / err - design @ np.linalg.lstsq(design, flux / err, rcond=None)[0]
    about_mean = (weight * (flux - np.average(flux, weights=weight)) ** 2).sum()
    assert harmonics_chi2(time, flux, weight, 0.37, 3) == pytest.approx(about_mean - (rest**2).sum())


def test_the_cycle_of_a_sine_is_even() -> None:
    time = np.sort(np.random.default_rng(4).uniform(-200.0, 0.0, 200))
    f = features(time, sine(time, 3.3), 50.0)
    assert f["cycle_power"] == pytest.approx(1.0, abs=1e-3)
    assert f["cycle_level"] == pytest.approx(0.5, abs=0.02)
    assert f["cycle_width"] == pytest.approx(0.5, abs=0.02)
    assert f["cycle_rise"] == pytest.approx(0.5, abs=0.02)
    assert f["cycle_skew"] == pytest.approx(0.0, abs=0.05)
    assert f["cycle_half_ratio"] == pytest.approx(1.0, abs=0.02)
    assert f["cycle_eta"] < 0.01 < f["series_eta"]


def test_a_sawtooth_rises_fast() -> None:
    time = np.sort(np.random.default_rng(5).uniform(-200.0, 0.0, 300))
    f = features(time, sawtooth(time, 0.61), 50.0)
    assert f["cycle_rise"] == pytest.approx(0.25, abs=0.06)


def test_unequal_eclipses_are_seen_at_twice_the_period() -> None:
    time = np.sort(np.random.default_rng(6).uniform(-300.0, 0.0, 400))
    noise = np.random.default_rng(7).normal(0.0, 50.0, 400)
    alike = features(time, eclipses(time, 2.71, 1.0) + noise, 50.0)
    unlike = features(time, eclipses(time, 2.71, 0.7) + noise, 50.0)
    for f in (alike, unlike):
        assert f["period_days"] == pytest.approx(2.71 / 2.0, rel=1e-3)
        assert f["cycle_level"] > 0.6
        assert f["cycle_skew"] < -0.5
    assert alike["cycle_half_ratio"] == pytest.approx(1.0, abs=0.05)
    assert unlike["cycle_half_ratio"] == pytest.approx(0.75, abs=0.1)
    assert unlike["cycle_double_gain"] > 3.0 * alike["cycle_double_gain"]
    assert unlike["cycle_double_eta"] < unlike["cycle_eta"]


@pytest.mark.parametrize("name", [*NAMES, "period_days", "period_power", "fourier_r21", "fourier_phi31"])
def test_neither_band_nor_scale_nor_reference_matters(name: str) -> None:
    time = np.sort(np.random.default_rng(8).uniform(-300.0, 0.0, 150))
    flux = sawtooth(time, 0.61) + np.random.default_rng(9).normal(0.0, 300.0, 150)
    expected = features(time, flux, 300.0)[name]
    assert features(time, flux, 300.0, band=3)[name] == expected
    assert features(time, 4.0 * (flux - 8e3), 1200.0)[name] == pytest.approx(expected, rel=1e-3, abs=1e-4)
