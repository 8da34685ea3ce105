"""Fitted models as files that cannot run code: LightGBM's text, or ONNX with the scaling of its inputs."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from broker.errors import BundleError
from broker.scores.archive import plain_name
from broker.scores.booster import Booster

F64 = npt.NDArray[np.float64]

_LOG = logging.getLogger(__name__)

TEXT, ONNX, SCALING = ".txt", ".onnx", ".scaling.npz"
"""Endings of a model's files; what comes before is the stage's name."""


class Model(Protocol):
    """Anything that gives each class a number that grows with its probability."""

    def raw(self, matrix: F64) -> F64:
        """(n, c): its softmax are the probabilities, not yet calibrated.  matrix : (n, k), NaN = unknown."""


@dataclass(frozen=True)
class Trees:
    """Boosted trees of LightGBM; they take NaN as it is.

    quick : the same trees in a form that is several times as fast; None where it does not give the same
    """

    booster: Booster
    quick: Any = None

    def raw(self, matrix: F64) -> F64:
        """Sums of the trees' leaves."""
        if self.quick is None or len(matrix) == 0:
            return both_classes(self.booster.raw_scores(matrix))
        return both_classes(_quick_scores(self.quick, matrix))

    def contributions(self, matrix: F64) -> F64:
        """(n, c, k) what each input adds to `raw`, beside each class's mean.  matrix : (n, k)."""
        found = self.booster.contributions(matrix)
        return found if found.shape[1] > 1 else np.concatenate([-found / 2.0, found / 2.0], axis=1)


def quick_form(path: Path, booster: Booster) -> Any:
    """The model of a file as `lignum` has it, None unless it answers as LightGBM to the last bit."""
    try:
        import lignum  # noqa: PLC0415

        model = lignum.load(str(path), format="lightgbm")
        rows = _probe(booster.inputs)
        same = np.array_equal(_quick_scores(model, rows), booster.raw_scores(rows))
    except Exception as error:  # whatever it is, LightGBM's own library still serves
        _LOG.warning("%s is served by LightGBM's own library: %r", path.name, error)
        return None
    return model if same else None


def _quick_scores(model: Any, matrix: F64) -> F64:
    found = model.predict(np.ascontiguousarray(matrix, dtype=np.float64), raw_score=True, n_jobs=1)
    return np.asarray(found, dtype=np.float64).reshape(len(matrix), -1)


def _probe(inputs: int) -> F64:
    """Rows of every magnitude, with gaps, to compare two forms of a model on."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(512, inputs)) * 10.0 ** rng.uniform(-4.0, 5.0, (512, inputs))
    rows[rng.random(rows.shape) < 0.3] = np.nan
    rows[0], rows[1] = 0.0, np.nan
    return rows


def both_classes(raw: F64) -> F64:
    """(n, c) as (n, c), (n, 1) as (n, 2): of two classes a booster knows the second, and each gets half."""
    return raw if raw.shape[1] > 1 else np.hstack([-raw / 2.0, raw / 2.0])


@dataclass(frozen=True)
class Scaling:
    """Inputs made fit for models that know neither NaN nor heavy tails.

    median, scale : (k,) of the training sample;  an unknown value becomes the median
    """

    median: F64
    scale: F64

    def apply(self, matrix: F64) -> npt.NDArray[np.float32]:
        """(n, 2 k): inverse hyperbolic sine of the scaled values, then 1 where a value was unknown."""
        unknown = ~np.isfinite(matrix)
        scaled = np.arcsinh((np.where(unknown, self.median, matrix) - self.median) / self.scale)
        return np.hstack([scaled, unknown]).astype(np.float32)


@dataclass(frozen=True)
class Network:
    """Any model as ONNX whose output 'raw' is (n, c), on scaled inputs."""

    content: bytes
    scaling: Scaling
    session: Any

    def raw(self, matrix: F64) -> F64:
        """What the ONNX graph makes of the scaled inputs."""
        if len(matrix) == 0:  # some graphs refuse an empty matrix
            return np.empty((0, self.session.get_outputs()[0].shape[1]))
        (found,) = self.session.run(["raw"], {"inputs": self.scaling.apply(matrix)})
        return np.asarray(found, dtype=np.float64)

    def save(self, folder: Path, name: str) -> None:
        """As ONNX and npz."""
        (folder / f"{name}{ONNX}").write_bytes(self.content)
        np.savez(folder / f"{name}{SCALING}", median=self.scaling.median, scale=self.scaling.scale)


def network(content: bytes, scaling: Scaling) -> Network:
    """A model from the bytes of an ONNX file.  Raises BundleError for anything else."""
    return Network(content, scaling, onnx_session(content))


def onnx_session(content: bytes) -> Any:
    """The ONNX file of these bytes, ready to run on one thread.  Raises BundleError for anything else."""
    import onnxruntime  # noqa: PLC0415  (0.1 s and 30 MB: only for bundles that hold such a model)

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own exceptions share no public base
        raise BundleError(f"not an ONNX model that can be run: {error}") from error


def load_model(folder: Path, name: str) -> Model:
    """The model of a stage in a bundle whose files have been checked.  Raises BundleError if it has none."""
    plain_name(name)  # a bundle may come from anywhere: its names must not lead out of its folder
    if (folder / f"{name}{TEXT}").exists():
        path = folder / f"{name}{TEXT}"
        booster = Booster(path)
        return Trees(booster, quick_form(path, booster))
    try:
        with np.load(folder / f"{name}{SCALING}", allow_pickle=False) as arrays:
            scaling = Scaling(arrays["median"], arrays["scale"])
        return network((folder / f"{name}{ONNX}").read_bytes(), scaling)
    except (OSError, KeyError, ValueError) as error:
        raise BundleError(f"bundle {folder}: no model of stage {name!r}: {error}") from error
