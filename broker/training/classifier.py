"""Fit the classifier: settings and temperature chosen on validation, classes weighted equally."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import lightgbm
import numpy as np
import numpy.typing as npt

from broker.scores.classifier import softmax
from broker.training.dataset import Strings, Windows, feature_indices

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

CLASSIFIER_INPUTS = (
    "age_days",
    "days_since_peak",
    "days_since_peak_g",
    "days_since_peak_r",
    "rise_rate_g",
    "rise_rate_r",
    "fade_rate_g",
    "fade_rate_r",
    "slope_g",
    "slope_r",
    "last_to_peak_g",
    "last_to_peak_r",
    "amplitude_g",
    "amplitude_r",
    "skew_g",
    "skew_r",
    "excess_variance_g",
    "excess_variance_r",
    "von_neumann_g",
    "von_neumann_r",
    "stetson_k_g",
    "stetson_k_r",
    "color_gr",
    "color_gr_first",
    "color_gr_rate",
)
"""Shapes, rates and colours. Left out because they tell the source apart rather than the class: counts of
points, limits and forced points, depth and brightness, significance, and the sign (most sources lost it)."""


@dataclass(frozen=True)
class Settings:
    """Hyper-parameters of one candidate."""

    num_leaves: int
    learning_rate: float
    min_data_in_leaf: int
    trees: int


GRID = tuple(
    Settings(leaves, rate, least, trees)
    for leaves, rate, least, trees in product((5, 11), (0.05, 0.1), (20, 60), (20, 40, 80))
)
"""The candidates, all tried once: small enough to score an alert in well under 100 us."""


@dataclass(frozen=True)
class Fitted:
    """The chosen booster with its leaves, settings and temperature, and how the candidates did."""

    booster: lightgbm.Booster
    leaves: tuple[str, ...]
    settings: Settings
    temperature: float
    candidates: list[tuple[Settings, float, float]]
    """Settings, log-loss and balanced accuracy on validation, in the order tried."""

    def probabilities(self, windows: Windows) -> F64:
        """Calibrated probabilities (w, len(leaves))."""
        return softmax(raw_scores(self.booster, windows) / self.temperature)


def fit(
    training: Windows,
    validation: Windows,
    leaves: tuple[str, ...],
    grid: tuple[Settings, ...],
    seed: int,
    step: Callable[[int], None],
) -> Fitted:
    """The candidate with the least log-loss on validation, made calibrated there by one temperature.

    step : called with the number of candidates done.
    """
    truth, weight = indices(validation.leaf, leaves), equal_weights(validation.leaf, validation.group)
    candidates, boosters = [], []
    for done, settings in enumerate(grid, start=1):
        booster = train_booster(training, leaves, settings, seed)
        probabilities = softmax(raw_scores(booster, validation))
        loss, accuracy = log_loss(probabilities, truth, weight), recall(probabilities, truth, weight).mean()
        candidates.append((settings, loss, float(accuracy)))
        boosters.append(booster)
        step(done)
    best = int(np.argmin([loss for _, loss, _ in candidates]))
    temperature = fit_temperature(raw_scores(boosters[best], validation), truth, weight)
    return Fitted(boosters[best], leaves, grid[best], temperature, candidates)


def train_booster(
    training: Windows, leaves: tuple[str, ...], settings: Settings, seed: int
) -> lightgbm.Booster:
    """A multi-class LightGBM in which every class, and within it every object, weighs the same."""
    parameters = {
        "objective": "multiclass",
        "num_class": len(leaves),
        "num_leaves": settings.num_leaves,
        "learning_rate": settings.learning_rate,
        "min_data_in_leaf": settings.min_data_in_leaf,
        "min_sum_hessian_in_leaf": 1.0,
        "lambda_l2": 1.0,
        "feature_fraction": 0.7,
        "seed": seed,
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": 1,
        "verbosity": -1,
    }
    weight = equal_weights(training.leaf, training.group) * len(training)
    data = lightgbm.Dataset(columns(training), label=indices(training.leaf, leaves), weight=weight)
    return lightgbm.train(parameters, data, num_boost_round=settings.trees)


def columns(windows: Windows) -> F64:
    """The classifier's inputs (w, c)."""
    return windows.features[:, feature_indices(CLASSIFIER_INPUTS)]


def raw_scores(booster: lightgbm.Booster, windows: Windows) -> F64:
    """Scores before the softmax (w, classes)."""
    return np.asarray(booster.predict(columns(windows), raw_score=True, num_threads=1))


def indices(leaf: Strings, leaves: tuple[str, ...]) -> I64:
    """Class numbers of leaf names.  leaf : (w,);  returns (w,)."""
    position = {name: index for index, name in enumerate(leaves)}
    return np.array([position[name] for name in leaf.tolist()], dtype=np.int64)


def equal_weights(leaf: Strings, group: Strings) -> F64:
    """Weights (w,) that sum to 1: equal for every class, in it for every object, in it for every window."""
    _, group_code, group_size = np.unique(group, return_inverse=True, return_counts=True)
    names, leaf_code = np.unique(leaf, return_inverse=True)
    groups_in_leaf = np.array([len(np.unique(group_code[leaf_code == i])) for i in range(len(names))])
    return np.asarray(1.0 / (group_size[group_code] * groups_in_leaf[leaf_code] * len(names)))


def fit_temperature(raw: F64, truth: I64, weight: F64) -> float:
    """The number to divide scores by so that confidence is what it should be: over 1 was overconfident.

    raw : (w, c);  truth, weight : (w,). Least log-loss. Source: Guo et al. 2017, ICML 70, 1321.
    """
    candidates = np.exp(np.linspace(-1.5, 1.5, 301))
    losses = [log_loss(softmax(raw / candidate), truth, weight) for candidate in candidates]
    return float(candidates[np.argmin(losses)])


def log_loss(probabilities: F64, truth: I64, weight: F64) -> float:
    """Weighted mean of -ln of the true class's probability; ln(classes) for a model that knows nothing."""
    own = probabilities[np.arange(len(truth)), truth]
    return float(np.average(-np.log(np.maximum(own, 1e-12)), weights=weight))


def recall(probabilities: F64, truth: I64, weight: F64) -> F64:
    """Fraction of each class that is found as the most probable one; the mean is the balanced accuracy.

    probabilities : (w, c);  truth, weight : (w,);  returns (c,), NaN for a class without windows.
    """
    right = probabilities.argmax(axis=1) == truth
    count = probabilities.shape[1]
    found = np.bincount(truth, weight * right, minlength=count)
    total = np.bincount(truth, weight, minlength=count)
    return np.asarray(np.divide(found, total, out=np.full(count, np.nan), where=total > 0))
