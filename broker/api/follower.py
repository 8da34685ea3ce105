"""The control state in this process, kept new by a thread."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from confluent_kafka import KafkaException

from broker.assemble import ensure_topics
from broker.config import Settings
from broker.control import ControlState
from broker.control.topic import ControlTail
from broker.errors import BrokerError

log = logging.getLogger(__name__)

_POLL_S = 0.05
_PAUSE_S = 1.0


class ControlFollower:
    """Follows `control` from `start` to `stop`; a Kafka that is away is waited for and named in `problem`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._state: ControlState | None = None
        self._problem = "not started"
        self._thread = threading.Thread(target=self._run, name="control-follower", daemon=True)

    @property
    def state(self) -> ControlState | None:
        """The newest state; None until everything that was there at the start has been read."""
        return self._state

    @property
    def problem(self) -> str:
        """Why there is no state, or why it may be old; '' when all is well."""
        return self._problem

    def start(self) -> None:
        """Begin to follow."""
        self._problem = "the control topic is being read"
        self._thread.start()

    def stop(self) -> None:
        """End within two seconds; a call into a Kafka that is away is left to die with the process."""
        self._stopping.set()
        self._thread.join(timeout=2)

    def wait_until(self, wanted: Callable[[ControlState], bool], timeout_s: float) -> bool:
        """Wait until the state is as wanted; whether it came to that in time."""
        with self._changed:
            return self._changed.wait_for(
                lambda: self._state is not None and wanted(self._state), timeout=timeout_s
            )

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._follow()
            except (BrokerError, KafkaException) as error:
                if self._problem != str(error):
                    log.warning("control is not followed: %s; trying again", error)
                self._problem = str(error)
                self._stopping.wait(_PAUSE_S)

    def _follow(self) -> None:
        ensure_topics(self._settings)
        with ControlTail(self._settings.kafka) as tail:
            self._publish(tail.catch_up())
            while not self._stopping.is_set():
                if tail.poll(_POLL_S):
                    self._publish(tail.state)

    def _publish(self, state: ControlState) -> None:
        with self._changed:
            self._state, self._problem = state, ""
            self._changed.notify_all()
