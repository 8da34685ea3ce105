"""Models promoted and rolled back while alerts flow through two workers, on a real Kafka and Valkey."""

from __future__ import annotations

import json
import threading
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
from harness import Shell, control_state, decoded, read_all, send, wait_until
from made_bundle import made_bundle

from broker import control, model_store
from broker.api import serving
from broker.config import load
from broker.control.lock import redis_client
from broker.control.topic import ControlWriter
from broker.drift.nights import alert_count, nights_of, read_night
from broker.embedded import Addresses, owned
from broker.errors import BundleError
from broker.kafka.clients import admin, committed_offsets
from broker.kafka.lag import input_partitions
from broker.ledger import ledger_records
from broker.promotion import ALL, BundleName, Promotion, StoredBundle, promoted
from broker.scores.bundle import MANIFEST
from broker.scores.catalog import DEFAULT_BUNDLE
from broker.shadow import Disagreement
from broker.simulate import simulate_ztf

TOPIC = "ztf_replay"
FAMILIES = {"1": ("transient", "moving"), "2": ("transient", "stochastic"), "3": ("moving", "stochastic")}
Spans = dict[int, list[tuple[int, int, int]]]
"""(first offset, offset behind the last, epoch) of each transaction, by input partition."""


class Stage:
    """The servers, the command line, three bundles that know other families each, and a sky."""

    def __init__(self, addresses: Addresses, folder: Path) -> None:
        self.bootstrap = addresses.bootstrap_servers
        flags = {"kafka.bootstrap_servers": self.bootstrap, "redis.url": addresses.redis_url}
        self.settings = load(flags, env={})
        small = {"BROKER_RUN_BATCH_MIN": "10", "BROKER_RUN_BATCH_MAX": "20", "BROKER_RUN_POLL_MS": "20"}
        small["BROKER_RUN_SHADOW_SHARE"] = "1"
        self.shell = Shell(addresses, folder, small)
        self.sky = simulate_ztf(100_000, seed=5)
        self.bundles = {v: made_bundle(folder / f"made{v}", v, known) for v, known in FAMILIES.items()}
        self.sent = 0

    def feed(self, count: int) -> None:
        """Put the next alerts of the sky into the input topic."""
        send(self.bootstrap, TOPIC, [next(self.sky).value for _ in range(count)])
        self.sent += count

    def wait_for_more(self) -> None:
        """Wait until more alerts are done with; after a change that all workers have, it scored them."""
        partitions = input_partitions(admin(self.settings.kafka), [TOPIC])

        def done() -> int:
            return sum(committed_offsets(self.settings.kafka, self.settings.run.group, partitions).values())

        before = done()
        wait_until(lambda: done() > before, "more alerts are done with")

    @contextmanager
    def flowing(self) -> Iterator[None]:
        """Alerts come in all the time; in the end all of them are processed."""
        done = threading.Event()

        def feed() -> None:
            while not done.wait(0.2):
                self.feed(4)

        with ThreadPoolExecutor(1) as pool:
            feeding = pool.submit(feed)
            try:
                yield
            finally:
                done.set()
            feeding.result()
        wait_until(self.drained, "all is processed")

    def alerts(self) -> list[dict[str, Any]]:
        """What was published so far, the newest batch last; updates left out."""
        found = [item for item in decoded(self.bootstrap, "alerts.ztf") if item["kind"] == "alert"]
        return sorted(found, key=lambda alert: int(alert["provenance"]["publishedAt"]))

    def drained(self) -> bool:
        """Whether all that was sent is in the ledger."""
        return sum(end - start for spans in self.spans().values() for start, end, _ in spans) >= self.sent

    def spans(self) -> Spans:
        """What the ledger says of each partition of the alerts' topic."""
        found: Spans = defaultdict(list)
        for record in ledger_records(self.settings.kafka):
            for part in (item for item in record["partitions"] if item["topic"] == TOPIC):
                found[part["partition"]].append((part["before"], part["after"], record["epoch"]))
        return found

    def models(self, *words: str) -> Any:
        """What a `broker models` verb says."""
        return json.loads(self.shell("models", *words, "--json"))

    def served(self) -> list[dict[str, str]]:
        """What each live worker serves, by group."""
        return [dict(beat.models) for beat in model_store.serving(self.settings) if beat.ready]

    @contextmanager
    def running(self) -> Iterator[str]:
        """Two workers that are ready; the address of their metrics."""
        log = self.shell.folder / "run.log"
        begun = len(log.read_text()) if log.exists() else 0
        with self.shell.running("run", "--workers", "2"):

            def said() -> str:
                return log.read_text()[begun:] if log.exists() else ""

            wait_until(lambda: "metrics: " in said(), "the run begins")
            wait_until(lambda: len(self.served()) == 2, "both workers are there")
            yield said().partition("metrics: ")[2].split()[0]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with owned(quiet=True) as servers:
        made = Stage(servers.addresses, tmp_path_factory.mktemp("models"))
        made.shell("filters", "list")  # makes the topics
        yield made


