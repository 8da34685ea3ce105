"""Filters changed while alerts flow through four workers: one version explains each message, none is missing.

What should be in a filter's topic is worked out from `alerts.ztf` (each alert's control epoch, band and
number of detections) and from the records of `control` up to that epoch.
"""

from __future__ import annotations

import io
import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fastavro
import numpy as np
import pytest
from harness import Shell, decoded, read_all, repeated, send, wait_until

from broker import control
from broker.client import Received, Stream, selected
from broker.columns import filter_columns
from broker.config import load
from broker.control import ControlState
from broker.embedded import Addresses, owned
from broker.features.catalog import FEATURE_SPECS
from broker.filters import store
from broker.filters.budgets import drawn
from broker.ledger import ledger_records
from broker.scores.catalog import SCORE_SPECS
from broker.simulate import simulate_ztf

TOPIC = "ztf_replay"
WORKERS = 4
SKY = 300
STEP = 10**13
"""How far the ids of one copy of the sky lie from those of the next."""
COLUMNS = filter_columns(FEATURE_SPECS, SCORE_SPECS)
Alert = dict[str, Any]
RULES: dict[str, Callable[[Alert], bool]] = {
    "band = 'g'": lambda alert: alert["band"] == "g",
    "band = 'r' and n_detections >= 3": lambda alert: alert["band"] == "r" and _detections(alert) >= 3,
    "n_detections < 3 or band <> 'r'": lambda alert: _detections(alert) < 3 or alert["band"] != "r",
    "band in ('g', 'r', 'i')": lambda alert: alert["band"] in {"g", "r", "i"},
}
FIRST, SECOND, THIRD, EVERYTHING = RULES


def _detections(alert: Alert) -> float:
    return float(alert["features"]["n_detections"])


