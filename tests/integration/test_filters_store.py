"""The filter store on a real Kafka and Valkey, with something that acknowledges as a worker does."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

import pytest
import redis
from typer.testing import CliRunner

from broker.assemble import ensure_topics
from broker.cli.filters import filters as verb
from broker.columns import filter_columns
from broker.config import KafkaSettings, Settings
from broker.control import filter_record
from broker.control.topic import ControlTail, ControlWriter
from broker.embedded import Addresses
from broker.errors import BrokerError, FilterError
from broker.features.catalog import FEATURE_SPECS
from broker.filter import Filter
from broker.filters import store
from broker.heartbeats import Heartbeat, HeartbeatSender
from broker.kafka.clients import admin, topic_partitions
from broker.scores.catalog import SCORE_SPECS

COLUMNS = filter_columns(FEATURE_SPECS, SCORE_SPECS)


@pytest.fixture(scope="module")
def owner(servers: Addresses) -> Iterator[str]:
    """An owner that no other test has; removed at the end, so that no worker judges by its filters."""
    owner = f"t-{uuid.uuid4().hex[:10]}"
    yield owner
    kafka = KafkaSettings(bootstrap_servers=servers.bootstrap_servers)
    with ControlTail(kafka) as tail:
        left = [item for item in tail.catch_up().active_filters() if item.owner == owner]
    for item in left:
        ControlWriter(kafka).write(*filter_record(replace(item, state="removed")))


@pytest.fixture
def alone(settings: Settings) -> Settings:
    """Settings with a group of their own, so that no other test's workers are waited for."""
    ensure_topics(settings)
    return replace(settings, run=replace(settings.run, group=f"g-{uuid.uuid4().hex}"))


@contextmanager
def standing_for_a_worker(settings: Settings, slot: str) -> Iterator[None]:
    """Follow control and tell each new epoch in a heartbeat, as a worker does between batches."""
    stop, caught_up = threading.Event(), threading.Event()

    def follow() -> None:
        with ControlTail(settings.kafka) as tail:
            tail.catch_up()
            heart = HeartbeatSender(
                settings.redis.url, settings.run.group, lambda: Heartbeat(slot, tail.state.epoch, True, 1)
            )
            caught_up.set()
            while not stop.is_set():
                if tail.poll(0.05):
                    heart.now()
            heart.stop()

    thread = threading.Thread(target=follow)
    thread.start()
    try:
        assert caught_up.wait(30)
        yield
    finally:
        stop.set()
        thread.join()


def _add(settings: Settings, name: str, where: str, owner: str, **options: object) -> store.Added:
    return store.add(settings, name, where, columns=COLUMNS, owner=owner, **options)  # type: ignore[arg-type]


def test_a_filter_is_written_its_topic_exists_and_versions_count_up(alone: Settings, owner: str) -> None:
    first = _add(alone, "bright", "mag < 18", owner, description="near ones")
    assert (first.filter.version, first.written, first.live) == (1, True, 0)
    assert topic_partitions(admin(alone.kafka))[f"filters.{owner}.bright"] == 1

    again = _add(alone, "bright", "mag < 18", owner)
    assert (again.filter.version, again.written, again.epoch) == (1, False, first.epoch)

    second = _add(alone, "bright", "mag < 17", owner)
    assert (second.filter.version, second.filter.description) == (2, "near ones")
    assert second.epoch > first.epoch

    state = store.read(alone)
    assert [item.where for item in store.versions(state, owner, "bright")] == ["mag < 18", "mag < 17"]
    assert store.find(state, owner, "bright", 1).created_at.endswith("Z")
    with pytest.raises(store.UnknownFilter, match="no version 3; it has 1, 2"):
        store.find(state, owner, "bright", 3)


def test_removal_is_a_state_and_the_topic_stays(alone: Settings, owner: str) -> None:
    _add(alone, "gone", "mag < 18", owner)
    removed = store.remove(alone, "gone", owner=owner)
    assert (removed.filter.state, removed.filter.version) == ("removed", 1)
    state = store.read(alone)
    assert store.find(state, owner, "gone").state == "removed"
    assert "gone" not in {item.name for item in store.newest(state) if item.owner == owner}
    assert "gone" in {item.name for item in store.newest(state, removed=True) if item.owner == owner}
    assert f"filters.{owner}.gone" in topic_partitions(admin(alone.kafka))
    with pytest.raises(store.UnknownFilter, match="is removed"):
        store.remove(alone, "gone", owner=owner)
    assert _add(alone, "gone", "mag < 18", owner).filter.version == 2


