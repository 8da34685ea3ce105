"""When an SN Ia peaks and how bright: quantiles by boosted trees, their intervals made to hold 80 %.

Learnt on ZTF's spectroscopic SNe Ia (ztf_bts_snia) after 3 and more detections; the truth is the peak that
the survey's own catalogue gives (ztf_label_lists). The inputs are safe across surveys: no brightness, count,
limit or error is looked at.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from broker.astro.photometry import njy_err_to_mag_err, njy_to_mag
from broker.astro.times import JD_MINUS_MJD, mjd_utc_to_mjd_tai
from broker.errors import BrokerError
from broker.scores.peak import FILE, LEAST_DETECTIONS, OLDEST_DAYS, QUANTILES, TARGETS, model_name, ordered
from broker.training.explosions import Explosions, after, load
from broker.training.sample import F64, I64, Sample
from broker.training.selection import folds

Mask = npt.NDArray[np.bool_]

NAME = "peak"
SOURCES = ("ztf_bts_snia",)
TRUTH = "ztf_label_lists.parquet"
"""File of the labelled folder with the peaks."""
INPUTS = (
    "age_days", "days_since_peak", "days_since_peak_g", "days_since_peak_r",
    "rise_rate_g", "rise_rate_r", "fade_rate_g", "fade_rate_r", "slope_g", "slope_r",
    "last_to_peak_g", "last_to_peak_r", "amplitude_g", "amplitude_r",
    "color_gr", "color_gr_first", "color_gr_rate", "slope_gr", "slope_gr_nights",
)  # fmt: skip
COUNTS = (3, 4, 5, 6, 7, 8, 10, 12, 15, 20, 30, 50)
"""Detections after which an object is shown to the models."""
JUDGED = (3, 5, 10, 20)
EDGES = (4.0, 6.0, 11.0)
"""Detections at which the next bin of the intervals' margins begins: a peak that is past is known well."""
FARTHEST_DAYS = 60.0
"""Peaks farther from now are not learnt from: the first detections were of something else."""
SETTINGS: dict[str, Any] = {
    "num_leaves": 12, "learning_rate": 0.05, "min_data_in_leaf": 30, "feature_fraction": 0.7,
    "bagging_fraction": 0.7, "bagging_freq": 1, "lambda_l2": 1.0,
}  # fmt: skip
TREES = (100, 200, 100)
"""Of each of the QUANTILES: the margins make up for what the outer ones leave."""
EARLY_WEIGHT, EARLY_DETECTIONS = 4.0, 5
"""States of so few detections count so much more: they are fewer and harder than those past the peak."""
TRUTH_JD = 2_458_000.0
"""Origin of the catalogue's peak times (JD)."""
CURVATURES = (0.001, 0.002, 0.003, 0.004, 0.006, 0.008, 0.012, 0.016, 0.024)
"""Half second derivatives [mag / day^2] that the parabola of the baseline may have by default."""
REACH_DAYS = 30.0
RESAMPLES = 400
LINEAR_INPUTS = ("age_days", "slope_g", "slope_r", "color_gr")


@dataclass(frozen=True)
class Peaks:
    """States of supernovae whose peak is known.

    days : (w,) from the state's last detection to the peak;  change : (w,) magnitude of the peak minus that
    of the brightest detection so far;  owner : (w,) object of `curves`
    """

    sample: Sample
    days: F64
    change: F64
    curves: Explosions
    owner: I64

    def take(self, rows: Mask) -> Peaks:
        """Some of the states."""
        return Peaks(
            self.sample.take(rows), self.days[rows], self.change[rows], self.curves, self.owner[rows]
        )

    def target(self, name: str) -> F64:
        """(w,) one of the TARGETS."""
        return self.days if name == "days" else self.change

    def near(self) -> Mask:
        """(w,) which states models are fitted to."""
        return np.abs(self.days) <= FARTHEST_DAYS

    def learnable(self) -> Peaks:
        """The states that models are fitted to."""
        return self.take(self.near())


@dataclass(frozen=True)
class Fitted:
    """A booster for each of the QUANTILES of each target, and the margins of the outer two."""

    boosters: dict[str, list[lightgbm.Booster]]
    margins: dict[str, F64]

    def predict(self, target: str, sample: Sample) -> F64:
        """(w, 3) median, lower and upper end."""
        low, middle, high = _predict(self.boosters[target], sample.columns(INPUTS)).T
        margin = self.margins[target][bins(sample)]
        return ordered(low - margin[:, 0], middle, high + margin[:, 1])


