"""What another survey knows of an alert's place: one object, if there is one, and its light curve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from broker.astro.photometry import njy_to_mag
from broker.lightcurves import DETECTION, LightCurves, empty_light_curves
from broker.measured import points_with_roles
from broker.table import Column, ColumnSpec, string_column

F64 = npt.NDArray[np.float64]

OTHER_COLUMNS = (
    ColumnSpec("other_survey", "", "survey with an object at the same place, if another has one", "string"),
    ColumnSpec("other_sep_arcsec", "arcsec", "how far that object is from the alert"),
    ColumnSpec("other_n_detections", "", "detections of that object up to the alert, all bands"),
    ColumnSpec("other_age_days", "day", "time since that object's first detection"),
    ColumnSpec("other_last_days", "day", "time since that object's latest detection"),
    ColumnSpec("other_last_mag", "AB mag", "its magnitude; NULL where its flux is not positive"),
)
"""All are NULL where no other survey has an object within reach."""


@dataclass(frozen=True)
class Others:
    """The nearest object of another survey at the place of each of n alerts.

    keys : (n,) its history key, `<survey>:<diaObjectId>`, b"" where there is none
    sep_arcsec : (n,) NaN there;  curves : n light curves up to the alerts' midpoints, empty there
    """

    keys: Sequence[bytes]
    sep_arcsec: F64
    curves: LightCurves

    def surveys(self) -> list[str]:
        """(n,) the object's survey, '' where there is none."""
        return [key.partition(b":")[0].decode() for key in self.keys]


def no_others(count: int) -> Others:
    """Alerts beside which no other survey has an object."""
    return Others([b""] * count, np.full(count, np.nan), empty_light_curves(count))


def other_columns(others: Others, midpoint_mjd_tai: F64) -> list[Column]:
    """The values of OTHER_COLUMNS.  midpoint_mjd_tai : (n,) of the alerts"""
    known = np.isfinite(others.sep_arcsec)
    count, first, last, flux = _detections(others.curves, midpoint_mjd_tai)
    values = [others.sep_arcsec, np.where(known, count, np.nan), -first, -last, njy_to_mag(flux)]
    numbers = [Column(spec, column) for spec, column in zip(OTHER_COLUMNS[1:], values, strict=True)]
    return [string_column(OTHER_COLUMNS[0], others.surveys()), *numbers]


def _detections(curves: LightCurves, midpoint_mjd_tai: F64) -> tuple[F64, F64, F64, F64]:
    """Number of detections, times of the first and last [day, relative to the alert] and its flux [nJy]."""
    points = points_with_roles(curves, midpoint_mjd_tai)
    used = np.flatnonzero(points.role == DETECTION)
    row = np.searchsorted(points.starts, used, side="right") - 1
    count = np.bincount(row, minlength=len(curves)).astype(np.float64)
    first, last, flux = (np.full(len(curves), np.nan) for _ in range(3))
    first[row[::-1]], last[row], flux[row] = points.time[used[::-1]], points.time[used], points.flux[used]
    return count, first, last, flux
