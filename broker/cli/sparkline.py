"""A light curve in a few characters."""

from __future__ import annotations

import numpy as np

from broker.astro.bands import BANDS
from broker.lightcurves import FLAG_WITHDRAWN, LIMIT, LightCurves

_BLOCKS = "▁▂▃▄▅▆▇█"
_WIDTH = 30


def sparkline(curve: LightCurves) -> str:
    """Mean flux in equal steps of time, a line a band, each from its faintest to its brightest."""
    points = curve.points
    used = (
        (points["kind"] != LIMIT)
        & ((points["flags"] & FLAG_WITHDRAWN) == 0)
        & np.isfinite(points["psf_flux"])
    )
    points = points[used]
    if len(points) == 0:
        return ""
    time = points["midpoint_mjd_tai"]
    span = float(np.ptp(time))
    step = np.minimum(_WIDTH - 1, (time - time.min()) / (span or 1.0) * _WIDTH).astype(np.int64)
    lines = []
    for number, band in enumerate(BANDS):
        own = points["band"] == number
        if own.any():
            lines.append(f"{band} {_line(step[own], points['psf_flux'][own].astype(np.float64))}")
    return "\n".join([*lines, f"  {span:.1f} days"])


def _line(
    step: np.ndarray[tuple[int], np.dtype[np.int64]], flux: np.ndarray[tuple[int], np.dtype[np.float64]]
) -> str:
    count = np.bincount(step, minlength=_WIDTH)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(step, flux, _WIDTH) / count
    low, high = np.nanmin(mean), np.nanmax(mean)
    level = np.nan_to_num((mean - low) / ((high - low) or 1.0) * (len(_BLOCKS) - 1)).round().astype(np.int64)
    return "".join(
        _BLOCKS[value] if there else " " for value, there in zip(level, count, strict=True)
    ).rstrip()
