"""Models over HTTP, for reading: what `broker models list` and `show` say."""

from __future__ import annotations

from typing import Any

import redis
from fastapi import APIRouter

from broker import model_store
from broker.api.context import Context, ContextParameter
from broker.heartbeats import Heartbeat, live_workers

router = APIRouter(prefix="/api/v1", tags=["models"])


@router.get("/models")
def list_models(context: ContextParameter) -> dict[str, Any]:
    """Which bundle scores which surveys and since when, the bundles known, and what each worker serves."""
    return model_store.describe(context.state, context.settings, _workers(context))


@router.get("/models/{id}/{version}")
def get_model(id: str, version: str, context: ContextParameter) -> dict[str, Any]:
    """One bundle: its manifest, its card, and when it was promoted."""
    state = context.state
    return model_store.details(state, model_store.find(state, f"{id}:{version}"))


def _workers(context: Context) -> list[Heartbeat]:
    """The live workers; none where Redis cannot say."""
    try:
        return live_workers(context.redis, context.settings.run.group)
    except redis.RedisError:
        return []
