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
from broker.text import printable

log = logging.getLogger(__name__)

_POLL_S = 0.05
_PAUSE_S = 1.0


class ControlFollower:
    """Follows `control` from `start` to `stop`.

    A Kafka that is away is waited for and named in `problem`. So is whatever else ends the following: it
    begins again from the start of the topic, in this thread or, if that died, in a new one at the next look.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._state: ControlState | None = None
        self._problem = "not started"
        self._started = False
        self._lock = threading.Lock()
        self._thread = self._new_thread()

    @property
    def state(self) -> ControlState | None:
        """The newest state; None until everything that was there at the start has been read."""
        return self._state

    @property
    def problem(self) -> str:
        """Why there is no state, or why it may be old; '' when all is well."""
        if self._started and not self._thread.is_alive() and not self._stopping.is_set():
            self._revive()
        return self._problem

    def start(self) -> None:
        """Begin to follow."""
        self._problem = "the control topic is being read"
        self._started = True
        self._thread.start()

    def stop(self) -> None:
        """End within two seconds; a call into a Kafka that is away is left to die with the process."""
        self._stopping.set()
        if self._started:
            self._thread.join(timeout=2)

    def wait_until(self, wanted: Callable[[ControlState], bool], timeout_s: float) -> bool:
        """Wait until the state is as wanted; whether it came to that in time."""
        with self._changed:
            return self._changed.wait_for(
                lambda: self._state is not None and wanted(self._state), timeout=timeout_s
            )

    def _new_thread(self) -> threading.Thread:
        return threading.Thread(target=self._run, name="control-follower", daemon=True)

    def _revive(self) -> None:
        """A new thread in the place of one that died; the state is old until it has read everything again."""
        with self._lock:
            if not self._thread.is_alive():
                self._problem = "the thread that follows control died; it was started again"
                log.error("%s", self._problem)
                self._thread = self._new_thread()
                self._thread.start()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._follow()
            except (BrokerError, KafkaException) as error:
                self._tell(str(error))
            except Exception as error:
                log.exception("control is not followed")
                self._tell(f"control is not followed: {type(error).__name__}: {printable(str(error), 300)}")
            self._stopping.wait(_PAUSE_S)

    def _tell(self, problem: str) -> None:
        if self._problem != problem:
            log.warning("control is not followed: %s; trying again", problem)
        self._problem = problem

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
