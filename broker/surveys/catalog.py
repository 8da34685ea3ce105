"""The surveys we know, and the one way from messages to batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from broker.batch import AlertBatch
from broker.message import Message, Reject
from broker.surveys import atlas, decam, elasticc, lsst, pgir, winter, ztf
from broker.surveys.avro import Opened, SchemaSource, open_message
from broker.surveys.base import Source, Survey
from broker.surveys.columns import Picked, columns_of, pick
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
_DATA_ERRORS = (TypeError, ValueError, LookupError, OverflowError, AttributeError)
"""What a value of the wrong shape leads to."""


@dataclass(frozen=True)
class Decoded:
    """What a batch of messages held: every record is a row of one of `batches` or one of `rejects`."""

    batches: list[AlertBatch]
    rejects: list[Reject]


@dataclass(frozen=True, slots=True, eq=False)
class _Row:
    """One record of a survey we know, and where it was: record `index` of message `message`."""

    message: int
    index: int
    alone: bool
    """The only record of its message, so that the message itself is its dead letter."""
    schema_id: int
    datum: bytes
    schema: WriterSchema
    survey: Survey | None
    picked: Picked | None
    """None when the survey is not known, or `fault` says why its values could not be picked."""
    fault: str = ""


def decode(messages: Sequence[Message], schemas: SchemaSource) -> Decoded:
    """Messages to one batch for each survey present, and a reject for all that is no alert.

    The survey is told from the record's writer schema, not from the topic. Within a batch the order of
    the messages is kept. Bad data never raise, and never harm another record.
    """
    rows, rejects = _open_all(messages, schemas)
    rejects += [_unreadable(row) for row in rows if row.picked is None]
    batches = []
    for survey in SURVEYS:
        mine = [row for row in rows if row.survey is survey and row.picked is not None]
        if mine:
            batch, bad = _normalise(survey, messages, mine)
            rejects += bad
            if len(batch):
                batches.append(batch)
    return Decoded(batches, sorted(rejects, key=lambda reject: (reject.message, reject.index)))


@lru_cache(maxsize=256)
def survey_of(schema: WriterSchema) -> Survey | None:
    """The survey whose alerts a writer schema describes; None if we know none."""
    return next((survey for survey in SURVEYS if survey.recognises(schema)), None)


def _open_all(messages: Sequence[Message], schemas: SchemaSource) -> tuple[list[_Row], list[Reject]]:
    """Every record of every message, and a reject for what could not be opened."""
    rows: list[_Row] = []
    rejects: list[Reject] = []
    for number, message in enumerate(messages):
        opened = open_message(message.value, schemas)
        rows += _pick_rows(number, opened)
        if opened.fault is not None:
            reason, detail = opened.fault.reason, opened.fault.detail
            rejects.append(Reject(number, len(opened.records), reason, STAGE, detail, opened.schema_id))
    return rows, rejects


def _pick_rows(number: int, opened: Opened) -> list[_Row]:
    """The rows of one message; its records' dicts are not needed after this."""
    alone = len(opened.records) == 1 and opened.fault is None
    rows = []
    for index, record in enumerate(opened.records):
        survey, picked, fault = survey_of(record.schema), None, ""
        if survey is not None:
            try:
                picked = pick(record, survey.layout)
            except _DATA_ERRORS as error:
                fault = _wrong_shape(error)
        where = (number, index, alone, opened.schema_id)
        rows.append(_Row(*where, record.datum, record.schema, survey, picked, fault))
    return rows


def _wrong_shape(error: Exception) -> str:
    return f"a field does not hold what it should: {type(error).__name__}: {str(error)[:200]}"


def _reject(row: _Row, reason: str, detail: str) -> Reject:
    record = None if row.alone else row.datum
    return Reject(row.message, row.index, reason, STAGE, detail, row.schema_id, record)


def _unreadable(row: _Row) -> Reject:
    """The reject of a row without values: of no survey, or not shaped as its survey's alerts."""
    if row.survey is not None:
        return _reject(row, "invalid_alert", row.fault)
    known = ", ".join(survey.name for survey in SURVEYS)
    detail = f"schema {row.schema.name!r} has the required fields of no survey we know ({known})"
    return _reject(row, "unsupported_schema", detail)


def _normalise(
    survey: Survey, messages: Sequence[Message], rows: list[_Row]
) -> tuple[AlertBatch, list[Reject]]:
    """The good alerts among a survey's rows, and a reject for each other."""
    rejects = []
    try:
        batch = _apply(survey, messages, rows)
    except _DATA_ERRORS:
        faults = {row: _fault_alone(survey, messages, row) for row in rows}
        if not any(faults.values()):
            raise  # each alone is fine: the fault is ours, not the data's
        rejects = [_reject(row, "invalid_alert", fault) for row, fault in faults.items() if fault]
        rows = [row for row in rows if not faults[row]]
        batch = _apply(survey, messages, rows)
    invalid = _invalid(survey, batch)
    rejects += [_reject(rows[row], "invalid_alert", detail) for row, detail in invalid.items()]
    if invalid:
        batch = batch.take(np.delete(np.arange(len(rows)), list(invalid)))
    return batch, rejects


def _apply(survey: Survey, messages: Sequence[Message], rows: list[_Row]) -> AlertBatch:
    """A survey's normalisation of rows; numbers beyond float64 become NaN there, without a warning."""
    source = Source(
        messages,
        np.array([row.message for row in rows], dtype=np.int64),
        np.array([row.index for row in rows], dtype=np.int64),
        [row.datum for row in rows],
        [row.schema for row in rows],
    )
    picked = [row.picked for row in rows if row.picked is not None]
    with np.errstate(all="ignore"):
        return survey.normalise(columns_of(picked, survey.layout), source)


def _fault_alone(survey: Survey, messages: Sequence[Message], row: _Row) -> str:
    """Why a row by itself cannot be normalised; '' if it can."""
    try:
        _apply(survey, messages, [row])
    except _DATA_ERRORS as error:
        return _wrong_shape(error)
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
