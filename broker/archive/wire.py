"""Rows between worker and writer: one Arrow stream a message, compressed as a whole.

Compressing the whole takes a quarter less time than Arrow's own compression of each buffer, and shrinks the
schema too, which outweighs the rows of a small batch. A point of a light curve is its 32 bytes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from broker.lightcurves import POINT, LightCurves, empty_light_curves
from broker.table import Column, ColumnSpec, Table

I64 = npt.NDArray[np.int64]

MAX_MESSAGE_BYTES = 8 * 1024 * 1024
"""Of the rows of one message before compression; a single row with its light curve may be larger."""
CURVE = "light_curve"
PASSED = "filters_passed"
_CODEC, _LEVEL = "zstd", 1
_ROWS, _COLUMNS = b"rows", b"columns"


@dataclass(frozen=True)
class About:
    """What is the same for all rows of a message.

    kind : alert or update;  epoch : of the control topic, by which the filters judged
    """

    survey: str
    kind: str
    epoch: int
    model_id: str
    model_version: str


@dataclass(frozen=True)
class Rows:
    """n rows as judged.

    table : light curves with it;  keys, record_sha256 : (n,);  causes : (n,), '' for none
    topics : names that `source` refers to;  source : (n, 4) topic, partition, offset, index
    ingested_ms : (n,) Unix time [ms]
    passed : (k,) numbers of the filters passed, row after row, into `labels`;  passed_starts : (n+1,)
    """

    about: About
    table: Table
    keys: Sequence[bytes]
    record_sha256: Sequence[bytes]
    causes: Sequence[str]
    topics: Sequence[str]
    source: I64
    ingested_ms: I64
    labels: Sequence[str]
    passed: I64
    passed_starts: I64


IDENTITY = pa.schema(
    [
        ("history_key", pa.string()),
        ("record_sha256", pa.string()),
        ("cause", pa.string()),
        ("source_topic", pa.dictionary(pa.int32(), pa.string())),
        ("source_partition", pa.int32()),
        ("source_offset", pa.int64()),
        ("source_index", pa.int32()),
        ("ingested_ms", pa.int64()),
        (PASSED, pa.list_(pa.dictionary(pa.int32(), pa.string()))),
        (CURVE, pa.list_(pa.binary(POINT.itemsize))),
    ]
)
"""Columns of every message after those of the table; the rest of a row's identity is in About."""

_TYPES = {"float": pa.float64(), "bool": pa.float64(), "int": pa.int64()}
_STRINGS = pa.dictionary(pa.int32(), pa.string())


def encode(rows: Rows) -> list[bytes]:
    """The messages that carry some rows."""
    specs = tuple(column.spec for column in rows.table.values())
    schema = _schema(specs).with_metadata(
        {_ROWS: json.dumps(asdict(rows.about)), _COLUMNS: _described(specs)}
    )
    batch = pa.RecordBatch.from_arrays([*map(_array, rows.table.values()), *_identity(rows)], schema=schema)
    width = sum(8 if pa.types.is_floating(item.type) else 16 for item in schema)
    bytes_before = _curves(rows.table).starts * POINT.itemsize + np.arange(rows.table.length + 1) * width
    return [_message(batch.slice(low, high - low)) for low, high in _cuts(bytes_before)]


def decode(message: bytes) -> tuple[About, tuple[ColumnSpec, ...], pa.Table]:
    """What all rows share, the columns of their table, and the rows: as `encode` was given them."""
    with pa.input_stream(pa.BufferReader(message), compression=_CODEC) as stream:
        table = pa.ipc.open_stream(stream).read_all()
    described: dict[bytes, bytes] = table.schema.metadata
    specs = tuple(ColumnSpec(*item) for item in json.loads(described[_COLUMNS]))
    return About(**json.loads(described[_ROWS])), specs, table.replace_schema_metadata(None)


def _curves(table: Table) -> LightCurves:
    return table.light_curves if table.light_curves is not None else empty_light_curves(table.length)


@lru_cache(maxsize=8)
def _schema(specs: tuple[ColumnSpec, ...]) -> Any:
    fields = [pa.field(spec.name, _TYPES.get(spec.kind, _STRINGS)) for spec in specs]
    return pa.schema([*fields, *IDENTITY])


@lru_cache(maxsize=8)
def _described(specs: tuple[ColumnSpec, ...]) -> str:
    return json.dumps([(spec.name, spec.unit, spec.doc, spec.kind) for spec in specs])


def _array(column: Column) -> Any:
    values = np.ascontiguousarray(column.values)
    if column.spec.kind != "string":
        return pa.array(values, type=_TYPES[column.spec.kind])
    codes = pa.array(values.astype(np.int32, copy=False), mask=values < 0)
    return pa.DictionaryArray.from_arrays(codes, pa.array(column.categories, pa.string()))


def _identity(rows: Rows) -> list[Any]:
    """The columns of IDENTITY, in its order."""
    source = np.ascontiguousarray(rows.source.T)
    topics = pa.array(rows.topics, pa.string())
    labels = pa.array(rows.labels, pa.string())
    passed = pa.DictionaryArray.from_arrays(pa.array(rows.passed.astype(np.int32)), labels)
    curves = _curves(rows.table)
    points = np.ascontiguousarray(curves.points)
    packed = pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(POINT.itemsize), len(points), [None, pa.py_buffer(points.view(np.uint8))]
    )
    return [
        pa.array([key.decode() for key in rows.keys], pa.string()),
        pa.array([digest.decode() for digest in rows.record_sha256], pa.string()),
        pa.array([cause or None for cause in rows.causes], pa.string()),
        pa.DictionaryArray.from_arrays(pa.array(source[0].astype(np.int32)), topics),
        pa.array(source[1].astype(np.int32)),
        pa.array(source[2]),
        pa.array(source[3].astype(np.int32)),
        pa.array(rows.ingested_ms),
        pa.ListArray.from_arrays(rows.passed_starts.astype(np.int32), passed),
        pa.ListArray.from_arrays(curves.starts.astype(np.int32), packed),
    ]


def _cuts(bytes_before: I64) -> list[tuple[int, int]]:
    """Rows [low, high) of each message.  bytes_before : (n+1,) of the rows before each

    >>> limit = MAX_MESSAGE_BYTES
    >>> _cuts(np.array([0, limit // 2, limit, limit + 1]))
    [(0, 2), (2, 3)]
    """
    cuts, low, count = [], 0, len(bytes_before) - 1
    while low < count:
        high = int(np.searchsorted(bytes_before, bytes_before[low] + MAX_MESSAGE_BYTES, side="right")) - 1
        high = min(max(high, low + 1), count)
        cuts.append((low, high))
        low = high
    return cuts


def _message(batch: Any) -> bytes:
    out = pa.BufferOutputStream()
    with pa.ipc.new_stream(out, batch.schema) as stream:
        stream.write_batch(batch)
    packed: bytes = pa.Codec(_CODEC, _LEVEL).compress(out.getvalue(), asbytes=True)
    return packed