class Stage:
    """The servers, four workers, and a sky that is sent again and again as other objects."""

    def __init__(self, addresses: Addresses, folder: Path) -> None:
        self.bootstrap = addresses.bootstrap_servers
        flags = {"kafka.bootstrap_servers": self.bootstrap, "redis.url": addresses.redis_url}
        self.settings = load(flags, env={})
        self.shell = Shell(addresses, folder)
        values = [alert.value for alert in simulate_ztf(SKY, seed=21)]
        random.Random(4).shuffle(values)  # or all that comes between two changes may be of one band
        self._sky = [next(iter(fastavro.reader(io.BytesIO(value)))) for value in values]
        self._schema = fastavro.parse_schema(fastavro.reader(io.BytesIO(values[0])).writer_schema)
        header = io.BytesIO()
        fastavro.writer(header, self._schema, [])
        self._header = header.getvalue()
        self._copies = 0
        self._published: list[Alert] = []
        self.sent = 0

    def twins(self) -> list[bytes]:
        """The sky as other objects, with ids of their own."""
        self._copies += 1
        return [self._twin(dict(record), self._copies) for record in self._sky]

    def _twin(self, record: Any, copy: int) -> bytes:
        shift = copy * STEP
        points = [
            it | {"candid": it["candid"] and it["candid"] + shift} for it in record["prv_candidates"] or []
        ]
        own = record["candidate"] | {"candid": record["candid"] + shift}
        changed = {"objectId": f"ZTF{30 + copy}{record['objectId'][5:]}", "candid": record["candid"] + shift}
        out = io.BytesIO()
        twin = record | changed | {"candidate": own, "prv_candidates": points}
        fastavro.schemaless_writer(out, self._schema, twin)
        counts = io.BytesIO()
        fastavro.schemaless_writer(counts, "long", 1)
        fastavro.schemaless_writer(counts, "long", len(out.getvalue()))
        return self._header + counts.getvalue() + out.getvalue() + self._header[-16:]

    @contextmanager
    def flowing(self) -> Iterator[None]:
        """Alerts come in without a pause; at the end all of them have been worked on."""
        over = threading.Event()

        def feed() -> None:
            while not over.is_set():
                values = self.twins()
                for first in range(0, len(values), 25):
                    if over.is_set():
                        return
                    send(self.bootstrap, TOPIC, values[first : first + 25])
                    self.sent += len(values[first : first + 25])
                    time.sleep(0.2)

        thread = threading.Thread(target=feed)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
        wait_until(lambda: self.done() == self.sent, "all is processed")

    def done(self) -> int:
        """Input offsets that the ledger accounts for."""
        parts = [part for record in ledger_records(self.settings.kafka) for part in record["partitions"]]
        return sum(part["after"] - part["before"] for part in parts)

    def let_pass(self, count: int) -> None:
        """Wait until so many more alerts have been worked on."""
        goal = self.done() + count
        wait_until(lambda: self.done() >= goal, f"{count} more alerts")

    def add(self, name: str, where: str, **wanted: Any) -> store.Added:
        return store.add(self.settings, name, where, columns=COLUMNS, **wanted)

    def notices(self, name: str) -> list[dict[str, Any]]:
        return [item for item in decoded(self.bootstrap, "notices") if item["subject"] == f"local.{name}"]

    def hits(self, name: str) -> tuple[list[Alert], list[Received]]:
        """The hits of a filter, and the notices in its own topic, as a subscriber gets them."""
        notices: list[Received] = []
        with Stream(
            f"filters.local.{name}", self.bootstrap, start="beginning", on_notice=notices.append
        ) as stream:
            return [received.value for received in stream.past()], notices

    def states(self) -> list[tuple[int, ControlState]]:
        """The control state after each record, by its offset."""
        state, found = ControlState(), []
        for record in read_all(self.bootstrap, "control"):
            state = control.apply(state, record.offset(), record.key(), record.value())
            found.append((record.offset(), state))
        return found

    def published(self) -> list[Alert]:
        """Every alert that went out, decoded once."""
        if len(self._published) != self.sent:
            self._published = decoded(self.bootstrap, "alerts.ztf")
        assert len(self._published) == self.sent
        return self._published

    def expected(self, name: str) -> list[tuple[int, str, float]]:
        """(diaSourceId, version, share) of every hit that a filter should have, from what was published."""
        at = {offset: state.filters_in_force().get(f"local.{name}") for offset, state in self.states()}
        hits = []
        for alert in self.published():
            item = at[alert["provenance"]["controlEpoch"]]
            if item is not None and item.state == "active" and RULES[item.where](alert):
                identity = alert["diaSourceId"]
                if item.sample == 1 or drawn(np.array([identity]), item.full_name, item.sample)[0]:
                    hits.append((identity, item.label, item.sample))
        return sorted(hits)

    def check(self, name: str) -> tuple[list[Alert], list[Received]]:
        """Hold a filter's topic, and what the alerts say, against what should be there."""
        hits, notices = self.hits(name)
        found = sorted((hit["diaSourceId"], label(hit), hit["filter"]["sampling"]) for hit in hits)
        expected = self.expected(name)
        assert repeated([identity for identity, _, _ in found]) == []
        assert [row[:2] for row in found] == [row[:2] for row in expected]
        assert [row[2] for row in found] == pytest.approx([row[2] for row in expected])
        said = [
            (alert["diaSourceId"], passed)
            for alert in self.published()
            for passed in alert["filtersPassed"]
            if passed.startswith(f"local.{name}@")
        ]
        assert sorted(said) == [row[:2] for row in expected]
        return hits, notices


def label(hit: Alert) -> str:
    return f"{hit['filter']['name']}@{hit['filter']['version']}"


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with owned(quiet=True) as servers:
        made = Stage(servers.addresses, tmp_path_factory.mktemp("life"))
        log = made.shell.folder / "run.log"
        with made.shell.running("run", "--workers", str(WORKERS)):
            wait_until(lambda: log.exists() and "metrics: " in log.read_text(), "the run begins")
            yield made