def test_a_paused_filter_judges_nothing_until_it_is_enabled(alone: Settings, owner: str) -> None:
    _add(alone, "now-and-then", "mag < 18", owner)
    store.disable(alone, "now-and-then", owner=owner)
    assert "now-and-then" not in {item.name for item in store.read(alone).active_filters()}
    enabled = store.enable(alone, "now-and-then", owner=owner)
    assert (enabled.filter.state, enabled.filter.version, enabled.written) == ("active", 1, True)
    assert not store.enable(alone, "now-and-then", owner=owner).written


def test_a_draft_judges_nothing_until_it_is_enabled(alone: Settings, owner: str) -> None:
    def live() -> list[str]:
        return [item.label for item in store.read(alone).active_filters() if item.owner == owner]

    before = live()
    first = _add(alone, "planned", "mag < 18", owner, draft=True, by="ann")
    assert (first.filter.state, first.written, live()) == ("draft", True, before)
    assert not _add(alone, "planned", "mag < 18", owner, draft=True).written
    assert f"filters.{owner}.planned" not in topic_partitions(admin(alone.kafka))
    with pytest.raises(FilterError, match="is a draft and judges nothing; there is nothing to pause"):
        store.disable(alone, "planned", owner=owner)
    assert store.enable(alone, "planned", owner=owner, by="bea").filter.version == 1
    assert f"filters.{owner}.planned" in topic_partitions(admin(alone.kafka))

    edit = _add(alone, "planned", "mag < 17", owner, draft=True)
    assert (edit.filter.version, f"{owner}.planned@1" in live()) == (2, True)
    store.disable(alone, "planned", owner=owner)
    with pytest.raises(FilterError, match="has version 1, which is paused, and the draft 2; write"):
        store.enable(alone, "planned", owner=owner)
    assert store.enable(alone, "planned@2", owner=owner).filter.where == "mag < 17"
    assert f"{owner}.planned@2" in live()
    with pytest.raises(FilterError, match=r"@1 was replaced by version 2; .* --from .*@1` makes"):
        store.enable(alone, "planned@1", owner=owner)

    old, now = store.versions(store.read(alone), owner, "planned")
    assert (old.changed_by, now.state, now.reason) == ("", "active", "")


def test_an_old_version_is_brought_back_as_the_next_one(alone: Settings, owner: str) -> None:
    _add(alone, "returning", "mag < 18", owner, payload="standard", description="first", max_hits_per_hour=9)
    _add(alone, "returning", "mag < 17", owner)
    back = _add(alone, "returning", None, owner, source="returning@1", description="again").filter
    assert (back.version, back.where, back.payload, back.description) == (3, "mag < 18", "standard", "again")
    assert back.max_hits_per_hour == 9
    other = _add(alone, "sibling", None, owner, source=f"{owner}.returning@2").filter
    assert (other.version, other.where) == (1, "mag < 17")
    with pytest.raises(store.UnknownFilter, match="no version 7; it has 1, 2, 3"):
        _add(alone, "returning", None, owner, source="returning@7")
    assert store.named(store.read(alone), f"{owner}.returning@2").where == "mag < 17"


def test_nothing_is_written_for_a_wrong_filter(alone: Settings, owner: str) -> None:
    with pytest.raises(FilterError, match="unknown column 'psf_flx' at 0"):
        _add(alone, "wrong", "psf_flx > 3", owner)
    with pytest.raises(store.ReservedOwner):
        _add(alone, "mine", "mag < 18", "broker")
    with pytest.raises(store.ReservedOwner):
        store.add(alone, "broker.mine", "mag < 18", columns=COLUMNS)
    state = store.read(alone)
    assert f"filters.{owner}.wrong" not in topic_partitions(admin(alone.kafka))
    for whose in ((owner, "wrong"), ("broker", "mine")):
        with pytest.raises(store.UnknownFilter):
            store.find(state, *whose)


def test_a_call_returns_when_every_live_worker_has_the_new_state(alone: Settings, owner: str) -> None:
    with standing_for_a_worker(alone, "one"), standing_for_a_worker(alone, "two"):
        added = _add(alone, "acknowledged", "mag < 18", owner)
        assert (added.reached, added.live) == (2, 2)
        removed = store.remove(alone, "acknowledged", owner=owner)
        assert (removed.reached, removed.live) == (2, 2)
    assert _add(alone, "acknowledged", "mag < 18", owner).live == 0