def model_of(alert: dict[str, Any]) -> tuple[str, str]:
    """Id and version of the model that scored an alert."""
    return alert["provenance"]["modelId"], alert["provenance"]["modelVersion"]


def known_families(alert: dict[str, Any]) -> set[str]:
    """The families that an alert's scores are about."""
    prefix = "prob_family_"
    return {
        name.removeprefix(prefix)
        for name, value in alert["scores"].items()
        if name.startswith(prefix) and value is not None
    }


def epochs_of(state: control.ControlState, bootstrap: str) -> list[tuple[int, BundleName | None]]:
    """From which epoch on which bundle scores the alerts of every survey."""
    found: list[tuple[int, BundleName | None]] = [(-1, None)]
    for record in read_all(bootstrap, "control"):
        if record.key().startswith(b"model/all/"):
            found.append((record.offset(), Promotion.from_json(json.loads(record.value())).bundle))
    assert len(found) == 1 + len(state.promotions[ALL])
    return found


def check(stage: Stage) -> set[str]:
    """Each alert names one model, is scored by it, and it is the one of its transaction's epoch.

    Returns the versions of `made` that were seen.
    """
    live = epochs_of(control_state(stage.bootstrap), stage.bootstrap)
    spans = stage.spans()
    alerts = stage.alerts()
    assert len({alert["diaSourceId"] for alert in alerts}) == len(alerts) == stage.sent
    seen = set()
    for alert in alerts:
        source, provenance = alert["source"], alert["provenance"]
        (epoch,) = {
            epoch for start, end, epoch in spans[source["partition"]] if start <= source["offset"] < end
        }
        assert provenance["controlEpoch"] == epoch
        bundle = [name for since, name in live if since <= epoch][-1]
        if bundle is None:
            assert provenance["modelId"] != "made"
        else:
            assert (provenance["modelId"], provenance["modelVersion"]) == (bundle.id, bundle.version)
            assert known_families(alert) == set(FAMILIES[bundle.version])
            seen.add(bundle.version)
    return seen


def test_models_are_swapped_while_alerts_flow_and_each_alert_has_one(stage: Stage) -> None:
    with stage.running(), stage.flowing():
        stage.wait_for_more()
        first = stage.models("promote", str(stage.bundles["1"]), "--why", "a first one")
        assert (first["written"], first["reached"], first["serving"], first["live"]) == (True, 2, 2, 2)
        stage.wait_for_more()
        second = model_store.promote(stage.settings, str(stage.bundles["2"]))
        assert (second.serving, second.epoch > first["epoch"]) == (2, True)
        stage.wait_for_more()
        back = stage.models("rollback", "--why", "worse")
        assert (back["promotion"]["bundle"], back["promotion"]["rollback"]) == ("made:1", True)
        assert back["serving"] == 2
        stage.wait_for_more()
        again = model_store.promote(stage.settings, "made:1")
        assert (again.written, again.epoch) == (False, back["epoch"])
    assert check(stage) == {"1", "2"}
    epochs = [alert["provenance"]["controlEpoch"] for alert in stage.alerts()]
    changes = [-1, first["epoch"], second.epoch, back["epoch"], 2**62]
    assert all(any(low <= epoch < high for epoch in epochs) for low, high in pairwise(changes))
    for spans in stage.spans().values():  # no partition changed hands, so none went back to an old model
        in_order = [epoch for _, _, epoch in sorted(spans)]
        assert in_order == sorted(in_order)
    assert json.loads(stage.shell("ledger", "--json"))["balanced"]


