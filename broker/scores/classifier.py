"""Calibrated class probabilities from a LightGBM text model."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import lightgbm
import numpy as np
import numpy.typing as npt

from broker.errors import BundleError
from broker.scores.bundle import Manifest, column_indices
from broker.scores.taxonomy import FAMILIES, FAMILY_OF, LEAVES
from broker.table import ColumnSpec

F64 = npt.NDArray[np.float64]

MODEL_FILE, CALIBRATION_FILE = "classifier.txt", "calibration.json"

CLASSIFIER_SPECS: tuple[ColumnSpec, ...] = (
    *(
        ColumnSpec(
            f"prob_{leaf}", "", f"calibrated probability of {leaf}; null if the model does not know it"
        )
        for leaf in LEAVES
    ),
    *(
        ColumnSpec(f"prob_family_{family}", "", f"sum of the probabilities of {', '.join(leaves)}")
        for family, leaves in FAMILIES.items()
    ),
)


@dataclass(frozen=True)
class Classifier:
    """A booster over some columns of the matrix, its leaves, and the temperature that calibrates it."""

    booster: lightgbm.Booster
    inputs: list[int]
    leaves: tuple[str, ...]
    temperature: float

    def score(self, matrix: F64) -> F64:
        """Columns of CLASSIFIER_SPECS for each row; NaN for the leaves and families the model does not know.

        matrix : (n, k) features, NaN where unknown. Over the trained leaves each row sums to 1.
        """
        return spread(self.probabilities(matrix), self.leaves)

    def probabilities(self, matrix: F64) -> F64:
        """Calibrated probabilities (n, len(leaves)) of the trained leaves.  matrix : (n, k) features."""
        if len(matrix) == 0:  # LightGBM refuses an empty matrix
            return np.empty((0, len(self.leaves)))
        raw = self.booster.predict(matrix[:, self.inputs], raw_score=True, num_threads=1)
        return softmax(np.asarray(raw, dtype=np.float64) / self.temperature)


def softmax(raw: F64) -> F64:
    """Exponentials of each row, normalised to sum 1.  raw : (n, c);  returns (n, c)."""
    powers = np.exp(raw - raw.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def spread(probabilities: F64, leaves: tuple[str, ...]) -> F64:
    """Probabilities of the trained leaves as the columns of CLASSIFIER_SPECS, with the sums by family.

    probabilities : (n, len(leaves));  returns (n, len(CLASSIFIER_SPECS)); NaN for what was not trained.
    """
    columns = np.full((len(probabilities), len(CLASSIFIER_SPECS)), np.nan)
    columns[:, [LEAVES.index(leaf) for leaf in leaves]] = probabilities
    for index, family in enumerate(FAMILIES):
        members = [position for position, leaf in enumerate(leaves) if FAMILY_OF[leaf] == family]
        if members:
            columns[:, len(LEAVES) + index] = probabilities[:, members].sum(axis=1)
    return columns


def load_classifier(folder: Path, manifest: Manifest) -> Classifier:
    """The classifier of a bundle whose files have been checked; BundleError if its parts disagree."""
    unknown = [leaf for leaf in manifest.classes if leaf not in LEAVES]
    if unknown:
        raise BundleError(f"bundle {folder}: classes {unknown} are not leaves of the taxonomy")
    booster = lightgbm.Booster(model_file=str(folder / MODEL_FILE))
    inputs, leaves = column_indices(manifest, manifest.classifier_inputs), tuple(manifest.classes)
    if booster.num_feature() != len(inputs) or booster.num_model_per_iteration() != len(leaves):
        raise BundleError(
            f"bundle {folder}: the model has {booster.num_feature()} inputs and "
            f"{booster.num_model_per_iteration()} classes, the manifest {len(inputs)} and {len(leaves)}"
        )
    temperature = float(json.loads((folder / CALIBRATION_FILE).read_text())["temperature"])
    if not temperature > 0.0:
        raise BundleError(f"bundle {folder}: temperature {temperature} in {CALIBRATION_FILE} is not positive")
    return Classifier(booster, inputs, leaves, temperature)
