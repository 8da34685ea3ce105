"""Records made to stop the stream, on a real Kafka and Valkey: the others are out, and these are letters."""

from __future__ import annotations

import json
import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis
from confluent_kafka import KafkaException
from harness import Shell, decoded, headers, read_all, records_of, repeated, send, sha256, wait_until

from broker.config import load
from broker.embedded import OwnedServers, owned
from broker.errors import BrokerError
from broker.filter import Filter
from broker.filters.live import compile_set
from broker.history.redis import RedisStore
from broker.kafka.clients import admin
from broker.kafka.lag import backlog
from broker.message import Message
from broker.pipeline import Pipeline, shipped_or_chosen_scorer
from broker.simulate import simulate_ztf
from broker.surveys.avro import LocalSchemas
from tests.damage import damaged
from tests.plugins import install
from tests.raw_kafka import produce

TOPIC = "ztf_replay"
PLUGIN = """
import ctypes, os, signal
import numpy as np
from broker import pipeline

HOW, RA = os.environ.get("POISON", "none:-1").split(":")
judged = pipeline.context_matrix

def context_matrix(packet, ra, dec):
    if HOW == "raise" and (ra == float(RA)).any():
        raise SystemError("planted")
    if HOW == "eat" and (ra == float(RA)).any():
        eaten = []
        while True:
            eaten.append(bytearray(64 * 2**20))
    return judged(packet, ra, dec)

pipeline.context_matrix = context_matrix

class Rule:
    reads = ("ra",)

    def __call__(self, columns):
        if (columns["ra"] == float(RA)).any():
            if HOW == "crash":
                ctypes.string_at(0)
            if HOW == "hang":
                ctypes.PyDLL(None).sleep(1000)  # and nobody else may run
            if HOW == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
        return np.ones(len(columns["ra"]), dtype=bool)
"""


class Stage:
    """Servers of this module's own, and a sky that goes on with each test."""

    def __init__(self, servers: OwnedServers, folder: Path) -> None:
        self.bootstrap = servers.addresses.bootstrap_servers
        self.redis = redis.Redis.from_url(servers.addresses.redis_url)
        self.redis_url = servers.addresses.redis_url
        self.settings = load({"kafka.bootstrap_servers": self.bootstrap}, env={})
        self.admin = admin(self.settings.kafka)
        self.folder = folder
        modules = folder / "modules"
        modules.mkdir()
        install(modules, {"poison": PLUGIN}, {"poison": "poison:Rule"})
        path = os.pathsep.join([str(modules), *filter(None, [os.environ.get("PYTHONPATH")])])
        self.shell = Shell(servers.addresses, folder, {"PYTHONPATH": path, "BROKER_RUN_BATCH_LIMIT_S": "8"})
        self.sky = simulate_ztf(100_000, seed=31)
        self.sent: list[bytes] = []
        self.letters: Counter[str] = Counter()

    def next(self, count: int) -> list[bytes]:
        return [next(self.sky).value for _ in range(count)]

    def feed(self, values: list[bytes]) -> None:
        self.sent += values
        send(self.bootstrap, TOPIC, values)

    def drained(self) -> bool:
        try:
            return not any(backlog(self.settings.kafka, "broker", self.settings.run.topics).values())
        except (BrokerError, KafkaException):
            return False

    def check(self) -> Counter[str]:
        """Every alert is out once or a letter, the filter has them all, the ledger agrees: new letters."""
        alerts = decoded(self.bootstrap, "alerts.ztf")
        letters = read_all(self.bootstrap, "dead-letters")
        bad = Counter(sha256(letter.value() or b"") for letter in letters)
        sent = [(records_of(value)[0], value) for value in self.sent]
        expected = [(it[0]["candid"], sha256(it[1])) for it, value in sent if not bad[sha256(value)]]
        got = [
            (it["diaSourceId"], it["provenance"]["recordSha256"]) for it in alerts if it["kind"] == "alert"
        ]
        assert repeated(got) == []
        assert sorted(got) == sorted(expected)
        hits = [
            it["diaSourceId"]
            for it in decoded(self.bootstrap, "filters.local.poison")
            if it["kind"]
            == "alert"  # an alert that comes after a later one of its object has that judged again
        ]
        assert sorted(hits) == sorted(name for name, _ in got)
        assert '"balanced": true' in self.shell("ledger", "--json")
        now = Counter(headers(letter)["reason"] for letter in letters)
        new, self.letters = now - self.letters, now
        return new

    def notices(self) -> set[str]:
        return {item["kind"] for item in decoded(self.bootstrap, "notices")}


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with owned(quiet=True) as servers:
        made = Stage(servers, tmp_path_factory.mktemp("poison"))
        made.shell("run", "--until-idle", "0")  # makes the topics
        made.shell("filters", "add", "poison", "--where", "plugin('poison')")
        yield made