def test_a_new_worker_serves_what_is_promoted(stage: Stage) -> None:
    with stage.running() as address:
        assert stage.served() == [{ALL: "made:1"}] * 2
        stage.feed(100)
        wait_until(stage.drained, "all is processed")
        with urllib.request.urlopen(address) as page:
            text = page.read().decode()
        assert 'broker_model_info{group="all",id="made",version="1"} 2.0' in text
    assert check(stage) == {"1", "2"}


def test_a_shadow_scores_beside_without_a_restart_and_publishes_nothing(stage: Stage) -> None:
    def compared(name: str) -> dict[str, Any]:
        """What 60 alerts come to that are scored by both."""
        state = control_state(stage.bootstrap)
        assert str(state.shadows[ALL].bundle) == name
        assert model_store.disagreements(stage.settings, state) == {ALL: {}}
        stage.feed(60)

        def found() -> Disagreement:
            return model_store.disagreements(stage.settings, state)[ALL].get("made:1", Disagreement())

        wait_until(lambda: found().alerts == 60, "all are compared")
        return found().to_json()

    with stage.running() as address:
        itself = stage.models("shadow", "made:1")
        assert (itself["written"], itself["serving"], itself["live"]) == (True, 2, 2)
        same = compared("made:1")
        assert (same["differs"], same["distance"], same["anomaly_difference"]) == (0.0, 0.0, 0.0)
        other = model_store.shadow(stage.settings, str(stage.bundles["3"]))
        assert (other.serving, other.live, str(other.shadow.bundle)) == (2, 2, "made:3")
        assert not model_store.shadow(stage.settings, "made:3").written
        apart = compared("made:3")
        assert apart["differs"] > 0.0
        assert 0.0 < apart["distance"] <= 1.0
        shown = stage.models("list")["shadows"][ALL]
        assert (shown["bundle"], shown["workers"], shown["against"]) == ("made:3", 2, {"made:1": apart})
        assert "made:3" in stage.shell("models", "list")
        with urllib.request.urlopen(address) as page:
            assert (
                'broker_shadow_alerts_total{group="all",id="made",version="3"} 60.0' in page.read().decode()
            )
        assert stage.models("shadow", "--off")["serving"] == 2
    with pytest.raises(model_store.UnknownModel, match="no shadow"):
        model_store.shadow_off(stage.settings)
    stage.shell("models", "shadow", expect=2)
    assert model_store.live_shadows(control_state(stage.bootstrap)) == {}
    assert {item["provenance"]["modelVersion"] for item in stage.alerts()[-120:]} == {"1"}
    assert check(stage) == {"1", "2"}


def test_every_committed_alert_is_counted_for_its_night(stage: Stage) -> None:
    with redis_client(stage.settings) as client:
        nights = nights_of(client, stage.settings.run.group)
        whole = [read_night(client, stage.settings.run.group, "ztf", night) for night in nights["ztf"]]
    assert sum(alert_count(night) for night in whole) == stage.sent


def test_an_alert_is_explained_by_the_model_that_scored_it(stage: Stage) -> None:
    chosen = {model_of(alert): alert for alert in stage.alerts()}
    shipped = json.loads((DEFAULT_BUNDLE / MANIFEST).read_text())
    assert chosen.keys() == {(shipped["id"], shipped["version"]), ("made", "1"), ("made", "2")}
    with serving(stage.settings) as url:
        wait_until(lambda: httpx.get(f"{url}/ready").status_code == 200, "the API is ready")
        for (name, version), alert in chosen.items():
            number = alert["diaSourceId"]
            answer = httpx.get(f"{url}/api/v1/alerts/ztf/{number}/explanation?top=1")
            assert answer.status_code == 200, answer.text
            told = answer.json()
            assert told["model"] == {"id": name, "version": version}
            assert told["diaSourceId"] == str(number)
            (family,) = (one for one in told["stages"] if one["stage"] == "family")
            published = alert["scores"][f"prob_family_{family['answer']}"]
            assert family["probability"] == pytest.approx(published, abs=1e-5)
            assert len(family["shares"]) == 1
            method = "tree contributions" if name == "made" else "one input at a time"  # shipped: a forest
            assert family["method"] == method
            line = json.loads(json.dumps(alert, default=str))
            assert httpx.post(f"{url}/api/v1/explanation?top=1", json=line).json() == told
        assert json.loads(stage.shell("explain", str(number), "--top", "1", "--json")) == told
        line["provenance"] |= {"modelVersion": "gone"}
        gone = httpx.post(f"{url}/api/v1/explanation", json=line)
        assert (gone.status_code, "neither shipped" in gone.json()["error"]) == (404, True)
        assert httpx.get(f"{url}/api/v1/alerts/ztf/1/explanation").status_code == 404
        assert httpx.get(f"{url}/api/v1/alerts/none/{number}/explanation").status_code == 404
        assert httpx.post(f"{url}/api/v1/explanation", json={"survey": "ztf"}).status_code == 422


