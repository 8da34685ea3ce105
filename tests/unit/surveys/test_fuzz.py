"""Damaged, cut and spliced messages through the compiled walk, with fastavro's own reading as the judge.

Two thousand messages a seed, five seeds; BROKER_FUZZ=100000 asks for that many messages in all.
"""

from __future__ import annotations

import json
import os
from functools import cache
from typing import Any

import numpy as np
import pytest

from broker.surveys import walk
from broker.surveys.avro import Damaged, Fault, frame, open_message
from broker.surveys.catalog import SURVEYS
from broker.surveys.columns import Child, Layout, Picked, RawColumns, columns_of, pick
from broker.surveys.program import program_of
from broker.surveys.reading import SurveyReader
from tests.unit.surveys.odd import ODD_LAYOUT, ODD_SCHEMA, odd_records
from tests.unit.surveys.samples import (
    container,
    datum,
    few_lsst,
    few_ztf,
    header_of,
    mutate,
    plain_schema,
    read_packet,
)

MESSAGES = int(os.environ.get("BROKER_FUZZ", "10000"))
SEEDS = range(5)
_BATCH = 200
_STRICTER = tuple(
    walk.FAULT_TEXT[code]
    for code in (walk.BAD_BRANCH, walk.LONG_NUMBER, walk.LARGE_INT, walk.BAD_BOOL, walk.BAD_ENUM)
)
"""What fastavro lets pass: a negative branch or symbol counts from the end, numbers lose their high bits."""


class Written:
    """Writer schemas by number, without logical types: fastavro refuses dates that it cannot show."""

    def __init__(self, schemas: list[Any]) -> None:
        self._texts = [json.dumps(_without_logical_types(schema)) for schema in schemas]

    def get(self, schema_id: int) -> str | None:
        return self._texts[schema_id - 1] if 0 < schema_id <= len(self._texts) else None


def _without_logical_types(schema: Any) -> Any:
    if isinstance(schema, dict):
        return {k: _without_logical_types(v) for k, v in schema.items() if k != "logicalType"}
    return [_without_logical_types(item) for item in schema] if isinstance(schema, list) else schema


