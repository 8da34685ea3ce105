"""The compiled walk on good bytes, on bytes broken on purpose, and on schemas that it leaves to fastavro."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from broker.schemas import lsst_schema
from broker.surveys.avro import LocalSchemas, Record, frame, open_message
from broker.surveys.base import Survey
from broker.surveys.catalog import SURVEYS, decode, survey_of
from broker.surveys.columns import ChildTable, Field, Layout, columns_of, pick
from broker.surveys.program import program_of
from broker.surveys.reading import Rows, SurveyReader
from broker.surveys.walk import MAX_ROWS
from broker.surveys.writer import writer_schema
from tests.unit.surveys.odd import ODD_LAYOUT, ODD_SCHEMA, odd_records
from tests.unit.surveys.samples import (
    atlas_values,
    changed,
    container,
    datum,
    decam_values,
    elasticc_values,
    few_lsst,
    few_ztf,
    files,
    hand_made,
    header_of,
    long,
    lsst_values,
    messages,
    pgir_values,
    plain_schema,
    read_packet,
    winter_values,
    with_type,
    ztf_values,
)
from tests.unit.surveys.test_fuzz import same_columns


def _read(values: list[bytes], layout: Layout) -> tuple[Rows, list[Any]]:
    """Everything the walk makes of messages, and what it says of each."""
    reader = SurveyReader(layout, len(values), sum(map(len, values)))
    said = [reader.read(k, value, frame(value, LocalSchemas())) for k, value in enumerate(values)]
    rows = reader.rows()
    assert rows is not None
    return rows, said


def _records(values: list[bytes]) -> Iterator[Record]:
    return (record for value in values for record in open_message(value, LocalSchemas()).records)


def _survey(name: str) -> Survey:
    return next(survey for survey in SURVEYS if survey.name == name)


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("ztf", ztf_values),
        ("lsst", lsst_values),
        ("elasticc", elasticc_values),
        ("atlas", atlas_values),
        ("decam", decam_values),
        ("pgir", pgir_values),
        ("winter", winter_values),
    ],
)
def test_every_value_and_cutout_of_every_packet_is_what_fastavro_reads(name: str, make: Any) -> None:
    values, layout = make(), _survey(name).layout
    rows, said = _read(values, layout)
    picked = [pick(record, layout) for record in _records(values)]
    assert said == [(len(list(_records([value]))), None) for value in values]
    same_columns(rows.raw, columns_of(picked, layout))
    for row, record in enumerate(_records(values)):
        assert rows.records[row] == record.datum
        expected = [record.datum[start:end] for start, end in picked[row].cutouts]
        assert [rows.records[row][start:end] for start, end in rows.cutouts[row].tolist()] == expected


def test_cutouts_are_the_images() -> None:
    (batch,) = decode(messages(few_ztf()[:1]), LocalSchemas()).batches
    (record,) = read_packet(few_ztf()[0])
    names = ("cutoutScience", "cutoutTemplate", "cutoutDifference")
    got = [batch.records[0][start:end] for start, end in batch.cutouts[0].tolist()]
    assert got == [record[name]["stampData"] for name in names]
    assert batch.take(np.array([0])).cutouts.tolist() == batch.cutouts.tolist()


@pytest.mark.parametrize("codec", ["null", "deflate"])
def test_everything_avro_has(codec: str) -> None:
    value = container(ODD_SCHEMA, odd_records(), codec, sync_interval=300)
    rows, said = _read([value] * 3, ODD_LAYOUT)
    assert said == [(8, None)] * 3
    records = list(_records([value])) * 3
    same_columns(rows.raw, columns_of([pick(record, ODD_LAYOUT) for record in records], ODD_LAYOUT))
    assert rows.index.tolist() == list(range(8)) * 3
    assert rows.message.tolist() == [0] * 8 + [1] * 8 + [2] * 8
    assert list(rows.records) == [record.datum for record in records]


def test_every_schema_of_ours_is_compiled() -> None:
    schemas = [schema for number in range(300, 1200) if (schema := lsst_schema(number)) is not None]
    texts = [json.dumps(schema) for schema in schemas]
    texts += [json.dumps(plain_schema(header_of(value))) for value in few_ztf()]
    assert len(texts) > 12
    for text in texts:
        schema = writer_schema(text)
        survey = survey_of(schema)
        assert survey is not None
        assert program_of(schema, survey.layout) is not None


def test_every_writer_schema_of_the_shared_data_is_compiled() -> None:
    for path in files("schemas/ztf_embedded_writer_schemas"):
        schema = writer_schema(path.read_text())
        survey = survey_of(schema)
        if survey is not None:
            assert program_of(schema, survey.layout) is not None


def test_more_rows_and_text_than_there_was_room_for() -> None:
    point = odd_records()[5]["points"][1]
    record = odd_records()[0] | {"points": [point] * 5000}
    value = container(ODD_SCHEMA, [record])
    reader = SurveyReader(ODD_LAYOUT, 1, 0)
    for number in range(100):
        assert reader.read(number, value, frame(value, LocalSchemas())) == (1, None)
    rows = reader.rows()
    assert rows is not None
    assert len(rows) == 100
    points = rows.raw.children["points"]
    assert points.starts.tolist() == list(range(0, 500_001, 5000))
    assert set(points["t"].tolist()) == {point["t"]}
    assert set(rows.raw["text"].tolist()) == {record["alternative"]}


# broken on purpose: one field, or a few, and a datum that lies

_ONE = Layout((Field("x", "int", ("x",)),), ())


def _fields(**types: Any) -> str:
    return json.dumps(
        {"type": "record", "name": "r", "fields": [{"name": n, "type": t} for n, t in types.items()]}
    )


_ARRAY = {"type": "array", "items": "long"}
_MAP = {"type": "map", "values": "long"}
_ENUM = {"type": "enum", "name": "e", "symbols": ["a", "b"]}


@pytest.mark.parametrize(
    ("types", "data", "text", "at"),
    [
        ({"x": "long"}, b"", "0 records in 0", None),
        ({"x": "long"}, b"\x80", "data end inside", 0),
        ({"x": "long"}, b"\xff" * 9 + b"\x02", "more than 64 bits", 0),
        ({"x": "long"}, b"\xff" * 11, "more than 64 bits", 0),
        ({"x": "int"}, long(2**31), "more than 32 bits", 0),
        ({"a": "int", "x": "long"}, long(-(2**31) - 1) + b"\x02", "more than 32 bits", 0),
        ({"x": ["null", "long"]}, b"\x04", "no such branch", 0),
        ({"x": ["null", "long"]}, b"\x01\x02", "no such branch", 0),
        ({"a": ["null", "float"], "x": "long"}, b"\x01" + bytes(9), "no such branch", 0),
        ({"x": "long", "a": ["long", "string", "float"]}, b"\x02\x06\x02", "no such branch", 1),
        ({"x": "long", "a": ["long", "string", "float"]}, b"\x02\x01\x02", "no such branch", 1),
        ({"x": "long", "s": "string"}, b"\x02\x01", "length", 1),
        ({"x": "long", "s": "string"}, b"\x02" + long(2**62) + b"abc", "length", 1),
        ({"x": "long", "s": "bytes"}, b"\x02\x08abc", "length", 1),
        ({"x": "long", "s": "string"}, b"\x02\x04\xc3\x28", "UTF-8", 1),
        ({"x": "long", "s": "string"}, b"\x02\x06\xed\xa0\x80", "UTF-8", 1),
        ({"x": "long", "b": "boolean"}, b"\x02\x02", "truth value", 1),
        ({"x": "long", "b": "boolean"}, b"\x02", "data end inside", 1),
        ({"x": "long", "e": _ENUM}, b"\x02\x04", "symbol", 1),
        ({"x": "long", "e": _ENUM}, b"\x02\x01", "symbol", 1),
        ({"x": "long", "f": "float"}, b"\x02\x00\x00\x00", "data end inside", 1),
        ({"x": "long", "f": {"type": "fixed", "name": "f", "size": 9}}, b"\x02" + bytes(8), "data end", 1),
        ({"x": "long", "a": _ARRAY}, b"\x02" + long(2**40), "announces more items", 1),
        ({"x": "long", "a": _ARRAY}, b"\x02" + long(-(2**63)) + long(1) + b"\x00", "announces more", 1),
        ({"x": "long", "a": _ARRAY}, b"\x02\x04\x02", "announces more items", 1),
        ({"x": "long", "a": _ARRAY}, b"\x02\x02\x02", "data end inside", 3),
        ({"x": "long", "m": _MAP}, b"\x02\x02\x02k", "data end inside", 4),
        ({"x": "long"}, b"\x02\x02", "ends before its data", 1),
    ],
)
def test_a_lie_is_a_fault_with_its_place_and_takes_no_row(
    types: dict[str, Any], data: bytes, text: str, at: int | None
) -> None:
    schema = _fields(**types)
    bad = hand_made(schema, [(1, data)])
    good = container(json.loads(_fields(x="long")), [{"x": 7}])
    rows, said = _read([good, bad, good], _ONE)
    assert said[0] == said[2] == (1, None)
    count, fault = said[1]
    assert count == 0
    assert rows.raw["x"].tolist() == [7, 7]
    if at is not None:
        assert fault.reason == "undecodable"
        assert text in fault.detail
        assert fault.detail.endswith(f"(datum byte {at})")


def test_blocks_with_their_size_and_numbers_with_more_bytes_than_they_need() -> None:
    schema = _fields(a=_ARRAY, m=_MAP, n=["null", "float"], x=["null", "long"])
    parts = [
        long(-2) + long(2) + long(1) + long(2) + long(1) + long(3) + long(0),  # two blocks, one with its size
        long(-1) + long(99) + long(1) + b"k" + long(5) + long(0),  # a size that lies: nobody relies on it
        b"\x82\x80\x00" + bytes(4),
        b"\x82\x00" + b"\x8e\x80\x80\x00",
    ]
    value = hand_made(schema, [(1, b"".join(parts))])
    rows, said = _read([value], _ONE)
    assert said == [(1, None)]
    assert rows.raw["x"].tolist() == [7] == [record.values["x"] for record in _records([value])]


def test_an_array_without_end_is_too_large() -> None:
    layout = Layout((), (ChildTable("a", "a", ()),))
    count = MAX_ROWS + 1
    bad = hand_made(_fields(a=_ARRAY), [(1, long(count) + bytes(count) + long(0))])
    good = hand_made(_fields(a=_ARRAY), [(1, long(2) + bytes(2) + long(0))])
    rows, said = _read([good, bad, good], layout)
    assert said[1][1].reason == "too_large"
    assert rows.raw.children["a"].starts.tolist() == [0, 2, 4]


def test_the_records_before_a_damage_are_kept() -> None:
    schema = _fields(x="long")
    good = datum(json.loads(schema), {"x": 3})
    rows, ((count, fault),) = _read([hand_made(schema, [(2, good * 2), (2, good + b"\x80")])], _ONE)
    assert rows.raw["x"].tolist() == [3, 3, 3]
    assert count == 3
    assert "record 3" in fault.detail


# what is left to fastavro


def test_a_schema_that_is_not_covered_is_read_by_fastavro_in_its_place() -> None:
    plain = few_ztf()[:3]
    union = with_type(plain[1], "magpsf", ["null", "float", "string"], 18.5)
    decoded = decode(messages([plain[0], union, plain[2]]), LocalSchemas())
    assert (decoded.compiled, decoded.fallback) == (2, 1)
    assert decoded.rejects == []
    (batch,) = decoded.batches
    expected = decode(
        messages([plain[0], changed(plain[1], "candidate.magpsf", 18.5), plain[2]]), LocalSchemas()
    )
    assert expected.fallback == 0
    (want,) = expected.batches
    assert batch.message.tolist() == [0, 1, 2]
    assert batch.psf_flux.tolist() == want.psf_flux.tolist()
    assert batch.points.points.tobytes() == want.points.points.tobytes()
    for row in range(3):
        for name, got, other in zip("STD", batch.cutouts[row], want.cutouts[row], strict=True):
            assert batch.records[row][slice(*got)] == want.records[row][slice(*other)], name


@pytest.mark.parametrize(
    "avro_type",
    [
        {"type": "enum", "name": "band", "symbols": ["g"]},
        "bytes",
        ["string", "long"],
        {"type": "string", "logicalType": "uuid"},
        {"type": "array", "items": "string"},
    ],
)
def test_mapped_values_of_unusual_types_are_not_compiled(avro_type: Any) -> None:
    schema = writer_schema(_fields(x=avro_type))
    assert program_of(schema, Layout((Field("x", "text", ("x",)),), ())) is None
    assert program_of(schema, Layout((), ())) is not None


def test_a_text_longer_than_a_column_takes_refuses_its_alert_alone() -> None:
    value = few_ztf()[0]
    schema, (record,) = header_of(value), read_packet(value)
    long_text = record | {"schemavsn": "9" * 200}
    for codec in ("null", "deflate"):
        several = container(schema, [record, long_text, record], codec, sync_interval=1)
        decoded = decode(messages([value, several, value]), LocalSchemas())
        (batch,) = decoded.batches
        assert list(zip(batch.message.tolist(), batch.index.tolist(), strict=True)) == [
            (0, 0), (1, 0), (1, 2), (2, 0),
        ]  # fmt: skip
        (reject,) = decoded.rejects
        assert (reject.message, reject.index, reject.reason) == (1, 1, "invalid_alert")


def test_every_message_is_counted_by_how_it_was_read() -> None:
    decoded = decode(messages([*few_ztf(), *few_lsst()]), LocalSchemas())
    assert (decoded.compiled, decoded.fallback) == (len(few_ztf()) + len(few_lsst()), 0)
