"""The surveys we know, and the one way from messages to batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from broker.batch import AlertBatch
from broker.message import Message, Reject
from broker.surveys import atlas, decam, elasticc, lsst, pgir, winter, ztf
from broker.surveys.avro import Damaged, Fault, Framed, SchemaSource, frame, open_message
from broker.surveys.base import Source, Survey
from broker.surveys.columns import DATA_ERRORS
from broker.surveys.reading import Rows, SurveyReader, wrong_shape
from broker.surveys.writer import WriterSchema

SURVEYS: list[Survey] = [
    ztf.SURVEY,
    elasticc.SURVEY,
    lsst.SURVEY,
    atlas.SURVEY,
    decam.SURVEY,
    pgir.SURVEY,
    winter.SURVEY,
]
"""In the order they are asked: ELAsTiCC's packets would also pass for Rubin's."""

STAGE = "surveys"
_LARGEST_MJD = 1e10
"""Beyond this a time is damage; nearer ones that cannot be right are kept, but flagged as unused."""


@dataclass(frozen=True)
class Decoded:
    """What a batch of messages held: every record is a row of one of `batches` or one of `rejects`.

    compiled, fallback : messages of surveys we know that the compiled walk read, and that fastavro read
    """

    batches: list[AlertBatch]
    rejects: list[Reject]
    compiled: int = 0
    fallback: int = 0


def decode(messages: Sequence[Message], schemas: SchemaSource) -> Decoded:
    """Messages to one batch for each survey present, and a reject for all that is no alert.

    The survey is told from the record's writer schema, not from the topic. Within a batch the order of
    the messages is kept. Bad data never raise, and never harm another record.
    """
    reading = _Reading(messages, schemas)
    for number in range(len(messages)):
        reading.read(number)
    batches = []
    for survey, reader in reading.readers.items():
        rows = reader.rows()
        reading.refuse_misshapen(reader)
        if rows is not None and len(rows):
            batches.append((survey, _normalise(survey, reading, rows)))
    found = [batch for survey in SURVEYS for mine, batch in batches if mine is survey and len(batch)]
    rejects = sorted(reading.rejects, key=lambda reject: (reject.message, reject.index))
    return Decoded(found, rejects, reading.compiled, reading.fallback)


@lru_cache(maxsize=256)
def survey_of(schema: WriterSchema) -> Survey | None:
    """The survey whose alerts a writer schema describes; None if we know none."""
    return next((survey for survey in SURVEYS if survey.recognises(schema)), None)


class _Reading:
    """A batch while it is read: one reader a survey, and an account of every message."""

    def __init__(self, messages: Sequence[Message], schemas: SchemaSource) -> None:
        self.messages = messages
        self.readers: dict[Survey, SurveyReader] = {}
        self.rejects: list[Reject] = []
        self.compiled = self.fallback = 0
        self._schemas = schemas
        self._size = sum(len(message.value) for message in messages)
        self._alone: list[bool] = []
        """For each message whether it is one record and nothing else: then it is its own dead letter."""
        self._schema_id: list[int] = []

    def read(self, number: int) -> None:
        """Read one message: its good records to its survey's reader, its damage to the rejects."""
        value = self.messages[number].value
        try:
            framed = frame(value, self._schemas)
        except Damaged as damage:
            self._account(number, 0, damage.fault, damage.schema_id)
            return
        survey = survey_of(framed.schema)
        if survey is None:
            self._read_unknown(number, framed)
            return
        reader = self._reader(survey)
        walked = reader.read(number, value, framed)
        if walked is None:
            self.fallback += 1
            opened = open_message(value, self._schemas)
            reader.add(number, opened.records)
            walked = len(opened.records), opened.fault
        else:
            self.compiled += 1
        self._account(number, *walked, framed.schema_id)

    def _reader(self, survey: Survey) -> SurveyReader:
        if survey not in self.readers:
            self.readers[survey] = SurveyReader(survey.layout, len(self.messages), self._size)
        return self.readers[survey]

    def _read_unknown(self, number: int, framed: Framed) -> None:
        """A message of no survey we know: each record is refused, if it can be read at all."""
        opened = open_message(self.messages[number].value, self._schemas)
        self._account(number, len(opened.records), opened.fault, framed.schema_id)
        known = ", ".join(survey.name for survey in SURVEYS)
        detail = f"schema {framed.schema.name!r} has the required fields of no survey we know ({known})"
        for index, record in enumerate(opened.records):
            self.refuse(number, index, record.datum, "unsupported_schema", detail)

    def _account(self, number: int, good: int, fault: Fault | None, schema_id: int) -> None:
        self._alone.append(good == 1 and fault is None)
        self._schema_id.append(schema_id)
        if fault is not None:
            self.rejects.append(Reject(number, good, fault.reason, STAGE, fault.detail, schema_id))

    def refuse(self, message: int, index: int, record: bytes, reason: str, detail: str) -> None:
        """One readable record that is no alert."""
        own = None if self._alone[message] else record
        self.rejects.append(Reject(message, index, reason, STAGE, detail, self._schema_id[message], own))

    def refuse_misshapen(self, reader: SurveyReader) -> None:
        """The records that are not shaped as their survey's alerts."""
        for bad in reader.misshapen:
            self.refuse(bad.message, bad.index, bad.record, "invalid_alert", bad.detail)

    def refuse_rows(self, rows: Rows, details: Mapping[int, str]) -> None:
        """Rows that are no alerts, and why."""
        for row, detail in details.items():
            place = int(rows.message[row]), int(rows.index[row])
            self.refuse(*place, rows.records[row], "invalid_alert", detail)


