"""Star, galaxy or quasar, and the redshift, of a catalogued source by its griz colours.

The sample is SDSS's: spectra of what SDSS chose to take spectra of, mostly brighter than r = 19. So colours
only, never a brightness, and equal shares of the classes are assumed. To be ready for catalogues with gaps, a
share of the objects is shown a second time with one band taken away.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from broker.errors import BrokerError
from broker.scores.calibration import reweighted
from broker.scores.counterpart import (
    BANDS,
    CLASSES,
    COLOURS,
    COUNTERPART_SPECS,
    DISTANT,
    FILE,
    GALAXY,
    QSO,
    QUANTILES,
    STAR,
    Counterpart,
    colours,
    read_counterpart,
    redshift_name,
)
from broker.scores.counterpart import NAME as SERVED_NAME
from broker.training.evaluate import Figure
from broker.training.kinds import KINDS, LINEAR, Kind
from broker.training.sample import Sample, joined
from broker.training.selection import Candidate, Chosen, choose, folds

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
Strings = npt.NDArray[np.str_]

NAME = "counterpart"
INPUTS = COLOURS
SOURCES = ("sdss_star_galaxy",)
TABLE = Path("sdss_star_galaxy", "sdss.parquet")

COVERAGE = 0.8
"""Share of the redshifts that their intervals hold."""
OUTLIER = 0.15
"""A photometric redshift is an outlier where |z_phot - z| / (1 + z) is larger (Ilbert et al. 2006, A&A 457,
841)."""
MAGNITUDE_EDGES = (12.0, 15.0, 16.0, 17.0, 18.0, 19.0, 25.0)
"""Edges of the table's bins in r [mag]."""
_GAPS = 0.35
"""Share of the objects that are shown again without one band."""
_CELL_DEG = 0.01
"""Sources in one cell of the sky this wide are one group: some are in the table twice."""
_SMALL = {
    "trees": (60, 100),
    "learning_rate": (0.07, 0.1, 0.15),
    "num_leaves": (8, 15),
    "feature_fraction": (1.0,),
}
"""The boosted trees' space: every alert pays for each tree, and of three inputs none can be spared."""
_REDSHIFT = {"num_leaves": 15, "learning_rate": 0.12, "min_data_in_leaf": 15}
_REDSHIFT_TREES = 60
_RESAMPLES = 400


@dataclass(frozen=True)
class Catalogue:
    """Objects with magnitudes and spectra.

    mags : (n, 4) griz [mag, SDSS];  the rest (n,): class or '', redshift, place [deg], name, group
    """

    mags: F64
    label: Strings
    redshift: F64
    ra: F64
    dec: F64
    object: Strings
    group: Strings

    def sample(self) -> Sample:
        """The colours as a sample: one state an object."""
        zero = np.zeros(len(self.label), dtype=np.int64)
        return Sample(
            INPUTS,
            colours(self.mags),
            self.label,
            np.full(len(self.label), SOURCES[0]),
            self.object,
            self.group,
            n_points=zero,
            n_nights=zero,
            n_detections=zero,
            age_days=zero.astype(np.float64),
        )


@dataclass(frozen=True)
class Bin:
    """One row of the table: objects of each class with r between two magnitudes.

    completeness  : of the objects of a class, the share that is called so
    contamination : of the objects called so, the share that is not
    """

    faintest: float
    brightest: float
    objects: dict[str, int]
    completeness: dict[str, float]
    contamination: dict[str, float]


@dataclass(frozen=True)
class RedshiftFigures:
    """How good photometric redshifts are; dz = (z_phot - z) / (1 + z).

    scatter  : 1.4826 times the median absolute deviation of dz;  outliers : share beyond OUTLIER
    coverage : share of the true redshifts inside the interval (NaN without one)
    """

    objects: int
    scatter: Figure
    outliers: Figure
    coverage: Figure


@dataclass(frozen=True)
class Report:
    """Everything measured on the test part, which no choice has seen.

    balanced : by way of answering: the promoted model, the baselines and the control that sees brightness
    redshift : by way of answering, then by class
    """

    objects: dict[str, int]
    candidates: list[Candidate]
    balanced: dict[str, Figure]
    table: list[Bin]
    redshift: dict[str, dict[str, RedshiftFigures]]