def test_a_worker_that_does_not_follow_is_told_and_not_waited_for_forever(
    alone: Settings, owner: str
) -> None:
    heart = HeartbeatSender(
        alone.redis.url, alone.run.group, lambda: Heartbeat("stuck", epoch=-1, ready=True, pid=1)
    )
    try:
        with standing_for_a_worker(alone, "one"):
            added = _add(alone, "half-way", "mag < 18", owner, timeout_s=1.5)
        assert (added.reached, added.live) == (1, 2)
    finally:
        heart.stop()


def test_writers_at_the_same_time_get_versions_of_their_own(alone: Settings, owner: str) -> None:
    texts = [f"mag < {limit}" for limit in range(10, 16)]
    with ThreadPoolExecutor(6) as pool:
        added = list(pool.map(lambda text: _add(alone, "crowded", text, owner), texts))
    assert sorted(item.filter.version for item in added) == [1, 2, 3, 4, 5, 6]
    stored = {item.version: item.where for item in store.versions(store.read(alone), owner, "crowded")}
    assert stored == {item.filter.version: item.filter.where for item in added}


def test_redis_being_away_is_said_before_anything_is_written(alone: Settings, owner: str) -> None:
    away = replace(alone, redis=replace(alone.redis, url="redis://127.0.0.1:1/0"))
    with pytest.raises(BrokerError, match="Redis does not answer"):
        _add(away, "unlucky", "mag < 18", owner)
    with pytest.raises(store.UnknownFilter):
        store.find(store.read(alone), owner, "unlucky")


def test_built_in_filters_are_installed_once_and_respect_what_people_did(alone: Settings) -> None:
    mark = uuid.uuid4().hex[:10]
    kept = Filter("broker", f"kept-{mark}", 1, "mag < 10")
    dropped = Filter("broker", f"dropped-{mark}", 1, "mag < 10")
    try:
        assert store.install_builtin(alone, [kept, dropped]) == [kept, dropped]
        topics = topic_partitions(admin(alone.kafka))
        assert (topics[kept.topic], topics[dropped.topic]) == (1, 1)
        assert store.install_builtin(alone, [kept, dropped]) == []

        store.remove(alone, dropped.name, owner="broker")
        assert store.install_builtin(alone, [kept, dropped]) == []
        assert store.find(store.read(alone), "broker", dropped.name).state == "removed"

        written = store.install_builtin(alone, [kept, replace(dropped, where="mag < 9")])
        assert [(item.name, item.version, item.state) for item in written] == [(dropped.name, 2, "active")]
    finally:  # other tests' workers need not judge by these
        for item in (kept, dropped):
            last = store.find(store.read(alone), "broker", item.name)
            ControlWriter(alone.kafka).write(*filter_record(replace(last, state="removed")))


def test_the_verb_adds_lists_shows_and_removes(alone: Settings, owner: str) -> None:
    servers = ["--kafka", alone.kafka.bootstrap_servers, "--redis", alone.redis.url]

    def run(*arguments: str) -> str:
        result = CliRunner().invoke(verb, [*arguments, *servers], env={"BROKER_RUN_GROUP": alone.run.group})
        assert result.exit_code == 0, result.output
        return result.stdout

    told = run("add", "by-hand", "--where", "mag < 18", "--owner", owner, "--payload", "standard")
    assert "no worker is running" in told
    assert f"broker listen filters.{owner}.by-hand" in told
    listed = {(item["owner"], item["name"]): item for item in json.loads(run("list", "--json"))}
    assert listed[(owner, "by-hand")]["payload"] == "standard"
    assert json.loads(run("show", f"{owner}.by-hand", "--json"))["topic"] == f"filters.{owner}.by-hand"
    assert json.loads(run("remove", f"{owner}.by-hand", "--json"))["filter"]["state"] == "removed"
    assert [item["state"] for item in json.loads(run("versions", f"{owner}.by-hand", "--json"))] == [
        "removed"
    ]
    assert f"{owner}.by-hand" not in run("list")
    told = run("add", "by-hand", "--from", f"{owner}.by-hand@1", "--owner", owner, "--draft")
    assert f"broker filters enable {owner}.by-hand@2" in told
    assert json.loads(run("show", f"{owner}.by-hand@2", "--json"))["inForce"] is False
    assert [item["state"] for item in json.loads(run("versions", f"{owner}.by-hand", "--json"))] == [
        "removed",
        "draft",
    ]


def test_a_writer_that_died_with_the_lock_does_not_block_the_next_for_good(
    alone: Settings, owner: str
) -> None:
    client = redis.Redis.from_url(alone.redis.url)
    lock = client.lock("lock:control", timeout=1.0)
    assert lock.acquire()
    try:
        assert _add(alone, "patient", "mag < 18", owner).written
    finally:
        client.close()
