"""The schema files: found, whole, and the same on the wire as what the surveys send."""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path
from typing import Any

import fastavro
import pytest
from fastavro.schema import to_parsing_canonical_form
from fastavro.utils import generate_one

from broker import schemas
from broker.errors import SchemaError
from tests.data import shared_data

LSST_IDS = (700, 701, 702, 703, 704, 800, 900, 1000, 1100)


def has_prose(schema: Any) -> bool:
    if isinstance(schema, dict):
        return "doc" in schema or any(has_prose(value) for value in schema.values())
    return isinstance(schema, list) and any(has_prose(value) for value in schema)


def decode_whole(schema: Any, datum: bytes) -> Any:
    stream = io.BytesIO(datum)
    record = fastavro.schemaless_reader(stream, schema)
    assert stream.read() == b""
    return record


def encode(schema: Any, record: Any) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, schema, record)
    return out.getvalue()


@pytest.mark.parametrize("name", schemas.names())
def test_every_file_is_a_valid_schema_without_prose(name: str) -> None:
    schema = schemas.load(name)
    fastavro.parse_schema(schema)
    assert not has_prose(schema) or name.startswith("broker/")


def test_load_reads_once() -> None:
    assert schemas.load("ztf/alert") is schemas.load("ztf/alert")
    assert schemas.load("ztf/alert")["name"] == "ztf.alert"


def test_unknown_name_says_what_there_is() -> None:
    with pytest.raises(SchemaError, match=r"ztf/alrt.*ztf/alert"):
        schemas.load("ztf/alrt")


@pytest.mark.parametrize(("text", "complaint"), [("{", "not JSON"), ('"string"', "not an Avro record")])
def test_broken_file_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, complaint: str
) -> None:
    (tmp_path / "broken.avsc").write_text(text)
    monkeypatch.setattr(schemas, "schemas_dir", lambda: tmp_path)
    with pytest.raises(SchemaError, match=f"broken.*{complaint}"):
        schemas.load("broken")


@pytest.mark.parametrize("schema_id", LSST_IDS)
def test_lsst_schema_by_registry_id(schema_id: int) -> None:
    schema = schemas.lsst_schema(schema_id)
    assert schema is not None
    assert schema["name"] == f"lsst.v{schema_id // 100}_{schema_id % 100}.alert"


@pytest.mark.parametrize("schema_id", [0, -1, 300, 1101, 2**31 - 1])
def test_lsst_schema_we_do_not_have(schema_id: int) -> None:
    assert schemas.lsst_schema(schema_id) is None


def wire_messages() -> list[bytes]:
    """Real messages where they are present, else simulated ones."""
    data = shared_data()
    if data is not None:
        return [path.read_bytes() for path in sorted((data / "lsst" / "wire").iterdir())]
    from broker.simulate import simulate_lsst  # noqa: PLC0415 - only without the real ones

    return [alert.value for alert in simulate_lsst(20, seed=1)]


def test_wire_messages_are_the_same_after_a_round_trip() -> None:
    known = 0
    for message in wire_messages():
        (schema_id,) = struct.unpack(">i", message[1:5])
        schema = schemas.lsst_schema(schema_id)
        if schema is not None:
            assert encode(schema, decode_whole(schema, message[5:])) == message[5:]
            known += 1
    assert known >= 10


def container_paths() -> list[Path]:
    data = shared_data()
    if data is None:
        return []
    return [
        *sorted((data / "lsst" / "original").iterdir()),
        *sorted((data / "lsst" / "reencoded_v10_0").iterdir()),
    ]


@pytest.mark.parametrize("name", schemas.names())
def test_a_made_up_record_survives_a_round_trip(name: str) -> None:
    schema = schemas.load(name)
    datum = encode(schema, generate_one(schema))
    assert encode(schema, decode_whole(schema, datum)) == datum


@pytest.mark.parametrize("schema_id", LSST_IDS)
def test_records_read_as_with_their_writers_schema(schema_id: int) -> None:
    """Without the real containers only the round trip above holds the schemas."""
    ours = schemas.lsst_schema(schema_id)
    assert ours is not None
    compared = 0
    for path in container_paths():
        with path.open("rb") as file:
            blocks = fastavro.block_reader(file)
            writer = blocks.writer_schema
            if f"v{schema_id // 100}_{schema_id % 100}." not in str(writer["name"]):
                continue
            assert to_parsing_canonical_form(writer) == to_parsing_canonical_form(ours)
            datum = next(iter(blocks)).bytes_.getvalue()
        theirs = fastavro.schemaless_reader(io.BytesIO(datum), writer)
        assert repr(fastavro.schemaless_reader(io.BytesIO(datum), ours)) == repr(theirs)
        compared += 1
        if compared == 10:
            return
    assert compared > 0 or shared_data() is None


def test_ztf_schema_is_the_writers_schema() -> None:
    data = shared_data()
    ours = schemas.load("ztf/alert")
    fields = [entry["name"] for entry in ours["fields"]]
    assert fields[:5] == ["schemavsn", "publisher", "objectId", "candid", "candidate"]
    if data is not None:
        text = (data / "schemas" / "ztf_embedded_writer_schemas" / "ztf_4.02.avsc").read_text()
        theirs = fastavro.parse_schema(json.loads(text))
        assert to_parsing_canonical_form(theirs) == to_parsing_canonical_form(ours)


@pytest.mark.parametrize(
    ("name", "folder"), [("atlas", "atlas"), ("decam", "desirt"), ("pgir", "pgir"), ("winter", "winter")]
)
def test_other_surveys_schemas_are_the_writers_schemas(name: str, folder: str) -> None:
    data = shared_data()
    ours = to_parsing_canonical_form(fastavro.parse_schema(schemas.load(f"{name}/alert")))
    assert "record" in ours
    for path in [] if data is None else sorted((data / "other_surveys" / folder).iterdir()):
        with path.open("rb") as file:
            assert to_parsing_canonical_form(fastavro.reader(file).writer_schema) == ours
