"""What a filter would have let through, over HTTP: `broker filters test` on a bounded number of nights."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field, model_validator

from broker.api.context import ContextParameter
from broker.backtest.ask import Asked, ask
from broker.backtest.judge import Limits
from broker.errors import ArchiveError
from broker.filter_explained import explain_alert

MAX_NIGHTS = 31
LIMITS = Limits(rows=2_000_000, seconds=20.0)

router = APIRouter(prefix="/api/v1", tags=["filters"])

_NIGHT = r"^[0-9]{8}$"


class Question(BaseModel):
    """A filter, and nights to judge by it."""

    model_config = ConfigDict(extra="forbid")

    where: str = Field("", description="the condition, such as mag < 19 and n_nights >= 2")
    name: str = Field("", description="or a filter that is stored: owner.name, or owner.name@3")
    first: str = Field("", pattern=rf"{_NIGHT}|^$", description="first night, as 20240101; none: the newest")
    last: str = Field("", pattern=rf"{_NIGHT}|^$", description="last night; none: the first alone")
    newest: int = Field(7, ge=1, le=MAX_NIGHTS, description="the newest so many nights, where none is named")
    survey: str = Field("", description="one survey alone")
    context: Literal["then", "now"] = Field("then", description="what names stood for, or stand for now")
    sample: int = Field(10, ge=0, le=100, description="hits to show, with light curves")

    @model_validator(mode="after")
    def _one_filter(self) -> Question:
        if bool(self.where) == bool(self.name):
            raise ValueError("give `where` or `name`, one of them")
        return self


@router.get("/filters/{owner}/{name}/explain")
def explain(
    owner: str, name: str, alert: int, context: ContextParameter, survey: str = "", now: bool = False
) -> dict[str, Any]:
    """Each clause of a filter on an alert: its values, whether it holds, and why.

    `row` says whether the values are the archive's or the published message's. A name may end in @version.
    404 for a filter or an alert that is not there, 503 if it takes over 20 s to find.
    """
    patience_s = 20.0
    return explain_alert(
        context.settings, name, alert, owner=owner, survey=survey, now=now, patience_s=patience_s
    ).to_json()


@router.post("/filters/test")
def test_filter(question: Question, context: ContextParameter, request: Request) -> dict[str, Any]:
    """Judge archived alerts by a filter.

    The answer is cut off after 20 s or two million alerts, and `cut` says so then; at most 31 nights at a
    time. 404 without an archive or a night that is asked for.
    """
    request.state.where = question.where  # for the answer if it is refused
    if not context.settings.archive.folder:
        raise ArchiveError("no archive is kept: archive.folder is not set for this API")
    span = (question.first, question.last or question.first) if question.first else None
    asked = Asked(
        question.where, question.name, span, question.newest, question.survey, question.context, "",
        question.sample, MAX_NIGHTS,
    )  # fmt: skip
    return ask(context.settings, asked, limits=LIMITS).to_json()
