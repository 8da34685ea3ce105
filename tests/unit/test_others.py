"""Objects of two surveys at one place see each other's light curve; strangers and asteroids do not."""

from __future__ import annotations

import io
import json
import struct
from typing import Any

import fastavro
import numpy as np
import pytest

from broker.astro.healpix import cells_of
from broker.astro.sky import separation_deg
from broker.config import load
from broker.filter import Filter
from broker.filters.live import compile_set
from broker.history.memory import MemoryStore
from broker.history.places import ORDER, cells_near
from broker.message import Message
from broker.others import no_others, other_columns
from broker.pipeline import Pipeline, shipped_or_chosen_scorer
from broker.rebuild import keep
from broker.simulate import simulate_ztf
from broker.surveys.avro import LocalSchemas
from tests.withdrawals import closed, one_object

SETTINGS = load(env={}, path=None)
SEES_ZTF = Filter(
    "local", "sees-ztf", 1, "other_survey = 'ztf' and other_n_detections > 0", payload="standard"
)
FAR = 2.0 / 3600


class Broker:
    """A pipeline on a store in memory, and what it publishes."""

    def __init__(self, settings: Any = SETTINGS) -> None:
        self.store = MemoryStore()
        self.pipeline = Pipeline(self.store, shipped_or_chosen_scorer(settings), LocalSchemas(), settings)
        self.filters = compile_set(1, [SEES_ZTF], {}, self.pipeline.columns)
        self.offset = 0

    def __call__(self, topic: str, *values: bytes) -> list[tuple[str, bytes, dict[str, Any]]]:
        """(topic, key, record) of everything that these packets make go out."""
        messages = []
        for value in values:
            self.offset += 1
            messages.append(Message(topic, 0, self.offset, 1_790_000_000_000, value))
        outcome = self.pipeline.process(messages, self.filters)
        return [(it.topic, it.key or b"", self.read(it.value)) for it in outcome.packets]

    def read(self, value: bytes) -> dict[str, Any]:
        schema = self.pipeline.writer.schemas[struct.unpack(">bI", value[:5])[1]]
        record: Any = fastavro.schemaless_reader(
            io.BytesIO(value[5:]), fastavro.parse_schema(json.loads(schema)), None
        )
        return dict(record)


def rubin_at(ra: float, dec: float, days_after: float = 100.0, mjd: float = 61000.0) -> bytes:
    """A Rubin packet whose object is at a place."""
    record = one_object(4)[-1]
    shift = mjd + days_after - record["diaSource"]["midpointMjdTai"]
    source = record["diaSource"] | {"ra": ra, "dec": dec, "midpointMjdTai": mjd + days_after}
    history = [it | {"midpointMjdTai": it["midpointMjdTai"] + shift} for it in record["prvDiaSources"]]
    thing = (record["diaObject"] or {}) | {"ra": ra, "dec": dec}
    return closed(record | {"diaSource": source, "diaObject": thing, "prvDiaSources": history})


@pytest.fixture(scope="module")
def seen() -> tuple[Broker, list[dict[str, Any]]]:
    """A broker that has seen ZTF's sky, and the alerts that it published of it."""
    broker = Broker()
    out = broker("ztf_replay", *(alert.value for alert in simulate_ztf(120, seed=1)))
    return broker, [record for topic, _, record in out if topic == "alerts.ztf"]


def settled(alerts: list[dict[str, Any]]) -> dict[str, Any]:
    """The newest alert of an object that does not move."""
    return [it for it in alerts if it["diaObjectId"] and it["solarSystem"]["status"] != "associated"][-1]


def test_an_alert_sees_the_light_curve_that_the_other_survey_has(seen: Any) -> None:
    broker, alerts = seen
    near = settled(alerts)
    mjd = near["midpointMjdTai"]
    out = broker("lsst_replay", rubin_at(near["ra"], near["dec"] + 0.4 / 3600, 10.0, mjd))
    (alert,), (hit,) = (
        [it for topic, _, it in out if topic == name] for name in ("alerts.lsst", SEES_ZTF.topic)
    )
    assert alert["other"]["object"] == f"ztf:{near['diaObjectId']}"
    assert alert["other"]["sepArcsec"] == pytest.approx(0.4, abs=1e-3)
    other, own = hit["otherLightCurve"], hit["lightCurve"]
    assert {point["sourceId"] for point in own} & {point["sourceId"] for point in other} == set()
    assert near["diaSourceId"] in {point["sourceId"] for point in other}
    assert all(point["midpointMjdTai"] <= mjd + 10.0 for point in other)


