"""Filters over HTTP: the same store, the same checks and the same answers as `broker filters`."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from broker.api.context import Context, ContextParameter
from broker.filter import Excess, Payload
from broker.filters import store

_SEEN_WITHIN_S = 5.0
"""How long a change may take to come back to this process, so that a reader sees what it has written."""

_BY = "api"

router = APIRouter(prefix="/api/v1", tags=["filters"])


class NewFilter(BaseModel):
    """A filter as its owner gives it."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    name: str = Field(description="1 to 48 of a-z, 0-9 and '-'")
    where: str | None = Field(
        None, description="the condition, such as mag < 19 and n_nights >= 2; or select ... where ..."
    )
    select: str | None = Field(
        None, description="what each message carries besides, such as mag - peak_mag_g as decline"
    )
    owner: str = Field(store.DEFAULT_OWNER, description="1 to 48 of a-z, 0-9 and '-'")
    payload: Payload | None = Field(None, description="how much of the alert each message carries; or light")
    description: str | None = Field(
        None, max_length=2000, description="for people; null keeps the one before"
    )
    max_hits_per_hour: int | None = Field(
        None, alias="maxHitsPerHour", ge=0, description="its budget; 0 = the one of the settings"
    )
    max_us_per_alert: float | None = Field(
        None, alias="maxUsPerAlert", ge=0, description="time its functions may take; 0 = as in the settings"
    )
    on_excess: Excess | None = Field(
        None, alias="onExcess", description="beyond its hits it is sampled, paused, or one after the other"
    )
    state: Literal["active", "draft"] = Field("active", description="a draft judges nothing until enabled")
    source: str | None = Field(
        None, alias="from", description="NAME@VERSION to take what is not given from, the condition too"
    )


class NewState(BaseModel):
    """What is to become of a filter."""

    model_config = ConfigDict(extra="forbid")

    state: Literal["active", "paused"]


@router.get("/columns")
def list_columns(context: ContextParameter) -> list[dict[str, str]]:
    """Every column that a filter may name, with its unit and what it is."""
    return [
        {"name": spec.name, "unit": spec.unit, "doc": spec.doc, "kind": spec.kind}
        for spec in context.columns.values()
    ]


@router.get("/filters")
def list_filters(context: ContextParameter, removed: bool = False) -> list[dict[str, Any]]:
    """Each filter as it stands: the version in force, else the newest draft.  removed : removed ones too."""
    return [store.as_json(item) for item in store.newest(context.state, removed=removed)]


@router.post("/filters", status_code=201)
def add_filter(
    new: NewFilter, context: ContextParameter, request: Request, response: Response
) -> dict[str, Any]:
    """Store a filter; answers when the workers judge by it. 201 a new version, 200 it was so already."""
    request.state.where = new.where or ""  # for the answer if it is refused
    asked = new.model_dump(exclude={"name", "state"})
    added = store.add(
        context.settings, new.name, columns=context.columns, draft=new.state == "draft", by=_BY, **asked
    )
    if not added.written:
        response.status_code = 200
    response.headers["Location"] = f"/api/v1/filters/{added.filter.owner}/{added.filter.name}"
    missing = store.plugins_missing_here(added.filter, context.columns)
    warnings = [f"the plug-in {name!r} is not installed where the API runs" for name in missing]
    return _changed(context, added) | {"warnings": warnings}


@router.get("/filters/{owner}/{name}")
def get_filter(
    owner: str, name: str, context: ContextParameter, version: int | None = None
) -> dict[str, Any]:
    """One filter, the version in force or the one asked for (also as NAME@VERSION), and which it has."""
    item = store.named(context.state, name, owner, version)
    known = store.versions(context.state, owner, item.name)
    in_force = store.find(context.state, owner, item.name)
    return {**store.as_json(item, in_force), "versions": [other.version for other in known]}


@router.get("/filters/{owner}/{name}/versions")
def list_versions(owner: str, name: str, context: ContextParameter) -> list[dict[str, Any]]:
    """Every version of a filter, oldest first, as stored; at most one is in force."""
    in_force = store.find(context.state, owner, name)
    return [store.as_json(item, in_force) for item in store.versions(context.state, owner, name)]


@router.patch("/filters/{owner}/{name}")
def change_state(owner: str, name: str, change: NewState, context: ContextParameter) -> dict[str, Any]:
    """Pause a filter, resume it or put a draft into force; NAME@VERSION says which where there are both."""
    to_state = {"active": store.enable, "paused": store.disable}[change.state]
    return _changed(context, to_state(context.settings, name, owner=owner, by=_BY))


@router.delete("/filters/{owner}/{name}")
def remove_filter(owner: str, name: str, context: ContextParameter) -> dict[str, Any]:
    """Stop a filter for good; its topic and its versions are kept."""
    return _changed(context, store.remove(context.settings, name, owner=owner, by=_BY))


def _changed(context: Context, added: store.Added) -> dict[str, Any]:
    context.follower.wait_until(lambda state: state.epoch >= added.epoch, _SEEN_WITHIN_S)
    return added.to_json()
