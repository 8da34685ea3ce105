"""What a run reads besides alerts, full of rubbish: nothing may stop it, and everything is accounted for."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from chaos import hostile, log
from chaos.feed import Meant
from chaos.judge import judge
from chaos.run import TOPIC, WORKERS, Chaos
from confluent_kafka import Producer
from harness import read_all, sha256, wait_until
from kafka_raw import RawRecord, produce_raw

from broker.embedded import owned

_ROUNDS = 5
_SPARED = (b"layout",)
"""A store of another layout is refused at the start: that needs a person, and rightly so."""


class Fuzz:
    """A run, and rubbish put where it looks."""

    def __init__(self, chaos: Chaos, seed: int) -> None:
        self.chaos, self.dice = chaos, random.Random(seed)
        self.deaths: Counter[int] = Counter()
        self._known = [(r.key(), r.value()) for r in read_all(chaos.direct, "control") if r.value()]
        self._producer = Producer({"bootstrap.servers": chaos.direct, "linger.ms": 5, "log_level": 2})
        self.put: Counter[str] = Counter()

    def control(self, count: int) -> None:
        """Rubbish in `control`."""
        for _ in range(count):
            key, value = hostile.control_record(self.dice, self._known)
            self._send("control", key, value)
        self._flush()

    def annotations(self, count: int) -> None:
        """Rubbish in `annotations`, much of it about objects that there are."""
        objects = sorted(self.objects())
        for _ in range(count):
            self._send("annotations", *hostile.annotation(self.dice, objects))
        self._flush()

    def headers(self, count: int) -> None:
        """Rubbish with the input: headers around what is no alert and, here and there, around one."""
        feed, left = self.chaos.feed, count
        while left:
            size = min(left, 50)
            values = [self._small(number) for number in range(left - size, left)]
            for value in values:
                feed.meant[sha256(value)] = Meant(None, sha256(value))
            records = [hostile.header_record(self.dice, value) for value in values]
            produce_raw(self.chaos.direct, TOPIC, self.dice.randrange(4), records)
            for value in feed.more(size // 10):
                produce_raw(self.chaos.direct, TOPIC, self.dice.randrange(4), [self._around(value)])
            left -= size
            self.put["headers"] += size + size // 10

    def redis(self, count: int) -> None:
        """Rubbish in Redis, in place of what was there.

        While nothing is in flight: a claim that is changed into another valid one makes its alert a duplicate
        of nothing, and no code can know.
        """
        wait_until(self.chaos.drained, "nothing is in flight")
        client = redis.Redis.from_url(self.chaos.servers.addresses.redis_url)
        keys = [key for key in client.scan_iter(count=5000) if key not in _SPARED]
        for _ in range(count):
            self._spoil(client, self.dice.choice(keys))
            self.put["redis"] += 1
        client.close()

    def objects(self) -> set[str]:
        """Names of the objects of which there are alerts."""
        decode = log.Decoder(self.chaos.direct)
        return {decode(r.value())["objectName"] for r in log.records(self.chaos.direct, ["alerts.ztf"])}

    def lives(self) -> bool:
        """Whether the run and both workers are there."""
        return self.chaos.run.poll() is None and len(self.chaos.workers()) == WORKERS

    def _small(self, number: int) -> bytes:
        return b"rubbish %d %d" % (number, self.dice.getrandbits(60))

    def _around(self, value: bytes) -> RawRecord:
        return hostile.header_record(self.dice, value)

    def _spoil(self, client: redis.Redis, key: bytes) -> None:
        kind = client.type(key)
        if self.dice.random() < 0.05:
            client.delete(key)
            client.lpush(key, b"of another type")
        elif kind == b"string":
            client.set(key, hostile.stored_value(self.dice, client.get(key) or b""), keepttl=True)
        elif kind == b"hash":
            field, value = self.dice.choice(sorted(client.hgetall(key).items()))
            client.hset(key, field, hostile.stored_value(self.dice, value))
        elif kind == b"set":
            client.sadd(key, hostile.stored_value(self.dice, b"ztf"))

    def _send(self, topic: str, key: bytes | None, value: bytes | None) -> None:
        self._producer.produce(topic, value, key)
        self._producer.poll(0)
        self.put[topic] += 1

    def _flush(self) -> None:
        assert self._producer.flush(60) == 0


@pytest.fixture
def fuzz(tmp_path: Path) -> Iterator[Fuzz]:
    with owned(quiet=True) as servers, Chaos(servers, None, tmp_path, seed=23, alerts=100_000) as chaos:
        chaos.feed.repeat_share = (
            0.0  # what is told of an alert in Redis is what makes its repeat a duplicate
        )
        chaos.feed.send(200)
        wait_until(lambda: chaos.subscriber.alerts > 100, "the first alerts come out")
        yield Fuzz(chaos, seed=5)


def rubbish(fuzz: Fuzz, count: int) -> None:
    """Put `count` pieces of rubbish into each place, in rounds, with alerts between; judge the run."""
    chaos, kinds = fuzz.chaos, (fuzz.control, fuzz.annotations, fuzz.headers, fuzz.redis)
    start = time.monotonic()
    for _ in range(_ROUNDS):
        for put in kinds:
            _one_round(fuzz, put, count // _ROUNDS)
    chaos.finish()
    print(f"\n{dict(fuzz.put)} pieces of rubbish in {time.monotonic() - start:.0f} s")
    findings = judge(chaos, damaged=True)
    print(dict(findings.counts))
    told = "\n".join(f"- {problem}" for problem in findings.problems)
    assert not findings.problems, told


def _one_round(fuzz: Fuzz, put: Callable[[int], None], count: int) -> None:
    put(count)
    before = fuzz.chaos.subscriber.alerts
    fuzz.chaos.feed.send(30)
    what = f"alerts still come out after rubbish in {put.__name__}"
    wait_until(lambda: fuzz.chaos.subscriber.alerts > before, what, 60)
    wait_until(fuzz.lives, f"the run and its workers live after rubbish in {put.__name__}", 60)


def test_rubbish_everywhere_stops_nothing(fuzz: Fuzz) -> None:
    rubbish(fuzz, 300)


@pytest.mark.soak
def test_much_rubbish_everywhere_stops_nothing(fuzz: Fuzz) -> None:
    rubbish(fuzz, 10_000)