@dataclass(frozen=True)
class Row:
    """How well one target is told after some detections: median absolute errors on objects not seen.

    gain : (value, low, high) share by which the model's error is smaller than that of `linear`;
    coverage : (value, low, high) share of the 80 % intervals that hold the truth.  Brackets hold 95 %.
    """

    target: str
    detections: int
    objects: int
    model: float
    linear: float
    parabola: float
    typical: float
    gain: tuple[float, float, float]
    coverage: tuple[float, float, float]


def load_peaks(data: Path) -> Peaks:
    """Supernovae after COUNTS detections, where there is an answer.

    Raises BrokerError where the folder has no list of peaks.
    """
    curves = load(data, SOURCES)
    time, mag = _catalogued(data / TRUTH, curves)
    sample = after(curves, COUNTS)
    position = {name: index for index, name in enumerate(curves.object.tolist())}
    owner = np.array([position[name] for name in sample.object.tolist()], dtype=np.int64)
    now = curves.time[curves.starts[owner] + sample.n_points - 1]
    brightest = np.fmin(*sample.columns(("peak_mag_g", "peak_mag_r")).T)
    peaks = Peaks(sample, time[owner] - now, mag[owner] - brightest, curves, owner)
    answered = sample.age_days <= OLDEST_DAYS
    return peaks.take(answered & np.isfinite(peaks.days) & np.isfinite(peaks.change))


def fit(peaks: Peaks, seed: int) -> Fitted:
    """Models of all the states given, their margins from folds that each model did not see.

    The intervals are split-conformal: what the outer quantiles miss on unseen objects is added to them, for
    each number of detections and each end.  Source: Romano, Patterson & Candes 2019, NeurIPS 32.
    """
    x, fold = peaks.sample.columns(INPUTS), folds(peaks.sample.group, peaks.sample.label, seed)
    weight, near = np.where(peaks.sample.n_detections <= EARLY_DETECTIONS, EARLY_WEIGHT, 1.0), peaks.near()
    boosters, margins = {}, {}
    for target in TARGETS:
        y = peaks.target(target)
        unseen = np.empty((len(y), len(QUANTILES)))
        for held in np.unique(fold):
            rows = (fold != held) & near
            unseen[fold == held] = _predict(_boosters(x[rows], y[rows], weight[rows], seed), x[fold == held])
        margins[target] = conformal(unseen[:, 0], unseen[:, 2], y, bins(peaks.sample))
        boosters[target] = _boosters(x[near], y[near], weight[near], seed)
    return Fitted(boosters, margins)


def conformal(low: F64, high: F64, truth: F64, bin_: I64) -> F64:
    """(bins, 2) how much to add at either end so that each is overshot by a tenth of unseen states.

    low, high, truth, bin_ : (w,). Where a bin has no state the margins are those of all.
    """
    share = 1.0 - QUANTILES[0]
    margins = np.empty((len(EDGES) + 1, 2))
    for k in range(len(margins)):
        rows = bin_ == k if (bin_ == k).any() else np.ones(len(truth), dtype=bool)
        level = min(share * (1.0 + 1.0 / rows.sum()), 1.0)
        margins[k] = [np.quantile(miss[rows], level) for miss in (low - truth, truth - high)]
    return margins


def bins(sample: Sample) -> I64:
    """(w,) bin of the margins of each state."""
    return np.searchsorted(np.array(EDGES), sample.n_detections, side="right")


def save(fitted: Fitted, folder: Path) -> None:
    """Write what `broker.scores.peak.load_peak` reads, into the folder of a bundle not yet sealed."""
    content = {
        "inputs": INPUTS,
        "edges": EDGES,
        "margins": {target: margins.tolist() for target, margins in fitted.margins.items()},
    }
    (folder / FILE).write_text(json.dumps(content, indent=1) + "\n")
    for target, boosters in fitted.boosters.items():
        for quantile, booster in zip(QUANTILES, boosters, strict=True):
            booster.save_model(str(folder / f"{model_name(target, quantile)}.txt"))


