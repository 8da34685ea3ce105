"""The fields that are compared, found by walking over a record: the same as fastavro finds."""

from __future__ import annotations

import io
import json
import random
from typing import Any

import fastavro
import pytest

from broker.annotations.columns import ANNOTATION_COLUMNS
from broker.data.schema_ids import canonical, schema_id
from broker.errors import BrokerError
from broker.features.catalog import FEATURE_SPECS
from broker.monitoring.fields import FieldReader, program_of
from broker.monitoring.hits import WANTED, published_record
from broker.publish import records
from broker.publish.packets import PUBLISHED_PACKET_COLUMNS
from broker.published import RecordDecoder
from broker.scores.catalog import SCORE_SPECS

FIELDS = records.alert_fields(PUBLISHED_PACKET_COLUMNS, FEATURE_SPECS, SCORE_SPECS, ANNOTATION_COLUMNS)
ORIGINAL = json.dumps(
    {
        "type": "record",
        "name": "Packet",
        "namespace": "survey",
        "fields": [{"name": "xs", "type": {"type": "array", "items": "double"}}],
    }
)
SCHEMAS = {
    "alert": records.alert_schema(FIELDS),
    "light": records.hit_schema(FIELDS, "light"),
    "standard": records.hit_schema(FIELDS, "standard"),
    "full": records.hit_schema(FIELDS, "full", ORIGINAL),
    "notice": records.NOTICE_SCHEMA,
}


def made(kind: Any, chosen: random.Random, names: dict[str, Any]) -> Any:
    """A value of an Avro type, null as often as not where that is allowed."""
    if isinstance(kind, list):
        return made(chosen.choice(kind), chosen, names)
    if isinstance(kind, str) and kind in names:
        kind = names[kind]
    if isinstance(kind, dict) and kind["type"] == "record":
        names[f"{kind.get('namespace', 'broker')}.{kind['name']}"] = kind
        return {item["name"]: made(item["type"], chosen, names) for item in kind["fields"]}
    if isinstance(kind, dict) and kind["type"] == "array":
        return [made(kind["items"], chosen, names) for _ in range(chosen.randrange(4))]
    kind = kind["type"] if isinstance(kind, dict) else kind
    return {
        "null": None,
        "string": "".join(chosen.choices("aö@.9", k=chosen.randrange(9))),
        "int": chosen.randrange(-(2**31), 2**31),
        "long": chosen.choice([0, -1, 2**63 - 1, -(2**63), chosen.randrange(10**9)]),
        "float": 0.5,
        "double": 0.25,
        "boolean": True,
    }[kind]


def framed(name: str, seed: int) -> bytes:
    schema, out = SCHEMAS[name], io.BytesIO()
    out.write(records.frame(identity(name)))
    value = made(schema, random.Random(seed), {"broker.Point": records.POINT_SCHEMA})
    fastavro.schemaless_writer(out, fastavro.parse_schema(json.loads(json.dumps(schema))), value)
    return out.getvalue()


def identity(name: str) -> int:
    return schema_id(canonical(SCHEMAS[name]))


TEXTS = {identity(name): canonical(schema) for name, schema in SCHEMAS.items()}


@pytest.mark.parametrize("name", SCHEMAS)
def test_it_finds_what_fastavro_finds(name: str) -> None:
    reader, decoder = FieldReader(TEXTS), RecordDecoder(TEXTS, WANTED)
    for seed in range(100):
        value = framed(name, seed)
        assert reader.record(value) == published_record(decoder.record(value))


def test_walking_covers_what_is_not_preceded_by_a_surveys_packet() -> None:
    covered = {name for name, schema in SCHEMAS.items() if program_of(schema) is not None}
    assert covered == {"alert", "light", "standard"}


@pytest.mark.parametrize("name", ["alert", "light"])
def test_a_record_that_is_cut_off_is_told_wherever_it_ends(name: str) -> None:
    reader, value = FieldReader(TEXTS), framed(name, 3)
    program = program_of(SCHEMAS[name])
    assert program is not None
    for end in range(5, len(value) // 2, 7):
        with pytest.raises(BrokerError, match="too early"):
            reader.record(value[:end])


def test_bytes_of_any_kind_end_nothing() -> None:
    reader, chosen = FieldReader(TEXTS), random.Random(4)
    for _ in range(2000):
        value = records.frame(identity("alert")) + chosen.randbytes(chosen.randrange(3000))
        try:
            reader.record(value)
        except (BrokerError, UnicodeDecodeError):
            continue


def test_a_schema_that_was_never_announced_is_told() -> None:
    with pytest.raises(BrokerError, match="never announced"):
        FieldReader(TEXTS).record(records.frame(12345) + b"x")