def _normalise(survey: Survey, reading: _Reading, rows: Rows) -> AlertBatch:
    """The good alerts among a survey's rows; the others are refused."""
    try:
        batch = _apply(survey, reading.messages, rows)
    except DATA_ERRORS:
        alone = (_fault_alone(survey, reading.messages, rows, row) for row in range(len(rows)))
        faults = {row: fault for row, fault in enumerate(alone) if fault}
        if not faults:
            raise  # each alone is fine: the fault is ours, not the data's
        reading.refuse_rows(rows, faults)
        rows = rows.take(_all_but(rows, faults))
        batch = _apply(survey, reading.messages, rows)
    invalid = _invalid(survey, batch)
    reading.refuse_rows(rows, invalid)
    return batch.take(_all_but(rows, invalid)) if invalid else batch


def _all_but(rows: Rows, without: Mapping[int, str]) -> npt.NDArray[np.int64]:
    return np.delete(np.arange(len(rows)), list(without))


def _apply(survey: Survey, messages: Sequence[Message], rows: Rows) -> AlertBatch:
    """A survey's normalisation of rows; numbers beyond float64 become NaN there, without a warning."""
    source = Source(messages, rows.message, rows.index, rows.records, rows.schemas, rows.cutouts)
    with np.errstate(all="ignore"):
        return survey.normalise(rows.raw, source)


def _fault_alone(survey: Survey, messages: Sequence[Message], rows: Rows, row: int) -> str:
    """Why a row by itself cannot be normalised; '' if it can."""
    try:
        _apply(survey, messages, rows.take(np.array([row])))
    except DATA_ERRORS as error:
        return wrong_shape(error)
    return ""


def _invalid(survey: Survey, batch: AlertBatch) -> dict[int, str]:
    """Row to what is missing, for alerts without an identity, a time or a place."""
    checks: list[tuple[npt.NDArray[np.bool_], str]] = [
        (batch.dia_source_id == 0, "no id of the detection (candid, diaSourceId)"),
        (~(np.abs(batch.midpoint_mjd_tai) < _LARGEST_MJD), "no time, or one that is no date"),
        (~((batch.ra >= 0.0) & (batch.ra <= 360.0)), "no right ascension, or one outside 0 to 360 degrees"),
        (~(np.abs(batch.dec) <= 90.0), "no declination, or one outside -90 to 90 degrees"),
    ]
    if survey.needs_object:
        checks.append((batch.dia_object_id == 0, "no object name, or a malformed one"))
    found: dict[int, list[str]] = {}
    for bad, text in checks:
        for row in np.flatnonzero(bad).tolist():
            found.setdefault(row, []).append(text)
    return {row: f"source {batch.dia_source_id[row]}: {'; '.join(texts)}" for row, texts in found.items()}
