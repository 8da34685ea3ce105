"""Filters over HTTP: the same store, the same checks and the same answers as `broker filters`."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from broker.api.context import Context, ContextParameter
from broker.filter import Payload
from broker.filters import store

_SEEN_WITHIN_S = 5.0
"""How long a change may take to come back to this process, so that a reader sees what it has written."""

router = APIRouter(prefix="/api/v1", tags=["filters"])


class NewFilter(BaseModel):
    """A filter as its owner gives it."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(description="1 to 48 of a-z, 0-9 and '-'")
    where: str = Field(description="the condition, such as mag < 19 and n_nights >= 2")
    owner: str = Field(store.DEFAULT_OWNER, description="1 to 48 of a-z, 0-9 and '-'")
    payload: Payload = Field("light", description="how much of the alert each message carries")
    description: str | None = Field(
        None, max_length=2000, description="for people; null keeps the one before"
    )


@router.get("/columns")
def list_columns(context: ContextParameter) -> list[dict[str, str]]:
    """Every column that a filter may name, with its unit and what it is."""
    return [
        {"name": spec.name, "unit": spec.unit, "doc": spec.doc, "kind": spec.kind}
        for spec in context.columns.values()
    ]


@router.get("/filters")
def list_filters(context: ContextParameter, removed: bool = False) -> list[dict[str, Any]]:
    """The newest version of each filter; removed ones only if asked for."""
    return [store.as_json(item) for item in store.newest(context.state, removed=removed)]


@router.post("/filters", status_code=201)
def add_filter(
    new: NewFilter, context: ContextParameter, request: Request, response: Response
) -> dict[str, Any]:
    """Store a filter; answers when the workers judge by it. 201 a new version, 200 it was so already."""
    request.state.where = new.where  # for the answer if it is refused
    added = store.add(
        context.settings,
        new.name,
        new.where,
        columns=context.columns,
        owner=new.owner,
        payload=new.payload,
        description=new.description,
    )
    if not added.written:
        response.status_code = 200
    response.headers["Location"] = f"/api/v1/filters/{added.filter.owner}/{added.filter.name}"
    return _changed(context, added)


@router.get("/filters/{owner}/{name}")
def get_filter(
    owner: str, name: str, context: ContextParameter, version: int | None = None
) -> dict[str, Any]:
    """One filter, its newest version or the one asked for, and which versions it has."""
    known = store.versions(context.state, owner, name)
    item = store.find(context.state, owner, name, version)
    return {**store.as_json(item), "versions": [other.version for other in known]}


@router.delete("/filters/{owner}/{name}")
def remove_filter(owner: str, name: str, context: ContextParameter) -> dict[str, Any]:
    """Stop a filter for good; its topic and its versions are kept."""
    return _changed(context, store.remove(context.settings, name, owner=owner))


def _changed(context: Context, added: store.Added) -> dict[str, Any]:
    context.follower.wait_until(lambda state: state.epoch >= added.epoch, _SEEN_WITHIN_S)
    return added.to_json()
