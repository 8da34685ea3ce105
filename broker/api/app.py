"""The FastAPI app: its parts put together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import redis
from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool

from broker import __version__
from broker.api import (
    anomalies,
    backtest,
    catalogs,
    context_lists,
    drift,
    explanation,
    feedback,
    filters,
    health,
    models,
    object_annotations,
    registry,
    similar,
)
from broker.api.context import Context
from broker.api.follower import ControlFollower
from broker.api.guard import Guard
from broker.api.metrics import ApiMetrics, MeasureRequests
from broker.api.objects import ObjectFollower
from broker.api.problems import add_error_handlers
from broker.columns import filter_columns
from broker.config import Settings
from broker.features.catalog import FEATURE_SPECS
from broker.kafka.clients import admin
from broker.scores.catalog import SCORE_SPECS

ROUTERS = [
    health.router,
    backtest.router,
    filters.router,
    feedback.router,
    models.router,
    drift.router,
    explanation.router,
    similar.router,
    anomalies.router,
    object_annotations.router,
    registry.router,
    catalogs.router,
    context_lists.router,
]


def create_app(settings: Settings) -> FastAPI:
    """The API on servers whose addresses are set; it starts without them, and /ready says what is missing."""
    client = redis.Redis.from_url(settings.redis.url, socket_timeout=2, socket_connect_timeout=2)
    follower = ControlFollower(settings)
    metrics = ApiMetrics(follower, client, settings.run.group)
    columns = filter_columns(FEATURE_SPECS, SCORE_SPECS)
    objects = ObjectFollower(settings)
    context = Context(settings, follower, columns, client, admin(settings.kafka), metrics, objects)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        follower.start()
        objects.start()
        yield
        await run_in_threadpool(objects.stop)
        await run_in_threadpool(follower.stop)
        client.close()

    app = FastAPI(title="broker", version=__version__, lifespan=lifespan, redoc_url=None)
    app.state.context = context
    app.add_middleware(Guard, settings=settings.api)
    app.add_middleware(MeasureRequests, metrics=metrics)
    add_error_handlers(app)
    for router in ROUTERS:
        app.include_router(router)
    return app
