"""Hand-laid Avro against fastavro."""

from __future__ import annotations

import io

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import SchemaError
from broker.simulate import avro

FIELDS = [
    {"name": "a", "type": "long"},
    {"name": "b", "type": ["null", "float"], "default": None},
    {"name": "c", "type": "string"},
    {"name": "d", "type": ["null", "double"]},
    {"name": "e", "type": ["null", "boolean"]},
    {"name": "f", "type": "bytes"},
]
ROW = {"type": "record", "name": "row", "fields": FIELDS[:5]}


@given(st.integers(-(2**63), 2**63 - 1))
def test_long_is_what_fastavro_writes(number: int) -> None:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, "long", number)
    assert avro.long(number) == out.getvalue()


@given(
    st.fixed_dictionaries(
        {
            "a": st.integers(-(2**63), 2**63 - 1),
            "b": st.none() | st.floats(width=32, allow_nan=False),
            "c": st.text(),
            "d": st.none() | st.floats(allow_nan=False),
            "e": st.none() | st.booleans(),
        }
    )
)
def test_row_is_what_fastavro_writes(row: dict[str, object]) -> None:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, ROW, row)
    assert avro.row_encoder(ROW)(row) == out.getvalue()


def test_a_type_without_a_writer_is_refused() -> None:
    with pytest.raises(SchemaError, match=r"bytes.*row"):
        avro.row_encoder(ROW | {"fields": FIELDS})


def test_array_and_container_read_back() -> None:
    schema = {
        "type": "record",
        "name": "r",
        "fields": [{"name": "x", "type": {"type": "array", "items": "long"}}],
    }
    header, sync = avro.container_header(schema)
    for numbers in ([], [1], [-3, 2**40, 0]):
        packed = avro.container(header, sync, avro.array([avro.long(n) for n in numbers]))
        assert list(fastavro.reader(io.BytesIO(packed))) == [{"x": numbers}]
