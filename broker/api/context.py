"""What every endpoint needs, made once an app."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import redis
from confluent_kafka.admin import AdminClient
from fastapi import Depends, Request

from broker.api.follower import ControlFollower
from broker.api.metrics import ApiMetrics
from broker.api.objects import ObjectFollower
from broker.config import Settings
from broker.control import ControlState
from broker.errors import BrokerError
from broker.table import ColumnSpec


class NotReady(BrokerError):
    """The API cannot answer yet: the control topic has not been read."""


@dataclass(frozen=True)
class Context:
    """Settings with addresses, the control state, what filters may name, the clients of the checks, and the
    objects seen.
    """

    settings: Settings
    follower: ControlFollower
    columns: Mapping[str, ColumnSpec]
    redis: redis.Redis
    admin: AdminClient
    metrics: ApiMetrics
    objects: ObjectFollower

    @property
    def state(self) -> ControlState:
        """The control state.  Raises NotReady."""
        state = self.follower.state
        if state is None:
            raise NotReady(f"not ready: {self.follower.problem}; ask /ready again in a moment")
        return state


def _context(request: Request) -> Context:
    context: Context = request.app.state.context
    return context


ContextParameter = Annotated[Context, Depends(_context)]
"""Type of an endpoint's parameter that is given the context."""
