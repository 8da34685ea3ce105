"""What the API counts of itself, and what it can tell of filters and workers, for Prometheus."""

from __future__ import annotations

import time
from collections import Counter as Tally
from collections.abc import Iterator

import redis
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from broker.api.follower import ControlFollower
from broker.heartbeats import live_workers

_BUCKETS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30)


class ApiMetrics:
    """One registry an app, so that two apps in a process do not add up."""

    media_type = CONTENT_TYPE_PLAIN_0_0_4

    def __init__(self, follower: ControlFollower, client: redis.Redis, group: str) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_StateCollector(follower, client, group))
        self.requests = Counter(
            "broker_api_requests", "Requests by route and status", ["method", "route", "status"],
            registry=self._registry,
        )  # fmt: skip
        self.seconds = Histogram(
            "broker_api_request_seconds",
            "Time to answer",
            ["route"],
            buckets=_BUCKETS,
            registry=self._registry,
        )

    def exposition(self) -> bytes:
        """All metrics as text."""
        return generate_latest(self._registry)


class MeasureRequests:
    """Counts and times requests by the route's pattern: paths would be a label without end."""

    def __init__(self, app: ASGIApp, metrics: ApiMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        start, status = time.perf_counter(), 500

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noting)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self._metrics.requests.labels(_method(scope), route, str(status)).inc()
            self._metrics.seconds.labels(route).observe(time.perf_counter() - start)


class _StateCollector:
    """Filters by state and live workers, looked up when asked; a part that is not known is left out."""

    def __init__(self, follower: ControlFollower, client: redis.Redis, group: str) -> None:
        self._follower, self._redis, self._group = follower, client, group

    def collect(self) -> Iterator[Metric]:
        state = self._follower.state
        if state is not None:
            filters = GaugeMetricFamily("broker_filters", "Filters by state", labels=["state"])
            for word, count in sorted(Tally(item.state for item in state.current_filters().values()).items()):
                filters.add_metric([word], count)
            yield filters
            yield GaugeMetricFamily("broker_control_epoch", "Offset of the last control record", state.epoch)
            yield GaugeMetricFamily(
                "broker_control_not_applied",
                "Control records that cannot be applied, and so change nothing",
                len(state.unreadable) + state.unreadable_more,
            )
        try:
            workers = len(live_workers(self._redis, self._group))
        except redis.RedisError:
            return
        yield GaugeMetricFamily("broker_live_workers", "Workers with a fresh heartbeat", workers)


def _method(scope: Scope) -> str:
    known = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
    return scope["method"] if scope["method"] in known else "other"