def test_a_bundle_that_workers_cannot_load_is_passed_over_and_told(stage: Stage) -> None:
    """As when this code is older than the bundle: its promotion was written by others."""
    unknown = StoredBundle(BundleName("made", "99"), "0" * 64, b"of another kind", "", "test")
    history = control_state(stage.bootstrap).promotions[ALL]
    new = promoted(history, Promotion(ALL, 1, unknown.name, 0, False, "", "test", ""))
    with stage.running() as address:
        writer = ControlWriter(stage.settings.kafka)
        writer.write(*control.bundle_record(unknown))
        writer.write(*control.promotion_record(new))

        def notices() -> list[dict[str, Any]]:
            return [item for item in decoded(stage.bootstrap, "notices") if item["subject"] == "made:99"]

        wait_until(lambda: len(notices()) == 2, "both workers say so")
        assert {item["kind"] for item in notices()} == {"model_refused"}
        stage.feed(60)
        wait_until(stage.drained, "all is processed")
        assert stage.served() == [{ALL: "made:1"}] * 2
        with urllib.request.urlopen(address) as page:
            assert 'broker_model_refused{id="made",version="99"} 2.0' in page.read().decode()
        assert {item["provenance"]["modelVersion"] for item in stage.alerts()[-60:]} == {"1"}
        back = model_store.rollback(stage.settings)
        assert (str(back.promotion.bundle), back.serving) == ("made:1", 2)


def test_a_survey_has_a_model_of_its_own_and_nothing_unfit_is_promoted(stage: Stage) -> None:
    def promote(what: Path | str, **options: Any) -> model_store.Promoted:
        return model_store.promote(stage.settings, str(what), **options)

    own = promote(stage.bundles["3"], group="ztf")
    assert (own.live, str(own.promotion.bundle)) == (0, "made:3")
    other = made_bundle(stage.shell.folder / "other3", "3", ("transient", "moving"))
    before = control_state(stage.bootstrap).epoch
    with pytest.raises(BundleError, match="another bundle of the name made:3"):
        promote(other)
    (other / "card.md").write_text("changed")
    with pytest.raises(BundleError, match="not the file that was sealed"):
        promote(other, version="4")
    with pytest.raises(model_store.UnknownModel, match="neither a folder"):
        promote("no-such-bundle")
    with pytest.raises(BundleError, match="no survey 'no-survey'"):
        promote("made:3", group="no-survey")
    with pytest.raises(model_store.UnknownModel, match="nothing is promoted"):
        model_store.rollback(stage.settings, group="lsst")
    stage.shell("models", "promote", "made:7", expect=1)
    assert control_state(stage.bootstrap).epoch == before
    with stage.running():
        stage.feed(40)
        wait_until(stage.drained, "all is processed")
    assert {known for alert in stage.alerts()[-40:] for known in known_families(alert)} == set(FAMILIES["3"])
    shown = stage.models("list")
    assert {group: item["bundle"] for group, item in shown["live"].items()} == {
        ALL: "made:1",
        "ztf": "made:3",
    }
    assert stage.models("show", "made:3")["promotions"][0]["group"] == "ztf"
    assert model_store.rollback(stage.settings, group="ztf").promotion.bundle is None
    for words in (("list",), ("show", "made:3")):
        assert "made" in stage.shell("models", *words)


def test_a_model_given_by_hand_is_not_promoted_away(stage: Stage) -> None:
    stage.shell.extra["BROKER_RUN_MODEL"] = str(stage.bundles["2"])
    assert "ignore promotions" in stage.models("list")["note"]
    with stage.running():
        done = model_store.promote(stage.settings, str(stage.bundles["3"]), version="5")
        assert (done.reached, done.serving, done.live) == (2, 0, 2)
        stage.feed(40)
        wait_until(stage.drained, "all is processed")
    last = [alert["provenance"]["modelVersion"] for alert in stage.alerts()[-40:]]
    assert set(last) == {"2"}