def train_peak(data: Path, folder: Path, seed: int) -> list[Row]:
    """Write models of all objects into `folder`; judge each object by models of four fifths of the others."""
    peaks = load_peaks(data)
    if len(np.unique(peaks.sample.group)) < len(JUDGED) * 10:
        raise BrokerError(f"{data} has too few {SOURCES[0]} objects with a known peak")
    fold = folds(peaks.sample.group, peaks.sample.label, seed)
    parts = [try_out(peaks.take(fold != held), peaks.take(fold == held), seed) for held in np.unique(fold)]
    save(fit(peaks, seed), folder)
    return [
        summary(target, count, np.concatenate([part[target, count] for part in parts]), seed)
        for target in TARGETS
        for count in JUDGED
        if any(len(part[target, count]) for part in parts)
    ]


def try_out(learnt: Peaks, test: Peaks, seed: int) -> dict[tuple[str, int], F64]:
    """How models and baselines fitted to `learnt` do on `test`, by target and number of detections.

    Each (n, 5): absolute errors of the model, of the linear regression, of the parabola and of the typical
    value, then whether the interval holds the truth (1 or 0).
    """
    fitted = fit(learnt, seed)
    curvature = usual_curvature(learnt.take(learnt.sample.n_points == LEAST_DETECTIONS).learnable())
    found: dict[tuple[str, int], F64] = {}
    for count in JUDGED:
        own = test.take(test.sample.n_points == count)
        known = learnt.take(learnt.sample.n_points == count).learnable()
        vertex = parabolas(own, curvature)
        for place, target in enumerate(TARGETS):
            if not len(own.days) or not len(known.days):
                found[target, count] = np.empty((0, 5))
                continue
            truth, told = own.target(target), fitted.predict(target, own.sample)
            typical = np.full(len(truth), np.median(known.target(target)))
            guesses = np.column_stack([told[:, 0], linear(known, own, target), vertex[:, place], typical])
            inside = (truth >= told[:, 1]) & (truth <= told[:, 2])
            found[target, count] = np.column_stack([np.abs(guesses - truth[:, np.newaxis]), inside])
    return found


def summary(target: str, count: int, tried: F64, seed: int) -> Row:
    """What `try_out` found as a row.  tried : (n, 5)."""
    model, regression, vertex, typical = np.median(tried[:, :4], axis=0).tolist()
    gain = _resampled(partial(_gain, tried[:, 0], tried[:, 1]), len(tried), seed)
    coverage = _resampled(partial(_share, tried[:, 4]), len(tried), seed)
    return Row(target, count, len(tried), model, regression, vertex, typical, gain, coverage)


def linear(known: Peaks, own: Peaks, target: str) -> F64:
    """Least squares on age, slopes and colour (unknown: their median) of states with as many points."""
    names = [name for name in LINEAR_INPUTS if np.isfinite(known.sample.columns([name])).any()]
    columns = known.sample.columns(names)
    median = np.nanmedian(columns, axis=0)
    low, high = np.nanpercentile(columns, [2.0, 98.0], axis=0)

    def design(sample: Sample) -> F64:
        values = sample.columns(names)
        filled = np.clip(np.where(np.isnan(values), median, values), low, high)
        return np.column_stack([np.ones(len(sample)), filled])

    weights, *_ = np.linalg.lstsq(design(known.sample), known.target(target), rcond=None)
    return np.asarray(design(own.sample) @ weights)


def parabolas(peaks: Peaks, curvature: float) -> F64:
    """(w, 2) days to the vertex, and its change of magnitude, of the parabola through each state's points."""
    found = np.empty((len(peaks.days), 2))
    curves = peaks.curves
    for row, (owner, count) in enumerate(zip(peaks.owner, peaks.sample.n_points, strict=True)):
        part = slice(curves.starts[owner], curves.starts[owner] + count)
        mag = njy_to_mag(curves.flux[part])
        vertex = parabola(
            curves.time[part] - curves.time[part][-1],
            mag,
            njy_err_to_mag_err(curves.flux[part], curves.err[part]),
            curves.band[part],
            curvature,
        )
        found[row] = vertex[0], vertex[1] - mag.min()
    return found


