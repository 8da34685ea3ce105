"""Nights of a simulated sky through the pipeline, counted in a real Redis: what moves is seen, no more."""

from __future__ import annotations

import copy
import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from shutil import copytree
from typing import Any

import fastavro
import httpx
import numpy as np
import pytest
from harness import Shell, wait_until

from broker.api import serving
from broker.assemble import ensure_topics
from broker.astro.times import night_of
from broker.config import Settings, load
from broker.control.lock import redis_client
from broker.drift.look import CLOCKS, HIGH_NULLS, HIGH_PSI, gauges
from broker.drift.nights import LEAST_ALERTS, NightCounts, every_survey
from broker.embedded import Addresses
from broker.filters.live import FilterSet
from broker.history.memory import MemoryStore
from broker.late_writes import LateWriter
from broker.message import Message
from broker.metrics_server import DriftGauge
from broker.models import load_checked
from broker.pipeline import Pipeline
from broker.scored import Scored
from broker.scores.bundle import write_manifest
from broker.scores.catalog import DEFAULT_BUNDLE, Scorer
from broker.simulate import simulate_ztf
from broker.supervisor import Supervisor
from broker.surveys.registry import schema_source
from broker.training.drift import write_reference

Values = list[bytes]
BATCH = 500


def first_nights(count: int) -> list[Values]:
    """The alerts of the first nights of a sky with more than LEAST_ALERTS a night."""
    nights: dict[int, Values] = {}
    for alert in simulate_ztf(7500, seed=11):
        night = int(night_of(np.array([alert.midpoint_mjd_tai]))[0])
        if night not in nights and len(nights) == count:
            break
        nights.setdefault(night, []).append(alert.value)
    assert all(len(values) >= LEAST_ALERTS for values in nights.values())
    return list(nights.values())


def shifted(value: bytes) -> bytes:
    """A packet after the zero point has moved by a magnitude and the catalogue's g band was lost."""
    reader = fastavro.reader(io.BytesIO(value))
    (record,) = reader
    assert isinstance(record, dict)
    record["candidate"] |= {"magpsf": record["candidate"]["magpsf"] - 1.0, "sgmag1": -999.0}
    out = io.BytesIO()
    fastavro.writer(out, reader.writer_schema, [record])  # type: ignore[arg-type]
    return out.getvalue()


class Sky:
    """A pipeline that has seen two nights; what a third one is to be like is for each test to say."""

    def __init__(self, settings: Settings, scorer: Scorer) -> None:
        self.settings, self.scorer, self.store = settings, scorer, MemoryStore()
        *before, self.third = first_nights(3)
        self.before = [part for night in before for part in self.judged(self.store, night)]

    def judged(self, store: MemoryStore, values: Values) -> list[Scored]:
        """What the pipeline makes of alerts."""
        pipeline = Pipeline(store, self.scorer, schema_source(""), self.settings)
        messages = [Message("ztf_replay", 0, number, 0, value) for number, value in enumerate(values)]
        batches = [messages[at : at + BATCH] for at in range(0, len(messages), BATCH)]
        return [part for batch in batches for part in pipeline.process(batch, FilterSet(-1)).scored]

    def counted(self, group: str, change: Callable[[bytes], bytes]) -> Settings:
        """Settings of a group for which two workers have counted: one two nights, one the changed third."""
        third = self.judged(copy.deepcopy(self.store), [change(value) for value in self.third])
        for scored in (self.before, third):
            worker = NightCounts(group)
            for part in scored:
                worker.add(part.survey, part.midpoint_mjd_tai, *part.watched())
            LateWriter(self.settings.redis.url, [worker.changed]).stop()
        return replace(self.settings, run=replace(self.settings.run, group=group))


@pytest.fixture(scope="module")
def sky(servers: Addresses) -> Sky:
    flags = {"kafka.bootstrap_servers": servers.bootstrap_servers, "redis.url": servers.redis_url}
    settings = load(flags, env={}, path=None)
    ensure_topics(settings)
    return Sky(settings, load_checked(DEFAULT_BUNDLE))


