"""The archive of a running fleet: a backtest on it says what the live filters published, row for row.

Real Kafka and Valkey, three workers, real packets of ZTF and Rubin where they are at hand, a worker and the
archive's writer killed on the way.
"""

from __future__ import annotations

import json
import signal
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
from data import shared_data
from harness import Shell, decoded, repeated, send, wait_until

from broker import feedback_store
from broker.api import serving
from broker.archive import writer
from broker.archive.reader import Archive
from broker.archive.writer import ArchiveWriter, lag
from broker.backtest.ask import Asked, ask
from broker.columns import filter_columns
from broker.config import Settings, load
from broker.control import past as control_past
from broker.embedded import Addresses, owned
from broker.errors import ArchiveError
from broker.features.catalog import FEATURE_SPECS
from broker.filter_explained import explain_alert
from broker.filters import store
from broker.scores.catalog import SCORE_SPECS
from broker.simulate import simulate_ztf

TEXTS = {
    "bright": ("mag < 19", "light"),
    "words": ("band in ('g', 'r') and object_name > 'ZTF20' and survey = 'ztf'", "standard"),
    "negative": ("is_negative or not solar_system.associated", "light"),
    "place": ("in_cone(180, 10, 60) and abs(galactic_latitude()) > 20", "full"),
    "colour": ("color('g', 'r') < 0.3 or coalesce(reliability, 0) > 0.9", "light"),
    "curve": ("last_days(30) >= 2 and nights_in_last_days(30) < 20", "light"),
    "exact": ("dia_source_id % 3 = 1 and n_detections is not null", "light"),
    "mine": ("personal_anomaly('alice') > 0.2", "light"),
    "nobody": ("personal_anomaly('nobody') is null and mag < 18", "light"),
}
COLUMNS = filter_columns(FEATURE_SPECS, SCORE_SPECS)
SIMULATED = 450
REAL = 60


class Stage:
    """A run of three workers, what it was fed, and what its filters published."""

    def __init__(self, addresses: Addresses, folder: Path) -> None:
        self.bootstrap, self.archive = addresses.bootstrap_servers, folder / "archive"
        flags = {
            "kafka.bootstrap_servers": self.bootstrap, "redis.url": addresses.redis_url,
            "archive.folder": str(self.archive),
        }  # fmt: skip
        self.settings: Settings = load(flags, env={})
        small = {
            "BROKER_RUN_BATCH_MIN": "40", "BROKER_RUN_BATCH_MAX": "80", "BROKER_RUN_POLL_MS": "50",
            "BROKER_ARCHIVE_FOLDER": str(self.archive), "BROKER_ARCHIVE_FLUSH_S": "20",
        }  # fmt: skip
        self.shell = Shell(addresses, folder, small)

    def add(self, name: str, where: str, payload: Any = "light") -> None:
        """Store a filter, or its next version."""
        store.add(self.settings, name, where, columns=COLUMNS, payload=payload)

    def mark(self, alert: int) -> None:
        """Alice finds an alert interesting."""
        feedback_store.add(self.settings, "alice", "ztf", alert, "interesting", by="test", columns=COLUMNS)

    def published(self, topic: str) -> list[dict[str, Any]]:
        """Messages of kind alert."""
        return [record for record in decoded(self.bootstrap, topic) if record["kind"] == "alert"]


