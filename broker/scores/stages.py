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
from broker.scores.novelty import NOVELTY_SPECS, Novelty, load_novelty
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
    *NOVELTY_SPECS,
)
_DETECTIONS = "n_detections"
NOVELTY_FILE = ".novelty.npz"
"""Ending of the file with a stage's reference for novelty."""


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
    reference: Novelty | None = None

    def novelty(self, matrix: F64, probabilities: F64) -> F64:
        """(n,) how unlike the stage's training sample each row is, 0..1; NaN without a reference."""
        if self.reference is None or len(matrix) == 0:
            return np.full(len(matrix), np.nan)
        return self.reference.score(matrix[:, self.inputs], probabilities)

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
        families = self._families(matrix)
        leaves = np.full((len(matrix), len(LEAVES)), np.nan)
        sets = np.zeros(leaves.shape, dtype=bool)
        totals = np.full((len(matrix), len(FAMILIES)), np.nan)
        novelty = families.novelty.copy()
        for place, family in enumerate(families.names):
            columns, within = self._leaves(family, matrix)
            probability = families.probabilities[:, place]
            leaves[:, columns] = probability[:, np.newaxis] * within.probabilities
            sets[:, columns] = families.inside[:, [place]] & within.inside
            totals[:, list(FAMILIES).index(family)] = probability
            likely = families.probabilities.argmax(axis=1) == place
            novelty = np.where(likely, np.fmax(novelty, within.novelty), novelty)
        if len(matrix):
            sets[np.arange(len(matrix)), np.nanargmax(leaves, axis=1)] = True
        bits = sets @ (2.0 ** np.arange(len(LEAVES)))
        return np.column_stack([leaves, totals, sets.sum(axis=1), bits, novelty])

    def _families(self, matrix: F64) -> _Judged:
        """What is said of each known family."""
        if self.family is None:
            names = tuple(self.within)
            sure = np.ones((len(matrix), len(names)))
            return _Judged(names, sure, sure > 0.0, np.full(len(matrix), np.nan))
        probabilities = self.family.probabilities(matrix)
        return _Judged(
            self.family.classes,
            probabilities,
            self.family.calibration.class_set(probabilities),
            self.family.novelty(matrix, probabilities),
        )

    def _leaves(self, family: str, matrix: F64) -> tuple[list[int], _Judged]:
        """(columns, what is said) of each known leaf of a family, the family taken for granted."""
        shares, stage = dict(self.shares.get(family, {})), self.within.get(family)
        names = tuple(leaf for leaf in LEAVES if leaf in shares or (stage and leaf in stage.classes))
        share = np.tile([shares.get(leaf, 0.0) for leaf in names], (len(matrix), 1))
        inside, novelty = np.ones(share.shape, dtype=bool), np.full(len(matrix), np.nan)
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
            novelty[rows] = stage.novelty(matrix[rows], probabilities)
        return [LEAVES.index(leaf) for leaf in names], _Judged(names, share, inside, novelty)


@dataclass(frozen=True)
class _Judged:
    """Of some classes: probabilities and whether in the set (n, c), and the rows' novelty (n,)."""

    names: tuple[str, ...]
    probabilities: F64
    inside: Mask
    novelty: F64


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
    path = folder / f"{spec.name}{NOVELTY_FILE}"
    reference = load_novelty(path, len(inputs), len(spec.classes)) if path.exists() else None
    return Stage(
        spec.name, spec.parent, spec.classes, inputs, spec.least_detections, model, calibration, reference
    )


def _check_shares(folder: Path, manifest: Manifest, family: Stage | None) -> None:
    for name in family.classes if family else ():
        shares = manifest.shares.get(name, {})
        if any(FAMILY_OF.get(leaf) != name for leaf in shares) or abs(sum(shares.values()) - 1.0) > 1e-6:
            raise BundleError(f"bundle {folder}: the shares of family {name!r} are not those of its leaves")
