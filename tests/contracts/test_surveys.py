"""What every entry of SURVEYS must do, tested before its author writes a test."""

from __future__ import annotations

import re

import numpy as np
import pytest

from broker.astro.bands import BANDS
from broker.batch import PACKET_COLUMNS
from broker.ingest.files import survey_name
from broker.lightcurves import DETECTION, FLAG_OWN, FORCED, LIMIT, POINT
from broker.surveys.avro import LocalSchemas
from broker.surveys.base import Source, Survey
from broker.surveys.catalog import SURVEYS, decode
from broker.surveys.columns import columns_of
from tests.unit.surveys.samples import (
    atlas_values,
    decam_values,
    elasticc_values,
    lsst_values,
    messages,
    pgir_values,
    winter_values,
    ztf_values,
)

VALUES = {
    "ztf": ztf_values,
    "elasticc": elasticc_values,
    "lsst": lsst_values,
    "atlas": atlas_values,
    "decam": decam_values,
    "pgir": pgir_values,
    "winter": winter_values,
}
"""Packets of each survey: a new one needs samples here."""


def _values(survey: Survey) -> list[bytes]:
    return VALUES[survey.name]()[:40]


@pytest.fixture(params=SURVEYS, ids=lambda survey: survey.name)
def survey(request: pytest.FixtureRequest) -> Survey:
    found = request.param
    assert isinstance(found, Survey)
    return found


def test_names_are_unique() -> None:
    assert len({survey.name for survey in SURVEYS}) == len(SURVEYS)


def test_a_survey_is_described(survey: Survey) -> None:
    assert re.fullmatch(r"[a-z0-9]+", survey.name)
    assert set(survey.bands) <= set(BANDS)
    assert survey.required
    assert survey.normalise.__doc__


def test_topics_are_patterns_librdkafka_understands(survey: Survey) -> None:
    for topic in survey.topics:
        re.compile(topic)
        assert topic.startswith("^")
        assert "\\d" not in topic
    assert any(re.search(topic, f"{survey.name}_replay") for topic in survey.topics)


def test_a_column_is_named_once(survey: Survey) -> None:
    tables = [survey.layout.alert, *(table.fields for table in survey.layout.children)]
    for fields in tables:
        assert len({field.name for field in fields}) == len(fields)


def test_its_packets_are_taken_for_no_other_surveys(survey: Survey) -> None:
    decoded = decode(messages(_values(survey)), LocalSchemas())
    assert [batch.survey for batch in decoded.batches] == [survey.name]
    assert decoded.rejects == []


def test_replay_knows_its_packets(survey: Survey) -> None:
    assert {survey_name(value) for value in _values(survey)} == {survey.name}


def test_a_batch_is_whole(survey: Survey) -> None:
    values = _values(survey)
    decoded = decode(messages(values), LocalSchemas())
    batch = next(batch for batch in decoded.batches if batch.survey == survey.name)
    rows = len(batch)
    assert list(batch.packet) == [spec.name for spec in PACKET_COLUMNS]
    assert all(column.shape == (rows,) and column.dtype == np.float64 for column in batch.packet.values())
    assert not any(np.isinf(column).any() for column in batch.packet.values())
    assert batch.dia_source_id.dtype == batch.dia_object_id.dtype == batch.ss_object_id.dtype == np.int64
    assert batch.band.dtype == np.uint8
    assert batch.flags.dtype == np.uint16
    assert len(batch.records) == rows
    assert all(isinstance(record, bytes) for record in batch.records)
    assert batch.schema_version.all()
    assert np.isfinite(batch.ra).all()
    assert len(batch.take(np.arange(rows)[::-1])) == rows


def test_points_follow_their_rules(survey: Survey) -> None:
    decoded = decode(messages(_values(survey)), LocalSchemas())
    batch = next(batch for batch in decoded.batches if batch.survey == survey.name)
    points, starts = batch.points.points, batch.points.starts
    assert points.dtype == POINT
    assert len(batch.points) == len(batch)
    own = points[starts[:-1]]
    assert (own["flags"] & FLAG_OWN != 0).all()
    assert (points["flags"] & FLAG_OWN != 0).sum() == len(batch)
    assert own["source_id"].tolist() == batch.dia_source_id.tolist()
    assert own["kind"].tolist() == [DETECTION] * len(batch)
    assert set(points["kind"].tolist()) <= {DETECTION, FORCED, LIMIT}
    assert np.isnan(points["psf_flux"][points["kind"] == LIMIT]).all()
    assert np.isfinite(points["midpoint_mjd_tai"]).all()
    assert (points["source_id"][points["kind"] == DETECTION] != 0).all()


def test_no_records_make_an_empty_batch(survey: Survey) -> None:
    nothing = np.zeros(0, dtype=np.int64)
    batch = survey.normalise(columns_of([], survey.layout), Source([], nothing, nothing, [], []))
    assert len(batch) == 0
    assert len(batch.points.points) == 0
