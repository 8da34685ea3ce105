"""Watchlists and regions over HTTP: the same store, checks and answers as `broker catalogs`.

A list's file is the body itself, its name and the rest are in the query. The two kinds have the same calls.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import StreamingResponse

from broker import list_store
from broker.api.context import Context, ContextParameter
from broker.context.region_files import MAX_UPLOAD_BYTES
from broker.context.stored import MAX_DESCRIPTION, ListKind
from broker.filters.store import DEFAULT_OWNER

_SEEN_WITHIN_S = 5.0
"""How long a change may take to come back to this process, so that a reader sees what it has written."""
_BY = "api"

router = APIRouter(prefix="/api/v1")


async def _body(request: Request) -> bytes:
    return await request.body()


Body = Annotated[bytes, Depends(_body)]
Name = Annotated[str, Query(description="1 to 48 of a-z, 0-9 and '-'; nobody else's")]
Owner = Annotated[str, Query(description="1 to 48 of a-z, 0-9 and '-'")]
Description = Annotated[
    str | None, Query(max_length=MAX_DESCRIPTION, description="for people; none keeps the one before")
]
Purge = Annotated[bool, Query(description="forget the contents of the revisions before")]
Revision = Annotated[int | None, Query(ge=1, description="which one; else the newest")]


@router.post("/watchlists", status_code=201, tags=["watchlists"])
def add_watchlist(
    body: Body,
    context: ContextParameter,
    response: Response,
    name: Name,
    owner: Owner = DEFAULT_OWNER,
    description: Description = None,
    radius_arcsec: Annotated[
        float | None, Query(description="of entries that give none; 2 if left out")
    ] = None,
    purge: Purge = False,
) -> dict[str, Any]:
    """Store a CSV (ra, dec [, name] [, radius_arcsec]); answers when the workers judge by it.

    201 a new revision, 200 it was so already. The body is text/csv, at most 128 MiB and a million rows.
    """
    contents = list_store.watchlist(list_store.text_of(body), radius_arcsec)
    return _added(context, response, name, contents, owner, description, purge)


@router.post("/regions", status_code=201, tags=["regions"])
def add_region(
    body: Body,
    context: ContextParameter,
    response: Response,
    name: Name,
    owner: Owner = DEFAULT_OWNER,
    description: Description = None,
    purge: Purge = False,
) -> dict[str, Any]:
    """Store a MOC (FITS, JSON) or a sky map (FITS), gzipped or not; answers when the workers judge by it.

    201 a new revision, 200 it was so already. The body is application/fits, application/gzip or
    application/json, at most 128 MiB.
    """
    return _added(
        context, response, name, list_store.region(body, MAX_UPLOAD_BYTES), owner, description, purge
    )


def _added(
    context: Context,
    response: Response,
    name: str,
    contents: list_store.Contents,
    owner: str,
    description: str | None,
    purge: bool,
) -> dict[str, Any]:
    changed = list_store.add(
        context.settings, name, contents, owner=owner, description=description, purge=purge, by=_BY
    )
    if not changed.written:
        response.status_code = 200
    response.headers["Location"] = f"/api/v1/{contents.kind}s/{name}"
    return _seen(context, changed)


def _add_calls(kind: ListKind) -> None:
    """The calls that are the same for both kinds of list."""
    path, tags = f"/{kind}s", [f"{kind}s"]

    def list_all(context: ContextParameter, removed: bool = False) -> list[dict[str, Any]]:
        return [item.to_json() for item in list_store.newest(context.state, kind, removed=removed)]

    def get_one(name: str, context: ContextParameter, revision: Revision = None) -> dict[str, Any]:
        item = list_store.find(context.state, kind, name, revision)
        return list_store.describe(context.state, item)

    def get_contents(name: str, context: ContextParameter, revision: Revision = None) -> StreamingResponse:
        item = list_store.find(context.state, kind, name, revision)
        headers = {"Content-Disposition": f'attachment; filename="{name}-{item.revision}.csv"'}
        lines = list_store.download(item, context.state.blobs)
        return StreamingResponse(lines, media_type="text/csv", headers=headers)

    def remove(
        name: str, context: ContextParameter, owner: Owner = DEFAULT_OWNER, purge: Purge = False
    ) -> dict[str, Any]:
        done = list_store.remove(context.settings, kind, name, owner=owner, purge=purge, by=_BY)
        return _seen(context, done)

    calls = (
        (path, "GET", list_all, f"The newest revision of each {kind}; removed ones only if asked for."),
        (path + "/{name}", "GET", get_one, f"One {kind}, and which revisions it has."),
        (path + "/{name}/contents", "GET", get_contents, f"What is in a {kind}, as CSV."),
        (path + "/{name}", "DELETE", remove, f"Take a {kind} away: filters that name it get NULL."),
    )
    for where, method, call, about in calls:
        router.add_api_route(where, call, methods=[method], tags=list(tags), description=about)


_add_calls("watchlist")
_add_calls("region")


def _seen(context: Context, changed: list_store.Changed) -> dict[str, Any]:
    context.follower.wait_until(lambda state: state.epoch >= changed.epoch, _SEEN_WITHIN_S)
    return changed.to_json()
