"""A published message as a row, beside the row that was judged, both of one batch through the pipeline."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from typing import Any

import fastavro
import numpy as np
import pytest

from broker.archive import wire
from broker.config import load
from broker.filters.builtin import BUILTIN_FILTERS
from broker.filters.live import compile_set
from broker.history.memory import MemoryStore
from broker.message import Message
from broker.pipeline import Outcome, Pipeline, shipped_or_chosen_scorer
from broker.publish.records import FRAME_BYTES, unframe
from broker.published_row import row_of
from broker.simulate import simulate_ztf
from broker.surveys.avro import LocalSchemas
from broker.table import Table

SETTINGS = load({"archive.folder": "anywhere"}, env={})
COUNT = 40


def processed(settings: Any = SETTINGS) -> tuple[Pipeline, Outcome]:
    pipeline = Pipeline(MemoryStore(), shipped_or_chosen_scorer(settings), LocalSchemas(), settings)
    messages = [Message("t", 1, n, 5, item.value) for n, item in enumerate(simulate_ztf(COUNT, seed=4))]
    return pipeline, pipeline.process(messages, compile_set(7, BUILTIN_FILTERS, {}, pipeline.columns))


@pytest.fixture(scope="module")
def run() -> tuple[Pipeline, Outcome]:
    return processed()


def archived(outcome: Outcome) -> Any:
    (packet,) = [packet for packet in outcome.packets if packet.topic == "archive"]
    return wire.decode(packet.value)


def published(pipeline: Pipeline, outcome: Outcome) -> list[dict[str, Any]]:
    found = []
    for packet in outcome.packets:
        if packet.topic == "alerts.ztf":
            identifier = unframe(packet.value)
            assert identifier is not None
            schema = fastavro.parse_schema(json.loads(pipeline.writer.schemas[identifier]))
            found.append(fastavro.schemaless_reader(io.BytesIO(packet.value[FRAME_BYTES:]), schema, None))
    return found


def test_the_pipeline_archives_what_it_publishes(run: tuple[Pipeline, Outcome]) -> None:
    about, specs, rows = archived(run[1])
    alerts = published(*run)
    assert (about.survey, about.kind, about.epoch) == ("ztf", "alert", 7)
    assert {spec.name for spec in specs} == set(run[0].columns)
    assert rows["dia_source_id"].to_pylist() == [alert["diaSourceId"] for alert in alerts]
    assert rows["filters_passed"].to_pylist() == [alert["filtersPassed"] for alert in alerts]
    assert rows["record_sha256"].to_pylist() == [alert["provenance"]["recordSha256"] for alert in alerts]
    assert rows["source_offset"].to_pylist() == list(range(COUNT))
    assert set(rows["source_partition"].to_pylist()) == {1}


def test_without_a_folder_nothing_is_archived() -> None:
    off = replace(SETTINGS, archive=replace(SETTINGS.archive, folder=""))
    assert not [packet for packet in processed(off)[1].packets if packet.topic == "archive"]


def test_a_published_alert_is_the_judged_row_to_float32(run: tuple[Pipeline, Outcome]) -> None:
    _, _, rows = archived(run[1])
    columns = run[0].columns
    for place, alert in enumerate(published(*run)):
        table = row_of(alert, columns)
        assert len(table) > 200
        for name, column in table.items():
            judged = rows[name][place].as_py()
            if column.spec.kind == "string":
                assert text(table, name) == judged, name
            elif column.spec.kind == "int":
                assert column.values[0] == judged, name
            else:
                assert column.values[0] == pytest.approx(judged, rel=2e-7, nan_ok=True), name
        missing = set(columns) - set(table)
        assert all(name.startswith(("other_", "annotation_")) for name in missing)


def text(table: Table, name: str) -> str | None:
    code = int(np.asarray(table[name].values)[0])
    return table[name].categories[code] if code >= 0 else None
