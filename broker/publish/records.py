"""What we publish: Avro schemas, their ids, and the framing that standard deserialisers read.

A message is 0x00, the schema id (big-endian int32) and the datum, as Confluent's clients frame it. The id is
31 bits of the SHA-256 of the schema's canonical text, so that workers agree on it without talking.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from typing import Any

from broker.table import ColumnSpec

NAMESPACE = "broker"
_FRAME = struct.Struct(">bI")
FRAME_BYTES = _FRAME.size
_ALERT = b"\x0aalert"
"""Avro: the length, doubled, and the word."""

POINT_SCHEMA: dict[str, Any] = {
    "type": "record",
    "name": "Point",
    "namespace": NAMESPACE,
    "doc": "One measurement of a light curve.",
    "fields": [
        {"name": "midpointMjdTai", "type": "double", "doc": "mid-exposure [MJD, TAI]"},
        {"name": "band", "type": ["null", "string"], "default": None},
        {"name": "kind", "type": "string", "doc": "detection, forced or limit"},
        {
            "name": "psfFlux",
            "type": ["null", "float"],
            "default": None,
            "doc": "difference flux, signed [nJy]",
        },
        {"name": "psfFluxErr", "type": ["null", "float"], "default": None, "doc": "one sigma [nJy]"},
        {"name": "sourceId", "type": ["null", "long"], "default": None},
        {
            "name": "flags",
            "type": "int",
            "doc": "1 own record, 2 time assumed, 4 private, 8 withdrawn, 16 unused",
        },
        {"name": "knownAt", "type": "long", "doc": "when it could first be known [Unix s]"},
    ],
}


def _optional(name: str, kind: str, doc: str = "") -> dict[str, Any]:
    return {"name": name, "type": ["null", kind], "default": None, "doc": doc}


def _required(name: str, kind: Any, doc: str = "") -> dict[str, Any]:
    return {"name": name, "type": kind, "doc": doc}


def _later(name: str, kind: Any, default: Any, doc: str = "") -> dict[str, Any]:
    """A field that came later: who reads older messages by this schema gets its default."""
    return {"name": name, "type": kind, "default": default, "doc": doc}


def _record(name: str, fields: list[dict[str, Any]]) -> dict[str, Any]:
    return {"type": "record", "name": name, "namespace": NAMESPACE, "fields": fields}


def _floats(name: str, specs: Sequence[ColumnSpec]) -> dict[str, Any]:
    """A record of optional floats, one for each column."""
    texts = [f"{spec.doc} [{spec.unit}]" if spec.unit else spec.doc for spec in specs]
    return _record(name, [_optional(s.name, "float", text) for s, text in zip(specs, texts, strict=True)])


def alert_fields(
    packet: Sequence[ColumnSpec],
    features: Sequence[ColumnSpec],
    scores: Sequence[ColumnSpec],
    annotations: Sequence[ColumnSpec] = (),
) -> list[dict[str, Any]]:
    """The fields of every message about an alert, in order; packets.py writes them in this order."""
    solar_system = [
        _required("status", "string", "none, associated, nearby or unknown"),
        _optional("ssObjectId", "long"),
        _optional("sepArcsec", "float", "distance to the known object [arcsec]"),
        _optional("vMagPredicted", "float", "its predicted V magnitude"),
    ]
    other = [
        _optional("object", "string", "object of another survey at the same place: survey:diaObjectId"),
        _optional("sepArcsec", "float", "how far it is [arcsec]"),
    ]
    source = [
        _required("topic", "string"),
        _required("partition", "int"),
        _required("offset", "long"),
        _required("index", "int", "which record of that message"),
    ]
    provenance = [
        _required("surveySchema", "string", "survey and schema version of the original"),
        _required("brokerVersion", "string"),
        _required("featureSet", "string", "hash of the feature catalogue"),
        _required("modelId", "string"),
        _required("modelVersion", "string"),
        _required("controlEpoch", "long", "version of all filters taken together"),
        _required("observedAt", "double", "mid-exposure [Unix s]"),
        _required("ingestedAt", "long", "timestamp of the input record [Unix ms]"),
        _required("publishedAt", "long", "when its transaction was put together [Unix ms]"),
        _required("recordSha256", "string", "SHA-256 of the original record's bytes, hexadecimal"),
    ]
    return [
        _required("kind", "string", "alert, update or retraction"),
        _optional("cause", "string", "what an update or retraction follows from"),
        _required("diaSourceId", "long"),
        _optional("diaObjectId", "long"),
        _optional("ssObjectId", "long"),
        _required("objectName", "string"),
        _required("survey", "string"),
        _required("midpointMjdTai", "double", "mid-exposure [MJD, TAI]"),
        _required("ra", "double", "[deg, ICRS]"),
        _required("dec", "double", "[deg, ICRS]"),
        _optional("band", "string"),
        _optional("psfFlux", "float", "difference flux, signed [nJy]"),
        _optional("psfFluxErr", "float", "one sigma [nJy]"),
        _optional("mag", "float", "AB magnitude of the difference flux; null where it is not positive"),
        _optional("magErr", "float"),
        _optional("reliability", "float", "the survey's own real/bogus score"),
        _required("flags", "int", "1 own record, 2 time assumed, 4 private, 8 withdrawn, 16 unused"),
        _required("historyIncomplete", "boolean", "earlier points may be missing from the light curve"),
        _required("solarSystem", _record("SolarSystem", solar_system)),
        _required("packet", _floats("Packet", packet)),
        _required("features", _floats("Features", features)),
        _required("scores", _floats("Scores", scores)),
        _later("other", _record("Other", other), {}),
        _required("filtersPassed", {"type": "array", "items": "string"}, "owner.name@version"),
        _required("source", _record("Source", source)),
        _required("provenance", _record("Provenance", provenance)),
        *([_later("annotations", _record("Annotations", _said(annotations)), {})] if annotations else []),
    ]


def _said(annotations: Sequence[ColumnSpec]) -> list[dict[str, Any]]:
    """What people said of the object; the record's name stands for the columns' prefix."""
    kinds = {"string": "string", "float": "float"}
    return [
        _optional(_camel(spec.name.removeprefix("annotation_")), kinds[spec.kind], spec.doc)
        for spec in annotations
    ]


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.title() for word in rest)


def filter_fields() -> list[dict[str, Any]]:
    """What a filter's own topic adds: which filter, in which version, and the values that it selects."""
    selected = [
        _required("name", "string"),
        _optional("number", "double"),
        _optional("integer", "long", "a whole number such as an id"),
        _optional("text", "string"),
        _optional("truth", "boolean"),
    ]
    doc = "values of the filter's select list; one that is not known has no value of any kind"
    fields = [
        _required("name", "string", "owner.name"),
        _required("version", "int"),
        _later("sampling", "float", 1.0, "share of the filter's hits that is published; 1 = every one"),
        _later("selected", {"type": "array", "items": _record("Selected", selected)}, [], doc),
    ]
    return [_required("filter", _record("Filter", fields))]