def load(data: Path) -> Catalogue:
    """The table of a folder laid out like the labelled one.  Raises BrokerError if it cannot be read."""
    path = data / TABLE
    wanted = ["ra", "dec", *(f"{band}_mag" for band in BANDS)]
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise BrokerError(f"cannot read {path}: {error}; give the folder of labelled objects") from None
    missing = [name for name in wanted if name not in table.column_names]
    if missing:
        raise BrokerError(f"{path} lacks the columns {missing}; give the folder of labelled objects")
    ra, dec, *mags = (np.asarray(table[name].to_numpy(), dtype=np.float64) for name in wanted)
    cells = np.stack([np.floor(ra / _CELL_DEG), np.floor(dec / _CELL_DEG)], axis=1).astype(np.int64)
    return Catalogue(
        np.stack(mags, axis=1),
        np.char.lower(_texts(table, "label")),
        _numbers(table, "redshift"),
        ra,
        dec,
        _names(table),
        np.array([f"{x} {y}" for x, y in cells.tolist()], dtype=np.str_),
    )


def samples(data: Path) -> Sample:
    """Colours of every object whose class is known."""
    found = load(data).sample()
    return found.take(np.isin(found.label, CLASSES))


def last_states(data: Path) -> Sample:
    """Colours of every object."""
    return load(data).sample()


def with_gaps(sample: Sample, seed: int) -> Sample:
    """The sample, and some of its objects again without one band, so with one or two colours."""
    rng = np.random.default_rng(seed)
    again = np.flatnonzero(rng.random(len(sample)) < _GAPS)
    band = rng.integers(len(BANDS), size=len(again))
    first = np.arange(len(COLOURS))
    gone = (band[:, None] == first) | (band[:, None] == first + 1)
    repeated = sample.take(again)
    return joined([sample, replace(repeated, features=np.where(gone, np.nan, repeated.features))])


def kinds() -> list[Kind]:
    """A decision tree and boosted trees small enough for a stream."""
    by_name = {kind.name: kind for kind in KINDS}
    boosted = by_name["lightgbm"]
    return [replace(boosted, space={**boosted.space, **_SMALL}), by_name["tree"]]


def train(
    data: Path,
    folder: Path,
    *,
    seed: int = 1,
    budget: int = 8,
    step: Callable[[int, int], None] = lambda done, whole: None,
) -> Report:
    """Fit class and redshift on a folder of labelled objects, write the models, judge them on a test part.

    folder : gets counterpart.json and the models' files;  step : (done, whole) of the search
    """
    whole = load(data)
    labelled = np.flatnonzero(np.isin(whole.label, CLASSES))
    held = folds(whole.group[labelled], whole.label[labelled], seed) == 0
    test, known = labelled[held], labelled[~held]
    development = whole.sample().take(known)
    chosen = choose(
        with_gaps(development, seed), CLASSES, INPUTS, seed=seed, kinds=kinds(), budget=budget, step=step
    )
    shares = np.bincount(development.truth(CLASSES), minlength=len(CLASSES)) / len(development)
    _write(folder, chosen, shares, _fit_redshifts(whole, known, folder, chosen, shares, seed))
    return _report(whole, known, test, read_counterpart(folder), chosen, seed)


def predictions(data: Path, models: Counterpart) -> pa.Table:
    """What the models say of every object of a folder: row, object, probabilities, redshift."""
    whole = load(data)
    answers = models.judge(colours(whole.mags))
    best = np.array(CLASSES)[np.argmax(np.nan_to_num(answers[:, : len(CLASSES)]), axis=1)]
    return pa.table(
        {
            "row": np.arange(len(whole.label)),
            "object": whole.object,
            "ra": whole.ra,
            "dec": whole.dec,
            "label_predicted": np.char.upper(best),
            **{spec.name: answers[:, column] for column, spec in enumerate(COUNTERPART_SPECS)},
        }
    )


def _fit_redshifts(
    whole: Catalogue, known: I64, folder: Path, chosen: Chosen, shares: F64, seed: int
) -> dict[str, tuple[float, float]]:
    """Write the redshifts' models; returns how far each class's intervals have to be widened.

    The widening is what the held-out answers of objects that go this way lack (conformalised quantile
    regression, Romano et al. 2019, NeurIPS 32, each end for itself): quasars taken for galaxies count too.
    """
    folder.mkdir(parents=True, exist_ok=True)
    x, z = colours(whole.mags[known]), np.log1p(whole.redshift[known])
    label, fold = whole.label[known], folds(whole.group[known], whole.label[known], seed)
    usual = reweighted(
        chosen.calibration.probabilities(chosen.held_out[: len(known)]), chosen.calibration.prior, shares
    )
    way = np.where(usual[:, QSO] > usual[:, GALAXY], "qso", "galaxy")
    margins = {}
    for name in DISTANT:
        own = label == name
        low, _, high = _held_out_quantiles(x, z, own, fold, seed)
        judged = (way == name) & (label != CLASSES[STAR])
        margins[name] = (
            _widening((low - z)[judged]),
            _widening((z - high)[judged]),
        )
        for quantile in QUANTILES:
            model = _fit_quantile(x[own], z[own], quantile, seed)
            model.save_model(str(folder / f"{redshift_name(name, quantile)}.txt"))
    return margins


