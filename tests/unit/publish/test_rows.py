"""The compiled encoder against fastavro, byte for byte."""

from __future__ import annotations

import io
import math
from typing import Any

import fastavro
import numpy as np
import pytest

from broker.astro.bands import BANDS
from broker.lightcurves import KINDS, LIMIT, POINT, LightCurves
from broker.publish.records import POINT_SCHEMA
from broker.publish.rows import RowWriter

ROWS = 200
SCHEMA = fastavro.parse_schema(
    {
        "type": "record",
        "name": "Everything",
        "fields": [
            {"name": "long", "type": "long"},
            {"name": "optional_long", "type": ["null", "long"]},
            {"name": "boolean", "type": "boolean"},
            {"name": "double", "type": "double"},
            {"name": "optional_float", "type": ["null", "float"]},
            {"name": "optional_double", "type": ["null", "double"]},
            {"name": "text", "type": "string"},
            {"name": "optional_text", "type": ["null", "string"]},
            {"name": "constant", "type": "string"},
            {"name": "texts", "type": {"type": "array", "items": "string"}},
            {"name": "null", "type": ["null", "string"]},
            {"name": "points", "type": {"type": "array", "items": POINT_SCHEMA}},
        ],
    }
)


def random_curves(rng: np.random.Generator) -> LightCurves:
    count = 3 * ROWS
    points = np.zeros(count, dtype=POINT)
    points["midpoint_mjd_tai"] = rng.normal(60000, 100, count)
    points["source_id"] = rng.integers(1, 2**62, count)
    points["psf_flux"] = np.where(rng.random(count) < 0.2, np.nan, rng.normal(size=count))
    points["psf_flux_err"] = rng.random(count)
    points["known_at"] = rng.integers(0, 2**32, count)
    points["band"] = rng.choice([0, 1, 2, 5, 255], count)
    points["kind"] = rng.integers(0, 3, count)
    points["flags"] = rng.integers(0, 2**16, count)
    cuts = np.sort(rng.integers(0, count + 1, ROWS - 1))
    return LightCurves(points, np.concatenate([[0], cuts, [count]]))


def optional(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def expected_point(point: Any) -> dict[str, Any]:
    return {
        "midpointMjdTai": float(point["midpoint_mjd_tai"]),
        "band": BANDS[point["band"]] if point["band"] < len(BANDS) else None,
        "kind": KINDS[point["kind"]],
        "psfFlux": optional(point["psf_flux"]),
        "psfFluxErr": optional(point["psf_flux_err"]),
        "sourceId": None if point["kind"] == LIMIT else int(point["source_id"]),
        "flags": int(point["flags"]),
        "knownAt": int(point["known_at"]),
    }


def by_fastavro(record: dict[str, Any]) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, SCHEMA, record)
    return out.getvalue()


@pytest.mark.parametrize("seed", range(3))
def test_every_step_writes_what_fastavro_writes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    longs = rng.integers(-(2**63), 2**63 - 1, ROWS)
    longs[:20] = [0, 1, -1, 63, 64, -64, -65, 2**63 - 1, -(2**63), 127] * 2
    numbers = np.where(rng.random(ROWS) < 0.3, np.nan, rng.normal(size=ROWS))
    words = [("é" * (row % 100)).encode() for row in range(ROWS)]
    choice = rng.integers(-1, 3, ROWS)
    list_starts = np.concatenate([[0], np.cumsum(rng.integers(0, 4, ROWS))])
    list_codes = rng.integers(0, 3, list_starts[-1])
    names = [b"a.one@1", b"b.two@2", b"c.three@33"]
    curves = random_curves(rng)

    writer = RowWriter(ROWS)
    writer.long(longs)
    writer.optional_long(longs)
    writer.boolean(longs > 0)
    writer.double(np.nan_to_num(numbers))
    writer.optional_float(numbers)
    writer.optional_double(numbers)
    writer.text(np.arange(ROWS), words)
    writer.optional_text(choice, [b"g", b"r"])
    writer.constant(b"same")
    writer.texts(list_codes, list_starts, names)
    writer.null()
    writer.light_curves(curves)

    for row, encoded in enumerate(writer.encode()):
        listed = list_codes[list_starts[row] : list_starts[row + 1]]
        record = {
            "long": int(longs[row]),
            "optional_long": int(longs[row]) or None,
            "boolean": bool(longs[row] > 0),
            "double": float(np.nan_to_num(numbers)[row]),
            "optional_float": optional(numbers[row]),
            "optional_double": optional(numbers[row]),
            "text": words[row].decode(),
            "optional_text": {0: "g", 1: "r"}.get(int(choice[row])),
            "constant": "same",
            "texts": [names[code].decode() for code in listed],
            "null": None,
            "points": [expected_point(point) for point in curves.row(row)],
        }
        assert encoded == by_fastavro(record), row


def test_no_rows_is_no_bytes() -> None:
    writer = RowWriter(0)
    writer.long(np.zeros(0, dtype=np.int64))
    assert writer.encode() == []
