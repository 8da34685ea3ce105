"""Every object seen, kept new by a thread that follows the alert topics: for the search for similar ones."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable
from itertools import islice

from confluent_kafka import KafkaException

from broker.client import Received, Stream
from broker.config import Settings
from broker.errors import BrokerError
from broker.kafka.topics import ALERT_TOPICS
from broker.similar import SimilarIndex, embedded

log = logging.getLogger(__name__)

_POLL_S = 0.2
_PAUSE_S = 1.0
_GATHER = 20_000
"""Records put into the index at once while the past is read: of most objects only the newest counts."""


class ObjectFollower:
    """Reads the alert topics from their beginning, so that a restart loses nothing that Kafka still has.

    A Kafka that is away is waited for and named in `problem`; what was read before still answers.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="object-follower", daemon=True)
        self.index = SimilarIndex(settings.api.similar_objects)
        self.complete = False
        """Whether all that was there at the start has been read."""
        self.problem = ""
        """Why the topics are not followed now; '' when they are."""

    @property
    def wanted(self) -> bool:
        """Whether there is to be such a search at all."""
        return self._settings.api.similar_objects > 0

    def start(self) -> None:
        """Begin to follow, unless the settings say not to."""
        if self.wanted:
            self._thread.start()

    def stop(self) -> None:
        """End within two seconds; a call into a Kafka that is away is left to die with the process."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout=2)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._follow()
            except (BrokerError, KafkaException) as error:
                if self.problem != str(error):
                    log.warning("alerts are not followed: %s; trying again", error)
                self.problem = str(error)
                self._stopping.wait(_PAUSE_S)

    def _follow(self) -> None:
        with Stream(ALERT_TOPICS, self._settings.kafka, start="beginning") as stream:
            self.problem = ""
            self._read_past(stream)
            while not self._stopping.is_set():
                self._take(stream.poll(_POLL_S))

    def _read_past(self, stream: Stream) -> None:
        past = stream.past()
        while not self._stopping.is_set() and (received := list(islice(past, _GATHER))):
            self._take(received)
        self.complete = self.complete or not self._stopping.is_set()

    def _take(self, received: Iterable[Received]) -> None:
        found = [embedded(item.message.key, item.value) for item in received]
        self.index.add(item for item in found if item is not None)
