"""The notices of a run's parent: sent by a thread, for what they tell of may be that Kafka is away."""

from __future__ import annotations

import logging
import queue
import threading
import time
from types import TracebackType

from broker.config import KafkaSettings
from broker.control.topic import ControlWriter
from broker.errors import BrokerError
from broker.kafka.topics import NOTICES

log = logging.getLogger(__name__)

_OWNER = "broker"
_KEPT = 100
_END_S = 3.0
_AGAIN_S = 2.0


class Bulletin:
    """Sends notices in their order while its `with` block lasts; `tell` never waits and never fails."""

    def __init__(self, kafka: KafkaSettings) -> None:
        self._kafka = kafka
        self._due: queue.Queue[dict[str, object] | None] = queue.Queue(_KEPT)
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="bulletin", daemon=True)

    def tell(self, subject: str, kind: str, text: str) -> None:
        """Put a notice in the row; where too many wait for Kafka already, it is only logged."""
        at = int(time.time() * 1000)
        notice = {"owner": _OWNER, "subject": subject, "kind": kind, "text": text, "at": at}
        try:
            self._due.put_nowait(notice)
        except queue.Full:
            log.warning("no notice of it: %d wait for Kafka already (%s)", _KEPT, text)

    def __enter__(self) -> Bulletin:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.set()
        try:
            self._due.put_nowait(None)
        except queue.Full:
            return
        self._thread.join(_END_S)

    def _run(self) -> None:
        while (notice := self._due.get()) is not None:
            while not self._sent(notice) and not self._ending.wait(_AGAIN_S):
                pass

    def _sent(self, notice: dict[str, object]) -> bool:
        from broker.publish.packets import encode_record  # noqa: PLC0415 (heavy, and seldom needed)
        from broker.publish.records import NOTICE_SCHEMA  # noqa: PLC0415

        try:
            ControlWriter(self._kafka).send(NOTICES, _OWNER.encode(), encode_record(NOTICE_SCHEMA, notice))
        except BrokerError as error:
            log.info("a notice waits: %s", error)
            return False
        except Exception:  # what cannot be sent at all must not hold up those after it
            log.exception("a notice could not be sent: %s", notice["text"])
        return True