def seen(settings: Settings) -> dict[str, DriftGauge]:
    """The gauges of the one survey, by column."""
    with redis_client(settings) as client:
        return {item.column: item for item in gauges(every_survey(client, settings.run.group))}


def test_a_stream_that_stays_as_it_was_raises_nothing(sky: Sky, tmp_path: Path) -> None:
    settings = sky.counted("steady", lambda value: value)
    found = seen(settings)
    parent = Supervisor(settings, tmp_path)
    with redis_client(settings) as client:
        parent._look_at_drift(client)
    known = {name: item.more_nulls for name, item in found.items()}  # an index may be NaN
    assert {item.column: item.more_nulls for item in parent.drift} == known
    assert {"mag", "anomaly", "prob_family_transient", "counterpart_gr"} <= found.keys()
    assert [item for item in found.values() if item.psi > HIGH_PSI] == []
    assert [item for item in found.values() if item.more_nulls > HIGH_NULLS] == []


def test_a_night_that_is_shifted_is_seen_in_the_columns_that_are(sky: Sky, tmp_path: Path) -> None:
    settings = sky.counted("shifted", shifted)
    found = seen(settings)
    assert found["mag"].psi > HIGH_PSI
    assert found["counterpart_gr"].more_nulls > HIGH_NULLS
    for column in ("abs_gal_b", "star_score", "counterpart_ri", "neargaia_arcsec"):
        assert found[column].psi < HIGH_PSI
        assert found[column].more_nulls < HIGH_NULLS

    folder = with_reference(tmp_path / "bundle", sky)
    settings = replace(settings, run=replace(settings.run, model=str(folder)))
    with serving(settings) as url:
        wait_until(lambda: httpx.get(f"{url}/ready").status_code == 200, "the API is ready")
        (told,) = httpx.get(f"{url}/api/v1/drift?survey=ztf").json()
        assert httpx.get(f"{url}/api/v1/drift?survey=lsst").json() == []
    check(told, found)
    addresses = Addresses(settings.kafka.bootstrap_servers, settings.redis.url, "")
    shell = Shell(addresses, tmp_path, {"BROKER_RUN_GROUP": "shifted", "BROKER_RUN_MODEL": str(folder)})
    assert json.loads(shell("drift", "--json", "--out", "report")) == [told]
    page = (tmp_path / "report" / "drift.md").read_text()
    assert "| mag |" in page
    assert (tmp_path / "report" / "drift-ztf.png").stat().st_size > 0
    table = shell("drift", "--top", "3")
    assert "mag" in table
    assert "no night with 500 alerts" in shell("drift", "--survey", "lsst")


def with_reference(folder: Path, sky: Sky) -> Path:
    """The shipped bundle, as if it had been trained on the first two nights."""
    copytree(DEFAULT_BUNDLE, folder)
    write_reference(folder, *(part.watched() for part in sky.before))
    write_manifest(folder, sky.scorer.manifest)
    return folder


def check(told: dict[str, Any], found: dict[str, DriftGauge]) -> None:
    """What the API says is what the gauges say; against its own nights the training sample has not moved."""
    rows = {row["column"]: row for row in told["columns"]}
    assert told["has_training"]
    for column, item in found.items():
        assert rows[column]["psi"] == (None if np.isnan(item.psi) else pytest.approx(item.psi, abs=1e-4))
        if rows[column]["psi_training"] is not None:
            assert rows[column]["psi_training"] == pytest.approx(rows[column]["psi"], abs=1e-3)
            assert rows[column]["psi_training_week"] == 0.0
    clocks = [row for name, row in rows.items() if name.startswith(CLOCKS)]
    assert clocks
    assert all(row["psi"] is None for row in clocks)
    order = [row["column"] for row in told["columns"]]
    assert "counterpart_gr" in order[:3]
    assert rows["mag"]["high"]
    assert "missing more often" in rows["counterpart_gr"]["advice"]
