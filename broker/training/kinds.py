"""Kinds of models behind one interface: each is fitted on the same rows and compared in one table."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import lightgbm
import numpy as np
import numpy.typing as npt
from sklearn.base import ClassifierMixin
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

from broker.scores.models import TEXT, Model, Scaling, both_classes, network

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
Settings = Mapping[str, Any]


class Fitted(Model, Protocol):
    """A model that can be kept."""

    def save(self, folder: Path, name: str) -> None:
        """Write what `broker.scores.models.load_model` reads."""


Fit = Callable[[F64, I64, F64, int, Settings, int], Fitted]
"""(features (n, k), class (n,), weight (n,), number of classes, settings, seed) to a model."""


@dataclass(frozen=True)
class Kind:
    """One kind of model.

    space : for each hyper-parameter the values that the search may draw
    fit   : how it is fitted
    """

    name: str
    doc: str
    space: Mapping[str, Sequence[Any]]
    fit: Fit


@dataclass(frozen=True)
class Boosted:
    """Boosted trees as LightGBM's own package has them."""

    booster: lightgbm.Booster

    def raw(self, matrix: F64) -> F64:
        """Sums of the trees' leaves (n, c)."""
        found = np.asarray(self.booster.predict(matrix, raw_score=True, num_threads=1), dtype=np.float64)
        return both_classes(found.reshape(len(matrix), -1))

    def save(self, folder: Path, name: str) -> None:
        """As LightGBM's text."""
        self.booster.save_model(str(folder / f"{name}{TEXT}"))

    def gains(self) -> F64:
        """(k,) by how much each input lowered the loss."""
        return np.asarray(self.booster.feature_importance("gain"), dtype=np.float64)


def _boosted(x: F64, y: I64, weight: F64, classes: int, settings: Settings, seed: int) -> Fitted:
    several = {"objective": "multiclass", "num_class": classes} if classes > 2 else {"objective": "binary"}
    parameters: dict[str, Any] = {
        **several,
        **{name: value for name, value in settings.items() if name != "trees"},
        "bagging_freq": 1,
        "num_threads": 1,
        "seed": seed,
        "deterministic": True,
        "force_col_wise": True,
        "verbose": -1,
    }
    data = lightgbm.Dataset(x, y, weight=weight, free_raw_data=False)
    return Boosted(lightgbm.train(parameters, data, int(settings["trees"])))


def _scaling(x: F64) -> Scaling:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a column without a value: its median is 0
        median = np.nan_to_num(np.nanmedian(x, axis=0))
        low, high = np.nanpercentile(x, [16.0, 84.0], axis=0)
    spread = np.nan_to_num((high - low) / 2.0)
    return Scaling(median, np.where(spread > 0.0, spread, 1.0))


def _through_onnx(make: Callable[[Settings, int], ClassifierMixin]) -> Fit:
    """Fit a scikit-learn classifier on scaled inputs and keep its ONNX form, which is what will be served."""

    def fit(x: F64, y: I64, weight: F64, classes: int, settings: Settings, seed: int) -> Fitted:
        scaling = _scaling(x)
        model = make(settings, seed)
        rows = _resampled(weight, seed) if isinstance(model, MLPClassifier) else slice(None)
        given = {} if isinstance(model, MLPClassifier) else {"sample_weight": weight}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # stopping early is one of the settings
            model.fit(scaling.apply(x)[rows], y[rows], **given)
        if len(model.classes_) != classes:
            raise ValueError(f"the sample holds {len(model.classes_)} of {classes} classes")
        return network(_as_onnx(model, 2 * x.shape[1], classes), scaling)

    return fit


def _resampled(weight: F64, seed: int) -> I64:
    """Rows drawn by weight, as many as there are: for a model that takes no weights."""
    rng = np.random.default_rng(seed)
    return rng.choice(len(weight), size=len(weight), p=weight / weight.sum())


def _as_onnx(model: ClassifierMixin, width: int, classes: int) -> bytes:
    """A fitted classifier as ONNX: 'inputs' (n, width) float32 to 'raw' (n, classes).

    raw : decision values of a support-vector machine, logarithms of the probabilities of all others
    """
    from onnx import TensorProto, helper  # noqa: PLC0415
    from skl2onnx import to_onnx  # noqa: PLC0415
    from skl2onnx.common.data_types import FloatTensorType  # noqa: PLC0415

    machine = isinstance(model, SVC)
    options = {"zipmap": False} | ({"raw_scores": True} if machine else {})
    inputs = [("inputs", FloatTensorType([None, width]))]
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", FutureWarning
        )  # the converter reads attributes that scikit-learn will drop
        content = to_onnx(model, initial_types=inputs, options={id(model): options})
    graph = content.graph
    scores = graph.output[1].name
    if machine:
        nodes = [helper.make_node("Identity", [scores], ["raw"])]
    else:
        least = helper.make_tensor("least", TensorProto.FLOAT, [1], [1e-4])
        graph.initializer.append(least)
        nodes = [
            helper.make_node("Max", [scores, "least"], ["floored"]),
            helper.make_node("Log", ["floored"], ["raw"]),
        ]
    graph.node.extend(nodes)
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info("raw", TensorProto.FLOAT, [None, classes]))
    return bytes(content.SerializeToString())


KINDS: list[Kind] = [
    Kind(
        "lightgbm",
        "boosted trees",
        {
            "trees": (40, 80, 160, 320),
            "learning_rate": (0.03, 0.06, 0.1),
            "num_leaves": (4, 8, 16, 31),
            "min_data_in_leaf": (5, 10, 20, 40),
            "feature_fraction": (0.3, 0.6, 1.0),
            "bagging_fraction": (0.6, 1.0),
            "lambda_l2": (0.0, 1.0, 10.0),
        },
        _boosted,
    ),
    Kind(
        "tree",
        "one decision tree",
        {"max_depth": (3, 5, 8, 12), "min_samples_leaf": (2, 5, 10, 20), "criterion": ("gini", "entropy")},
        _through_onnx(lambda s, seed: DecisionTreeClassifier(**s, random_state=seed)),
    ),
    Kind(
        "forest",
        "random forest",
        {"max_features": (0.2, 0.4, "sqrt"), "min_samples_leaf": (1, 2, 4, 8), "max_depth": (8, 14, 24)},
        _through_onnx(lambda s, seed: RandomForestClassifier(200, **s, random_state=seed, n_jobs=1)),
    ),
    Kind(
        "svm",
        "support-vector machine with a radial kernel",
        {"C": (0.3, 1.0, 3.0, 10.0, 30.0), "gamma": ("scale", 0.003, 0.01, 0.03, 0.1)},
        _through_onnx(lambda s, seed: SVC(**s, decision_function_shape="ovr", random_state=seed)),
    ),
    Kind(
        "mlp",
        "neural network of one or two hidden layers",
        {
            "hidden_layer_sizes": ((32,), (64,), (32, 32)),
            "alpha": (1e-3, 1e-2, 1e-1, 1.0),
            "learning_rate_init": (1e-3, 3e-3),
            "max_iter": (150, 500),
        },
        _through_onnx(lambda s, seed: MLPClassifier(**s, random_state=seed)),
    ),
]
"""The candidates, in the order of the report's table."""

LINEAR = Kind(
    "linear",
    "logistic regression",
    {"C": (0.03, 0.1, 0.3, 1.0, 3.0)},
    _through_onnx(lambda s, seed: LogisticRegression(**s, max_iter=500, random_state=seed)),
)
"""What the parametric-fit baseline puts on its parameters."""
