"""From a judged batch to what goes out: the slim alert, the hits of each filter, the dead letters."""

from __future__ import annotations

import hashlib
import io
import json
import operator
import struct
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import fastavro
import numpy as np
import numpy.typing as npt

from broker import __version__
from broker.annotations.columns import ANNOTATION_COLUMNS, no_annotations
from broker.astro.bands import BANDS
from broker.astro.photometry import njy_err_to_mag_err, njy_to_mag
from broker.astro.times import mjd_tai_to_unix_s
from broker.batch import PACKET_COLUMNS, SOLAR_SYSTEM_STATUS, SS_UNKNOWN, AlertBatch
from broker.data.schema_ids import canonical, schema_id
from broker.filter import Filter
from broker.kafka.topics import DEAD_LETTERS, NOTICES, alerts_topic
from broker.lightcurves import LightCurves, Points, empty_light_curves, without_private
from broker.message import MAX_INPUT_BYTES, Message, Packet, Reject
from broker.others import Others, no_others
from broker.publish import records
from broker.publish.rows import RowWriter
from broker.publish.selected import NOTHING_SELECTED, encode_selected
from broker.table import Column, ColumnSpec
from broker.text import utf8

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
_NOTICE_IDS = 20
MAX_DETAIL = 2000
"""Characters of why a message is a dead letter."""
MAX_KEPT_BYTES = 256 * 1024
"""Of a message's key, and of its headers, that its dead letter keeps."""
_HEADER_BYTES = 8
"""What Kafka needs for a header besides its name and value, at most."""
_FLOAT = struct.Struct("<f")
_BAND_WORDS = tuple(name.encode() for name in BANDS)
_STATUS_WORDS = tuple(name.encode() for name in SOLAR_SYSTEM_STATUS)


def _wire_columns() -> tuple[ColumnSpec, ...]:
    """Packet columns published under `packet`; the solar-system block has a record of its own."""
    return tuple(spec for spec in PACKET_COLUMNS if "." not in spec.name)


PUBLISHED_PACKET_COLUMNS = _wire_columns()