def place_of(value: bytes) -> float:
    return float(records_of(value)[0][0]["candidate"]["ra"])


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("raise", "internal_error"),
        ("eat", "internal_error"),
        ("crash", "quarantined"),
        ("kill", "quarantined"),
        ("hang", "quarantined"),
    ],
)
def test_an_alert_that_cannot_be_judged_takes_no_neighbour_along(stage: Stage, how: str, reason: str) -> None:
    values = stage.next(600)
    poison = values[317]
    stage.shell.extra |= {"POISON": f"{how}:{place_of(poison)!r}", "BROKER_RUN_WORKER_MEMORY_MIB": "3000"}
    stage.feed(values)
    try:
        stage.shell("run", "--workers", "1", "--until-idle", "1")
    finally:
        del stage.shell.extra["POISON"]
    assert stage.check() == {reason: 1}
    letter = read_all(stage.bootstrap, "dead-letters")[-1]
    assert letter.value() == poison
    said = headers(letter)["detail"]
    assert {"raise": "planted", "eat": "MemoryError"}.get(how, "each time") in said
    assert reason in stage.notices()


def test_two_workers_and_several_at_once(stage: Stage) -> None:
    """The service goes on with what comes later, without a person."""
    values = stage.next(400)
    stage.shell.extra["POISON"] = f"crash:{place_of(values[200])!r}"
    try:
        with stage.shell.running("run", "--workers", "2") as run:
            stage.feed(values)
            wait_until(stage.drained, "the backlog is gone", 120)
            stage.feed(stage.next(100))
            wait_until(stage.drained, "the rest is out too", 60)
            assert psutil.Process(run.pid).is_running()
            assert run.poll() is None
    finally:
        del stage.shell.extra["POISON"]
    assert stage.check() == {"quarantined": 1}


HEADERS: list[list[tuple[bytes, bytes | None]]] = [
    [(b"caf\xe9", b"x")],
    [(b"\xff\xfe\x00", None), (b"fine", b"\xff")],
    [(b"\xed\xa0\xbd", b"half a surrogate")],
    [(b"", b"no name"), (b"nul\x00inside", b"")],
    [(b"x" * 100_000, b"y" * 100_000)] * 4,
    [(b"many", b"")] * 50_000,
]


def test_headers_keys_and_times_that_no_client_would_write(stage: Stage) -> None:
    values = stage.next(4 * len(HEADERS))
    stage.sent += values
    rows = iter(values)
    for given in HEADERS:
        assert produce(stage.bootstrap, TOPIC, next(rows), given, key=b"\xff\x00\xed\xa0\xbd") == 0
        assert produce(stage.bootstrap, TOPIC, next(rows), given, key=os.urandom(300_000)) == 0
        assert produce(stage.bootstrap, TOPIC, next(rows), given, timestamp_ms=0) == 0
        assert produce(stage.bootstrap, TOPIC, next(rows), given, timestamp_ms=-1) == 0
        # what is no alert becomes a letter, whatever its headers are
        assert produce(stage.bootstrap, TOPIC, b"no alert", given, key=os.urandom(300_000)) == 0
        assert produce(stage.bootstrap, TOPIC, None, given) == 0
    stage.shell("run", "--until-idle", "1")
    assert stage.check() == {"bad_wire_format": len(HEADERS), "empty": len(HEADERS)}


ANNOTATIONS = [
    b'{"survey":"ztf","object":"ZTF25bbbbbba","kind":"note","by":"a","text":"\\ud83d"}',
    b'{"survey":"ztf","object":"ZTF25bbbbbba","kind":"note","by":"\\ud83d","text":"a"}',
    b'{"survey":"\\ud83d","object":"ZTF25bbbbbba","kind":"note","by":"a","text":"a"}',
    b'{"survey":"ztf","object":"ZTF25bbbbbba","kind":"\\ud83d","by":"a","text":"a"}',
    b'{"survey":"ztf","object":"1","kind":"redshift","by":"a","redshift":1e999}',
    b'{"survey":"ztf","object":"1","kind":"class","by":"a","class":"\\ud83d","id":"\\udc00"}',
    b"[" * 100_000,
    b'{"a":' * 50_000,
    b"\xff\xfe{}",
    b"1" * 5000,
]


