"""Every survey's drift, put together from Redis and `control`."""

from __future__ import annotations

from typing import Any

import redis

from broker.config import Settings
from broker.control import ControlState
from broker.drift.learnt import training_sample
from broker.drift.look import Look, look
from broker.drift.nights import every_survey
from broker.errors import BrokerError


def looks(client: Any, state: ControlState, settings: Settings, survey: str = "") -> list[Look]:
    """The drift of each survey that has a night with enough alerts, or of one.  Raises BrokerError."""
    try:
        nights = [
            found
            for found in every_survey(client, settings.run.group)
            if not survey or found.survey == survey
        ]
    except redis.RedisError as error:
        raise BrokerError(f"Redis does not answer: {error}; is it running?") from error
    return [look(found, *training_sample(state, settings, found.survey)) for found in nights]