@dataclass(frozen=True)
class Judged:
    """A batch after its last stage: all that a message about its alerts says.

    keys : (n,) Kafka keys (the history keys);  hits : (filters, n) bool;  curves : n light curves as known
    record_sha256 : (n,) hexadecimal digests of the original records
    model : id and version of the bundle that gave the scores;  others : what another survey has at the place
    annotations : the ANNOTATION_COLUMNS, empty if nobody said anything
    selected : what filters select, by the filter's number: (name, values in the order of its hits)
    """

    batch: AlertBatch
    keys: Sequence[bytes]
    record_sha256: Sequence[bytes]
    curves: LightCurves
    features: F64
    scores: F64
    hits: npt.NDArray[np.bool_]
    history_incomplete: npt.NDArray[np.bool_]
    model: tuple[str, str]
    others: Others
    annotations: Sequence[Column] = ()
    selected: Mapping[int, Sequence[tuple[str, Sequence[Any]]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Withdrawn:
    """Published alerts that the survey took back, r of them.

    rows : (r,) the alert of the batch that says so;  points : (r,) the detections that are gone
    to_alerts : (r,) whether the survey's alert topic is told;  filters : (r,) the filters to be told
    """

    rows: I64
    points: Points
    to_alerts: npt.NDArray[np.bool_]
    filters: Sequence[Sequence[Filter]]


class PacketWriter:
    """Turns judged batches into packets; knows the schemas, and which of them are still unannounced."""

    def __init__(
        self,
        feature_specs: Sequence[ColumnSpec],
        score_specs: Sequence[ColumnSpec],
        *,
        feature_set: str,
        publish_private: bool = False,
    ) -> None:
        self._fields = records.alert_fields(
            PUBLISHED_PACKET_COLUMNS, feature_specs, score_specs, ANNOTATION_COLUMNS
        )
        self._alert_schema = canonical(records.alert_schema(self._fields))
        self._widths = (len(feature_specs), len(score_specs))
        self._feature_set = feature_set.encode()
        self._publish_private = publish_private
        self._hit_schemas: dict[tuple[str, str], str] = {}
        self.schemas: dict[int, str] = {}
        """Every schema a packet of ours may refer to so far, by id; announce them before sending."""
        for schema in (self._alert_schema, canonical(records.LEDGER_SCHEMA)):
            self._known(schema)
        self._known(canonical(records.NOTICE_SCHEMA))

    def alerts(self, judged: Judged, filters: Sequence[Filter], epoch: int) -> list[Packet]:
        """One packet an alert, then one for each hit of each filter, in the order of the alerts."""
        batch = judged.batch
        if len(batch) == 0:
            return []
        slim = self._slim(judged, filters, epoch)
        head = records.frame(self._known(self._alert_schema))
        topic = alerts_topic(batch.survey)
        packets = [Packet(topic, key, head + body) for key, body in zip(judged.keys, slim, strict=True)]
        return packets + self._hits(judged, filters, slim)

    def updates(
        self,
        judged: Judged,
        filters: Sequence[Filter],
        epoch: int,
        causes: Sequence[str],
        to_alerts: npt.NDArray[np.bool_],
    ) -> list[Packet]:
        """What alerts that were judged again come to: a packet for the alert topic, one for each hit.

        causes : (n,) what made us judge;  to_alerts : (n,) whether the survey's alert topic is told
        """
        slim = self._slim(judged, filters, epoch, b"update", [cause.encode() for cause in causes])
        head, topic = records.frame(self._known(self._alert_schema)), alerts_topic(judged.batch.survey)
        packets = [
            Packet(topic, judged.keys[row], head + slim[row]) for row in np.flatnonzero(to_alerts).tolist()
        ]
        return packets + self._hits(judged, filters, slim)

    def retractions(self, judged: Judged, withdrawn: Withdrawn, epoch: int) -> list[Packet]:
        """One packet for each topic that is told of a withdrawal.

        A retraction carries the ids, place and object of the alert that told of it, the flux of the detection
        that is gone, and no features or scores. `source` and `provenance` are the telling alert's. In a
        filter's topic it is always light: the original record is not at hand any more.
        """
        if len(withdrawn.rows) == 0:
            return []
        filters = list({item.mark: item for told in withdrawn.filters for item in told}.values())
        hits = np.array([[item in told for told in withdrawn.filters] for item in filters], dtype=np.bool_)
        gone = self._gone(judged, withdrawn, hits.reshape(len(filters), len(withdrawn.rows)))
        told_by = judged.batch.dia_source_id[withdrawn.rows].tolist()
        causes = [f"withdrawn by the survey, as the alert of diaSource {name} says" for name in told_by]
        slim = self._slim(gone, filters, epoch, b"retraction", [cause.encode() for cause in causes])
        head = records.frame(self._known(self._alert_schema))
        packets = [
            Packet(alerts_topic(gone.batch.survey), gone.keys[row], head + slim[row])
            for row in np.flatnonzero(withdrawn.to_alerts).tolist()
        ]
        light = [replace(item, payload="light", sample=1.0) for item in filters]
        return packets + self._hits(gone, light, slim)

    def _gone(self, judged: Judged, withdrawn: Withdrawn, hits: npt.NDArray[np.bool_]) -> Judged:
        """The withdrawn detections as if they were alerts, without what is not known of them."""
        rows, count = withdrawn.rows.tolist(), len(withdrawn.rows)
        batch = as_withdrawn(judged.batch.take(withdrawn.rows), withdrawn.points)
        features, scores = (np.full((count, width), np.nan) for width in self._widths)
        return Judged(
            batch,
            [judged.keys[row] for row in rows],
            [judged.record_sha256[row] for row in rows],
            empty_light_curves(count),
            features,
            scores,
            hits,
            judged.history_incomplete[withdrawn.rows],
            judged.model,
            no_others(count),
        )

    def _hits(self, judged: Judged, filters: Sequence[Filter], slim: list[bytes]) -> list[Packet]:
        passed = judged.hits
        rich = [i for i, item in enumerate(filters) if item.payload != "light"]
        curves = self._curves(judged, np.asarray(passed[rich].any(axis=0))) if rich else {}
        packets = []
        for number, item in enumerate(filters):
            rows, tail = np.flatnonzero(passed[number]).tolist(), _filter_tail(item)
            own = judged.selected.get(number)
            selected = [NOTHING_SELECTED] * len(rows) if own is None else encode_selected(own)
            for row, chosen in zip(rows, selected, strict=True):
                curve = b"" if item.payload == "light" else curves[row]
                value = self._hit(judged, item, slim[row] + tail + chosen + curve, row)
                packets.append(Packet(item.topic, judged.keys[row], value))
        return packets

    def _hit(self, judged: Judged, item: Filter, body: bytes, row: int) -> bytes:
        original = ""
        if item.payload == "full":
            original = judged.batch.writer_schemas[judged.batch.writer_schema[row]]
        key = (item.payload, original)
        if key not in self._hit_schemas:
            schema = records.hit_schema(self._fields, item.payload, original)
            self._hit_schemas[key] = canonical(schema) if not original else json.dumps(schema)
        first = judged.batch.records[row] if original else b""
        return records.frame(self._known(self._hit_schemas[key])) + first + body

    def _curves(self, judged: Judged, rows: npt.NDArray[np.bool_]) -> dict[int, bytes]:
        """Encoded light curves of some rows, their own and the other survey's, private points left out."""
        index = np.flatnonzero(rows)
        both = (judged.curves, judged.others.curves)
        own, other = (self._curve_bytes(curves.take(index)) for curves in both)
        return dict(zip(index.tolist(), map(operator.add, own, other), strict=True))

    def _curve_bytes(self, curves: LightCurves) -> list[bytes]:
        writer = RowWriter(len(curves))
        writer.light_curves(curves if self._publish_private else without_private(curves))
        return writer.encode()

    def _known(self, schema: str) -> int:
        identifier = schema_id(schema)
        self.schemas.setdefault(identifier, schema)
        return identifier

    def _slim(
        self,
        judged: Judged,
        filters: Sequence[Filter],
        epoch: int,
        kind: bytes = b"alert",
        causes: Sequence[bytes] = (),
    ) -> list[bytes]:
        """The fields of records.alert_fields, in that order; a row without a cause has none."""
        batch, count = judged.batch, len(judged.batch)
        out = RowWriter(count)
        rows = np.arange(count)
        out.constant(kind)
        out.optional_text(rows, causes)
        out.long(batch.dia_source_id)
        out.optional_long(batch.dia_object_id)
        out.optional_long(batch.ss_object_id)
        out.text(rows, batch.object_name.tolist())
        out.constant(batch.survey.encode())
        out.double(batch.midpoint_mjd_tai)
        out.double(batch.ra)
        out.double(batch.dec)
        out.optional_text(batch.band, _BAND_WORDS)
        out.optional_float(batch.psf_flux)
        out.optional_float(batch.psf_flux_err)
        out.optional_float(njy_to_mag(batch.psf_flux))
        out.optional_float(
            np.where(batch.psf_flux > 0, njy_err_to_mag_err(batch.psf_flux, batch.psf_flux_err), np.nan)
        )
        out.optional_float(batch.reliability)
        out.long(batch.flags)
        out.boolean(judged.history_incomplete)
        out.text(batch.solar_system_status, _STATUS_WORDS)
        out.optional_long(batch.ss_object_id)
        out.optional_float(batch.packet["solar_system.sep_arcsec"])
        out.optional_float(batch.packet["solar_system.v_mag_predicted"])
        for spec in PUBLISHED_PACKET_COLUMNS:
            out.optional_float(batch.packet[spec.name])
        for matrix in (judged.features, judged.scores):
            for column in range(matrix.shape[1]):
                out.optional_float(matrix[:, column])
        known = [bool(key) for key in judged.others.keys]
        out.optional_text(np.where(known, rows, -1), judged.others.keys)
        out.optional_float(judged.others.sep_arcsec)
        _write_filters_passed(out, judged.hits, filters)
        _write_source(out, batch)
        self._write_provenance(out, judged, epoch)
        _write_annotations(out, judged.annotations or no_annotations(count))
        return out.encode()

    def _write_provenance(self, out: RowWriter, judged: Judged, epoch: int) -> None:
        batch, count = judged.batch, len(judged.batch)
        versions, codes = np.unique(batch.schema_version, return_inverse=True)
        out.text(codes, [f"{batch.survey} ".encode() + version for version in versions.tolist()])
        out.constant(__version__.encode())
        out.constant(self._feature_set)
        for part in judged.model:
            out.constant(part.encode())
        out.long(np.full(count, epoch))
        out.double(mjd_tai_to_unix_s(batch.midpoint_mjd_tai))
        timestamps = np.array([message.timestamp_ms for message in batch.messages], dtype=np.int64)
        out.long(timestamps[batch.message])
        out.long(np.full(count, int(time.time() * 1000)))
        out.text(np.arange(count), judged.record_sha256)


def as_withdrawn(batch: AlertBatch, points: Points) -> AlertBatch:
    """Alerts with the detections that they say were withdrawn in place of their own.

    batch : n alerts;  points : (n,) withdrawn detections of the same objects
    """
    nothing = np.full(len(batch), np.nan)
    # An alert's solar-system object is its detection's own; the object's other detections have theirs.
    same = (batch.dia_object_id == 0) | (batch.dia_source_id == points["source_id"])
    return replace(
        batch,
        dia_source_id=points["source_id"].astype(np.int64),
        ss_object_id=np.where(same, batch.ss_object_id, 0),
        midpoint_mjd_tai=points["midpoint_mjd_tai"].astype(np.float64),
        band=points["band"],
        psf_flux=points["psf_flux"].astype(np.float64),
        psf_flux_err=points["psf_flux_err"].astype(np.float64),
        reliability=nothing,
        solar_system_status=np.where(same, batch.solar_system_status, SS_UNKNOWN).astype(np.uint8),
        flags=points["flags"],
        packet=dict.fromkeys(batch.packet, nothing),
    )


def dead_letter(message: Message, reject: Reject, extra: tuple[tuple[str, bytes], ...] = ()) -> Packet:
    """A message that could not be processed: its bytes unchanged, the why in headers.

    It can be made, and taken by Kafka, of any message: a body over MAX_INPUT_BYTES is left out; its size and
    SHA-256 are in the headers then. So is a key or headers of more than MAX_KEPT_BYTES, with their sizes.
    """
    source = {
        "topic": message.topic,
        "partition": message.partition,
        "offset": message.offset,
        "index": reject.index,
    }
    headers: list[tuple[str, bytes]] = [
        ("reason", utf8(reject.reason)),
        ("stage", utf8(reject.stage)),
        ("detail", utf8(reject.detail[:MAX_DETAIL])),
        ("schema-id", str(reject.schema_id).encode()),
        ("source", json.dumps(source).encode()),
        ("source-timestamp", str(message.timestamp_ms).encode()),
        ("size", str(len(message.value)).encode()),
        ("sha256", hashlib.sha256(message.value).hexdigest().encode()),
        *extra,
        *_original_headers(message),
    ]
    body = message.value if len(message.value) <= MAX_INPUT_BYTES else b""
    key = message.key
    if key is not None and len(key) > MAX_KEPT_BYTES:
        headers.append(("original-key-size", str(len(key)).encode()))
        key = None
    return Packet(DEAD_LETTERS, key, body, tuple(headers))


def _original_headers(message: Message) -> list[tuple[str, bytes]]:
    named = [(f"original-{utf8(name).decode()}", value) for name, value in message.headers]
    size = sum(_HEADER_BYTES + len(name) + len(value) for name, value in named)
    if size <= MAX_KEPT_BYTES:
        return named
    return [("original-headers-size", str(size).encode())]


def notice(owner: str, subject: str, kind: str, text: str) -> Packet:
    """Something that a person should know."""
    owner, subject, kind, text = (utf8(word).decode() for word in (owner, subject, kind, text))
    content = {"owner": owner, "subject": subject, "kind": kind, "text": text, "at": int(time.time() * 1000)}
    return Packet(NOTICES, owner.encode(), encode_record(records.NOTICE_SCHEMA, content))


def retraction_notice(survey: str, strangers: Sequence[int], unreachable: int) -> Packet:
    """Withdrawals that could not be passed on, for a person.

    strangers : detections of which no alert of ours is known;  unreachable : filters that could not be told
    """
    parts = []
    if strangers:
        named = ", ".join(str(source) for source in strangers[:_NOTICE_IDS])
        more = ", ..." if len(strangers) > _NOTICE_IDS else ""
        parts.append(f"{len(strangers)} withdrawn diaSources of which no alert is known: {named}{more}")
    if unreachable:
        parts.append(f"{unreachable} retractions for filters that are paused or not known any more")
    return notice("broker", alerts_topic(survey), "retraction_without_address", "; ".join(parts))


def _write_filters_passed(out: RowWriter, hits: npt.NDArray[np.bool_], filters: Sequence[Filter]) -> None:
    words = [item.label.encode() for item in filters]
    row, number = np.nonzero(hits.T)
    starts = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=out.length))])
    out.texts(number, starts, words)


