"""Every score in the order of the columns, and the scorer that computes them from a bundle."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from broker.errors import BundleError
from broker.scores.anomaly import ANOMALY_SPECS, load_anomaly
from broker.scores.bundle import Manifest, read_manifest
from broker.scores.counterpart import COUNTERPART_SPECS, load_counterpart
from broker.scores.embedding import EMBEDDING_SPECS, load_embedding
from broker.scores.peak import PEAK_SPECS, load_peak
from broker.scores.stages import F64, STAGE_SPECS, load_stages
from broker.scores.stamps import STAMP_SPECS, Stamps, load_stamps, not_asked
from broker.table import ColumnSpec

BUNDLES = Path(__file__).parent / "bundles"
DEFAULT_BUNDLE = BUNDLES / "ztf-v3"
"""The bundle that is used when none is named."""
OWN_BUNDLES = {"lsst": BUNDLES / "lsst-v1"}
"""Those of surveys that have one of their own."""
SHIPPED = "shipped"
STAMPS_BUNDLE = BUNDLES / "stamps-v1"
"""The network for images that is used by that name."""


class Part(Protocol):
    """One kind of score, loaded."""

    def score(self, matrix: F64) -> F64:
        """Its columns (n, s) for a matrix (n, k) of the bundle's features, then its context columns."""


@dataclass(frozen=True)
class Kind:
    """One kind of score: the columns it gives, whatever the bundle, and how it is read from one."""

    name: str
    specs: tuple[ColumnSpec, ...]
    load: Callable[[Path, Manifest], Part]


SCORERS: list[Kind] = [
    Kind("stages", STAGE_SPECS, load_stages),
    Kind("counterpart", COUNTERPART_SPECS, load_counterpart),
    Kind("peak", PEAK_SPECS, load_peak),
    Kind("anomaly", ANOMALY_SPECS, load_anomaly),
    Kind("embedding", EMBEDDING_SPECS, load_embedding),
    Kind("stamps", STAMP_SPECS, not_asked),
]

SCORE_SPECS: list[ColumnSpec] = [spec for kind in SCORERS for spec in kind.specs]
STAMP_COLUMN = [spec.name for spec in SCORE_SPECS].index(STAMP_SPECS[0].name)
"""Where the score by images belongs: what computes it is no part of a bundle of light-curve models."""


@dataclass(frozen=True)
class Scorer:
    """A loaded bundle: features and context in, the columns of SCORE_SPECS out.

    context : the bundle's context columns among those that are given
    """

    manifest: Manifest
    parts: tuple[Part, ...]
    context: list[int]

    @property
    def id(self) -> str:
        """Name of the model, for provenance."""
        return self.manifest.id

    @property
    def version(self) -> str:
        """Version of the model, for provenance."""
        return self.manifest.version

    @property
    def feature_set_hash(self) -> str:
        """Hash of the feature list that the model was trained on."""
        return self.manifest.feature_set_hash

    @property
    def specs(self) -> list[ColumnSpec]:
        """The columns that `score` returns: SCORE_SPECS, the same for every bundle."""
        return SCORE_SPECS

    def score(self, matrix: F64, context: F64) -> F64:
        """Scores of a batch; a row's scores do not depend on its neighbours.

        matrix  : (n, k) features in the order of the catalogue, NaN where unknown
        context : (n, c) the context columns that the scorer was loaded for, NaN where unknown
        Returns (n, len(SCORE_SPECS)); NaN for what the bundle does not know, never for want of features.
        """
        width = len(self.manifest.feature_names)
        if matrix.ndim != 2 or matrix.shape[1] < width:
            raise BundleError(
                f"bundle {self.id} needs a matrix of {width} features, got shape {matrix.shape}"
            )
        columns = np.hstack([matrix[:, :width], context[:, self.context]])
        columns[np.isinf(columns)] = np.nan  # an infinite feature says as little as a missing one
        return np.hstack([part.score(columns) for part in self.parts])


def load_scorer(
    path: Path | None = None, *, feature_names: Sequence[str], context_names: Sequence[str]
) -> Scorer:
    """The scorer of a bundle's folder, or of the shipped one.

    feature_names : the feature catalogue's names in order;  context_names : the context columns' in order
    BundleError unless the bundle's features are a prefix of the first, its context columns are among the
    second and every file is as it was sealed. Score a row of NaN once to compile before serving.
    """
    folder = path or DEFAULT_BUNDLE
    manifest = read_manifest(folder, feature_names, context_names)
    context = [list(context_names).index(name) for name in manifest.context_names]
    try:
        return Scorer(manifest, tuple(kind.load(folder, manifest) for kind in SCORERS), context)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise BundleError(f"bundle {folder} is incomplete or damaged: {error!r}; get it anew") from None


def stamps_of(setting: str) -> Stamps | None:
    """What `run.stamps` asks for: '' nothing, 'shipped' the package's network, else that of a folder.

    BundleError if the folder holds none that this version can serve. Score once to compile before serving.
    """
    if not setting:
        return None
    return load_stamps(STAMPS_BUNDLE if setting == SHIPPED else Path(setting))
