"""Learn without labels: principal components, an autoencoder, and what both are worth against labels."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import roc_auc_score
from sklearn.neural_network import MLPRegressor

from broker.embedding_map import MapPoints, draw_map, flatten
from broker.scores.embedding import DIMENSIONS, LEAST_KNOWN, Space, save_embedding
from broker.training.anomaly import ANOMALY_INPUTS, grow
from broker.training.card import flow
from broker.training.evaluate import INTERVAL, Figure
from broker.training.selection import FOLDS, folds

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Strings = npt.NDArray[np.str_]

EMBEDDING_INPUTS = (
    # No magnitudes, counts or times: they say how far an object is and how it was observed. What is given
    # for both bands together is known sooner than for each.
    "rise_rate_g", "rise_rate_r", "fade_rate_g", "fade_rate_r", "slope_g", "slope_r", "slope", "slope_gr",
    "last_to_peak_g", "last_to_peak_r", "last_to_peak", "amplitude_g", "amplitude_r", "amplitude", "skew_g",
    "skew_r", "excess_variance_g", "excess_variance_r", "von_neumann_g", "von_neumann_r", "stetson_k_g",
    "stetson_k_r", "stetson_j", "color_gr", "color_gr_first", "color_gr_rate", "frac_negative", "width_days",
    "cusum_g", "cusum_r", "reduced_chi2",
)  # fmt: skip
HIDDEN = (24, DIMENSIONS, 24)
"""Units of the network's layers; the middle one is as narrow as the embedding."""
PENALTY = 1e-3
EPOCHS = 200
LEAST_OBJECTS = 50
"""With fewer nothing is fitted."""
LEAST_OF_CLASS = 5
"""Classes with fewer objects are not judged."""
NEIGHBOURS = 5
USUAL = "SNIa"
"""The class that others are set against: the most frequent one."""
MAP_FILE = "embedding-map.png"
_KNOTS = 2001
_RESAMPLES = 300


@dataclass(frozen=True)
class Area:
    """How well two scores put objects of a class above SNe Ia: areas under the ROC curve, 0.5 by chance."""

    name: str
    objects: int
    forest: Figure
    error: Figure


@dataclass(frozen=True)
class Purity:
    """Share of the NEIGHBOURS nearest labelled objects that are of the same class, and by chance."""

    name: str
    objects: int
    share: Figure
    chance: float


@dataclass(frozen=True)
class Report:
    """What the embedding and the reconstruction error are worth; all on objects not fitted to.

    objects, rows : with enough known;  left_out : objects that never have
    explained : (DIMENSIONS,) share of the variance that the first d components explain
    linear, network : mean squared error of a redrawn input by DIMENSIONS components and by the autoencoder
    agreement : rank correlation of the reconstruction error with the forest's anomaly
    forest_counts, error_counts : rank correlation of each with the number of inputs that are known
    usual : objects of class USUAL;  map : each object in two dimensions
    """

    objects: int
    rows: int
    left_out: int
    explained: F64
    linear: Figure
    network: Figure
    agreement: Figure
    forest_counts: Figure
    error_counts: Figure
    usual: int
    areas: list[Area]
    purities: list[Purity]
    balanced: Purity
    map: MapPoints

    def draw(self, folder: Path) -> None:
        """The map as an image; needs matplotlib."""
        draw_map(folder / MAP_FILE, self.map, "by published label")

    def markdown(self) -> str:
        """A section of the report."""
        return "\n\n".join(_paragraphs(self)) + "\n"


