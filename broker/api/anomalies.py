"""The strangest objects of a night over HTTP: what `broker anomalies` says."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Query

from broker.api.context import ContextParameter, NotReady
from broker.assemble import survey_names
from broker.clusters import LEAST_IN_GROUP, Period, cluster, how_many, read_objects, utc_period
from broker.errors import BrokerError

router = APIRouter(prefix="/api/v1", tags=["objects"])

_BUSY = threading.Lock()
"""One at a time: each request reads the alert topics."""


@router.get("/anomalies/clusters")
def anomaly_clusters(
    context: ContextParameter,
    survey: Annotated[str | None, Query(description="else all")] = None,
    night: Annotated[str | None, Query(pattern="^[0-9]{8}$", description="seen on this UTC date")] = None,
    since: Annotated[datetime | None, Query(description="seen since then, UTC if it names no zone")] = None,
    top: Annotated[str, Query(description="a share such as 1% or a number of objects")] = "1%",
    least: Annotated[int, Query(ge=2, le=1000, description="objects of the smallest group")] = LEAST_IN_GROUP,
) -> dict[str, Any]:
    """The strangest objects of a night, or of the last 24 hours seen, in groups of alike ones.

    Reads the alert topics, which takes as long as they are; one request at a time, others get 503.
    """
    period = _period(night, since)
    if survey is not None and survey not in survey_names():
        raise HTTPException(422, f"unknown survey {survey!r}; one of {', '.join(survey_names())}")
    try:
        how_many(top, 1)
    except BrokerError as error:
        raise HTTPException(422, str(error)) from None
    if not _BUSY.acquire(blocking=False):
        raise NotReady("another request reads the alert topics; ask again in a moment")
    try:
        return cluster(read_objects(context.settings, period, survey), top, least).to_json()
    finally:
        _BUSY.release()


def _period(night: str | None, since: datetime | None) -> Period:
    if night is not None and since is not None:
        raise HTTPException(422, "night and since exclude each other; give one")
    if since is not None:
        return utc_period(since if since.tzinfo else since.replace(tzinfo=UTC))
    if night is None:
        return Period()
    try:
        begin = datetime.strptime(night, "%Y%m%d").replace(tzinfo=UTC)
    except ValueError:
        raise HTTPException(422, f"night {night!r} is no date; write it as 20251121") from None
    return utc_period(begin, begin + timedelta(days=1))
