"""Time scales: everything downstream is MJD, TAI, at mid-exposure."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from functools import cache

import erfa
import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

JD_MINUS_MJD = 2400000.5
SECONDS_PER_DAY = 86400.0
UNIX_EPOCH_MJD = 40587.0
_NOON_DAYS = 0.25
"""Nights change at 18:00 UT, by day in California, Hawaii and Chile."""


@cache
def _leap_table() -> tuple[F64, F64]:
    """UTC dates (MJD) at which TAI-UTC steps, and the step's value [s], from the IERS table in ERFA."""
    table = erfa.leap_seconds.get()
    days = [sum(erfa.cal2jd(int(row["year"]), int(row["month"]), 1)) - JD_MINUS_MJD for row in table]
    return np.array(days), np.array(table["tai_utc"], dtype=np.float64)


def tai_minus_utc_s(mjd_utc: F64) -> F64:
    """TAI - UTC at a UTC date: a table of leap seconds, not a constant.

    mjd_utc : (n,) [day, UTC];  returns (n,) [s]; NaN where the date is NaN or before 1960, low by up to
    4 s before 1972, when UTC also drifted.
    """
    days, offsets = _leap_table()
    mjd = np.asarray(mjd_utc, dtype=np.float64)
    row = np.searchsorted(days, mjd, side="right") - 1
    known = (row >= 0) & ~np.isnan(mjd)
    return np.where(known, offsets[np.maximum(row, 0)], np.nan)


def jd_utc_start_to_mjd_tai(jd_utc: F64, exposure_time_s: F64 | float) -> F64:
    """Mid-exposure MJD (TAI) of an exposure whose start is given as a UTC Julian date.

    jd_utc : (n,) [day, UTC];  exposure_time_s : (n,) or scalar [s];  returns (n,) [day, TAI].
    A day has 86400 s here: up to a second off on days that end with a leap second (the last: 2016-12-31).
    """
    mjd = np.asarray(jd_utc, dtype=np.float64) - JD_MINUS_MJD
    return mjd + (tai_minus_utc_s(mjd) + 0.5 * np.asarray(exposure_time_s)) / SECONDS_PER_DAY


def mjd_utc_to_mjd_tai(mjd_utc: F64) -> F64:
    """TAI date of a UTC one.  mjd_utc : (n,) [MJD, UTC];  returns (n,) [MJD, TAI]; NaN in, NaN out."""
    mjd = np.asarray(mjd_utc, dtype=np.float64)
    return mjd + tai_minus_utc_s(mjd) / SECONDS_PER_DAY


def mjd_tai_to_jd_utc_start(mjd_tai: F64, exposure_time_s: F64 | float) -> F64:
    """Inverse of `jd_utc_start_to_mjd_tai`: UTC Julian date of the exposure's start.

    mjd_tai : (n,) [day, TAI];  returns (n,) [day, UTC]. Off by a second within a leap second's own minute.
    """
    mjd = np.asarray(mjd_tai, dtype=np.float64) - 0.5 * np.asarray(exposure_time_s) / SECONDS_PER_DAY
    return mjd - tai_minus_utc_s(mjd - 37.0 / SECONDS_PER_DAY) / SECONDS_PER_DAY + JD_MINUS_MJD


def unix_s_to_mjd_tai(unix_s: F64 | float) -> F64:
    """MJD (TAI) of a Unix time.  unix_s : (n,) [s, UTC];  returns (n,) [day, TAI]."""
    mjd = np.asarray(unix_s, dtype=np.float64) / SECONDS_PER_DAY + UNIX_EPOCH_MJD
    return mjd + tai_minus_utc_s(mjd) / SECONDS_PER_DAY


def mjd_tai_to_unix_s(mjd_tai: F64 | float) -> F64:
    """Unix time of an MJD (TAI).  mjd_tai : (n,) [day, TAI];  returns (n,) [s, UTC]."""
    mjd = np.asarray(mjd_tai, dtype=np.float64)
    utc = mjd - tai_minus_utc_s(mjd - 37.0 / SECONDS_PER_DAY) / SECONDS_PER_DAY
    return (utc - UNIX_EPOCH_MJD) * SECONDS_PER_DAY


def mjd_tai_to_iso(mjd_tai: float) -> str:
    """An MJD (TAI) as people write it, in UTC to the second.

    >>> mjd_tai_to_iso(61000.5)
    '2025-11-21 11:59:23'
    """
    return datetime.fromtimestamp(round(float(mjd_tai_to_unix_s(mjd_tai))), UTC).strftime("%Y-%m-%d %H:%M:%S")


def night_of(midpoint_mjd_tai: F64) -> I64:
    """The night of each exposure: the MJD of the date (UT) on which it ends in the Americas.  Shape (n,).

    >>> night_of(np.array([61000.05, 61000.5, 61000.8])).tolist()
    [61000, 61000, 61001]
    """
    return np.floor(midpoint_mjd_tai + _NOON_DAYS).astype(np.int64)


def night_name(night: int) -> str:
    """A night as people write it, from what `night_of` gives.

    >>> night_name(60324)
    '20240115'
    """
    return (date(1858, 11, 17) + timedelta(days=night)).strftime("%Y%m%d")
