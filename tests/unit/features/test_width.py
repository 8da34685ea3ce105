"""The width of the light curve against shapes whose answer is known, and against plain numpy."""

from __future__ import annotations

import numpy as np
import pytest

from broker.features.catalog import FEATURES, extract
from broker.features.width import COLUMNS
from broker.lightcurves import LightCurves, empty_points

PLACES = [[feature.name for feature in FEATURES].index(name) for name in COLUMNS]


def values(time: np.ndarray, flux: np.ndarray, band: np.ndarray, err: float = 10.0) -> dict[str, float]:
    points = empty_points(len(time))
    points["midpoint_mjd_tai"], points["psf_flux"], points["band"] = 60_000.0 + time, flux, band
    points["psf_flux_err"] = err
    curves = LightCurves(points, np.array([0, len(time)], dtype=np.int64))
    return dict(zip(COLUMNS, extract(curves, 60_000.0 + time[-1:])[0, PLACES].tolist(), strict=True))


def test_a_triangle() -> None:
    """Up in 10 days, down in 40."""
    time = np.arange(0.0, 51.0, 2.0)
    flux = 1e4 * np.where(time <= 10.0, time / 10.0, (50.0 - time) / 40.0)
    found = values(time, flux, np.full(len(time), 2))
    assert found == pytest.approx(
        {
            "rise_50_days": 5.0,
            "rise_75_days": 2.5,
            "fall_75_days": 10.0,
            "fall_50_days": 20.0,
            "fall_25_days": 30.0,
            "fade_15d": -2.5 * np.log10(0.625),
            "fade_30d": -2.5 * np.log10(0.25),
            "width_days": 25.0,
        },
        rel=1e-5,
    )


def test_what_was_not_seen_is_unknown() -> None:
    """A rise alone: how it falls is not told, nor where it began."""
    time = np.arange(5.0)
    found = values(time, 6e3 + 1e3 * time, np.ones(5))
    assert np.isfinite([found["rise_75_days"], found["width_days"]]).all()
    assert np.isnan([found[name] for name in COLUMNS if name not in ("rise_75_days", "width_days")]).all()


def test_the_better_sampled_band_counts() -> None:
    time = np.arange(0.0, 40.0, 1.0)
    flux = 1e4 * np.exp(-np.abs(time - 12.0) / 8.0)
    many = values(time, flux, np.ones(40))
    few = np.repeat([1, 2], [40, 3])
    both = values(np.append(time, [39.2, 39.5, 39.8]), np.append(flux, [5e4, 1e5, 1e2]), few[np.arange(43)])
    assert both == pytest.approx(many, nan_ok=True)


@pytest.mark.parametrize("seed", range(5))
def test_against_plain_numpy(seed: int) -> None:
    rng = np.random.default_rng(seed)
    night = np.sort(rng.choice(60, 25, replace=False)).astype(float)
    time = np.sort(np.concatenate([night, night[::3] + 0.02]))
    flux = 1e4 * np.exp(-0.5 * ((time - 20.0) / 9.0) ** 2) + rng.normal(0.0, 100.0, len(time))
    found = values(time, flux, np.ones(len(time)))
    flux = flux.astype(np.float32).astype(float)
    t = np.array([time[np.abs(time - day) < 0.3].mean() for day in night])
    f = np.array([flux[np.abs(time - day) < 0.3].mean() for day in night])
    top = f.argmax()
    fine = np.linspace(t[top], t[-1], 400_001)
    curve = np.interp(fine, t, f)
    for share, name in ((0.75, "fall_75_days"), (0.5, "fall_50_days"), (0.25, "fall_25_days")):
        assert found[name] == pytest.approx(fine[np.argmax(curve < share * f[top])] - t[top], abs=1e-3)
    fading = -2.5 * np.log10(np.maximum(np.interp(t[top] + 15.0, t, f) / f[top], 0.01))
    assert found["fade_15d"] == pytest.approx(fading, rel=1e-6)
    assert found["width_days"] == pytest.approx(np.trapezoid(np.maximum(f, 0.0), t) / f[top], rel=1e-6)
