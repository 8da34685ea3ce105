"""Class probabilities in two stages: which family an object is of, then which leaf of that family."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from broker.errors import BundleError
from broker.scores.bundle import Manifest, StageSpec, column_indices
from broker.scores.calibration import Calibration
from broker.scores.models import Model, load_model
from broker.scores.taxonomy import FAMILIES, FAMILY_OF, LEAVES
from broker.table import ColumnSpec

F64 = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

STAGE_SPECS: tuple[ColumnSpec, ...] = (
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
    ColumnSpec(
        "class_set_size", "", "number of classes in the 90 % set: many means that the model cannot tell"
    ),
    ColumnSpec(
        "class_set_bits", "", "the classes of the 90 % set: bit k is the k-th prob_ column, the lowest first"
    ),
)
_DETECTIONS = "n_detections"


@dataclass(frozen=True)
class Stage:
    """One loaded model of a bundle and the columns it looks at.

    parent : the family whose leaves it tells apart; '' for the stage that tells families apart
    """

    name: str
    parent: str
    classes: tuple[str, ...]
    inputs: list[int]
    least_detections: int
    model: Model
    calibration: Calibration

    def probabilities(self, matrix: F64) -> F64:
        """(n, len(classes)) calibrated probabilities.  matrix : (n, k) features, then context."""
        return self.calibration.probabilities(self.model.raw(matrix[:, self.inputs]))


@dataclass(frozen=True)
class Stages:
    """A bundle's stages, and what is assumed where none applies.

    shares     : for each family the share of each of its leaves, where no stage tells them apart
    detections : column of the matrix with the number of detections
    """

    family: Stage | None
    within: Mapping[str, Stage]
    shares: Mapping[str, Mapping[str, float]]
    detections: int

    def score(self, matrix: F64) -> F64:
        """Columns of STAGE_SPECS for each row; NaN for the leaves and families the bundle does not know.

        matrix : (n, k) features, then context, NaN where unknown. Over the known leaves each row sums to 1.
        """
        families, inside = self._families(matrix)
        leaves = np.full((len(matrix), len(LEAVES)), np.nan)
        sets = np.zeros(leaves.shape, dtype=bool)
        totals = np.full((len(matrix), len(FAMILIES)), np.nan)
        for family, probability in families.items():
            columns, share, within = self._leaves(family, matrix)
            leaves[:, columns] = probability[:, np.newaxis] * share
            sets[:, columns] = inside[family][:, np.newaxis] & within
            totals[:, list(FAMILIES).index(family)] = probability
        if len(matrix):
            sets[np.arange(len(matrix)), np.nanargmax(leaves, axis=1)] = True
        bits = sets @ (2.0 ** np.arange(len(LEAVES)))
        return np.column_stack([leaves, totals, sets.sum(axis=1), bits])

    def _families(self, matrix: F64) -> tuple[dict[str, F64], dict[str, Mask]]:
        """For each known family its probability and whether it is in the set, (n,) each."""
        if self.family is None:
            only = {family: np.ones(len(matrix)) for family in self.within}
            return only, {family: np.ones(len(matrix), dtype=bool) for family in self.within}
        probabilities = self.family.probabilities(matrix)
        inside = self.family.calibration.class_set(probabilities)
        names = self.family.classes
        return dict(zip(names, probabilities.T, strict=True)), dict(zip(names, inside.T, strict=True))

    def _leaves(self, family: str, matrix: F64) -> tuple[list[int], F64, Mask]:
        """(columns, share (n, leaves), whether in the set (n, leaves)) of a family's known leaves."""
        shares, stage = dict(self.shares.get(family, {})), self.within.get(family)
        names = [leaf for leaf in LEAVES if leaf in shares or (stage and leaf in stage.classes)]
        share = np.tile([shares.get(leaf, 0.0) for leaf in names], (len(matrix), 1))
        inside = np.ones(share.shape, dtype=bool)
        if stage is not None and len(matrix):
            rows = np.flatnonzero(matrix[:, self.detections] >= stage.least_detections)
            if not shares:  # nothing is known without the stage
                rows = np.arange(len(matrix))
            places = np.array([names.index(leaf) for leaf in stage.classes])
            probabilities = stage.probabilities(matrix[rows])
            share[rows] = 0.0
            share[np.ix_(rows, places)] = probabilities
            inside[rows] = False
            inside[np.ix_(rows, places)] = stage.calibration.class_set(probabilities)
        return [LEAVES.index(leaf) for leaf in names], share, inside


def in_set(bits: npt.NDArray[Any], leaf: str) -> Mask:
    """Whether a leaf is in each class set.  bits : the column class_set_bits."""
    return np.asarray((np.nan_to_num(bits).astype(np.int64) >> LEAVES.index(leaf)) & 1 == 1)


def set_names(bits: float) -> list[str]:
    """The leaves of one class set."""
    return [leaf for place, leaf in enumerate(LEAVES) if int(bits) >> place & 1]


def load_stages(folder: Path, manifest: Manifest) -> Stages:
    """The stages of a bundle whose files have been checked; BundleError if its parts disagree."""
    stages = [_load_stage(folder, manifest, spec) for spec in manifest.stages]
    family = next((stage for stage in stages if not stage.parent), None)
    within = {stage.parent: stage for stage in stages if stage.parent}
    if family is None and len(within) != 1:
        raise BundleError(f"bundle {folder}: without a stage of families it can have one other stage only")
    _check_shares(folder, manifest, family)
    return Stages(family, within, manifest.shares, column_indices(manifest, [_DETECTIONS])[0])


def _load_stage(folder: Path, manifest: Manifest, spec: StageSpec) -> Stage:
    known: Sequence[str] = list(FAMILIES) if not spec.parent else FAMILIES.get(spec.parent, ())
    unknown = [name for name in spec.classes if name not in known]
    if unknown or len(spec.classes) < 2:
        raise BundleError(
            f"bundle {folder}: classes {unknown} of stage {spec.name!r} are not in the taxonomy"
        )
    inputs = column_indices(manifest, spec.inputs)
    model = load_model(folder, spec.name)
    calibration = Calibration(
        spec.temperature, np.array(spec.bias), np.array(spec.prior), np.array(spec.quantiles)
    )
    raw = model.raw(np.full((1, len(inputs)), np.nan))
    sizes = {raw.shape[1], len(calibration.bias), len(calibration.prior), len(calibration.quantiles)}
    if sizes != {len(spec.classes)} or not calibration.temperature > 0.0:
        raise BundleError(
            f"bundle {folder}: stage {spec.name!r} has {len(spec.classes)} classes, its model or its "
            "calibration another number"
        )
    return Stage(spec.name, spec.parent, spec.classes, inputs, spec.least_detections, model, calibration)


def _check_shares(folder: Path, manifest: Manifest, family: Stage | None) -> None:
    for name in family.classes if family else ():
        shares = manifest.shares.get(name, {})
        if any(FAMILY_OF.get(leaf) != name for leaf in shares) or abs(sum(shares.values()) - 1.0) > 1e-6:
            raise BundleError(f"bundle {folder}: the shares of family {name!r} are not those of its leaves")
