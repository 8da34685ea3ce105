"""What a batch's alerts of one survey were judged by, kept for those who watch the judging."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from broker.context import CONTEXT_NAMES
from broker.features.catalog import FEATURE_SPECS
from broker.scores.catalog import SCORE_SPECS, Scorer

F64 = npt.NDArray[np.float64]

WATCHED_SCORES = (
    *(spec.name for spec in SCORE_SPECS if spec.name.startswith("prob_family_")), "novelty", "anomaly",
)  # fmt: skip
"""Scores whose distribution is watched, beside what the models look at."""
MAGNITUDE = "mag"


@dataclass(frozen=True)
class Scored:
    """n alerts of one survey, what they were scored by and the result.

    midpoint_mjd_tai : (n,) [MJD, TAI];  mag : (n,) [AB mag] of the difference flux, NaN where not positive
    features, context, scores : (n, k) in the orders of their catalogues, NaN where unknown
    """

    survey: str
    scorer: Scorer
    midpoint_mjd_tai: F64
    mag: F64
    features: F64
    context: F64
    scores: F64

    def watched(self) -> tuple[tuple[str, ...], F64]:
        """(names, (n, k) values) of what is watched for drift: the models' inputs, scores, magnitude."""
        names = inputs_of(self.scorer)
        parts = [
            part[:, [places[name] for name in names if name in places]]
            for part, places in ((self.features, _FEATURES), (self.context, _CONTEXT))
        ]
        scores = self.scores[:, [_SCORES[name] for name in WATCHED_SCORES]]
        return (*names, *WATCHED_SCORES, MAGNITUDE), np.column_stack([*parts, scores, self.mag])


def inputs_of(scorer: Scorer) -> tuple[str, ...]:
    """Every feature, then every context column, that a stage of the model looks at."""
    asked = {name for stage in scorer.manifest.stages for name in stage.inputs}
    return tuple(name for name in (*_FEATURES, *_CONTEXT) if name in asked)


def _places(names: Sequence[str]) -> dict[str, int]:
    return {name: place for place, name in enumerate(names)}


_FEATURES = _places([spec.name for spec in FEATURE_SPECS])
_CONTEXT = _places(CONTEXT_NAMES)
_SCORES = _places([spec.name for spec in SCORE_SPECS])
