"""What we publish is written down in schemas/broker, and the files say what the code does."""

from __future__ import annotations

import json
from typing import Any

import fastavro
import pytest

from broker.annotations.columns import ANNOTATION_COLUMNS
from broker.data.schema_ids import canonical, schema_id
from broker.features.catalog import FEATURE_SPECS
from broker.publish import records
from broker.publish.packets import PUBLISHED_PACKET_COLUMNS
from broker.schemas import schemas_dir
from broker.scores.catalog import SCORE_SPECS

FIELDS = records.alert_fields(PUBLISHED_PACKET_COLUMNS, FEATURE_SPECS, SCORE_SPECS, ANNOTATION_COLUMNS)
PUBLISHED = {
    "alert": records.alert_schema(FIELDS),
    "light_hit": records.hit_schema(FIELDS, "light"),
    "standard_hit": records.hit_schema(FIELDS, "standard"),
    "ledger": records.LEDGER_SCHEMA,
    "notice": records.NOTICE_SCHEMA,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_file_is_the_schema(name: str) -> None:
    """After a change: write the schema to the file, and tell subscribers in the commit."""
    path = schemas_dir() / "broker" / f"{name}.avsc"
    assert json.loads(path.read_text()) == PUBLISHED[name]


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_schema_is_legal_avro(name: str) -> None:
    fastavro.parse_schema(json.loads(canonical(PUBLISHED[name])))


def test_an_id_is_31_bits_and_depends_on_the_text_alone() -> None:
    text = canonical(PUBLISHED["alert"])
    assert schema_id(text) == schema_id(text)
    assert schema_id(text) != schema_id(text.replace('"Alert"', '"Alarm"'))
    assert 0 <= schema_id(text) < 2**31
    assert records.unframe(records.frame(schema_id(text)) + b"datum") == schema_id(text)
    assert records.unframe(b"") is None
    assert records.unframe(b"Obj\x01....") is None


def test_optional_numbers_default_to_null() -> None:
    def fields_of(schema: Any) -> Any:
        for field in schema["fields"]:
            yield field
            if isinstance(field["type"], dict) and field["type"].get("type") == "record":
                yield from fields_of(field["type"])

    unions = [field for field in fields_of(PUBLISHED["alert"]) if isinstance(field["type"], list)]
    assert len(unions) > 80
    assert all(field["type"][0] == "null" and field["default"] is None for field in unions)
