"""Feedback over HTTP: the same store, the same checks and the same answers as `broker feedback`."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from broker import feedback_store
from broker.api.context import Context, ContextParameter
from broker.feedback import MAX_NOTE, Verdict
from broker.feedback_store import Told

_SEEN_WITHIN_S = 5.0
"""How long a change may take to come back to this process, so that a reader sees what it has written."""
_BY = "api"

router = APIRouter(prefix="/api/v1", tags=["feedback"])


class NewMark(BaseModel):
    """What an owner says of a published alert."""

    model_config = ConfigDict(extra="forbid")

    owner: str = Field(description="1 to 48 of a-z, 0-9 and '-'")
    survey: str = Field(description="such as ztf or lsst")
    alert: int = Field(description="its diaSourceId; as text where the sender's numbers end at 2^53")
    verdict: Verdict = Field(description="show more, or less, of what is like it")
    note: str = Field("", max_length=MAX_NOTE, description="for people")


@router.post("/feedback", status_code=201)
def add_mark(new: NewMark, context: ContextParameter) -> dict[str, Any]:
    """Mark an alert; answers when the workers judge by the forest that knows it."""
    told = feedback_store.add(
        context.settings,
        new.owner,
        new.survey,
        new.alert,
        new.verdict,
        by=_BY,
        columns=context.columns,
        note=new.note,
    )
    return _told(context, told)


@router.get("/feedback/{owner}")
def list_marks(owner: str, context: ContextParameter) -> dict[str, Any]:
    """An owner's marks, and every forest made of them with the control epoch since which it judges."""
    return feedback_store.describe(context.state, owner)


@router.get("/feedback/{owner}/{survey}/suggestions")
def suggestions(
    owner: str, survey: str, context: ContextParameter, count: int = Query(10, ge=1, le=1000)
) -> list[dict[str, Any]]:
    """The recent alerts that are strangest to the owner, of objects not yet marked."""
    return feedback_store.suggest(context.settings, owner, survey, count)


@router.delete("/feedback/{owner}/{survey}/{alert}")
def remove_mark(owner: str, survey: str, alert: int, context: ContextParameter) -> dict[str, Any]:
    """Take a mark back; answers when the workers judge without it."""
    told = feedback_store.remove(context.settings, owner, survey, alert, by=_BY, columns=context.columns)
    return _told(context, told)


def _told(context: Context, told: Told) -> dict[str, Any]:
    context.follower.wait_until(lambda state: state.epoch >= told.epoch, _SEEN_WITHIN_S)
    return told.to_json()
