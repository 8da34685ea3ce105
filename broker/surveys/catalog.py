"""The surveys we know, and the one way from messages to batches."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from broker.astro.times import unix_s_to_mjd_tai
from broker.batch import AlertBatch
from broker.lightcurves import LightCurves
from broker.message import MAX_RECORDS, Message, Reject
from broker.surveys import atlas, decam, elasticc, lsst, pgir, winter, ztf
from broker.surveys.avro import Damaged, Fault, SchemaSource, announced, frame, too_many
from broker.surveys.base import Source, Survey, as_days
from broker.surveys.columns import DATA_ERRORS, Layout
from broker.surveys.reading import NOTHING, PlainBytes, Rows, SurveyReader, wrong_shape
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
LATEST_DAYS = 1.0
"""How much later than its Kafka record a time may lie [day]: clocks differ, days do not."""
_FIRST_TIMESTAMP_MS = 946_684_800_000
"""2000-01-01: a Kafka timestamp before any alert is none."""
MAX_BATCH_RECORDS = 20_000
"""Records of a batch beyond one a message: messages with the most of them are refused first."""
MAX_LETTERS = 10
"""Records of one message that are refused each by itself; all others of it are one letter together."""


@dataclass(frozen=True)
class Decoded:
    """What a batch of messages held: every record is a row of one of `batches` or one of `rejects`.

    compiled, fallback : messages of surveys we know that the compiled walk read, and that fastavro read
    future_points : points of histories that were left out because they are later than the record they came in
    """

    batches: list[AlertBatch]
    rejects: list[Reject]
    compiled: int = 0
    fallback: int = 0
    future_points: int = 0


def decode(messages: Sequence[Message], schemas: SchemaSource) -> Decoded:
    """Messages to one batch for each survey present, and a reject for all that is no alert.

    The survey is told from the record's writer schema, not from the topic. Within a batch the order of
    the messages is kept. Bad data never raise, and never harm another record.
    """
    reading = _read(messages, schemas)
    batches, future_points = [], 0
    for survey, reader in reading.readers.items():
        rows = reader.rows()
        reading.refuse_misshapen(reader)
        if rows is not None and len(rows):
            batch = _normalise(survey, reading, rows)
            points = _without_future(batch)
            future_points += len(batch.points.points) - len(points.points)
            batches.append((survey, replace(batch, points=points)))
    reading.refuse_strangers()
    found = [batch for survey in SURVEYS for mine, batch in batches if mine is survey and len(batch)]
    return Decoded(found, reading.letters(), reading.compiled, reading.fallback, future_points)


def _read(messages: Sequence[Message], schemas: SchemaSource) -> _Reading:
    """All messages read; if they hold too many records, again without those that hold the most."""
    reading = _Reading(messages, schemas)
    if reading.read_all():
        return reading
    reading = _Reading(messages, schemas, _fair_share([_announced(m.value, schemas) for m in messages]))
    reading.read_all()
    return reading


def _fair_share(records: Sequence[int]) -> int:
    """The most records that a message may have so that a batch is not too large.

    records : of each message.  A message of one record is never refused.

    >>> _fair_share([1, 3] + 11 * [2_000])
    3
    """
    left, most = MAX_BATCH_RECORDS, 1
    for count, messages in sorted(Counter(records).items()):
        left -= (count - 1) * messages
        if left < 0:
            break
        most = count
    return most


def _announced(value: bytes, schemas: SchemaSource) -> int:
    try:
        return announced(value, frame(value, schemas))
    except Damaged:
        return 0


@lru_cache(maxsize=64)
def survey_of(schema: WriterSchema) -> Survey | None:
    """The survey whose alerts a writer schema describes; None if we know none."""
    return next((survey for survey in SURVEYS if survey.recognises(schema)), None)


class _Reading:
    """A batch while it is read: one reader a survey, and an account of every message.

    most : records that a message may have
    """

    def __init__(self, messages: Sequence[Message], schemas: SchemaSource, most: int = MAX_RECORDS) -> None:
        self.messages = messages
        self.readers: dict[Survey, SurveyReader] = {}
        self.compiled = self.fallback = 0
        self._strangers: SurveyReader | None = None
        self._stranger_names: dict[int, str] = {}
        self._letters: dict[int, list[Reject]] = {}
        self._surplus: Counter[int] = Counter()
        self._most = most
        self._spare = MAX_BATCH_RECORDS
        self._plain_bytes = PlainBytes()
        self._schemas = schemas
        self._size = sum(len(message.value) for message in messages)
        self._alone: list[bool] = []
        """For each message whether it is one record and nothing else: then it is its own dead letter."""
        self._schema_id: list[int] = []

    def read_all(self) -> bool:
        """Read every message; False as soon as they hold more records than a batch may have."""
        for number in range(len(self.messages)):
            self._read(number)
            if self._spare < 0:
                return False
        return True

    def _read(self, number: int) -> None:
        """Read one message: its good records to its survey's reader, its damage to the rejects."""
        value = self.messages[number].value
        try:
            framed = frame(value, self._schemas)
        except Damaged as damage:
            self._account(number, 0, damage.fault, damage.schema_id)
            return
        if self._most < MAX_RECORDS and (records := announced(value, framed)) > self._most:
            self._account(number, 0, too_many(records), framed.schema_id)
            return
        survey = survey_of(framed.schema)
        reader = self._reader(survey)
        walked = reader.read(number, value, framed)
        if survey is None:
            self._stranger_names[number] = framed.schema.name
        elif walked is None:
            self.fallback += 1
        else:
            self.compiled += 1
        good, fault = walked or reader.read_slowly(number, value, framed)
        self._spare -= max(0, good - 1)
        self._account(number, good, fault, framed.schema_id)

    def _reader(self, survey: Survey | None) -> SurveyReader:
        """The reader of a survey's messages, or of those of none."""
        if survey is None:
            if self._strangers is None:
                self._strangers = self._new_reader(NOTHING)
            return self._strangers
        if survey not in self.readers:
            self.readers[survey] = self._new_reader(survey.layout)
        return self.readers[survey]

    def _new_reader(self, layout: Layout) -> SurveyReader:
        return SurveyReader(layout, len(self.messages), self._size, self._plain_bytes)

    def refuse_strangers(self) -> None:
        """The records of no survey we know."""
        rows = None if self._strangers is None else self._strangers.rows()
        if rows is None:
            return
        known = ", ".join(survey.name for survey in SURVEYS)
        for row, (message, index) in enumerate(zip(rows.message.tolist(), rows.index.tolist(), strict=True)):
            name = self._stranger_names[message][:100]
            detail = f"schema {name!r} has the required fields of no survey we know ({known})"
            self._refuse(message, index, "unsupported_schema", detail, rows.records, row)

    def _account(self, number: int, good: int, fault: Fault | None, schema_id: int) -> None:
        self._alone.append(good == 1 and fault is None)
        self._schema_id.append(schema_id)
        if fault is not None:
            reject = Reject(number, good, fault.reason, STAGE, fault.detail, schema_id)
            self._letters.setdefault(number, []).append(reject)

    def _refuse(
        self, message: int, index: int, reason: str, detail: str, records: Sequence[bytes], row: int
    ) -> None:
        """One readable record that is no alert: a letter, or one more of those that share one."""
        letters = self._letters.setdefault(message, [])
        if len(letters) > MAX_LETTERS:
            self._surplus[message] += 1
            return
        own = None if self._alone[message] or len(letters) == MAX_LETTERS else records[row]
        letters.append(Reject(message, index, reason, STAGE, detail, self._schema_id[message], own))

    def letters(self) -> list[Reject]:
        """Everything that was refused, in the order of the messages and of the records in them.

        Beyond MAX_LETTERS the records of a message share one, which holds the whole message.
        """
        for message, more in self._surplus.items():
            last = self._letters[message][MAX_LETTERS]
            detail = f"this and {more:,} more records of the message: {last.detail}"
            self._letters[message][MAX_LETTERS] = replace(last, detail=detail)
        letters = (letter for letters in self._letters.values() for letter in letters)
        return sorted(letters, key=lambda letter: (letter.message, letter.index))

    def refuse_misshapen(self, reader: SurveyReader) -> None:
        """The records that are not shaped as their survey's alerts."""
        for bad in reader.misshapen:
            self._refuse(bad.message, bad.index, "invalid_alert", bad.detail, [bad.record], 0)

    def refuse_rows(self, rows: Rows, details: Mapping[int, str]) -> None:
        """Rows that are no alerts, and why."""
        for row, detail in details.items():
            place = int(rows.message[row]), int(rows.index[row])
            self._refuse(*place, "invalid_alert", detail, rows.records, row)


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
        batch = survey.normalise(rows.raw, source)
    return replace(batch, midpoint_mjd_tai=as_days(batch.midpoint_mjd_tai))


