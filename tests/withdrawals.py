"""Simulated Rubin packets whose history says that some detections were taken back."""

from __future__ import annotations

import io
import struct
from collections import defaultdict
from collections.abc import Collection
from functools import cache
from typing import Any

import fastavro

from broker.schemas import lsst_schema
from broker.simulate import simulate_lsst

SCHEMA_ID = 1100
_SCHEMA: Any = fastavro.parse_schema(dict(lsst_schema(SCHEMA_ID) or {}))


def opened(value: bytes) -> dict[str, Any]:
    """What a packet says."""
    record: Any = fastavro.schemaless_reader(io.BytesIO(value[5:]), _SCHEMA, None)
    return dict(record)


def closed(record: dict[str, Any]) -> bytes:
    """The packet of a record."""
    out = io.BytesIO(struct.pack(">bi", 0, SCHEMA_ID))
    out.seek(0, io.SEEK_END)
    fastavro.schemaless_writer(out, _SCHEMA, record)
    return out.getvalue()


@cache
def one_object(alerts: int) -> list[dict[str, Any]]:
    """Packets of one simulated object, the oldest first, without their pictures."""
    found: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for alert in simulate_lsst(1500, seed=5):
        record = opened(alert.value)
        record |= dict.fromkeys(("cutoutDifference", "cutoutScience", "cutoutTemplate"))
        name = record["diaSource"]["diaObjectId"]
        found[name or 0].append(record)
        if name and len(found[name]) == alerts:
            return found[name]
    raise AssertionError(f"no simulated object has {alerts} alerts")


def taking_back(record: dict[str, Any], ids: Collection[int]) -> dict[str, Any]:
    """The packet as it would be had the survey withdrawn some detections of its history."""
    history = [
        source | ({"timeWithdrawnMjdTai": 62000.0} if source["diaSourceId"] in ids else {})
        for source in record["prvDiaSources"] or []
    ]
    assert set(ids) <= {source["diaSourceId"] for source in history}
    return record | {"prvDiaSources": history}
