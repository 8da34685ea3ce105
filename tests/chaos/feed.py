"""What is sent: a simulated sky with repeats, out of order, and with garbage between."""

from __future__ import annotations

import io
import os
import random
import struct
import time
from collections import deque
from dataclasses import dataclass
from itertools import islice

import fastavro
from confluent_kafka import KafkaError, Message, Producer
from harness import sha256

from broker.simulate import simulate_ztf

_GARBAGE = 0.01
_WINDOW = 30
"""How many alerts lie between a place in the sky's order and the farthest it may move."""
_REPEAT_FROM = 100
_PATIENCE_S = 300.0
_BACKLOG = 20_000


@dataclass(frozen=True)
class Meant:
    """What a value that was sent must become.

    candid : the alert's number; None for what is no alert, and must become a dead letter
    record : SHA-256 of the alert's record, which its message names
    """

    candid: int | None
    record: str


class Feed:
    """Sends alerts to an input topic and remembers what each value means.

    Loses nothing itself: a value counts as sent once its report names an offset, one request at a time is
    in flight to a partition, and what failed is sent again.
    """

    def __init__(self, bootstrap: str, topic: str, alerts: int, seed: int, partitions: int = 4) -> None:
        self._topic, self._partitions = topic, partitions
        self._random = random.Random(seed)
        self._sky = simulate_ztf(alerts, seed)
        self._recent: deque[bytes] = deque(maxlen=_REPEAT_FROM)
        self._again: list[tuple[bytes, int]] = []
        self._unanswered = 0
        self.meant: dict[str, Meant] = {}
        """By the SHA-256 of the value."""
        self.repeat_share = 0.03
        self.sent = 0
        self.repeats = 0
        self.garbage = 0
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "log_level": 2,
                "enable.idempotence": True,
                "max.in.flight.requests.per.connection": 1,
                "message.max.bytes": 17 * 2**20,
                "queue.buffering.max.kbytes": 2 * 2**20,
                "linger.ms": 5,
            }
        )

    def send(self, count: int) -> int:
        """The next `count` alerts of the sky, a little out of order, some twice, and garbage; how many."""
        alerts = list(islice(self._sky, count))
        order = sorted(range(len(alerts)), key=lambda place: place + self._random.uniform(0, _WINDOW))
        for place in order:
            self._mean(alerts[place].value, alerts[place].candid)
            if self._recent and self._random.random() < self.repeat_share:
                self.repeats += 1
                self._hand_over(self._random.choice(list(self._recent)))
            if self._random.random() < _GARBAGE:
                self._junk(alerts[place].value)
        self.sent += len(alerts)
        return len(alerts)

    def more(self, count: int) -> list[bytes]:
        """The next alerts of the sky, for the caller to send."""
        alerts = list(islice(self._sky, count))
        for alert in alerts:
            self._note(alert.value, alert.candid)
        self.sent += len(alerts)
        return [alert.value for alert in alerts]

    def finish(self) -> None:
        """Wait until everything is in the log."""
        end = time.monotonic() + _PATIENCE_S
        while self._unanswered or self._again:
            assert time.monotonic() < end, f"{self._unanswered} records of the input cannot be written"
            self._send_again()
            self._producer.poll(0.2)

    def _mean(self, value: bytes, candid: int) -> None:
        self._note(value, candid)
        self._recent.append(value)
        self._hand_over(value)

    def _note(self, value: bytes, candid: int) -> None:
        (block,) = fastavro.block_reader(io.BytesIO(value))
        self.meant[sha256(value)] = Meant(candid, sha256(block.bytes_.getvalue()))

    def _junk(self, good: bytes) -> None:
        self.garbage += 1
        number = self.garbage.to_bytes(8, "big")
        value = self._random.choice(
            [
                b"not an alert at all " + number,
                b"",
                os.urandom(self._random.randrange(1, 50_000)),
                good[: self._random.randrange(4, len(good) - 1)],
                b"\x00" + struct.pack(">I", 4242) + b"of a schema nobody knows " + number,
                good[:-20] + os.urandom(20),
            ]
        )
        self.meant[sha256(value)] = Meant(None, sha256(value))
        self._hand_over(value)

    def _hand_over(self, value: bytes) -> None:
        self._produce(value, self._random.randrange(self._partitions))
        self._send_again()
        while len(self._producer) > _BACKLOG:
            self._producer.poll(0.2)

    def _produce(self, value: bytes, partition: int) -> None:
        def note(error: KafkaError | None, report: Message) -> None:
            self._unanswered -= 1
            if error is not None or report.offset() is None or report.offset() < 0:
                self._again.append((value, partition))

        self._unanswered += 1
        self._producer.produce(self._topic, value, partition=partition, on_delivery=note)
        self._producer.poll(0)

    def _send_again(self) -> None:
        again, self._again = self._again, []
        for value, partition in again:
            self._produce(value, partition)
