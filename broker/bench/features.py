"""What features cost: assembling a light curve and its cheap features, and the expensive ones a row."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from broker.allocator import keep_freed_memory
from broker.features.catalog import extract
from broker.features.catalog import warm_up as warm_up_features
from broker.features.gated import GATED_FAMILIES, extract_gated
from broker.features.series import measured_series
from broker.history.merge import as_known, join_blobs, merge
from broker.history.merge import warm_up as warm_up_merge
from broker.lightcurves import DETECTION, LIMIT, LightCurves, empty_points

F64 = npt.NDArray[np.float64]

BATCH = 500
EXPENSIVE_ROWS = 25
REFERENCE_MJD = 60_000.0


@dataclass(frozen=True)
class Size:
    """Made-up light curves: points an object in g and r, days they span, share of upper limits."""

    label: str
    points: int
    span_days: float
    limits: float


SIZES = (
    Size("30 points, half of them limits", 30, 30.0, 0.5),
    Size("60 points, half of them limits", 60, 30.0, 0.5),
    Size("200 detections a band", 400, 400.0, 0.0),
)


@dataclass(frozen=True)
class FeatureCost:
    """CPU microseconds an alert on one core, in batches of 500, medians over the repeats.

    assembly : merging the stored points with a packet that repeats them and adds one, cut at the alert's time
    cheap    : every feature that is computed for each alert
    kept     : finding that the expensive features of an earlier alert still serve
    computed : each family of expensive features, for a row that is computed anew
    """

    size: Size
    repeats: int
    assembly: float
    cheap: float
    kept: float
    computed: dict[str, float]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"assembly_and_cheap": self.assembly + self.cheap}


def feature_costs(repeats: int) -> list[FeatureCost]:
    """Measure every one of SIZES."""
    keep_freed_memory()  # as a worker does
    warm_up_merge()
    warm_up_features()
    return [_cost(size, repeats) for size in SIZES]


def _cost(size: Size, repeats: int) -> FeatureCost:
    packets = _objects(size)
    rows, ref = np.arange(BATCH), np.full(BATCH, REFERENCE_MJD)
    stored = join_blobs([packets.row(row)[:-1].tobytes() for row in range(BATCH)])
    curves = as_known(merge(stored, packets).curves, rows, ref)
    gated = extract_gated(curves, ref)
    series = measured_series(curves.take(rows[:EXPENSIVE_ROWS]), ref[:EXPENSIVE_ROWS])
    return FeatureCost(
        size,
        repeats,
        _median_us(lambda: as_known(merge(stored, packets).curves, rows, ref), BATCH, repeats),
        _median_us(lambda: extract(curves, ref, None, gated.values), BATCH, repeats),
        _median_us(lambda: extract_gated(curves, ref, gated.blobs, BATCH), BATCH, repeats),
        {
            family.__name__: _median_us(partial(family, series), EXPENSIVE_ROWS, repeats)
            for family in GATED_FAMILIES
        },
    )


@dataclass(frozen=True)
class PacketCost:
    """CPU microseconds an alert, medians over the repeats, for the histories that real packets carry.

    points : median number of points of an alert's light curve;  assembly, cheap : as in FeatureCost
    """

    points: float
    assembly: float
    cheap: float

    @property
    def together(self) -> float:
        """Assembly and the features that are computed for each alert."""
        return self.assembly + self.cheap


def packet_cost(points: LightCurves, ref_mjd: F64, repeats: int) -> PacketCost:
    """What the alerts of packets cost whose every point is stored already.

    points : n rows, as the packets carry them;  ref_mjd : (n,) each alert's own midpoint [MJD, TAI]
    """
    rows = np.arange(len(points))
    stored = join_blobs([points.row(row).tobytes() for row in range(len(points))])
    curves = as_known(merge(stored, points).curves, rows, ref_mjd)
    gated = extract_gated(curves, ref_mjd)
    return PacketCost(
        float(np.median(np.diff(curves.starts))),
        _median_us(lambda: as_known(merge(stored, points).curves, rows, ref_mjd), len(rows), repeats),
        _median_us(lambda: extract(curves, ref_mjd, None, gated.values), len(rows), repeats),
    )


def _objects(size: Size) -> LightCurves:
    """Light curves of BATCH objects, each ending with the alert's own detection at the reference time."""
    rng = np.random.default_rng(1)
    points = empty_points(BATCH * size.points)
    ages = np.sort(rng.uniform(0.0, size.span_days, (BATCH, size.points)))[:, ::-1]
    ages[:, -1] = 0.0
    kinds = np.where(rng.random((BATCH, size.points)) < size.limits, LIMIT, DETECTION)
    kinds[:, -1] = DETECTION
    points["midpoint_mjd_tai"], points["kind"] = REFERENCE_MJD - ages.ravel(), kinds.ravel()
    points["source_id"] = (points["midpoint_mjd_tai"] * 1e9).astype(np.int64)
    points["psf_flux"] = np.where(points["kind"] == LIMIT, np.nan, rng.normal(8e3, 3e3, len(points)))
    points["psf_flux_err"], points["band"] = (
        rng.uniform(200, 900, len(points)),
        rng.integers(1, 3, len(points)),
    )
    return LightCurves(points, size.points * np.arange(BATCH + 1))


def _median_us(call: Callable[[], object], count: int, repeats: int) -> float:
    """Median CPU time of a call, this process's alone, over what it handles [us]."""
    call()
    seconds = []
    for _ in range(repeats):
        start = time.thread_time()
        call()
        seconds.append(time.thread_time() - start)
    return statistics.median(seconds) / count * 1e6
