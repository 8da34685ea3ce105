"""Packets to decode: the real ones where they are, simulated ones where not; and ways to build bad ones."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import fastavro
import numpy as np

from broker.message import Message
from broker.schemas import load, lsst_schema
from broker.simulate import simulate_lsst, simulate_ztf
from tests.data import shared_data

KNOWN_AT_MS = 1_800_000_000_123
"""Later than every sample: 2027-01-15."""
SYNC = b"0123456789abcdef"


def message(value: bytes, offset: int = 0) -> Message:
    return Message("test", 0, offset, KNOWN_AT_MS, value)


def messages(values: Iterable[bytes]) -> list[Message]:
    return [message(value, offset) for offset, value in enumerate(values)]


def files(*folders: str) -> list[Path]:
    """The real packets of some folders of the shared data; none without it."""
    root = shared_data()
    return [] if root is None else [path for name in folders for path in sorted((root / name).iterdir())]


@cache
def ztf_values() -> list[bytes]:
    """ZTF packets, each one message."""
    real = [path.read_bytes() for path in files("ztf/alerts", "ztf/alerts_reencoded")]
    return real or [alert.value for alert in simulate_ztf(200, seed=3)]


@cache
def lsst_values() -> list[bytes]:
    """Rubin packets, each one message."""
    real = [path.read_bytes() for path in files("lsst/original", "lsst/wire", "lsst/reencoded_v10_0")]
    # 11.1 is in the folder as a schema that nobody has
    known = [value for value in real if value[:5] != b"\x00\x00\x00\x04\x4d"]
    return known or [alert.value for alert in simulate_lsst(100, seed=3)]


@cache
def elasticc_values() -> list[bytes]:
    """ELAsTiCC packets, each one message; without the real ones, two records of the same shape."""
    real = [path.read_bytes() for path in files("lsst/elasticc")]
    return [value for value in real if b"elasticc" in value[:4000]] or [_made_elasticc()]


def _made_elasticc() -> bytes:
    measured = [
        ("midPointTai", "double"),
        ("filterName", "string"),
        ("psFlux", "float"),
        ("psFluxErr", "float"),
    ]
    source = _record("diaSource", [("diaSourceId", "long"), ("ra", "double"), ("decl", "double"), *measured])
    source["fields"].append({"name": "diaObjectId", "type": ["null", "long"]})
    forced = _record("diaForcedSource", [("diaForcedSourceId", "long"), ("ccdVisitId", "long"), *measured])
    host = _record(
        "diaObject", [("diaObjectId", "long"), ("mwebv", "float"), ("hostgal_ellipticity", "float")]
    )
    schema = _record("alert", [("alertId", "long"), ("diaSource", source), ("diaObject", host)])
    schema["namespace"] = "elasticc.v0_9"
    for name, items in (("prvDiaSources", "diaSource"), ("prvDiaForcedSources", forced)):
        schema["fields"].append({"name": name, "type": ["null", {"type": "array", "items": items}]})
    return container(schema, [_elasticc_record(1, -250.5), _elasticc_record(2, 4000.0)])


def _record(name: str, fields: list[tuple[str, Any]]) -> dict[str, Any]:
    return {"type": "record", "name": name, "fields": [{"name": n, "type": t} for n, t in fields]}


def _elasticc_record(number: int, flux: float) -> dict[str, Any]:
    measured = {"midPointTai": 60000.0 + number, "filterName": "Y", "psFlux": flux, "psFluxErr": 12.5}
    source = {"diaSourceId": number, "ra": 10.0, "decl": -5.0, "diaObjectId": 77, **measured}
    forced = [{"diaForcedSourceId": 100 + k, "ccdVisitId": 111111, **measured} for k in range(number)]
    host = {"diaObjectId": 77, "mwebv": 0.1, "hostgal_ellipticity": 0.2}
    earlier = {**source, "diaSourceId": 50 + number, "midPointTai": 59990.0}
    history = {"prvDiaSources": [earlier], "prvDiaForcedSources": forced}
    return {"alertId": number, "diaSource": source, "diaObject": host, **history}


@cache
def atlas_values() -> list[bytes]:
    """ATLAS packets, each one message; without the real ones, two of our making."""
    return _other("atlas") or [
        made("atlas", objectId="1200825211121548288", candid="02a59543o0040o_006230", candidate=candidate)
        for candidate in (
            {"mjd": 59543.194825, "filter": "o", "flux": 173.78, "Dflux": 19.8, "isdiffpos": "f"},
            {"mjd": 59544.0, "filter": "c", "flux": -2070.1, "Dflux": -16.6, "isdiffpos": "t", "rb": 0.7},
        )
    ]


@cache
def decam_values() -> list[bytes]:
    """DECam packets of DESIRT, each one message; without the real ones, one of our making."""
    point = {"mjd": 61229.08006057, "band": "g", "psfFlux": 1375.25, "psfFluxErr": 255.25, "isdiffpos": 1}
    earlier = {"mjd": 61220.1, "band": "z", "psfFlux": -20.5, "psfFluxErr": 250.0}
    own = {**point, "ra": 210.5, "dec": 15.4, "diffmaglim": 22.96, "reliability": 0.93}
    made_up = made("decam", objectId="c4d_1", candid=65346, candidate=own, fp_hists=[earlier, point])
    return _other("desirt") or [made_up]


@cache
def pgir_values() -> list[bytes]:
    """PGIR packets, each one message; without the real ones, one of our making."""
    point = {"jd": 2459394.7, "candid": 9, "magpsf": 10.2, "sigmapsf": 0.05, "isdiffpos": "1", "drb": 0.9}
    own = {**point, "exptime": 71.26, "diffmaglim": 11.7, "ssdistnr": -99.0, "tmdist1": 60.0, "drb": 1.0}
    history = [
        {**point, "stackquadid": 3},
        {**point, "jd": 2459390.7, "candid": 8, "isdiffpos": "0", "stackquadid": 2, "drb": -1.0},
        {"jd": 2459389.7, "diffmaglim": 12.5, "stackquadid": 1},
        {"jd": 2459388.7, "diffmaglim": -1.0, "stackquadid": 7},
    ]
    return _other("pgir") or [
        made("pgir", objectId="PGIR19aacbvv", candid=9, candidate=own, prv_candidates=history)
    ]


@cache
def winter_values() -> list[bytes]:
    """WINTER packets, each one message; without the real ones, one in each band of our making."""
    point = {"jd": 2460381.03, "magpsf": 14.5, "sigmapsf": 0.1, "isdiffpos": True}
    return _other("winter") or [
        made(
            "winter",
            objectid="WNTR24awati",
            candid=10 + fid,
            candidate={**point, "candid": 10 + fid, "fid": fid, "exptime": 120.0, "diffmaglim": 17.7},
            prv_candidates=[{**point, "jd": 2460375.1, "candid": fid, "fid": 2, "isdiffpos": False}],
        )
        for fid in (1, 2, 3)
    ]


def _other(folder: str) -> list[bytes]:
    return [path.read_bytes() for path in files(f"other_surveys/{folder}")]


def made(survey: str, **values: Any) -> bytes:
    """A packet of a survey's own schema with the values given; null, zero or empty where none is."""
    schema = load(f"{survey}/alert")
    return container(schema, [_filled(schema, {"schemavsn": "0.1", **values}, {})])


