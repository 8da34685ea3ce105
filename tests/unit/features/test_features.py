"""Values of features on light curves simple enough to know the answer."""

from __future__ import annotations

import doctest
import importlib

import numpy as np
import pytest

from broker.features.catalog import FEATURES, extract, warm_up
from broker.lightcurves import (
    DETECTION,
    FLAG_UNUSED,
    FLAG_WITHDRAWN,
    FORCED,
    LIMIT,
    LightCurves,
    Points,
    empty_points,
)

G, R, INFRARED = 1, 2, 3
Row = tuple[float, float, float, int, int]


def light_curve(*points: Row) -> Points:
    """Points from (time, flux, error, band, kind), in order of time."""
    made = empty_points(len(points))
    for index, (time, flux, err, band, kind) in enumerate(sorted(points, key=lambda p: (p[0], p[4]))):
        made[index] = (time, index + 1, flux, err, 0, band, kind, 0)
    return made


def features(points: Points, ref: float = 0.0) -> dict[str, float]:
    curves = LightCurves(points, np.array([0, len(points)], dtype=np.int64))
    values = extract(curves, np.array([ref]))[0]
    return {feature.name: value for feature, value in zip(FEATURES, values.tolist(), strict=True)}


def njy(mag: float) -> float:
    return float(10 ** ((31.4 - mag) / 2.5))


def detection(time: float, mag: float, band: int, snr: float = 20.0) -> Row:
    return time, njy(mag), njy(mag) / snr, band, DETECTION


def test_a_rise_of_a_tenth_of_a_magnitude_a_day() -> None:
    f = features(light_curve(*(detection(-t, 18.0 + 0.1 * t, G) for t in range(6))))
    assert f["rise_rate_g"] == pytest.approx(0.1, abs=1e-4)
    assert f["slope_g"] == pytest.approx(-0.1, abs=1e-4)
    # Equal errors of 1.0857/20 mag at 6 daily epochs: sum (t - 2.5)^2 = 17.5.
    assert f["rise_rate_g_err"] == pytest.approx(2.5 / np.log(10) / 20 / np.sqrt(17.5), rel=1e-4)
    assert np.isnan(f["fade_rate_g"])
    assert np.isnan(f["rise_rate_r"])
    assert (f["peak_mag_g"], f["age_days"], f["days_since_peak"]) == (pytest.approx(18.0, abs=1e-5), 5.0, 0.0)


def test_a_decline_after_the_peak() -> None:
    mags = {-8: 19.0, -6: 18.0, -4: 18.2, -2: 18.4, 0: 18.6}
    f = features(light_curve(*(detection(t, mag, R) for t, mag in mags.items())))
    assert f["rise_rate_r"] == pytest.approx(0.5, abs=1e-4)
    assert f["fade_rate_r"] == pytest.approx(0.1, abs=1e-4)
    assert f["days_since_peak_r"] == 6.0
    assert f["last_to_peak_r"] == pytest.approx(10 ** (-0.4 * 0.6), rel=1e-5)
    assert f["amplitude"] == pytest.approx(0.5, abs=1e-5)


def test_rates_need_a_span() -> None:
    f = features(light_curve(detection(0.0, 18.0, G), detection(-0.005, 18.5, G)))
    assert np.isnan(f["rise_rate_g"])


def test_nights_are_gaps_not_dates() -> None:
    times = (-2.02, -2.0, -1.0, -0.6, 0.0)
    assert features(light_curve(*(detection(t, 18.0, G) for t in times)))["n_nights"] == 3.0


def test_other_bands_count_where_no_band_is_named() -> None:
    f = features(light_curve(detection(-3.0, 18.0, INFRARED), detection(0.0, 19.0, G)))
    assert (f["n_detections"], f["n_det_g"], f["n_det_r"], f["age_days"]) == (2.0, 1.0, 0.0, 3.0)
    assert f["days_since_peak"] == 3.0


def test_last_limit_is_before_the_first_detection() -> None:
    limits = [(t, np.nan, njy(mag) / 5.0, G, LIMIT) for t, mag in ((-9.0, 20.0), (-7.0, 20.5), (-2.0, 21.0))]
    f = features(light_curve(*limits, detection(-4.0, 19.0, R), detection(0.0, 18.5, R)))
    assert f["last_limit_mag"] == pytest.approx(20.5, abs=1e-5)
    assert f["last_limit_age_days"] == 7.0


def test_a_forced_point_below_three_sigma_is_a_limit() -> None:
    forced = [(-6.0, 20.0, 10.0, G, FORCED), (-5.0, 200.0, 10.0, G, FORCED)]
    f = features(light_curve(*forced, detection(0.0, 19.0, G)))
    assert f["last_limit_age_days"] == 6.0
    assert f["n_forced"] == 2.0
    assert f["forced_snr_before"] == pytest.approx(22.0 / np.sqrt(2.0))