def packets() -> list[tuple[str, Path]]:
    """Real packets where there are some: survey and file."""
    data = shared_data()
    if data is None:
        return []
    ztf = sorted((data / "ztf").glob("*/*.avro"))
    return [
        *(("ztf", path) for path in ztf[-REAL:] if path.parent.name != "unreadable"),
        *(("lsst", path) for path in sorted((data / "lsst" / "reencoded_v10_0").rglob("*.avro"))[:REAL]),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with owned(quiet=True) as servers:
        made = Stage(servers.addresses, tmp_path_factory.mktemp("archive"))
        shell, sky = made.shell, [alert.value for alert in simulate_ztf(SIMULATED, seed=21)]
        shell("filters", "list")  # makes the topics
        for name, (where, payload) in TEXTS.items():
            if name not in ("mine", "nobody"):
                made.add(name, where, payload)
        send(made.bootstrap, "ztf_replay", sky[:250])
        for survey, path in packets():
            send(made.bootstrap, f"{survey}_replay", [path.read_bytes()])
        with shell.running("run", "--workers", "3") as run:
            wait_until(lambda: len(made.published("alerts.ztf")) > 200, "the first alerts come out")
            children = spawned(run.pid)
            for victim in (children[0], writer_of(children)):
                victim.send_signal(signal.SIGKILL)
            marked = made.published("alerts.ztf")[:2]
            for alert in marked:
                made.mark(alert["diaSourceId"])
            made.add("mine", TEXTS["mine"][0])
            send(made.bootstrap, "ztf_replay", sky[250:350])
            wait_until(lambda: len(made.published("filters.local.bright")) > 50, "alerts flow")
            made.add("bright", "mag < 18.5")
            shell("annotate", str(marked[0]["objectName"]), "--class", "SN Ia", "--by", "alice")
            send(made.bootstrap, "ztf_replay", sky[350:])
        shell("run", "--until-idle", "1")
        yield made


def spawned(pid: int) -> list[psutil.Process]:
    """The processes of a run besides its parent."""
    children = psutil.Process(pid).children(recursive=True)
    return [child for child in children if "spawn_main" in " ".join(child.cmdline())]


def writer_of(children: list[psutil.Process]) -> psutil.Process:
    """The one that has the archive's lock open."""
    return next(it for it in children if any(file.path.endswith("_lock") for file in it.open_files()))


def archived(folder: Path) -> list[tuple[str, int, str, tuple[str, ...]]]:
    """(survey, diaSourceId, kind and control epoch, filters passed) of every archived row."""
    archive, found = Archive(folder), []
    for chunk in archive.chunks(archive.files, ("dia_source_id",)):
        rows = chunk.rows
        for row, source in enumerate(rows.table["dia_source_id"].values.tolist()):
            passed = rows.passed[rows.passed_starts[row] : rows.passed_starts[row + 1]]
            about = f"{rows.kind[row]} {rows.epoch[row]}"
            found.append((chunk.file.survey, source, about, tuple(passed.tolist())))
    return found


def test_every_published_alert_is_in_the_archive_once(stage: Stage) -> None:
    published = [
        (
            survey,
            it["diaSourceId"],
            f"{it['kind']} {it['provenance']['controlEpoch']}",
            tuple(it["filtersPassed"]),
        )
        for survey in ("ztf", "lsst")
        for it in decoded(stage.bootstrap, f"alerts.{survey}")
    ]
    found = archived(stage.archive)
    assert repeated(found) == []
    assert sorted(found) == sorted(published)
    assert len(found) > SIMULATED
    assert sum(about.startswith("update") for _, _, about, _ in found) == 1
    status = json.loads(stage.shell("archive", "status", "--json"))
    assert (status["rows"], set(status["lag"].values()), status["lost"]) == (len(found), {0}, [])


@pytest.mark.parametrize("name", sorted(TEXTS))
def test_the_backtest_of_a_filter_is_what_it_published(stage: Stage, name: str) -> None:
    """For each version, over the rows of the epochs in which it was live."""
    if name == "nobody":  # it names what never was, so it can be no live filter: see below
        return
    state = store.read(stage.settings)
    versions = store.versions(state, "local", name)
    published = Counter(
        (hit["survey"], hit["diaSourceId"], hit["filter"]["version"])
        for hit in stage.published(f"filters.local.{name}")
    )
    expected: Counter[tuple[str, int, int]] = Counter()
    begins = [state.filter_epochs[(f"local.{name}", item.version)] for item in versions]
    for item, begin, end in zip(versions, begins, [*begins[1:], 10**9], strict=True):
        hits = backtest_rows(stage, item.where)
        expected.update(
            (survey, source, item.version) for survey, source, epoch in hits if begin <= epoch < end
        )
    assert published == expected
    assert len(published) > 0


def backtest_rows(stage: Stage, where: str) -> list[tuple[str, int, int]]:
    """(survey, diaSourceId, epoch) of every hit of a backtest over all nights."""
    hits: list[tuple[str, int, int]] = []

    def keep(survey: str, source: Any, epoch: Any) -> None:
        hits.extend((survey, *pair) for pair in zip(source.tolist(), epoch.tolist(), strict=True))

    ask(stage.settings, Asked(where, last=10**6, sample=0), on_hits=keep)
    return hits


def test_the_command_says_the_same_in_numbers(stage: Stage) -> None:
    said = json.loads(stage.shell("filters", "test", "negative", "--last", "1000", "--json", "--sample", "3"))
    topic = stage.published("filters.local.negative")
    assert said["hits"] == len(topic)
    assert said["alerts"] == len(archived(stage.archive)) - 1, "an update is no alert"
    own = next(item for item in said["overlap"] if item["filter"] == "local.negative")
    assert own["hits"] == own["both"] == said["hits"]
    assert len(said["sample"]) == 3
    hit = said["sample"][0]
    alert = next(it for it in topic if str(it["diaSourceId"]) == hit["diaSourceId"])
    assert hit["objectName"] == alert["objectName"]
    assert hit["lightCurve"][-1]["midpointMjdTai"] == alert["midpointMjdTai"]


def test_the_api_says_the_same(stage: Stage) -> None:
    settings = replace(stage.settings, api=replace(stage.settings.api, port=0))
    with serving(settings) as url, httpx.Client(base_url=url, timeout=60) as client:
        wait_until(lambda: client.get("/api/v1/filters").status_code == 200, "the API is ready")
        refused = client.post("/api/v1/filters/test", json={"where": "magg < 19"})
        assert (refused.status_code, refused.json()["position"]) == (422, 0)
        assert client.post("/api/v1/filters/test", json={}).status_code == 422
        nights = Archive(stage.archive).nights()
        span = {"first": nights[-5], "last": nights[-1], "sample": 2}
        said = client.post("/api/v1/filters/test", json={"name": "local.negative", **span}).json()
        assert (
            client.post("/api/v1/filters/test", json={"where": "ra > 0", "first": "19990101"}).status_code
            == 404
        )
    here = ask(settings, Asked("", "local.negative", (nights[-5], nights[-1]), sample=2)).to_json()
    cost = "microsecondsAnAlert"
    assert {**said, cost: 0} == {**here, cost: 0}
    assert said["hits"] > 0


def test_a_filter_is_explained_on_the_row_that_it_judged(stage: Stage) -> None:
    hit = stage.published("filters.local.colour")[0]
    asked = ["filters", "explain", "colour", "--alert", str(hit["diaSourceId"])]
    said = json.loads(stage.shell(*asked, "--json"))
    assert said["passes"]
    assert said["passedThen"] == ["local.colour@1"]
    assert said["clause"]["text"] == TEXTS["colour"][0]
    assert "true" in [part["outcome"] for part in said["clause"]["parts"]]
    assert "TRUE" in stage.shell(*asked)
    settings = replace(stage.settings, api=replace(stage.settings.api, port=0))
    with serving(settings) as url, httpx.Client(base_url=url, timeout=60) as client:
        wait_until(lambda: client.get("/api/v1/filters").status_code == 200, "the API is ready")
        path, params = "/api/v1/filters/local/colour@1/explain", {"alert": hit["diaSourceId"]}
        assert client.get(path, params=params).json() == said
        assert client.get(path, params={"alert": 5}).status_code == 404
    missed = next(it for it in stage.published("alerts.ztf") if "local.bright@1" not in it["filtersPassed"])
    found = explain_alert(stage.settings, "bright@1", missed["diaSourceId"])
    assert not found.passes
    assert found.clause.why.startswith(("mag = ", "mag is not known"))
    without = replace(stage.settings, archive=replace(stage.settings.archive, folder=""))
    rounded = explain_alert(without, "bright@1", missed["diaSourceId"], survey="ztf")
    assert rounded.row.startswith("alerts topic")
    assert (rounded.passes, rounded.about["objectName"]) == (False, found.about["objectName"])


def test_what_a_name_did_not_stand_for_then_is_null_and_counted(stage: Stage) -> None:
    result = ask(stage.settings, Asked(TEXTS["mine"][0], last=10**6, sample=0))
    state = store.read(stage.settings)
    first = min(state.forest_epochs.values())
    kinds = [about.split() for _, _, about, _ in archived(stage.archive)]
    before = sum(kind == "alert" and int(epoch) < first for kind, epoch in kinds)
    assert 0 < before < result.rows
    assert result.not_known["forest alice"] == before
    now = ask(stage.settings, Asked(TEXTS["mine"][0], last=10**6, sample=0, context="now"))
    assert not now.not_known
    assert now.hits > result.hits
    nobody = ask(stage.settings, Asked(TEXTS["nobody"][0], last=10**6, sample=0))
    assert nobody.not_known["forest nobody"] == nobody.rows


def test_a_writer_that_is_killed_anywhere_writes_every_row_once(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second folder from the same topic, its writer killed at each step of a flush."""
    flags = {"kafka.bootstrap_servers": stage.bootstrap, "archive.folder": str(tmp_path)}
    settings = load({**flags, "archive.flush_s": "0"}, env={})
    monkeypatch.setattr(writer, "_MESSAGES", 3)
    for step in ("nothing is renamed", "half is renamed", "all is renamed", "all is done"):
        with pytest.raises(Killed):
            Dying(settings, step).run()
    ArchiveWriter(settings, lambda: True).run()
    assert not any(lag(settings).values())
    assert sorted(archived(tmp_path)) == sorted(archived(stage.archive))


class Killed(Exception):
    """The end of a writer, somewhere."""


class Dying(ArchiveWriter):
    """Dies in its first flush."""

    def __init__(self, settings: Settings, step: str) -> None:
        super().__init__(settings, lambda: False)
        commit = self._held.commit

        def dying(written: Any, offsets: Any, rows: int, lost: Any = ()) -> None:
            pairs = list(written)
            if step == "all is done":
                commit(pairs, offsets, rows, lost)
            count = {"half is renamed": len(pairs) // 2, "all is renamed": len(pairs)}.get(step, 0)
            for now, then in pairs[:count]:
                now.rename(then)
            raise Killed

        self._held.commit = dying  # type: ignore[method-assign]


def test_a_folder_of_another_topic_is_refused(stage: Stage, tmp_path: Path) -> None:
    flags = {"kafka.bootstrap_servers": stage.bootstrap, "archive.folder": str(tmp_path)}
    settings = load(flags, env={})
    ArchiveWriter(settings, lambda: True).run()
    manifest = tmp_path / "_archive.json"
    said = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(said | {"offsets": {"0": 10**9}}))
    with pytest.raises(ArchiveError, match="made anew"):
        ArchiveWriter(settings, lambda: True).run()


def test_control_is_replayed_to_the_epoch_asked_for(stage: Stage) -> None:
    records = list(control_past.control_records(stage.settings.kafka))
    state = store.read(stage.settings)
    epochs = sorted(state.forest_epochs.values())
    asked = [epochs[0] - 1, epochs[0], state.epoch]
    found = control_past.names_at(records, asked, stage.settings)
    assert list(found) == sorted(asked)
    assert [len(found[epoch].forests.loaded) for epoch in asked] == [0, 1, 1]
    newest = max(item.revision for item in state.forests["alice", "ztf"].values())
    assert found[state.epoch].forests.loaded["alice", "ztf"][0] == newest
    assert np.isfinite(found[state.epoch].forests.loaded["alice", "ztf"][0])