def _held_out_quantiles(x: F64, z: F64, own: npt.NDArray[np.bool_], fold: I64, seed: int) -> tuple[F64, ...]:
    """For each of QUANTILES (n,): answers for everything, fitted to the objects of a class in other folds."""
    found = tuple(np.empty(len(z)) for _ in QUANTILES)
    for held in np.unique(fold):
        rows = own & (fold != held)
        for answers, quantile in zip(found, QUANTILES, strict=True):
            answers[fold == held] = _fit_quantile(x[rows], z[rows], quantile, seed).predict(x[fold == held])
    return found


def _fit_quantile(x: F64, z: F64, quantile: float, seed: int) -> lightgbm.Booster:
    parameters: dict[str, Any] = {
        **_REDSHIFT,
        "objective": "quantile",
        "alpha": quantile,
        "num_threads": 1,
        "seed": seed,
        "deterministic": True,
        "force_col_wise": True,
        "verbose": -1,
    }
    return lightgbm.train(parameters, lightgbm.Dataset(x, z), _REDSHIFT_TREES)


def _widening(short: F64) -> float:
    """By how much to move an end of the intervals outwards for half of what may lie outside.

    short : (m,) by how much the end falls short of the truth, negative where it does not
    """
    level = min(1.0, (1.0 - (1.0 - COVERAGE) / 2.0) * (len(short) + 1) / len(short))
    return float(np.quantile(short, level, method="higher"))


def _write(folder: Path, chosen: Chosen, shares: F64, margins: dict[str, tuple[float, float]]) -> None:
    calibration = chosen.calibration
    chosen.model.save(folder, SERVED_NAME)
    content = {
        "kind": chosen.candidate.kind.name,
        "temperature": calibration.temperature,
        **{name: getattr(calibration, name).tolist() for name in ("bias", "prior", "quantiles")},
        "shares": shares.tolist(),
        "margins": {name: list(both) for name, both in margins.items()},
    }
    (folder / FILE).write_text(json.dumps(content, indent=1) + "\n")


def _report(
    whole: Catalogue, known: I64, test: I64, models: Counterpart, chosen: Chosen, seed: int
) -> Report:
    answers = models.judge(colours(whole.mags[test]))
    said = np.argmax(answers[:, : len(CLASSES)], axis=1)
    truth = whole.sample().take(test).truth(CLASSES)
    calls = {"promoted": said, "majority": np.full(len(test), GALAXY), **_others(whole, known, test, seed)}
    return Report(
        {name: int((truth == number).sum()) for number, name in enumerate(CLASSES)},
        chosen.candidates,
        {name: balanced_accuracy(truth, call, seed) for name, call in calls.items()},
        magnitude_table(whole.mags[test][:, BANDS.index("r")], truth, said),
        _redshift_rows(whole, known, test, truth, answers[:, len(CLASSES) :], seed),
    )


def _others(whole: Catalogue, known: I64, test: I64, seed: int) -> dict[str, I64]:
    """Classes by logistic regression on the colours, and by boosted trees that see the r magnitude too."""
    sample = whole.sample().take(known)
    colour, r = colours(whole.mags), whole.mags[:, [BANDS.index("r")]]
    boosted = {**{name: values[-1] for name, values in kinds()[0].space.items()}, "lambda_l2": 1.0}
    rivals: dict[str, tuple[Kind, dict[str, Any], F64]] = {
        "logistic regression": (LINEAR, {"C": 3.0}, colour),
        "with r magnitude": (kinds()[0], boosted, np.hstack([colour, r])),
    }
    return {
        name: kind.fit(x[known], sample.truth(CLASSES), sample.weights(), len(CLASSES), settings, seed)
        .raw(x[test])
        .argmax(axis=1)
        for name, (kind, settings, x) in rivals.items()
    }


def balanced_accuracy(truth: I64, said: I64, seed: int) -> Figure:
    """Mean over the classes of the share that is called right."""
    right = (truth == said).astype(np.float64)
    present = _present(truth)
    return _figure(
        lambda rows: float(np.mean([right[rows][truth[rows] == k].mean() for k in present])), truth, seed
    )