def test_it_sees_nothing_from_after_its_own_time(seen: Any) -> None:
    near = settled(seen[1])
    broker = Broker()
    broker("ztf_replay", *(alert.value for alert in simulate_ztf(120, seed=1)))
    out = broker("lsst_replay", rubin_at(near["ra"], near["dec"], -4000.0, near["midpointMjdTai"]))
    assert [(topic, it["other"]["object"]) for topic, _, it in out] == [
        ("alerts.lsst", f"ztf:{near['diaObjectId']}")
    ]


def test_beyond_the_radius_and_where_it_is_off_there_is_nothing(seen: Any) -> None:
    _, alerts = seen
    near = settled(alerts)
    for settings, offset in ((SETTINGS, FAR), (load({"history.other_survey_arcsec": "0"}, env={}), 0.0)):
        broker = Broker(settings)
        broker("ztf_replay", *(alert.value for alert in simulate_ztf(120, seed=1)))
        out = broker("lsst_replay", rubin_at(near["ra"], near["dec"] + offset, 10.0, near["midpointMjdTai"]))
        assert [it["other"] for topic, _, it in out if topic == "alerts.lsst"] == [
            {"object": None, "sepArcsec": None}
        ]


def test_one_survey_never_sees_itself_there(seen: Any) -> None:
    _, alerts = seen
    assert {it["other"]["object"] for it in alerts} == {None}


def test_a_store_rebuilt_from_what_was_published_knows_the_places(seen: Any) -> None:
    broker, alerts = seen
    fresh = MemoryStore()
    keep(fresh, [(f"ztf:{it['diaObjectId']}".encode(), it) for it in alerts], 1000)
    ours = {place: found.keys() for place, found in broker.store.places.items() if b"ztf" in place}
    assert {place: found.keys() for place, found in fresh.places.items()}.keys() >= ours.keys()
    assert fresh.open([], [], []).surveys == {"ztf"}


def test_columns_are_null_where_there_is_no_other() -> None:
    for column in other_columns(no_others(3), np.full(3, 60000.0)):
        missing = column.values < 0 if column.spec.kind == "string" else np.isnan(column.values)
        assert missing.all(), column.spec.name


@pytest.mark.parametrize("radius_arcsec", [0.5, 1.5, 5.0])
def test_the_cells_around_a_position_hold_all_that_is_near(radius_arcsec: float) -> None:
    rng = np.random.default_rng(2)
    count = 20000
    dec = np.concatenate([np.degrees(np.arcsin(rng.uniform(-1, 1, count))), rng.uniform(89.999, 90, 500),
                          rng.uniform(-90, -89.999, 500), np.full(500, 41.8103148957786)])  # fmt: skip
    ra = rng.uniform(-1e-4, 360.0, len(dec))
    ra[:2000] = rng.choice([0.0, 90.0, 45.0, 180.0], 2000) + rng.normal(0, 1e-4, 2000)
    angle, distance = (
        rng.uniform(0, 2 * np.pi, len(dec)),
        radius_arcsec / 3600 * rng.uniform(0.8, 1, len(dec)),
    )
    near_dec = np.clip(dec + distance * np.cos(angle), -90, 90)
    near_ra = ra + distance * np.sin(angle) / np.maximum(np.cos(np.radians(near_dec)), 1e-9)
    inside = separation_deg(ra, dec, near_ra, near_dec) <= radius_arcsec / 3600
    cells, held = cells_of(ORDER, near_ra, near_dec), cells_near(ra, dec, radius_arcsec)
    crossing = sum(len(each) > 1 for each in held)
    assert inside.sum() > 15000
    assert 0 < crossing < len(dec)
    assert all(cells[row] in held[row] for row in np.flatnonzero(inside))
