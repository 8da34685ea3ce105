"""Why a published alert got its probabilities: the alert looked up, and the very model that scored it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from broker import published
from broker.assemble import survey_names
from broker.batch import PACKET_COLUMNS
from broker.config import KafkaSettings, Settings
from broker.context import CONTEXT_NAMES, context_matrix
from broker.control import ControlState
from broker.kafka.topics import ALERTS
from broker.model_store import UnknownModel
from broker.models import load_checked, load_stored
from broker.promotion import StoredBundle
from broker.published import RecordDecoder, UnknownAlert
from broker.scores.bundle import MANIFEST
from broker.scores.catalog import BUNDLES, Scorer
from broker.scores.explain import Explanation, explain
from broker.scores.stages import Stages

F64 = npt.NDArray[np.float64]
Alert = Mapping[str, Any]
"""An alert as a topic alerts.<survey> carries it, decoded."""


_WANTED = ("diaSourceId", "objectName", "survey", "band", "ra", "dec", "packet", "features", "provenance")


@dataclass(frozen=True)
class Explained:
    """An alert's explanations, a stage each, and the model they are of."""

    alert: Alert
    scorer: Scorer
    stages: list[Explanation]

    def to_json(self, top: int | None = None) -> dict[str, Any]:
        """As `--json` and the API show it.  top : inputs of each stage, those that did most; None = all."""
        kinds = {stage.name: stage.kind for stage in self.scorer.manifest.stages}
        return {
            "survey": self.alert["survey"],
            "diaSourceId": str(self.alert["diaSourceId"]),
            "objectName": self.alert["objectName"],
            "model": {"id": self.scorer.id, "version": self.scorer.version},
            "stages": [_stage_json(one, kinds[one.stage], top) for one in self.stages],
        }


def _stage_json(one: Explanation, kind: str, top: int | None) -> dict[str, Any]:
    return {
        "stage": one.stage,
        "kind": kind,
        "answer": one.answer,
        "probability": one.probability,
        "method": one.method,
        "shares": [
            {
                "input": share.input,
                "value": None if math.isnan(share.value) else share.value,
                "effect": share.effect,
            }
            for share in one.shares[:top]
        ],
    }


def find_alert(
    kafka: KafkaSettings, state: ControlState, dia_source_id: int, survey: str = "", patience_s: float = 60.0
) -> Alert:
    """A published alert as it was sent, looked for in the topic of its survey, or of all.

    state : knows the schemas.  From the newest alert on: this takes as long as the alert is old.
    Raises UnknownAlert, or BrokerError when it takes longer than patience_s.
    """
    decoder = RecordDecoder(state.schemas, _WANTED)
    for one in [survey] if survey else survey_names():
        with suppress(UnknownAlert):
            return published.find_alert(kafka, one, dia_source_id, decoder, patience_s)
    raise UnknownAlert(
        f"no alert {dia_source_id} in {ALERTS + (survey or '*')}; is it of another survey, or is its "
        "retention over?"
    )


def explained(alert: Alert, scorer: Scorer) -> Explained:
    """Every stage of a model explained for one alert.  Raises KeyError where the alert lacks a part."""
    stages = next(part for part in scorer.parts if isinstance(part, Stages))
    names = [*scorer.manifest.feature_names, *scorer.manifest.context_names]
    row = inputs(alert, names)
    asked = [stage for stage in (stages.family, *stages.within.values()) if stage is not None]
    return Explained(alert, scorer, [explain(stage, names, row) for stage in asked])


def inputs(alert: Alert, names: list[str]) -> F64:
    """(k,) values of a model's columns for an alert, NaN where unknown."""
    packet = {
        spec.name: np.array([_number(alert["packet"].get(spec.name.replace(".", "_")))])
        for spec in PACKET_COLUMNS
    }
    context = context_matrix(packet, np.array([float(alert["ra"])]), np.array([float(alert["dec"])]))[0]
    known = {name: _number(value) for name, value in alert["features"].items()}
    known |= dict(zip(CONTEXT_NAMES, context.tolist(), strict=True))
    return np.array([known.get(name, np.nan) for name in names])


def _number(value: float | None) -> float:
    return np.nan if value is None else float(value)


def scorer_of(alert: Alert, state: ControlState, settings: Settings) -> Scorer:
    """The model that scored an alert, as its provenance names it.  Raises UnknownModel, or BundleError."""
    name = f"{alert['provenance']['modelId']}:{alert['provenance']['modelVersion']}"
    for stored in state.bundles.values():
        if str(stored.name) == name:
            return _stored(stored)
    for folder in (*([Path(settings.run.model)] if settings.run.model else []), *sorted(BUNDLES.iterdir())):
        if _named(folder) == name:
            return _of_folder(folder)
    raise UnknownModel(
        f"alert {alert['diaSourceId']} was scored by {name}, which is neither shipped with this version "
        "nor was promoted; give its folder (broker explain --model)"
    )


def _named(folder: Path) -> str:
    try:
        said = json.loads((folder / MANIFEST).read_text())
        return f"{said['id']}:{said['version']}"
    except (OSError, ValueError, KeyError, TypeError):
        return ""


@lru_cache(maxsize=4)
def _stored(bundle: StoredBundle) -> Scorer:
    return load_stored(bundle).scorer


@lru_cache(maxsize=4)
def _of_folder(folder: Path) -> Scorer:
    return load_checked(folder)