def train_embedding(
    names: Sequence[str],
    matrix: F64,
    groups: Strings,
    labels: Strings,
    folder: Path,
    seed: int,
    *,
    inputs: tuple[str, ...] = EMBEDDING_INPUTS,
    forest_inputs: tuple[str, ...] = ANOMALY_INPUTS,
) -> Report | None:
    """Fit the embedding and the autoencoder, and write them into a bundle's folder before it is sealed.

    names  : (k,) of the matrix's columns;  matrix : (w, k) states of objects, NaN where unknown
    groups : (w,) object;  labels : (w,) published label, '' if unknown: looked at for the report alone
    Returns None and writes nothing where fewer than LEAST_OBJECTS objects have enough known.
    """
    position = {name: place for place, name in enumerate(names)}
    columns = matrix[:, [position[name] for name in inputs]]
    enough = np.isfinite(columns).sum(axis=1) >= LEAST_KNOWN
    objects = len(np.unique(groups[enough]))
    if objects < LEAST_OBJECTS:
        return None
    strange = matrix[:, [position[name] for name in forest_inputs]][enough]
    columns, group, label = columns[enough], groups[enough], labels[enough]
    held = _held_out(columns, strange, folds(group, label, seed), seed)
    errors = np.quantile(held.network, np.linspace(0.0, 1.0, min(_KNOTS, len(columns))))
    space = fit_space(columns, seed, errors)
    folder.mkdir(parents=True, exist_ok=True)
    save_embedding(folder, space, inputs)
    best = _best_rows(group, held.known)
    return _judged(space, columns, held, best, label, len(np.unique(groups)) - objects, seed)


