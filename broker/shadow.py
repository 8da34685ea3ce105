"""A model that scores beside the live one: how far the two disagree, and nothing of it published.

It is asked once a batch is committed, so that neither its slowness nor its failure can keep an alert back.
"""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from broker.metrics import (
    SHADOW_ALERTS,
    SHADOW_ANOMALY,
    SHADOW_DIFFERS,
    SHADOW_DISTANCE,
    SHADOW_FAILURES,
)
from broker.models import ModelSet, ShadowModel
from broker.scored import Scored
from broker.scores.catalog import SCORE_SPECS
from broker.scores.taxonomy import LEAVES

log = logging.getLogger(__name__)

F64 = npt.NDArray[np.float64]
_NAMES = [spec.name for spec in SCORE_SPECS]
_LEAVES = [_NAMES.index(f"prob_{leaf}") for leaf in LEAVES]
_ANOMALY = _NAMES.index("anomaly")


@dataclass(frozen=True)
class Disagreement:
    """Sums over the alerts that both models scored.

    alerts : how many;  differs : those whose most probable class is another
    distance : of the total variation distances, each 0..1, of the classes' probabilities
    anomaly : of the absolute differences of the anomaly;  failures : batches that the shadow could not score
    """

    alerts: int = 0
    differs: int = 0
    distance: float = 0.0
    anomaly: float = 0.0
    failures: int = 0

    def __add__(self, other: Disagreement) -> Disagreement:
        return Disagreement(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def to_json(self) -> dict[str, Any]:
        """As people are shown it: means over the alerts, null where there are none."""
        means = {
            "differs": self.differs,
            "distance": self.distance,
            "anomaly_difference": self.anomaly,
        }
        shown = {
            name: round(value / self.alerts, 6) if self.alerts else None for name, value in means.items()
        }
        return {"alerts": self.alerts, **shown, "failures": self.failures}


def disagreement(live: F64, shadow: F64) -> Disagreement:
    """How far two models are apart on n alerts.  live, shadow : (n, len(SCORE_SPECS)), NaN where unknown.

    A class that a model does not know has the probability 0 there.
    """
    ours, theirs = (np.nan_to_num(scores[:, _LEAVES]) for scores in (live, shadow))
    apart = np.abs(live[:, _ANOMALY] - shadow[:, _ANOMALY])
    return Disagreement(
        len(live),
        int((ours.argmax(axis=1) != theirs.argmax(axis=1)).sum()) if len(live) else 0,
        float(0.5 * np.abs(ours - theirs).sum()),
        float(np.nansum(apart)),
    )


_Pair = tuple[int, str]
"""Control offset of a shadow's record, and the live model's id:version."""


@dataclass
class Shadows:
    """The shadow models of one worker.

    share : of each survey's batches that they score, 0..1, evenly spaced
    tell : told once of each shadow that fails, what it is and why
    """

    run_group: str
    share: float
    tell: Callable[[str, str], None]
    _credit: dict[str, float] = field(default_factory=dict)
    _sums: dict[_Pair, Disagreement] = field(default_factory=dict)
    _changed: set[_Pair] = field(default_factory=set)
    _told: set[int] = field(default_factory=set)
    _token: str = field(default_factory=lambda: secrets.token_hex(8))

    def compare(self, scored: Scored, models: ModelSet) -> None:
        """Score alerts by their survey's shadow, if it has one and it is the turn of this batch."""
        shadow = models.shadow_of(scored.survey)
        if shadow is None or not self._turn(scored.survey):
            return
        live = f"{scored.scorer.id}:{scored.scorer.version}"
        try:
            found = disagreement(scored.scores, shadow.model.scorer.score(scored.features, scored.context))
        except Exception as error:  # any fault of a model that serves nobody
            found = Disagreement(failures=1)
            self._failed(shadow, error)
        _count(shadow, found)
        pair = (shadow.record.epoch, live)
        self._sums[pair] = self._sums.get(pair, Disagreement()) + found
        self._changed.add(pair)

    def changed(self) -> dict[tuple[str, str], bytes]:
        """What is to be written since the last call: see late_writes.Fields."""
        pairs = [self._changed.pop() for _ in range(len(self._changed))]
        return {
            (_key(self.run_group, epoch), f"{live}/{self._token}"): json.dumps(
                asdict(self._sums[epoch, live])
            ).encode()
            for epoch, live in pairs
        }

    def _turn(self, survey: str) -> bool:
        credit = self._credit.get(survey, 0.0) + self.share
        turn = credit > 1.0 - 1e-9
        self._credit[survey] = credit - turn
        return turn

    def _failed(self, shadow: ShadowModel, error: Exception) -> None:
        if shadow.record.epoch in self._told:
            return
        self._told.add(shadow.record.epoch)
        log.error("shadow model %s cannot score: %r", shadow.model.name, error)
        self.tell(str(shadow.model.name), f"as a shadow it cannot score: {error!r}")


def _count(shadow: ShadowModel, found: Disagreement) -> None:
    labels = (shadow.record.group, shadow.model.name.id, shadow.model.name.version)
    SHADOW_ALERTS.labels(*labels).inc(found.alerts)
    SHADOW_DIFFERS.labels(*labels).inc(found.differs)
    SHADOW_DISTANCE.labels(*labels).inc(found.distance)
    SHADOW_ANOMALY.labels(*labels).inc(found.anomaly)
    SHADOW_FAILURES.labels(*labels).inc(found.failures)


def read_disagreements(client: Any, run_group: str, epoch: int) -> dict[str, Disagreement]:
    """What all workers have found since a shadow was set, by the live model's id:version.

    Raises redis.RedisError.
    """
    found: dict[str, Disagreement] = {}
    for name, content in client.hgetall(_key(run_group, epoch)).items():
        live = name.decode().rpartition("/")[0]
        known: Mapping[str, Any] = json.loads(content)
        found[live] = found.get(live, Disagreement()) + Disagreement(**known)
    return found


def _key(run_group: str, epoch: int) -> str:
    return f"shadow:{run_group}:{epoch}"