def light_curve_field() -> dict[str, Any]:
    """The light curve that a filter of payload `standard` or `full` adds."""
    return _required("lightCurve", {"type": "array", "items": POINT_SCHEMA})


def other_light_curve_field() -> dict[str, Any]:
    """The light curve of another survey's object at the place, beside that of light_curve_field."""
    text = "of the object that `other` names, up to the alert"
    return _later("otherLightCurve", {"type": "array", "items": f"{NAMESPACE}.Point"}, [], text)


def alert_schema(fields: list[dict[str, Any]]) -> dict[str, Any]:
    """Value schema of `alerts.<survey>`."""
    return _record("Alert", fields)


def hit_schema(fields: list[dict[str, Any]], payload: str, original: str | None = None) -> dict[str, Any]:
    """Value schema of a filter's topic.

    payload : light, standard or full;  original : for full, the survey's writer schema (JSON text), whose
    record is the message's first field so that its bytes are passed on as they came.
    """
    own = fields + filter_fields()
    if payload == "light":
        return _record("LightHit", own)
    own = [*own, light_curve_field(), other_light_curve_field()]
    if payload == "standard":
        return _record("StandardHit", own)
    return _record("FullHit", [_required("original", json.loads(original or "{}")), *own])


LEDGER_SCHEMA = _record(
    "LedgerRecord",
    [
        _required("slot", "string"),
        _required("worker", "string", "host and process"),
        _required("epoch", "long", "control epoch the batch was judged at"),
        _required("committedAt", "long", "[Unix ms]"),
        _required(
            "partitions",
            {
                "type": "array",
                "items": _record(
                    "LedgerPartition",
                    [
                        _required("topic", "string"),
                        _required("partition", "int"),
                        _required("before", "long", "position before the batch"),
                        _required("after", "long", "position after it"),
                        _required("expired", "long", "records in between that upstream dropped unread"),
                    ],
                ),
            },
        ),
        _required(
            "counts",
            {
                "type": "array",
                "items": _record(
                    "LedgerCount",
                    [
                        _required("survey", "string"),
                        _required("outcome", "string", "in, published, rejected or duplicate"),
                        _required("reason", "string"),
                        _required("count", "long"),
                    ],
                ),
            },
        ),
        _later(
            "hits",
            [
                "null",
                {
                    "type": "array",
                    "items": _record(
                        "LedgerHits",
                        [
                            _required("filter", "string", "owner.name@version"),
                            _required("alerts", "long", "alerts in the filter's topic"),
                            _required("updates", "long", "alerts judged again in it"),
                            _required("retractions", "long", "retractions in it"),
                        ],
                    ),
                },
            ],
            None,
            "what went to filters' topics, those with something only; null: not recorded",
        ),
        _later(
            "outputs",
            {
                "type": "array",
                "items": _record(
                    "LedgerOutput",
                    [
                        _required("topic", "string", "no filter's"),
                        _required("kind", "string", "of alerts.*: alert, update or retraction; else empty"),
                        _required("records", "long"),
                    ],
                ),
            },
            [],
            "every other record of the transaction",
        ),
    ],
)
"""One record a transaction, on the `ledger` topic."""
LEDGER_HITS_FIELDS = ("hits", "outputs")
"""What its first version had not: such records count as `hits not recorded`."""