def test_annotations_that_nobody_can_hold(stage: Stage) -> None:
    alert = decoded(stage.bootstrap, "alerts.ztf")[0]
    good = {"survey": "ztf", "object": alert["objectName"], "kind": "note", "by": "me", "text": "\u00d6pik"}
    bad = [value.replace(b"ZTF25bbbbbba", alert["objectName"].encode()) for value in ANNOTATIONS]
    send(stage.bootstrap, "annotations", [*bad, json.dumps(good).encode()])
    stage.shell("run", "--until-idle", "1")
    new = Counter(headers(it)["reason"] for it in read_all(stage.bootstrap, "dead-letters")) - stage.letters
    stage.letters += new
    assert new == {"invalid_annotation": len(bad)}
    notes = [
        it["annotations"]["note"] for it in decoded(stage.bootstrap, "alerts.ztf") if it["kind"] == "update"
    ]
    assert notes == ["\u00d6pik"]
    assert '"balanced": true' in stage.shell("ledger", "--json")


def test_thousands_of_damaged_values_in_redis(stage: Stage) -> None:
    """Each alert is judged once or a letter, whatever stands where the store's values should be."""
    rng, base = random.Random(4), stage.redis_url.rsplit("/", 1)[0] + "/7"
    client, settings = redis.Redis.from_url(base), load(env={}, path=None)
    store = RedisStore(base, settings.history, "here")
    store.check()
    store.mark_rebuilt()
    pipeline = Pipeline(store, shipped_or_chosen_scorer(settings), LocalSchemas(), settings)
    rule = Filter("local", "all", 1, "psf_flux_err > 0", payload="standard")
    filters = compile_set(3, [rule], {}, pipeline.columns)
    values = [alert.value for alert in simulate_ztf(400, seed=8)]
    total: Counter[str] = Counter()
    done = 0
    for first in range(0, 400, 40):
        fresh = values[first : first + 40]
        for at, part in ((first, fresh), (10_000 + first, rng.sample(values[: first + 40], 10))):
            done += _vandalise(client, rng)
            outcome = pipeline.process(
                [Message("t", 0, at + n, 0, value) for n, value in enumerate(part)], filters
            )
            assert outcome.faults == []
            counts: Counter[str] = Counter()
            for (_, what, _), count in outcome.counts.items():
                counts[what] += count
            assert counts["in"] == len(part) == counts["published"] + counts["rejected"] + counts["duplicate"]
            total += counts
            published = {p.key for p in outcome.packets if p.topic == "alerts.ztf"}
            assert published or part is not fresh
    assert done > 3000
    assert total["published"] <= 400
    assert store.damage.met.keys() >= {"curve", "claim", "type"}
    store.close()


def _vandalise(client: Any, rng: random.Random) -> int:
    """Damage about half of all that is stored, the types of keys too; how much."""
    done = 0
    for key in client.scan_iter(count=1000):
        if key.startswith((b"corrupt:", b"rebuilt:", b"layout")):
            continue
        kind = client.type(key)
        if rng.random() < 0.03:
            client.delete(key)
            client.rpush(key, b"another type")
            done += 1
        elif kind == b"string" and rng.random() < 0.5:
            client.set(key, damaged(client.get(key) or b"", rng))
            done += 1
        elif kind == b"hash":
            for field, value in client.hgetall(key).items():
                if rng.random() < 0.5:
                    client.hset(key, field, damaged(value, rng))
                    done += 1
        elif kind == b"set" and rng.random() < 0.5:
            client.sadd(key, rng.randbytes(9))
            done += 1
    return done


def test_a_worker_that_is_killed_costs_little_and_quarantines_nobody(stage: Stage) -> None:
    with stage.shell.running("run", "--workers", "1") as run:
        parent = psutil.Process(run.pid)
        for _ in range(4):
            stage.feed(stage.next(150))
            time.sleep(1.5)
            for child in parent.children():
                if "spawn_main" in " ".join(child.cmdline()):
                    child.kill()
            wait_until(stage.drained, "the backlog is gone", 90)
    assert stage.check() == {}
