"""Is it alive, is it ready, what does it count."""

from __future__ import annotations

from typing import Any

import redis
from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse

from broker.api.context import Context, ContextParameter
from broker.errors import BrokerError
from broker.kafka.clients import topic_partitions

_KAFKA_PATIENCE_S = 2.0
_SHOWN = 10
"""Control records that were skipped and are named."""

router = APIRouter(tags=["operations"])


@router.get("/health")
def health() -> dict[str, str]:
    """The process is alive; says nothing about Kafka or Redis."""
    return {"status": "alive"}


@router.get("/ready")
def ready(context: ContextParameter) -> JSONResponse:
    """200 if Kafka, Redis and the control state are there, else 503 with what is missing and why.

    Records of `control` that cannot be applied are named too: nothing stands still for them.
    """
    problems = {
        what: why
        for what, why in (
            ("kafka", _kafka_problem(context)),
            ("redis", _redis_problem(context)),
            ("control", context.follower.problem),
        )
        if why
    }
    content: dict[str, Any] = {"ready": not problems, "missing": problems, **_not_applied(context)}
    return JSONResponse(content, 503 if problems else 200)


@router.get("/metrics")
def metrics(context: ContextParameter) -> Response:
    """Prometheus metrics of the API; the pipeline has its own port."""
    return Response(context.metrics.exposition(), media_type=context.metrics.media_type)


def _not_applied(context: Context) -> dict[str, Any]:
    """The control records that were skipped, the newest last; nothing where there are none."""
    state = context.follower.state
    if state is None or not state.unreadable:
        return {}
    count = len(state.unreadable) + state.unreadable_more
    return {"notApplied": [str(item) for item in state.unreadable[-_SHOWN:]], "notAppliedCount": count}


def _kafka_problem(context: Context) -> str:
    try:
        topic_partitions(context.admin, _KAFKA_PATIENCE_S)
    except BrokerError as error:
        return str(error)
    return ""


def _redis_problem(context: Context) -> str:
    try:
        context.redis.ping()
    except redis.RedisError as error:
        return f"Redis does not answer: {error}; is it running?"
    return ""
