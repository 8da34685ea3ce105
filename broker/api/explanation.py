"""Why an alert got its probabilities, over HTTP: what `broker explain` says."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from broker.api.context import ContextParameter
from broker.explanation import explained, find_alert, scorer_of

_PATIENCE_S = 20.0

router = APIRouter(prefix="/api/v1", tags=["models"])

Top = Annotated[int, Query(ge=1, description="inputs of each stage, those that did most")]


class Provenance(BaseModel):
    """What scored an alert."""

    modelId: str  # noqa: N815 (the field's name in the stream)
    modelVersion: str  # noqa: N815


class PublishedAlert(BaseModel):
    """The parts of an alert, as `broker listen --format jsonl` prints it, that its scores were made of."""

    model_config = ConfigDict(extra="ignore")

    survey: str
    diaSourceId: str | int  # noqa: N815
    objectName: str = ""  # noqa: N815
    ra: float
    dec: float
    features: dict[str, float | None]
    packet: dict[str, float | None]
    provenance: Provenance = Field(description="its modelId and modelVersion")


@router.get("/alerts/{survey}/{dia_source_id}/explanation")
def explain_alert(
    survey: str, dia_source_id: int, context: ContextParameter, top: Top = 20
) -> dict[str, Any]:
    """What moved each stage's answer about a published alert, and how far, by the model that scored it.

    `effect` is by how much an input raised the logarithm of the odds of the `answer`, the stage's most
    probable class. `method` says how it is known: for boosted trees their own contributions, for every other
    `kind` what changes when one input at a time is made usual, which does not see what inputs do together.
    `value` null: the input was unknown. The topic is read until the alert turns up: for many alerts use POST.
    404 for an alert or a model that is not there, 503 if it takes over 20 s to find.
    """
    found = find_alert(context.settings.kafka, context.state, dia_source_id, survey, _PATIENCE_S)
    return explained(found, scorer_of(found, context.state, context.settings)).to_json(top)


@router.post("/explanation")
def explain_given(alert: PublishedAlert, context: ContextParameter, top: Top = 20) -> dict[str, Any]:
    """The same for an alert as it was received: nothing has to be found."""
    given = alert.model_dump()
    return explained(given, scorer_of(given, context.state, context.settings)).to_json(top)