def parabola(
    time: F64, mag: F64, err: F64, band: npt.NDArray[np.uint8], curvature: float
) -> tuple[float, float]:
    """Time and magnitude of the vertex of the weighted parabola through points of one or two bands.

    The bands share time and shape, each has its own magnitude. With fewer than two points more than
    parameters, or where the fit opens downwards, it is a straight line plus the usual `curvature`. The vertex
    is sought within REACH_DAYS of the last point, whose time is 0.
    """
    bands = (band[:, np.newaxis] == np.unique(band)).astype(np.float64)
    for order in (2, 1):
        design = np.column_stack([bands, *(time**power for power in range(1, order + 1))])
        if order == 2 and len(time) < design.shape[1] + 2:
            continue
        bent = 0.0 if order == 2 else curvature * time**2
        fit_, *_ = np.linalg.lstsq(design / err[:, np.newaxis], (mag - bent) / err, rcond=None)
        bend = fit_[-1] if order == 2 else curvature
        if bend > 0.0:
            break
    slope = fit_[bands.shape[1]]
    vertex = float(np.clip(-slope / (2.0 * bend), -REACH_DAYS, REACH_DAYS))
    return vertex, float(fit_[: bands.shape[1]].min() + slope * vertex + bend * vertex**2)


def usual_curvature(peaks: Peaks) -> float:
    """The default of `parabola` that tells the time of these peaks best."""
    errors = [np.median(np.abs(parabolas(peaks, value)[:, 0] - peaks.days)) for value in CURVATURES]
    return CURVATURES[int(np.argmin(errors))]


def markdown(rows: list[Row]) -> str:
    """The rows as a table."""
    lines = [
        "| what | after | objects | median error | linear regression | parabola | typical value "
        "| gain | 80 % interval |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        unit, digits = ("d", 2) if row.target == "days" else ("mag", 3)
        numbers = [
            f"{value:.{digits}f} {unit}" for value in (row.model, row.linear, row.parabola, row.typical)
        ]
        shares = [f"{value:.0%} ({low:.0%} to {high:.0%})" for value, low, high in (row.gain, row.coverage)]
        what = "time" if row.target == "days" else "magnitude"
        cells = [what, f"{row.detections} detections", str(row.objects), *numbers, *shares]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _boosters(x: F64, y: F64, weight: F64, seed: int) -> list[lightgbm.Booster]:
    common = {
        "objective": "quantile", "num_threads": 1, "seed": seed, "deterministic": True,
        "force_col_wise": True, "verbose": -1,
    }  # fmt: skip
    data = lightgbm.Dataset(x, y, weight=weight, free_raw_data=False)
    return [
        lightgbm.train({**SETTINGS, **common, "alpha": quantile}, data, trees)
        for quantile, trees in zip(QUANTILES, TREES, strict=True)
    ]


def _predict(boosters: list[lightgbm.Booster], x: F64) -> F64:
    """(w, 3) the quantiles as fitted."""
    return np.column_stack([np.asarray(booster.predict(x, num_threads=1)) for booster in boosters])


def _gain(error: F64, simple: F64, pick: I64) -> float:
    other = float(np.median(simple[pick]))
    return 1.0 - float(np.median(error[pick])) / other if other > 0.0 else np.nan


def _share(inside: F64, pick: I64) -> float:
    return float(inside[pick].mean())


def _resampled(statistic: Callable[[I64], float], count: int, seed: int) -> tuple[float, float, float]:
    """A figure with its 95 % interval when objects, one state each, are drawn again."""
    rng = np.random.default_rng(seed)
    draws = [statistic(rng.integers(count, size=count)) for _ in range(RESAMPLES)]
    low, high = np.nanquantile(draws, [0.025, 0.975])
    return statistic(np.arange(count)), float(low), float(high)


def _catalogued(path: Path, curves: Explosions) -> tuple[F64, F64]:
    """(n,) peak time [MJD, TAI] and magnitude [AB mag] of each object by the label lists, else NaN."""
    try:
        table = pq.read_table(path, columns=["object", "peakt", "peakmag"])
    except (OSError, ValueError) as error:
        raise BrokerError(f"cannot read {path}: {error}; the peaks are learnt from it") from None
    known = {
        row["object"]: (row["peakt"], row["peakmag"])
        for row in table.to_pylist()
        if row["peakt"] is not None and row["peakmag"] is not None
    }
    pairs = np.array([known.get(name, (np.nan, np.nan)) for name in curves.object.tolist()], dtype=np.float64)
    time = np.full(len(curves), np.nan)
    found = np.isfinite(pairs[:, 0])
    time[found] = mjd_utc_to_mjd_tai(pairs[found, 0] + TRUTH_JD - JD_MINUS_MJD)
    return time, pairs[:, 1]