def _fault_alone(survey: Survey, messages: Sequence[Message], rows: Rows, row: int) -> str:
    """Why a row by itself cannot be normalised; '' if it can."""
    try:
        _apply(survey, messages, rows.take(np.array([row])))
    except DATA_ERRORS as error:
        return wrong_shape(error)
    return ""


def _invalid(survey: Survey, batch: AlertBatch) -> dict[int, str]:
    """Row to what is missing, for alerts without an identity, a time or a place."""
    midpoint = batch.midpoint_mjd_tai
    checks: list[tuple[npt.NDArray[np.bool_], str]] = [
        (batch.dia_source_id == 0, "no id of the detection (candid, diaSourceId)"),
        (~(midpoint >= 0.0), "no time, or one that is no date"),
        (midpoint > _latest(batch), "a time more than a day later than that of its Kafka record"),
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


def _latest(batch: AlertBatch) -> npt.NDArray[np.float64]:
    """The latest time that an alert, or a point of its history, can have.  Returns (n,) [MJD, TAI].

    A day after the Kafka timestamp of its record, or after now where the record has none: what is later would
    be the newest of its object for ever.
    """
    given = np.array([message.timestamp_ms for message in batch.messages], dtype=np.float64)
    known_ms = np.where(given < _FIRST_TIMESTAMP_MS, time.time() * 1000.0, given)
    latest: npt.NDArray[np.float64] = unix_s_to_mjd_tai(known_ms / 1000.0)[batch.message] + LATEST_DAYS
    return latest


def _without_future(batch: AlertBatch) -> LightCurves:
    """The light curves without the points that are later than their record."""
    curves = batch.points
    latest = np.repeat(_latest(batch), np.diff(curves.starts))
    return curves.where(~(curves.points["midpoint_mjd_tai"] > latest))