NOTICE_SCHEMA = _record(
    "Notice",
    [
        _required("owner", "string"),
        _required("subject", "string", "owner.name of the filter, or the part of the broker it is about"),
        _required("kind", "string", "such as filter_paused"),
        _required("text", "string"),
        _required("at", "long", "[Unix ms]"),
    ],
)
"""What a person should know, on the `notices` topic."""


def frame(identifier: int) -> bytes:
    """The five bytes before a datum."""
    return _FRAME.pack(0, identifier)


def is_alert(value: bytes) -> bool:
    """Whether a record of `alerts.<survey>` is an alert, not an update or a retraction: its first field."""
    return value[FRAME_BYTES : FRAME_BYTES + len(_ALERT)] == _ALERT


def kind_of(value: bytes) -> str:
    """Kind of a record of `alerts.<survey>` (alert, update or retraction): its first field, a short text."""
    return value[FRAME_BYTES + 1 : FRAME_BYTES + 1 + (value[FRAME_BYTES] >> 1)].decode()


def alert_start(dia_source_id: int) -> bytes:
    """How the datum of an alert begins: its kind, no cause, its id as Avro's zigzag number."""
    left, number = (dia_source_id << 1) ^ (dia_source_id >> 63), bytearray()
    while left > 0x7F:
        number.append((left & 0x7F) | 0x80)
        left >>= 7
    return _ALERT + b"\x00" + bytes([*number, left])


def unframe(value: bytes) -> int | None:
    """Schema id of a framed message, or None if it is not framed."""
    if len(value) < FRAME_BYTES or value[0] != 0:
        return None
    return int(_FRAME.unpack_from(value)[1])