def _write_annotations(out: RowWriter, columns: Sequence[Column]) -> None:
    for column in columns:
        if column.spec.kind == "string":
            out.optional_text(column.values, [word.encode() for word in column.categories])
        else:
            out.optional_float(column.values)


def _write_source(out: RowWriter, batch: AlertBatch) -> None:
    topics = sorted({message.topic for message in batch.messages})
    code = {topic: number for number, topic in enumerate(topics)}
    where = np.array([(code[m.topic], m.partition, m.offset) for m in batch.messages], dtype=np.int64)
    rows = where.reshape(-1, 3)[batch.message]
    out.text(rows[:, 0], [topic.encode() for topic in topics])
    out.long(rows[:, 1])
    out.long(rows[:, 2])
    out.long(batch.index)


def _filter_tail(item: Filter) -> bytes:
    """The `filter` record of a hit, up to what it selects."""
    out = RowWriter(1)
    out.constant(f"{item.owner}.{item.name}".encode())
    out.long(np.array([item.version]))
    return out.encode()[0] + _FLOAT.pack(item.sample)


def encode_record(schema: dict[str, Any], value: dict[str, Any]) -> bytes:
    """One rare record (ledger, notice), framed, by fastavro."""
    out = io.BytesIO()
    out.write(records.frame(schema_id(canonical(schema))))
    fastavro.schemaless_writer(out, schema, value)
    return out.getvalue()
