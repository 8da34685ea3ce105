"""Time scales against astropy's."""

from __future__ import annotations

import erfa
import numpy as np
from astropy.time import Time

from broker.astro.times import (
    jd_utc_start_to_mjd_tai,
    mjd_tai_to_jd_utc_start,
    mjd_tai_to_unix_s,
    mjd_utc_to_mjd_tai,
    tai_minus_utc_s,
    unix_s_to_mjd_tai,
)

MILLISECOND = 1e-3 / 86400.0
LEAP_2017 = 57754.0
"""2017-01-01, after the latest leap second so far [MJD, UTC]."""


def _ordinary(mjd: np.ndarray) -> np.ndarray:
    """Without the days that end with a leap second: ERFA stretches those by 1/86400, we do not."""
    offset = np.vectorize(lambda day: erfa.dat(*erfa.jd2cal(2400000.5, day)[:3], 0.0))
    day = np.floor(mjd)
    return mjd[offset(day) == offset(day + 1)]


def _dates() -> np.ndarray:
    """MJD from 1972 to 2026 (ERFA warns of later ones), and the seconds after a step."""
    after = LEAP_2017 + np.array([0.0, 0.5, 1.0, 40.0]) / 86400.0
    return np.concatenate([_ordinary(np.random.default_rng(2).uniform(41317.0, 61400.0, 500)), after])


def test_tai_minus_utc_steps_with_the_leap_seconds() -> None:
    assert tai_minus_utc_s(np.array([41317.0, LEAP_2017 - 1e-6, LEAP_2017, 61000.0])).tolist() == [
        10,
        36,
        37,
        37,
    ]
    assert np.isnan(tai_minus_utc_s(np.array([np.nan, 0.0]))).all()


def test_mid_exposure_is_astropys() -> None:
    jd = _dates() + 2400000.5
    exposure = np.linspace(1.0, 300.0, len(jd))
    start = Time(jd, np.zeros_like(jd), format="jd", scale="utc").tai.mjd
    got = jd_utc_start_to_mjd_tai(jd, exposure)
    assert np.abs(got - (start + exposure / 2 / 86400.0)).max() < MILLISECOND


def test_a_tai_date_is_astropys() -> None:
    mjd = _dates()
    expected = Time(mjd, np.zeros_like(mjd), format="mjd", scale="utc").tai.mjd
    assert np.abs(mjd_utc_to_mjd_tai(mjd) - expected).max() < MILLISECOND
    assert np.isnan(mjd_utc_to_mjd_tai(np.array([np.nan]))).all()


def test_the_way_back() -> None:
    jd = _dates() + 2400000.5
    back = mjd_tai_to_jd_utc_start(jd_utc_start_to_mjd_tai(jd, 30.0), 30.0)
    assert np.abs(back - jd).max() < 1.01 / 86400.0  # in the leap second itself
    away = np.abs(jd - 2400000.5 - LEAP_2017) > 2.0 / 86400.0
    assert np.abs(back - jd)[away].max() < MILLISECOND


def test_unix_times_are_astropys() -> None:
    unix = (_ordinary(np.linspace(41800.0, 61300.0, 500)) - 40587.0) * 86400.0
    assert np.abs(unix_s_to_mjd_tai(unix) - Time(unix, format="unix").tai.mjd).max() < MILLISECOND
    assert np.abs(mjd_tai_to_unix_s(unix_s_to_mjd_tai(unix)) - unix).max() < 1e-3