def _small(value: Any) -> Any:
    """A record with short cutouts and histories, so that damage falls on what has a structure."""
    if isinstance(value, dict):
        return {k: _small(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_small(item) for item in value[:6]]
    return value[:40] if isinstance(value, bytes) else value


@cache
def _kinds() -> list[tuple[Layout, Written, list[bytes]]]:
    """For ZTF, Rubin and a schema of everything: layout, schemas, and messages in both framings."""
    layouts = {survey.name: survey.layout for survey in SURVEYS}
    ztf = [(plain_schema(header_of(value)), read_packet(value)) for value in few_ztf()]
    lsst = [(_lsst_schema(value), read_packet(value)) for value in few_lsst()]
    odd = [(ODD_SCHEMA, odd_records())]
    return [_kind(layouts["ztf"], ztf), _kind(layouts["lsst"], lsst), _kind(ODD_LAYOUT, odd)]


def _lsst_schema(value: bytes) -> Any:
    from broker.schemas import lsst_schema  # noqa: PLC0415

    return lsst_schema(int.from_bytes(value[1:5], "big"))


def _kind(layout: Layout, found: list[tuple[Any, list[Any]]]) -> tuple[Layout, Written, list[bytes]]:
    values = []
    for number, (schema, records) in enumerate(found, start=1):
        bare, small = _without_logical_types(schema), [_small(record) for record in records]
        values += 4 * [b"\x00" + number.to_bytes(4, "big") + datum(bare, record) for record in small]
        for codec in ("null", "deflate"):
            values.append(
                container(bare, (small * 3)[:3], codec, sync_interval=1 if codec == "null" else 16000)
            )
    return layout, Written([schema for schema, _ in found]), values


def _damaged(values: list[bytes], rng: np.random.Generator) -> bytes:
    """A message damaged past its header: a random damage, or the end of another message."""
    value = values[int(rng.integers(len(values)))]
    start = 5 if value[:1] == b"\x00" else value.index(b"\x00", value.rindex(b"avro.", 0, 60_000))
    body = value[start:]
    if rng.integers(8) == 0:
        other = values[int(rng.integers(len(values)))]
        return value[:start] + body[: int(rng.integers(len(body)))] + other[-int(rng.integers(len(body))) :]
    return value[:start] + mutate(body, rng) if len(body) > 8 else value


def _expected(
    value: bytes, schemas: Written, layout: Layout
) -> tuple[list[Picked], list[bytes], Fault | None]:
    opened = open_message(value, schemas)
    return [pick(r, layout) for r in opened.records], [r.datum for r in opened.records], opened.fault


def test_every_schema_here_is_compiled() -> None:
    for layout, schemas, values in _kinds():
        for value in values:
            assert program_of(frame(value, schemas).schema, layout) is not None


def _same_columns(got: dict[str, Any], want: dict[str, Any]) -> None:
    assert list(got) == list(want)
    for name, column in got.items():
        assert column.dtype.kind == want[name].dtype.kind, name
        np.testing.assert_array_equal(column, want[name], err_msg=name)


def same_columns(got: RawColumns, want: RawColumns) -> None:
    """Both hold the same values."""
    assert got.length == want.length
    _same_columns(got.alert, want.alert)
    assert list(got.children) == list(want.children)
    for name, child in got.children.items():
        other: Child = want.children[name]
        assert child.starts.tolist() == other.starts.tolist()
        _same_columns(child.columns, other.columns)


def _compare(values: list[bytes], schemas: Written, layout: Layout) -> int:
    """Both readings of a batch; returns how many records were good."""
    reader = SurveyReader(layout, len(values), sum(map(len, values)))
    picked: list[Picked] = []
    records: list[bytes] = []
    for number, value in enumerate(values):
        try:
            framed = frame(value, schemas)
        except Damaged:
            continue
        walked = reader.read(number, value, framed)
        if walked is None:  # a text too long for a column: read by fastavro, and so the same by definition
            continue
        good, fault = walked
        want, data, wrong = _expected(value, schemas, layout)
        assert good <= len(want), (fault, wrong)
        if good < len(want) or (fault is not None and wrong is None):
            assert fault is not None
            assert fault.detail.partition(": ")[2].startswith(_STRICTER), (fault, wrong)
        assert (wrong is None) or (fault is not None), wrong
        picked += want[:good]
        records += data[:good]
    rows = reader.rows()
    if rows is None:
        assert not records
        return 0
    same_columns(rows.raw, columns_of(picked, layout))
    assert list(rows.records) == records
    for row, one in enumerate(picked):
        for (start, end), (first, last) in zip(rows.cutouts[row].tolist(), one.cutouts, strict=False):
            assert records[row][start:end] == records[row][first:last]
    return len(records)


@pytest.mark.parametrize("seed", SEEDS)
def test_damaged_messages_are_read_as_fastavro_reads_them(seed: int) -> None:
    rng = np.random.default_rng(seed)
    left, good = MESSAGES // len(SEEDS), 0
    while left > 0:
        layout, schemas, values = _kinds()[int(rng.choice(3, p=[0.4, 0.2, 0.4]))]
        healthy = [values[int(k)] for k in rng.integers(len(values), size=20)]
        sick = [_damaged(values, rng) for _ in range(min(left, _BATCH))]
        mixed = [
            value
            for k, value in enumerate(sick)
            for value in ([value, healthy[k // 10]][: 1 + (k % 10 == 0)])
        ]
        good += _compare(mixed, schemas, layout)
        left -= len(sick)
    assert good > MESSAGES // len(SEEDS) // 20  # damage in a number, or none where it counts, still reads