def magnitude_table(r: F64, truth: I64, said: I64) -> list[Bin]:
    """Completeness and contamination of each class by r magnitude; NaN where there is nothing to count.

    r : (n,) [mag];  truth, said : (n,) index into CLASSES
    """
    rows = []
    for low, high in pairwise(MAGNITUDE_EDGES):
        t, s = (values[(r >= low) & (r < high)] for values in (truth, said))
        per = {name: (t == k, s == k) for k, name in enumerate(CLASSES)}
        rows.append(
            Bin(
                faintest=high,
                brightest=low,
                objects={name: int(is_one.sum()) for name, (is_one, _) in per.items()},
                completeness={name: _share(called[is_one]) for name, (is_one, called) in per.items()},
                contamination={name: _share(~is_one[called]) for name, (is_one, called) in per.items()},
            )
        )
    return rows


def redshift_figures(estimate: F64, truth: F64, seed: int) -> RedshiftFigures:
    """How good redshifts are.  estimate : (n, 3) value, lower and upper end (NaN: none);  truth : (n,)."""
    dz = (estimate[:, 0] - truth) / (1.0 + truth)
    inside = (truth >= estimate[:, 1]) & (truth <= estimate[:, 2])
    held = np.where(np.isnan(estimate[:, 1]), np.nan, inside)
    one = np.zeros(len(truth), dtype=np.int64)
    return RedshiftFigures(
        len(truth),
        _figure(lambda rows: scatter(dz[rows]), one, seed),
        _figure(lambda rows: float(np.mean(np.abs(dz[rows]) > OUTLIER)), one, seed),
        _figure(lambda rows: float(np.mean(held[rows])), one, seed),
    )


def scatter(dz: F64) -> float:
    """1.4826 times the median absolute deviation: the standard deviation, if it were normal.

    >>> round(scatter(np.array([-1.0, 0.0, 1.0, 2.0, 50.0])), 4)
    1.4826
    """
    return float(1.4826 * np.median(np.abs(dz - np.median(dz))))


def _redshift_rows(
    whole: Catalogue, known: I64, test: I64, truth: I64, estimate: F64, seed: int
) -> dict[str, dict[str, RedshiftFigures]]:
    """The models' redshifts, the median of the training sample's, and a plane through the colours."""
    z = whole.redshift
    far = known[whole.label[known] != CLASSES[STAR]]
    plane, *_ = np.linalg.lstsq(_with_one(colours(whole.mags[far])), z[far], rcond=None)
    nothing = np.full((len(test), 2), np.nan)
    ways = {
        "promoted": estimate,
        "median": np.column_stack([np.full(len(test), np.median(z[far])), nothing]),
        "linear": np.column_stack([_with_one(colours(whole.mags[test])) @ plane, nothing]),
    }
    chosen = {"all": truth != STAR, "galaxy": truth == GALAXY, "qso": truth == QSO}
    return {
        way: {
            name: redshift_figures(values[rows & found], z[test][rows & found], seed)
            for name, rows in chosen.items()
        }
        for way, values in ways.items()
        for found in [np.isfinite(values[:, 0])]
    }


def _with_one(x: F64) -> F64:
    return np.column_stack([np.ones(len(x)), x])


def _figure(statistic: Callable[[I64], float], truth: I64, seed: int) -> Figure:
    """A statistic of all rows, and what holds 95 % of its values when rows are drawn again in each class."""
    rng = np.random.default_rng(seed)
    members = [np.flatnonzero(truth == k) for k in _present(truth)]
    draws = [
        statistic(np.concatenate([rng.choice(rows, len(rows)) for rows in members]))
        for _ in range(_RESAMPLES)
    ]
    low, high = np.quantile(draws, [0.025, 0.975])
    return Figure(statistic(np.arange(len(truth))), float(low), float(high))


def _present(truth: I64) -> list[int]:
    return [int(k) for k in np.unique(truth)]


def _share(true: npt.NDArray[np.bool_]) -> float:
    return float(true.mean()) if len(true) else float("nan")


def _texts(table: pa.Table, name: str) -> Strings:
    """A column as text, '' where it is null or not there."""
    if name not in table.column_names:
        return np.full(table.num_rows, "", dtype=np.str_)
    return np.array([str(value or "") for value in table[name].to_pylist()], dtype=np.str_)


def _numbers(table: pa.Table, name: str) -> F64:
    if name not in table.column_names:
        return np.full(table.num_rows, np.nan)
    return np.asarray(table[name].to_numpy(), dtype=np.float64)


def _names(table: pa.Table) -> Strings:
    """The index that the table was saved with, if it was; else the row's number."""
    if "__index_level_0__" in table.column_names:
        return np.array([str(value) for value in table["__index_level_0__"].to_pylist()], dtype=np.str_)
    return np.arange(table.num_rows).astype(np.str_)
