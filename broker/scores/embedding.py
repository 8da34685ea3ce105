"""Where an alert's light curve lies among all others, and how badly a network that learnt them redraws it.

Two descriptions without labels. The embedding is eight numbers, the principal components of the light curve's
features: what is near in them is alike, which is what the search for similar objects and the clusters of a
night's anomalies use. The reconstruction error is an autoencoder's: a network that has to pass all features
through a narrow layer learns what is usual, and fails on what is not.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from broker.errors import BundleError
from broker.scores.bundle import Manifest, column_indices
from broker.table import ColumnSpec

F64 = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

EMBEDDING_FILE = "embedding.npz"
DIMENSIONS = 8
LEAST_KNOWN = 6
"""With fewer inputs known there is no answer: all such alerts would lie in one place."""
FARTHEST = 8.0
"""No scaled input goes beyond: some 1,500 times the usual spread."""
_LARGEST = 1e100
"""Beyond this a difference of two inputs could overflow."""

EMBEDDING_NAMES = tuple(f"embedding_{number}" for number in range(1, DIMENSIONS + 1))
EMBEDDING_SPECS: tuple[ColumnSpec, ...] = (
    *(
        ColumnSpec(
            name, "", "place among light curves: a principal component; comparable within one model only"
        )
        for name in EMBEDDING_NAMES
    ),
    ColumnSpec(
        "reconstruction_error",
        "",
        "share of the training sample that an autoencoder redraws better: 0 ordinary .. 1 strange",
    ),
)


@dataclass(frozen=True)
class Space:
    """A fitted embedding and autoencoder over k inputs.

    median, scale : (k,) of the training sample: an unknown value becomes the median
    mean, components : (k,), (DIMENSIONS, k) of the scaled inputs' principal components
    weights, biases : of the network's layers, (in, out) and (out,); hyperbolic tangent between them
    errors : (r,) ascending quantiles of the error of objects that the network was not fitted to
    """

    median: F64
    scale: F64
    mean: F64
    components: F64
    weights: tuple[F64, ...]
    biases: tuple[F64, ...]
    errors: F64

    def scaled(self, columns: F64) -> F64:
        """(n, k) inverse hyperbolic sine of the scaled inputs, 0 where unknown, within FARTHEST.

        That a value is unknown is not an input itself: which bands were observed, and how often, says more of
        the survey than of the object.
        """
        known = np.where(np.isfinite(columns), np.clip(columns, -_LARGEST, _LARGEST), self.median)
        return np.asarray(np.clip(np.arcsinh((known - self.median) / self.scale), -FARTHEST, FARTHEST))

    def embed(self, scaled: F64) -> F64:
        """(n, DIMENSIONS) principal components.  scaled : (n, k)."""
        return np.asarray((scaled - self.mean) @ self.components.T)

    def redrawn(self, scaled: F64) -> F64:
        """(n, k) what the network makes of its own inputs."""
        layer = scaled
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            layer = np.tanh(layer @ weight + bias)
        return np.asarray(layer @ self.weights[-1] + self.biases[-1])

    def error(self, scaled: F64, known: Mask) -> F64:
        """(n,) mean squared difference of the known inputs from the redrawn ones; NaN if none is known."""
        count = known.sum(axis=1)
        total = (np.square(scaled - self.redrawn(scaled)) * known).sum(axis=1)
        return np.where(count > 0, total / np.maximum(count, 1), np.nan)

    def rank(self, error: F64) -> F64:
        """(n,) share of the reference with a smaller error, always below 1.

        Beyond the largest error of the reference what is left to 1 shrinks as 1 / error: order is kept.
        """
        count, largest = len(self.errors), self.errors[-1]
        inside = np.interp(error, self.errors, np.arange(count) / count)
        beyond = 1.0 - largest / np.maximum(error, largest) / count
        return np.where(error > largest, beyond, inside)


@dataclass(frozen=True)
class EmbeddingScore:
    """A space over some columns of the bundle's matrix."""

    space: Space
    inputs: list[int]

    def score(self, matrix: F64) -> F64:
        """Columns of EMBEDDING_SPECS for each row; NaN where fewer than LEAST_KNOWN inputs are known.

        matrix : (n, k) of the bundle's columns, NaN where unknown
        """
        columns = matrix[:, self.inputs]
        known = np.isfinite(columns)
        scaled = self.space.scaled(columns)
        error = self.space.rank(self.space.error(scaled, known))
        found = np.column_stack([self.space.embed(scaled), error])
        found[known.sum(axis=1) < LEAST_KNOWN] = np.nan
        return found


@dataclass(frozen=True)
class NoEmbedding:
    """What stands in where a bundle has no such file: every column is NaN."""

    def score(self, matrix: F64) -> F64:
        """(n, len(EMBEDDING_SPECS)) NaN."""
        return np.full((len(matrix), len(EMBEDDING_SPECS)), np.nan)


def save_embedding(folder: Path, space: Space, inputs: tuple[str, ...]) -> None:
    """Write a space and the names of its inputs as an npz of plain arrays."""
    layers: dict[str, Any] = {f"weight_{number}": weight for number, weight in enumerate(space.weights)}
    layers |= {f"bias_{number}": bias for number, bias in enumerate(space.biases)}
    plain = {name: getattr(space, name) for name in _PLAIN}
    np.savez_compressed(folder / EMBEDDING_FILE, inputs=np.array(inputs), **plain, **layers)


_PLAIN = ("median", "scale", "mean", "components", "errors")


def load_embedding(folder: Path, manifest: Manifest) -> EmbeddingScore | NoEmbedding:
    """The space of a bundle whose files have been checked; BundleError if its parts disagree."""
    path = folder / EMBEDDING_FILE
    if not path.exists():
        return NoEmbedding()
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            arrays = dict(stored)
        names = [str(name) for name in arrays["inputs"]]
        layers = sum(name.startswith("weight_") for name in arrays)
        space = Space(
            **{name: arrays[name].astype(np.float64) for name in _PLAIN},
            weights=tuple(arrays[f"weight_{number}"].astype(np.float64) for number in range(layers)),
            biases=tuple(arrays[f"bias_{number}"].astype(np.float64) for number in range(layers)),
        )
    except (OSError, BadZipFile, KeyError, TypeError, ValueError) as error:
        raise BundleError(f"{path} is no embedding: {error!r}; get the bundle anew") from None
    _check(space, len(names), path)
    return EmbeddingScore(space, column_indices(manifest, names))


def _check(space: Space, inputs: int, path: Path) -> None:
    """BundleError unless every array fits the others and all numbers are finite."""
    sizes = [inputs, *(weight.shape[-1] for weight in space.weights)]
    shapes = list(pairwise(sizes))
    arrays = [getattr(space, name) for name in _PLAIN] + [*space.weights, *space.biases]
    fits = (
        space.components.shape == (DIMENSIONS, inputs)
        and all(getattr(space, name).shape == (inputs,) for name in ("median", "scale", "mean"))
        and len(space.weights) > 0
        and sizes[-1] == inputs
        and [weight.shape for weight in space.weights] == shapes
        and [bias.shape for bias in space.biases] == [(size,) for size in sizes[1:]]
        and space.errors.ndim == 1
        and space.errors.max(initial=0.0) > 0
        and bool(np.all(np.diff(space.errors) >= 0))
        and all(bool(np.isfinite(array).all()) for array in arrays)
        and bool(np.all(space.scale > 0))
    )
    if not fits:
        raise BundleError(
            f"{path} is no embedding of {inputs} inputs in {DIMENSIONS} dimensions; train it again"
        )