def _filled(avro_type: Any, value: Any, named: dict[str, Any]) -> Any:
    """A value of an Avro type, what is not given being null, zero or empty;  named : records met so far."""
    if isinstance(avro_type, list):
        branch = next(one for one in avro_type if one != "null")
        return None if value is None and "null" in avro_type else _filled(branch, value, named)
    avro_type = named.get(avro_type, avro_type) if isinstance(avro_type, str) else avro_type
    if isinstance(avro_type, dict) and avro_type["type"] == "record":
        named[avro_type["name"]] = avro_type
        given = value or {}
        return {f["name"]: _filled(f["type"], given.get(f["name"]), named) for f in avro_type["fields"]}
    if isinstance(avro_type, dict) and avro_type["type"] == "array":
        return [_filled(avro_type["items"], item, named) for item in value or []]
    empty = {"string": "", "bytes": b"", "boolean": False, "int": 0, "long": 0}
    return empty.get(avro_type, 0.0) if value is None else value


@cache
def unreadable_values() -> list[bytes]:
    """Damaged and nonconforming ZTF packets; without the real ones, ours in the same states."""
    real = [path.read_bytes() for path in files("ztf/unreadable")]
    return real or _made_unreadable()


def _made_unreadable() -> list[bytes]:
    value = ztf_values()[0]
    (record,) = read_packet(value)
    other = datum(header_of(value), {**record, "schemavsn": ""})
    text = json.dumps(plain_schema(header_of(value)))
    return [
        value[:-1],  # the last byte lost
        value + value[-5000:],  # more bytes after the last block
        value[: len(value) // 2],
        hand_made(text, [(8, other[3:])]),  # a datum of another schema
        hand_made(f"[{text}]", [(1, b"\x00" + other)]),  # a union of records at the top
    ]


@cache
def few_ztf() -> list[bytes]:
    """A dozen ZTF packets of different versions."""
    values = ztf_values()
    return values[:: max(1, len(values) // 12)][:12]


@cache
def few_lsst() -> list[bytes]:
    """A few Rubin packets in Confluent framing."""
    return [alert.value for alert in simulate_lsst(6, seed=5)]


def read_packet(value: bytes) -> list[dict[str, Any]]:
    """The records of a message as fastavro's own reader gives them."""
    if value[:1] == b"\x00":
        schema = lsst_schema(int.from_bytes(value[1:5], "big"))
        assert schema is not None
        return [fastavro.schemaless_reader(io.BytesIO(value[5:]), fastavro.parse_schema(schema), None)]
    return list(fastavro.reader(io.BytesIO(value)))


def header_of(value: bytes) -> dict[str, Any]:
    """The writer schema of a container."""
    schema = fastavro.reader(io.BytesIO(value)).writer_schema
    assert isinstance(schema, dict)
    return schema


def container(schema: Any, records: Iterable[Any], codec: str = "null", sync_interval: int = 16000) -> bytes:
    """A container written by fastavro."""
    out = io.BytesIO()
    fastavro.writer(out, schema, list(records), codec=codec, sync_interval=sync_interval)
    return out.getvalue()


def datum(schema: Any, record: Any) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, schema, record)
    return out.getvalue()


def long(value: int) -> bytes:
    """Avro's encoding of a whole number."""
    out = io.BytesIO()
    fastavro.schemaless_writer(out, "long", value)
    return out.getvalue()


def hand_made(schema_text: str, blocks: Iterable[tuple[int, bytes]], codec: str = "null") -> bytes:
    """A container from parts, which may lie: blocks of (count said, data)."""
    entries = {"avro.schema": schema_text.encode(), "avro.codec": codec.encode()}
    metadata = b"".join(long(len(k)) + k.encode() + long(len(v)) + v for k, v in entries.items())
    body = b"".join(long(count) + long(len(data)) + data + SYNC for count, data in blocks)
    return b"Obj\x01" + long(len(entries)) + metadata + long(0) + SYNC + body


def changed(value: bytes, path: str, new: Any) -> bytes:
    """A one-record container again, with one value of its record changed."""
    schema = header_of(value)
    (record,) = read_packet(value)
    *parents, last = path.split(".")
    target = record
    for key in parents:
        target = target[key]
    target[last] = new
    return container(schema, [record])


def with_type(value: bytes, field: str, avro_type: Any, new: Any) -> bytes:
    """A one-record ZTF container whose schema gives a candidate's field another type, and a value of it."""
    schema = json.loads(json.dumps(plain_schema(header_of(value))))
    (record,) = read_packet(value)
    candidate = next(f for f in schema["fields"] if f["name"] == "candidate")["type"]
    entry = next(f for f in candidate["fields"] if f["name"] == field)
    entry["type"] = avro_type
    entry.pop("default", None)
    record["candidate"][field] = new
    return container(schema, [record])


def plain_schema(schema: Any) -> Any:
    if isinstance(schema, dict):
        return {k: plain_schema(v) for k, v in schema.items() if not k.startswith("__")}
    return [plain_schema(v) for v in schema] if isinstance(schema, list) else schema


def mutate(value: bytes, rng: np.random.Generator) -> bytes:
    """One random damage: flipped bits, a cut, lost or added bytes, a copied stretch, other ends."""
    data = bytearray(value)
    where = int(rng.integers(len(data)))
    match int(rng.integers(7)):
        case 0:
            data[where] ^= 1 << int(rng.integers(8))
        case 1:
            for place in rng.integers(len(data), size=20):
                data[place] = int(rng.integers(256))
        case 2:
            del data[where:]
        case 3:
            del data[where : where + int(rng.integers(1, 40))]
        case 4:
            data[where:where] = rng.bytes(int(rng.integers(1, 40)))
        case 5:
            data[where : where + 8] = long(int(rng.integers(-(2**62), 2**62)))
        case _:
            data += value[where:]
    return bytes(data)