def test_one_measurement_an_exposure() -> None:
    same = 5e-5
    f = features(
        light_curve(
            (-1.0, 900.0, 10.0, G, FORCED),  # just before its detection
            (-1.0 + same, 1000.0, 10.0, G, DETECTION),
            (0.0, 1200.0, 10.0, G, DETECTION),
            (0.0 + same, 1100.0, 10.0, G, FORCED),
            (0.0, 700.0, 10.0, R, FORCED),  # another band is another exposure
        )
    )
    assert (f["n_detections"], f["n_forced"]) == (2.0, 1.0)
    assert (f["min_flux_g"], f["max_flux_g"]) == (1000.0, 1200.0)


@pytest.mark.parametrize("flag", [FLAG_UNUSED, FLAG_WITHDRAWN])
def test_flagged_points_are_not_used(flag: int) -> None:
    points = light_curve(detection(-1.0, 15.0, G), detection(0.0, 19.0, G))
    points["flags"][0] = flag
    f = features(points)
    assert (f["n_detections"], f["age_days"]) == (1.0, 0.0)


def test_a_withdrawn_detection_leaves_its_forced_point() -> None:
    points = light_curve((0.0, 900.0, 10.0, G, FORCED), (0.0, 1000.0, 10.0, G, DETECTION))
    points["flags"][points["kind"] == DETECTION] = FLAG_WITHDRAWN
    assert features(points)["n_forced"] == 1.0


def test_negative_flux_has_no_magnitude() -> None:
    f = features(light_curve((-1.0, -500.0, 10.0, G, DETECTION), (0.0, -400.0, 10.0, G, DETECTION)))
    assert f["frac_negative"] == 1.0
    assert f["max_snr_g"] == 50.0
    assert all(np.isnan(f[name]) for name in ("peak_mag_g", "amplitude_g", "slope_g", "last_to_peak_g"))


def test_colour_of_the_latest_night_with_both_bands() -> None:
    f = features(
        light_curve(
            detection(-10.0, 18.0, G),
            detection(-9.98, 18.1, R),
            detection(-2.0, 18.9, G),
            detection(-1.99, 18.5, R),
            detection(0.0, 18.4, R),
        )
    )
    assert f["color_gr"] == pytest.approx(0.4, abs=1e-5)
    assert f["color_gr_gap_days"] == pytest.approx(0.01)
    assert f["color_gr_first"] == pytest.approx(-0.1, abs=1e-5)
    assert f["color_gr_rate"] == pytest.approx(0.5 / 7.995, rel=1e-4)
    assert f["color_gr_err"] == pytest.approx(np.sqrt(2) * 2.5 / np.log(10) / 20, rel=1e-4)


def test_colour_of_the_closest_pair_when_no_night_has_both() -> None:
    f = features(light_curve(detection(-9.0, 18.0, G), detection(-6.0, 18.5, R), detection(-1.0, 19.0, R)))
    assert f["color_gr"] == pytest.approx(-0.5, abs=1e-5)
    assert f["color_gr_gap_days"] == 3.0
    assert np.isnan(f["color_gr_rate"])


def test_no_time_no_features() -> None:
    points = light_curve(detection(0.0, 18.0, G))
    assert features(points, ref=np.nan)["n_detections"] == 0.0


def test_warm_up_runs() -> None:
    warm_up()


@pytest.mark.parametrize(
    "family", ["brightness", "cadence", "colour", "measurements", "shape", "variability"]
)
def test_doctests(family: str) -> None:
    module = importlib.import_module(f"broker.features.{family}")
    finder, runner = doctest.DocTestFinder(), doctest.DocTestRunner()
    for function in vars(module).values():
        python = getattr(function, "py_func", None)  # doctest does not look inside compiled functions
        if python is not None and python.__module__ == module.__name__:
            for example in finder.find(python, globs={**vars(module)}):
                assert runner.run(example).failed == 0


def test_of_both_bands_the_mean_slope_and_the_larger_rest() -> None:
    blue = [detection(-t, 18.0 + 0.1 * t, G) for t in range(4)]
    red = [detection(-t, 18.0 - 0.3 * t, R, snr=40.0) for t in range(4)]
    one, both = features(light_curve(*blue)), features(light_curve(*blue, *red))
    assert one["slope"] == one["slope_g"]
    assert both["slope"] == pytest.approx(0.5 * (-0.1 + 0.3), abs=1e-4)
    assert both["last_to_peak"] == both["last_to_peak_g"] == 1.0
    assert both["reduced_chi2"] == both["reduced_chi2_r"] > both["reduced_chi2_g"]