def test_every_message_is_explained_by_one_version_and_none_is_missing(stage: Stage) -> None:
    changes = [
        stage_of(lambda: stage.add("life", FIRST), 1, "active"),
        stage_of(
            lambda: stage.add(
                "life", SECOND, select="n_detections, band as passband, last_days(999) as lately"
            ),
            2,
            "active",
        ),
        stage_of(lambda: stage.add("life", THIRD, draft=True), 3, "draft"),
        stage_of(lambda: store.disable(stage.settings, "life"), 2, "paused"),
        stage_of(lambda: store.enable(stage.settings, "life@2"), 2, "active"),
        stage_of(lambda: store.enable(stage.settings, "life"), 3, "active"),
        stage_of(lambda: store.remove(stage.settings, "life"), 3, "removed"),
        stage_of(lambda: stage.add("life", None, source="life@1"), 4, "active"),  # type: ignore[arg-type]
    ]
    with stage.flowing():
        stage.let_pass(200)
        for change in changes:
            change()
            stage.let_pass(80)
    hits, notices = stage.check("life")
    assert {label(hit) for hit in hits} == {f"local.life@{version}" for version in (1, 2, 3, 4)}
    assert notices == []
    for hit in hits:
        chosen = selected(hit)
        assert (chosen == {}) == (label(hit) != "local.life@2")
        if chosen:
            assert (chosen["n_detections"], chosen["passband"]) == (_detections(hit), hit["band"])
            assert chosen["lately"] >= 1
    json.loads(stage.shell("ledger", "--json"))


def stage_of(change: Callable[[], store.Added], version: int, state: str) -> Callable[[], None]:
    """A change that must reach all workers and leave the filter so."""

    def make() -> None:
        told = change()
        assert (told.filter.version, told.filter.state) == (version, state)
        assert (told.reached, told.live) == (WORKERS, WORKERS)

    return make


def test_a_filter_beyond_its_budget_is_paused_or_sampled_and_disturbs_nobody(stage: Stage) -> None:
    stage.add("flood", EVERYTHING, max_hits_per_hour=150, on_excess="pause")
    stage.add("drizzle", EVERYTHING, max_hits_per_hour=150, on_excess="sample")
    stage.add("calm", FIRST)
    stage.add("plugged", "plugin('nobody-has-it') and mag < 19")
    with stage.flowing():
        wait_until(lambda: stage.notices("flood"), "the flood is noticed")
        wait_until(lambda: stage.notices("drizzle"), "the drizzle is noticed")
        stage.let_pass(200)
    flood, told = stage.check("flood")
    (notice,) = stage.notices("flood")
    assert [item.value for item in told] == [notice]
    assert notice["kind"] == "filter_paused"
    assert "more than 150 an hour" in notice["text"]
    assert len(flood) > 150
    item = store.find(store.read(stage.settings), "local", "flood")
    assert (item.state, item.changed_by) == ("paused", "broker")
    assert item.reason in notice["text"]

    drizzle, told = stage.check("drizzle")
    assert [item.value["kind"] for item in told] == ["filter_sampled"] * len(stage.notices("drizzle"))
    assert len({item.value["text"] for item in told}) == len(told)
    assert {hit["filter"]["sampling"] for hit in drizzle} >= {1.0}
    assert store.find(store.read(stage.settings), "local", "drizzle").sample < 0.1

    refused = stage.notices("plugged")
    assert [item["kind"] for item in refused] == ["filter_refused"] * WORKERS
    assert "no plug-in 'nobody-has-it' at 7; it is not installed here" in refused[0]["text"]

    shown = stage.shell(
        "listen", "filters.local.flood", "--from", "beginning", "--until-idle", "0.5", "--format", "table"
    )
    assert sum("filter_paused" in line for line in shown.splitlines()) == 1
    assert len(shown.splitlines()) == len(flood) + 2  # a heading, the notice

    calm, told = stage.check("calm")
    assert told == []
    assert calm
    resumed = store.enable(stage.settings, "drizzle").filter
    assert (resumed.state, resumed.sample, resumed.reason) == ("active", 1.0, "")
    json.loads(stage.shell("ledger", "--json"))