def fit_space(columns: F64, seed: int, errors: F64 | None = None) -> Space:
    """Components and network of a sample.  columns : (n, k), NaN where unknown;  errors : see Space."""
    median, scale = _usual(columns)
    nothing, count = np.zeros(0), columns.shape[1]
    bare = Space(median, scale, nothing, nothing, (), (), np.ones(1) if errors is None else errors)
    scaled = bare.scaled(columns)
    linear = PCA(DIMENSIONS, svd_solver="full").fit(scaled)
    network = MLPRegressor(
        hidden_layer_sizes=HIDDEN, activation="tanh", alpha=PENALTY, learning_rate_init=3e-3,
        batch_size=min(64, len(scaled)), max_iter=EPOCHS, random_state=seed,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the number of epochs is fixed
        network.fit(scaled, scaled if count > 1 else scaled[:, 0])
    return Space(
        median, scale, linear.mean_, linear.components_, tuple(network.coefs_), tuple(network.intercepts_),
        bare.errors,
    )  # fmt: skip


@dataclass(frozen=True)
class _HeldOut:
    """Of each row, by models that were not fitted to its object.

    residual : (n, DIMENSIONS + 1) squared distance from its first d components;  linear, network : (n,) error
    forest : (n,) the isolation forest's anomaly;  known : (n,) inputs known
    """

    residual: F64
    linear: F64
    network: F64
    forest: F64
    known: I64


def _held_out(columns: F64, strange: F64, fold: I64, seed: int) -> _HeldOut:
    count, known = len(columns), np.isfinite(columns)
    residual = np.empty((count, DIMENSIONS + 1))
    linear, network, forest = np.empty(count), np.empty(count), np.empty(count)
    for number in range(FOLDS):
        own = fold == number
        space = fit_space(columns[~own], seed)
        scaled = space.scaled(columns[own])
        parts = space.embed(scaled)
        around = np.square(scaled - space.mean).sum(axis=1)
        residual[own] = around[:, np.newaxis] - np.insert(np.square(parts).cumsum(axis=1), 0, 0.0, axis=1)
        off = np.square(scaled - (space.mean + parts @ space.components)) * known[own]
        linear[own] = off.sum(axis=1) / known[own].sum(axis=1)
        network[own] = space.error(scaled, known[own])
        forest[own] = grow(strange[~own], seed)[0].anomaly(strange[own])
    return _HeldOut(residual, linear, network, forest, known.sum(axis=1))


def _judged(
    space: Space, columns: F64, held: _HeldOut, best: I64, label: Strings, left_out: int, seed: int
) -> Report:
    rng = np.random.default_rng(seed)
    own, error, forest, known = label[best], held.network[best], held.forest[best], held.known[best]
    points = space.embed(space.scaled(columns[best]))
    purities, balanced = purity(points, own, rng)
    usual = own == USUAL
    return Report(
        objects=len(best),
        rows=len(columns),
        left_out=left_out,
        explained=1.0 - (held.residual.sum(axis=0) / held.residual[:, 0].sum())[1:],
        linear=_figure(lambda rows: held.linear[best][rows].mean(), len(best), rng),
        network=_figure(lambda rows: error[rows].mean(), len(best), rng),
        agreement=_correlation(error, forest, rng),
        forest_counts=_correlation(forest, known, rng),
        error_counts=_correlation(error, known, rng),
        usual=int(usual.sum()),
        areas=[
            Area(name, int((own == name).sum()), *_areas(own == name, usual, (forest, error), rng))
            for name in _judgeable(own)
            if name != USUAL and usual.sum() >= LEAST_OF_CLASS
        ],
        purities=purities,
        balanced=balanced,
        map=flatten(points, own, seed),
    )


def purity(points: F64, label: Strings, rng: np.random.Generator) -> tuple[list[Purity], Purity]:
    """Are neighbours in the embedding of one class? Each class, then all classes counting the same.

    points : (n, d), one an object;  label : (n,) '' if unknown
    """
    classes = _judgeable(label)
    if len(classes) < 2:
        return [], Purity("all", 0, _figure(len, 0, rng), np.nan)
    rows = np.flatnonzero(np.isin(label, classes))
    own = label[rows]
    square = np.square(points[rows, np.newaxis] - points[rows]).sum(axis=2)
    np.fill_diagonal(square, np.inf)
    nearest = np.argsort(square, axis=1, kind="stable")[:, :NEIGHBOURS]
    same = (own[nearest] == own[:, np.newaxis]).mean(axis=1)
    chance = {name: ((own == name).sum() - 1) / max(len(own) - 1, 1) for name in classes}

    def of(name: str) -> Figure:
        members = same[own == name]
        return _figure(lambda drawn: members[drawn].mean(), len(members), rng)

    def all_alike(drawn: I64) -> float:
        return float(np.mean([same[drawn][own[drawn] == name].mean() for name in np.unique(own[drawn])]))

    found = [Purity(name, int((own == name).sum()), of(name), float(chance[name])) for name in classes]
    mean = float(np.mean(list(chance.values())))
    return found, Purity("all", len(rows), _figure(all_alike, len(rows), rng), mean)


def _judgeable(label: Strings) -> list[str]:
    """Labels with LEAST_OF_CLASS objects or more, the most frequent first.  label : (n,), one an object."""
    names, counts = np.unique(label[label != ""], return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return [str(names[place]) for place in order if counts[place] >= LEAST_OF_CLASS]


def _areas(new: Mask, usual: Mask, scores: Sequence[F64], rng: np.random.Generator) -> list[Figure]:
    rows = np.flatnonzero(new | usual)

    def area(score: F64) -> Callable[[I64], float]:
        def of(drawn: I64) -> float:
            truth = new[rows[drawn]]
            return float(roc_auc_score(truth, score[rows[drawn]])) if 0 < truth.sum() < len(truth) else np.nan

        return of

    return [_figure(area(score), len(rows), rng) for score in scores]


def _correlation(one: npt.NDArray[Any], other: npt.NDArray[Any], rng: np.random.Generator) -> Figure:
    """Spearman's rank correlation of two numbers of each object."""
    ranks = rankdata(one), rankdata(other)

    def of(drawn: I64) -> float:
        a, b = ranks[0][drawn], ranks[1][drawn]
        return float(np.corrcoef(a, b)[0, 1]) if np.ptp(a) > 0 and np.ptp(b) > 0 else np.nan

    return _figure(of, len(one), rng)


def _figure(statistic: Callable[[I64], Any], count: int, rng: np.random.Generator) -> Figure:
    """A statistic of all rows, and its 95 % interval when the rows, one an object, are drawn again."""
    if count == 0:
        return Figure(np.nan, np.nan, np.nan)
    drawn = [float(statistic(rng.integers(count, size=count))) for _ in range(_RESAMPLES)]
    finite = [value for value in drawn if np.isfinite(value)] or [np.nan]
    low, high = np.quantile(finite, INTERVAL)
    return Figure(float(statistic(np.arange(count))), float(low), float(high))


def _best_rows(group: Strings, known: I64) -> I64:
    """Position of the row of each object of which most is known.  group, known : (n,)."""
    order = np.argsort(known, kind="stable")[::-1]
    _, first = np.unique(group[order], return_index=True)
    return np.sort(order[first]).astype(np.int64)


def _usual(columns: F64) -> tuple[F64, F64]:
    """(k,) median and half the width of the middle 68 %, 1 where that is 0; of the known values."""
    median, scale = np.zeros(columns.shape[1]), np.ones(columns.shape[1])
    for place, column in enumerate(columns.T):
        known = column[np.isfinite(column)]
        if len(known):
            low, median[place], high = np.percentile(known, [16.0, 50.0, 84.0])
            scale[place] = (high - low) / 2.0 or 1.0
    return median, scale


def _paragraphs(report: Report) -> list[str]:
    shares = ", ".join(f"{count}: {share:.2f}" for count, share in enumerate(report.explained, start=1))
    return [
        "## Without labels: embedding and reconstruction error",
        flow(f"""{report.objects} objects of the stream in {report.rows} states; {report.left_out} more never
            have {LEAST_KNOWN} of the {len(EMBEDDING_INPUTS)} inputs and get no answer. An object is judged in
            the state of which most is known. All figures are on objects that the models were not fitted to,
            dealt to {FOLDS} folds; brackets hold 95 % of the values when objects are drawn again. The shape
            of the network and the number of components were settled on a look at these same objects."""),
        f"Share of the variance that the first components explain: {shares}.",
        flow(f"""Mean squared error of a redrawn input, in units of its usual spread: {report.network} by the
            autoencoder, {report.linear} by as many principal components.{_verdict(report)}"""),
        flow(f"""Rank correlation of the reconstruction error with the forest's anomaly: {report.agreement}.
            With the number of known inputs: forest {report.forest_counts}, reconstruction error
            {report.error_counts}; a score that follows that number finds what was observed well, not what is
            strange."""),
        *_area_paragraphs(report),
        *_purity_paragraphs(report),
        f"![Map]({MAP_FILE})\n\n{report.map.method} of the embedding; do not measure distances on it.",
    ]


def _verdict(report: Report) -> str:
    """What to say where the network has learnt nothing that straight lines do not know."""
    if report.network.value < report.linear.value:
        return ""
    return " So few objects teach the network less than the components: its error ranks them, no more."


def _area_paragraphs(report: Report) -> list[str]:
    if not report.areas:
        return ["No class but the usual one has enough objects to ask whether it looks strange."]
    head = [
        f"Does a class look stranger than {USUAL} ({report.usual} objects)? Area under the ROC curve; where "
        "the brackets hold 0.50 nothing is claimed, below it the class looks more usual.",
        "| class | objects | anomaly (forest) | reconstruction error |\n| --- | --- | --- | --- |",
    ]
    lines = [f"| {one.name} | {one.objects} | {one.forest} | {one.error} |" for one in report.areas]
    return [head[0], "\n".join([head[1], *lines])]


def _purity_paragraphs(report: Report) -> list[str]:
    if not report.purities:
        return []
    head = [
        f"Share of an object's {NEIGHBOURS} nearest labelled neighbours in the embedding that are of its own "
        "class:",
        "| class | objects | share | by chance |\n| --- | --- | --- | --- |",
    ]
    rows = [*report.purities, report.balanced]
    lines = [f"| {one.name} | {one.objects} | {one.share} | {one.chance:.2f} |" for one in rows]
    return [head[0], "\n".join([head[1], *lines])]
