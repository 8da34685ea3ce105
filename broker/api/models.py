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
    """Which bundle scores which surveys and since when, the bundles known, and what each worker serves.

    Under `shadows`, what scores beside, and how far it disagrees with each live model on the `alerts` both
    scored: the share whose most probable class `differs`, the mean total variation `distance` of the class
    probabilities, 0 to 1, and the mean `anomaly_difference`.
    """
    return model_store.describe(context.state, context.settings, _workers(context), _found(context))


@router.get("/models/{id}/{version}")
def get_model(id: str, version: str, context: ContextParameter) -> dict[str, Any]:
    """One bundle: its manifest, its card, and when it was promoted."""
    state = context.state
    return model_store.details(state, model_store.find(state, f"{id}:{version}"))


def _found(context: Context) -> model_store.Found:
    """What the shadows were found to disagree in; nothing where Redis cannot say."""
    try:
        return model_store.found_by(context.redis, context.settings.run.group, context.state)
    except redis.RedisError:
        return {}


def _workers(context: Context) -> list[Heartbeat]:
    """The live workers; none where Redis cannot say."""
    try:
        return live_workers(context.redis, context.settings.run.group)
    except redis.RedisError:
        return []
