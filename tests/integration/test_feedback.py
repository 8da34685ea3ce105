"""Marks made while alerts flow through a worker: its owner's anomalies change, without a restart."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import fastavro
import httpx
import numpy as np
import pytest
from harness import Shell, control_state, decoded, send, wait_until

from broker import control, feedback_store
from broker.api import serving
from broker.columns import filter_columns
from broker.config import load
from broker.control.topic import ControlWriter
from broker.embedded import Addresses, owned
from broker.features.catalog import FEATURE_SPECS
from broker.feedback import StoredForest
from broker.feedback_store import UnknownMark
from broker.ledger import ledger_records
from broker.personal import load_forest
from broker.published import RecordDecoder, UnknownAlert, find_alert, newest_alerts
from broker.scores.catalog import SCORE_SPECS
from broker.simulate import simulate_ztf

TOPIC = "ztf_replay"
ALERTS = 300
LIMIT = 0.9
COLUMNS = filter_columns(FEATURE_SPECS, SCORE_SPECS)


class Stage:
    """The servers, the command line and a sky that can be sent again and again, as other objects."""

    def __init__(self, addresses: Addresses, folder: Path) -> None:
        self.bootstrap = addresses.bootstrap_servers
        flags = {"kafka.bootstrap_servers": self.bootstrap, "redis.url": addresses.redis_url, "api.port": "0"}
        self.settings = load(flags, env={})
        self.shell = Shell(addresses, folder)
        self.sky = [alert.value for alert in simulate_ztf(ALERTS, seed=8)]
        self.sent = 0

    def feed(self, copy: int) -> None:
        """Send the sky's twins, and wait until all are published."""
        send(self.bootstrap, TOPIC, [twin(value, copy) for value in self.sky])
        self.sent += len(self.sky)
        wait_until(lambda: self.done() == self.sent, "all is processed")

    def done(self) -> int:
        """Input offsets that the ledger accounts for."""
        parts = [part for record in ledger_records(self.settings.kafka) for part in record["partitions"]]
        return sum(part["after"] - part["before"] for part in parts)

    def mark(self, alert: str, verdict: str) -> feedback_store.Told:
        """Say something of an alert."""
        return feedback_store.add(
            self.settings, "alice", "ztf", int(alert), verdict, by="test", columns=COLUMNS  # type: ignore[arg-type]
        )  # fmt: skip

    def hits(self, copy: int) -> set[int]:
        """Which alerts of a copy passed alice's filter, by their id in the sky."""
        ids = [int(hit["diaSourceId"]) for hit in decoded(self.bootstrap, "filters.alice.anomalies")]
        return {id - copy * STEP for id in ids if id // STEP == FIRST + copy}

    @contextmanager
    def running(self) -> Iterator[None]:
        """A worker that is ready."""
        log = self.shell.folder / "run.log"
        with self.shell.running("run", "--workers", "1"):
            wait_until(lambda: log.exists() and "metrics: " in log.read_text(), "the run begins")
            yield


STEP = 10**16
"""How far the ids of one copy lie from those of the next."""
FIRST = simulate_ztf(1, seed=8).__next__().candid // STEP


def twin(value: bytes, copy: int) -> bytes:
    """A packet as of another object in the same place with the same light curve."""
    reader = fastavro.reader(io.BytesIO(value))
    (record,) = reader
    record["objectId"] = f"ZTF{30 + copy}{record['objectId'][5:]}"
    record["candid"] += copy * STEP
    record["candidate"]["candid"] += copy * STEP
    for point in record["prv_candidates"] or []:
        point["candid"] = point["candid"] and point["candid"] + copy * STEP
    out = io.BytesIO()
    fastavro.writer(out, reader.writer_schema, [record])
    return out.getvalue()


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with owned(quiet=True) as servers:
        made = Stage(servers.addresses, tmp_path_factory.mktemp("feedback"))
        made.shell("filters", "list")  # makes the topics
        yield made


def rank_at(state: control.ControlState, alert: dict[str, Any]) -> float | None:
    """How strange an alert was to alice at the epoch that its provenance names, from `control` alone."""
    epoch = alert["provenance"]["controlEpoch"]
    live = [
        item for item in state.forests["alice", "ztf"].values() if state.forest_epochs[item.label] <= epoch
    ]
    if not live:
        return None
    forest = load_forest(state, max(live, key=lambda item: item.revision), {})
    row = [alert["features"][name] for name in forest.trees.inputs]
    return float(forest.rank(forest.trees.leaves(np.array([row], dtype=np.float64)))[0])


def test_marks_change_what_a_person_gets_without_a_restart(stage: Stage) -> None:
    with stage.running():
        stage.feed(0)
        before = json.loads(stage.shell("feedback", "suggest", "--owner", "alice", "--json"))
        assert len(before) == len({item["objectName"] for item in before}) == 10
        first = json.loads(
            stage.shell(
                "feedback", "add", "--owner", "alice", "--alert", before[0]["alert"], "--verdict", "boring",
                "--note", "a bad column", "--json",
            )
        )  # fmt: skip
        assert (first["reached"], first["live"], first["forest"]["revision"]) == (1, 1, 1)
        assert first["filter"]["where"] == "personal_anomaly('alice') > 0.99"
        print(
            f"mark to live by the command line: {first['seconds']:.2f} s, of it fit {first['fitSeconds']} s"
        )
        stage.shell("filters", "add", "alice.anomalies", "--where", f"personal_anomaly('alice') > {LIMIT}")
        stage.feed(1)
        for item in before[1:3]:
            told = stage.mark(item["alert"], "boring")
        for item in before[3:6]:
            told = stage.mark(item["alert"], "interesting")
        print(f"mark to live in a process that runs: {told.seconds:.2f} s, of it fit {told.fit_s:.2f} s")
        assert (told.reached, told.live, told.filter, told.forest.revision) == (1, 1, None, 6)
        stage.feed(2)
    assert json.loads(stage.shell("ledger", "--json"))["balanced"]
    one, other = stage.hits(1), stage.hits(2)
    assert one - other
    assert other - one
    assert len(one & other) < len(one | other)
    marked = {
        item["alert"]: item
        for item in feedback_store.describe(control_state(stage.bootstrap), "alice")["marks"]
    }
    assert {item["verdict"] for item in marked.values()} == {"interesting", "boring"}
    assert len(marked) == 6


def test_an_alerts_epoch_says_which_forest_judged_it(stage: Stage) -> None:
    """The forest of that epoch, put together from `control` alone, gives the same verdict on every alert."""
    state = control_state(stage.bootstrap)
    judged = [item for item in decoded(stage.bootstrap, "alerts.ztf") if item["kind"] == "alert"]
    assert len(judged) == stage.sent
    for alert in judged[::7]:
        rank = rank_at(state, alert)
        passed = [name for name in alert["filtersPassed"] if name.startswith("alice.anomalies@")]
        version = max(
            (
                v
                for (n, v), e in state.filter_epochs.items()
                if n == "alice.anomalies" and e <= alert["provenance"]["controlEpoch"]
            ),
            default=0,
        )
        limit = {0: 2.0, 1: 0.99, 2: LIMIT}[version]
        assert passed == ([f"alice.anomalies@{version}"] if rank is not None and rank > limit else [])


def test_a_mark_is_taken_back_listed_and_found_again(stage: Stage) -> None:
    with serving(stage.settings) as url, httpx.Client(base_url=url, timeout=60) as client:
        wait_until(
            lambda: client.get("/api/v1/filters").status_code == 200,
            "the API is ready",
        )
        found = client.get("/api/v1/feedback/alice/ztf/suggestions", params={"count": 3}).json()
        assert len(found) == 3
        names = {item["objectName"] for item in client.get("/api/v1/feedback/alice").json()["marks"]}
        assert not names & {item["objectName"] for item in found}
        said = {"owner": "bob", "survey": "ztf", "alert": found[0]["alert"], "verdict": "interesting"}
        answer = client.post("/api/v1/feedback", json=said)
        assert answer.status_code == 201
        assert answer.json()["filter"]["topic"] == "filters.bob.anomalies"
        forests = client.get("/api/v1/feedback/alice").json()["forests"]
        assert answer.json()["forest"]["trees"] == forests[-1]["trees"]  # shared
        place = f"/api/v1/feedback/bob/ztf/{found[0]['alert']}"
        assert client.delete(place).json()["forest"]["interesting"] == []
        assert client.get("/api/v1/feedback/bob").json()["marks"] == []
        assert client.delete(place).status_code == 404
        assert client.post("/api/v1/feedback", json=said | {"alert": 5}).status_code == 404
        assert client.post("/api/v1/feedback", json=said | {"survey": "hst"}).status_code == 422
        assert client.post("/api/v1/feedback", json=said | {"owner": "broker"}).status_code == 422
        assert client.post("/api/v1/feedback", json=said | {"owner": "No Name"}).status_code == 422
        wrong = {"name": "x", "where": "personal_anomaly('carol') > 0.9"}
        refused = client.post("/api/v1/filters", json=wrong)
        assert (refused.status_code, refused.json()["position"]) == (422, 17)
    assert "forests" in stage.shell("feedback", "list", "--owner", "bob")
    with pytest.raises(UnknownMark):
        feedback_store.remove(stage.settings, "bob", "ztf", 5, by="test", columns=COLUMNS)
    text = stage.shell("filters", "add", "x", "--where", "personal_anomaly('alicia') > 0.9", expect=2)
    assert text == ""


def test_published_alerts_are_read_back(stage: Stage) -> None:
    decoder = RecordDecoder(control_state(stage.bootstrap).schemas, ("kind", "diaSourceId", "features"))
    newest = newest_alerts(stage.settings.kafka, "ztf", 100, decoder)
    assert len(newest) == 100
    assert {alert["diaSourceId"] // STEP for alert in newest} == {FIRST + 2}
    everything = newest_alerts(stage.settings.kafka, "ztf", 10 * stage.sent, decoder)
    assert len(everything) == stage.sent
    oldest = everything[-1]
    assert find_alert(stage.settings.kafka, "ztf", oldest["diaSourceId"], decoder) == oldest
    assert newest_alerts(stage.settings.kafka, "lsst", 10, decoder) == []
    with pytest.raises(UnknownAlert):
        find_alert(stage.settings.kafka, "ztf", 12345, decoder)


def test_a_forest_that_cannot_be_used_is_passed_over(stage: Stage) -> None:
    state = control_state(stage.bootstrap)
    good = state.forests["alice", "ztf"][6]
    bad = replace(good, revision=7, archive=b"of another kind")
    writer = ControlWriter(stage.settings.kafka)
    writer.write(*control.forest_record(bad))
    writer.write(b"forest/alice/ztf/8", b'{"owner": "alice"}')
    with stage.running():
        stage.feed(3)
    assert stage.hits(3) == stage.hits(2)
    notices = [item for item in decoded(stage.bootstrap, "notices") if item["owner"] == "alice"]
    assert [(item["kind"], item["subject"]) for item in notices] == [("forest_refused", "alice/ztf/7")]
    assert "forest alice/ztf/7 is passed over" in (stage.shell.folder / "run.log").read_text()
    assert StoredForest.from_json(bad.to_json()) == bad
