"""Redis is a cache: emptied, it comes back from Kafka, and nothing is published twice."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from confluent_kafka import KafkaException
from harness import Shell, decoded, repeated, send, wait_until

from broker.assemble import prepare
from broker.config import load
from broker.embedded import OwnedServers, owned
from broker.errors import BrokerError
from broker.history.merge import join_blobs, merge
from broker.kafka.clients import admin
from broker.kafka.lag import backlog
from broker.lightcurves import DETECTION, FLAG_OWN, empty_light_curves
from broker.simulate import simulate_ztf
from tests.withdrawals import closed, one_object, taking_back

ZTF = [alert.value for alert in simulate_ztf(150, seed=21)]
FIRST, SECOND, THIRD = one_object(3)
GONE = FIRST["diaSource"]["diaSourceId"]
LSST = [closed(FIRST), closed(taking_back(SECOND, [GONE])), closed(taking_back(THIRD, [GONE]))]


class Stage:
    """Servers of this module's own: it empties one of them."""

    def __init__(self, servers: OwnedServers, folder: Path) -> None:
        self.bootstrap = servers.addresses.bootstrap_servers
        self.redis = redis.Redis.from_url(servers.addresses.redis_url)
        self.settings = load(
            {"kafka.bootstrap_servers": self.bootstrap, "redis.url": servers.addresses.redis_url},
            env={},
            path=None,
        )
        self.admin = admin(self.settings.kafka)
        self.shell = Shell(servers.addresses, folder, {"BROKER_RUN_BATCH_MAX": "100"})

    def feed(self) -> None:
        """Everything, once more."""
        send(self.bootstrap, "ztf_replay", ZTF)
        for value in LSST:
            send(self.bootstrap, "lsst_replay", [value])

    def drained(self) -> bool:
        """Whether the group has committed all of the input."""
        try:
            return not any(backlog(self.settings.kafka, "broker", self.settings.run.topics).values())
        except (BrokerError, KafkaException):
            return False

    def published(self) -> list[tuple[str, int]]:
        """(kind, diaSourceId) of everything in the alert topics."""
        topics = ("alerts.ztf", "alerts.lsst")
        return sorted(
            (item["kind"], item["diaSourceId"]) for topic in topics for item in decoded(self.bootstrap, topic)
        )

    def claims(self) -> dict[bytes, dict[bytes, bytes]]:
        """Every claim; of a note that a withdrawal was told only that it is there."""
        return {
            key: {f: b"" if key.startswith(b"told") else v for f, v in self.redis.hgetall(key).items()}
            for pattern in ("claims:*", "told:*")
            for key in self.redis.keys(pattern)
        }

    def own_points(self) -> dict[bytes, bytes]:
        """The alerts' own points of every light curve as it reads now."""
        keys = sorted(self.redis.keys("lc:*"))
        stored = join_blobs(self.redis.mget(keys))
        curves = merge(stored, empty_light_curves(len(keys))).curves
        rows = {key: curves.row(number) for number, key in enumerate(keys)}
        return {
            key: row[(row["kind"] == DETECTION) & (row["flags"] & FLAG_OWN != 0)].tobytes()
            for key, row in rows.items()
        }

    def ledger(self) -> dict[str, int]:
        """The account, which must balance."""
        found: dict[str, int] = json.loads(self.shell("ledger", "--json"))
        return found


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with owned(quiet=True) as servers:
        made = Stage(servers, tmp_path_factory.mktemp("rebuild"))
        prepare(made.settings)
        made.shell("filters", "add", "all", "--where", "psf_flux_err > 0", "--payload", "standard")
        made.feed()
        made.shell("run", "--workers", "2", "--until-idle", "1")
        yield made


def test_the_retraction_went_out_once_and_the_account_balances(stage: Stage) -> None:
    """Whichever of the three packets came first: they are in different partitions."""
    alerts = stage.published()
    assert len(alerts) == len(ZTF) + len(LSST) + 1
    assert [name for kind, name in alerts if kind == "retraction"] == [GONE]
    hits = decoded(stage.bootstrap, "filters.local.all")
    assert [hit["diaSourceId"] for hit in hits if hit["kind"] == "retraction"] == [GONE]
    assert stage.ledger()["published"] == len(ZTF) + len(LSST)


def test_an_emptied_redis_is_rebuilt_at_the_next_start(stage: Stage) -> None:
    alerts, claims, points = stage.published(), stage.claims(), stage.own_points()
    stage.redis.flushdb()
    before = stage.ledger()
    stage.feed()
    stage.shell("run", "--workers", "2", "--until-idle", "1")
    assert stage.published() == alerts
    assert repeated(alerts) == []
    assert stage.claims() == claims
    assert stage.own_points() == {key: value for key, value in points.items() if value}
    after = stage.ledger()
    assert after["duplicates"] - before["duplicates"] == len(ZTF) + len(LSST)
    assert after["balanced"]


def test_redis_emptied_under_a_running_pipeline(stage: Stage) -> None:
    alerts = stage.published()
    with stage.shell.running("run", "--workers", "2"):
        send(stage.bootstrap, "ztf_replay", [b"wakes everybody"])
        wait_until(stage.drained, "the workers work")
        stage.redis.flushdb()
        stage.feed()
        wait_until(stage.drained, "the backlog is gone")
    assert stage.published() == alerts
    assert stage.ledger()["balanced"]


def test_rebuilding_by_hand(stage: Stage) -> None:
    claims, points = stage.claims(), stage.own_points()
    stage.redis.flushdb()
    stage.shell("history", "rebuild")
    assert (stage.claims(), stage.own_points()) == (claims, points)
    stage.shell("history", "rebuild")
    assert (stage.claims(), stage.own_points()) == (claims, points)
    lengths = [stage.redis.strlen(key) for key in stage.redis.keys("lc:*")]
    assert sum(lengths) - sum(map(len, points.values())) in (32, 64)  # the point that was withdrawn
