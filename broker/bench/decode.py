"""How long it takes to read an alert, next to the usual library reading the same bytes."""

from __future__ import annotations

import io
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import fastavro

from broker.message import Message
from broker.surveys.arena import warm_up
from broker.surveys.avro import Damaged, Framed, LocalSchemas, frame, open_message
from broker.surveys.base import Survey
from broker.surveys.catalog import SURVEYS, decode, survey_of
from broker.surveys.columns import Layout
from broker.surveys.reading import SurveyReader

_BATCH = 500
_NOTHING = Layout((), ())
_SCHEMAS = LocalSchemas()


@dataclass(frozen=True)
class Reading:
    """CPU microseconds an alert on one core, medians over the repeats, for the packets of one survey.

    fastavro_reader : the object container's own reader; None where packets have no container
    fastavro_schemaless : schemaless_reader with the writer schema already parsed
    columns : ours, to every mapped column, framing and cutout ranges included
    skip    : ours with nothing mapped: the walk alone
    batch   : ours to an AlertBatch, so with the survey's conversions as well
    times_* : medians of the ratio in each repeat: fastavro's routes to our columns, our columns to our skip
    """

    survey: str
    alerts: int
    mean_bytes: float
    repeats: int
    fastavro_reader: float | None
    fastavro_schemaless: float
    columns: float
    skip: float
    batch: float
    times_fastavro_reader: float | None
    times_fastavro_schemaless: float
    times_skip: float

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True)
class _Packet:
    value: bytes
    framed: Framed
    datum: bytes


def measure(values: Sequence[bytes], repeats: int) -> list[Reading]:
    """One reading a survey, over the packets that hold one good alert each."""
    warm_up()
    packets: dict[str, list[_Packet]] = {}
    for value in values:
        survey, packet = _packet(value)
        if survey is not None and packet is not None:
            packets.setdefault(survey.name, []).append(packet)
    return [_measure(survey, packets[survey.name], repeats) for survey in SURVEYS if survey.name in packets]


def _packet(value: bytes) -> tuple[Survey | None, _Packet | None]:
    try:
        framed = frame(value, _SCHEMAS)
    except Damaged:
        return None, None
    opened = open_message(value, _SCHEMAS)
    if opened.fault is not None or len(opened.records) != 1:
        return None, None
    return survey_of(framed.schema), _Packet(value, framed, opened.records[0].datum)


def _measure(survey: Survey, packets: list[_Packet], repeats: int) -> Reading:
    contained = [packet for packet in packets if packet.framed.codec is not None]
    # Whole batches, as a worker has: too few packets are read over and over until they nearly fill one.
    filled = packets * max(1, _BATCH // len(packets))
    messages = [Message("bench", 0, offset, 0, packet.value) for offset, packet in enumerate(filled)]
    routes: list[tuple[Callable[[], None], int]] = [
        (lambda: _by_reader(contained), len(contained)),
        (lambda: _by_schemaless(packets), len(packets)),
        (lambda: _to_columns(filled, survey.layout), len(filled)),
        (lambda: _to_columns(filled, _NOTHING), len(filled)),
        (lambda: _to_batches(messages), len(filled)),
    ]
    rounds = [[_cpu_s(work) / max(count, 1) * 1e6 for work, count in routes] for _ in range(repeats)]
    reader, schemaless, columns, skip, batch = map(statistics.median, zip(*rounds, strict=True))

    def times(over: int, under: int) -> float:
        """Median over the rounds: both sides then met the same other load."""
        return statistics.median(round_[over] / round_[under] for round_ in rounds)

    return Reading(
        survey.name,
        len(packets),
        statistics.fmean(len(packet.value) for packet in packets),
        repeats,
        reader if contained else None,
        schemaless,
        columns,
        skip,
        batch,
        times(0, 2) if contained else None,
        times(1, 2),
        times(2, 3),
    )


def _cpu_s(work: Callable[[], None]) -> float:
    """CPU time of the second of two calls: the first brings code and packets into the caches."""
    work()
    start = time.process_time()
    work()
    return time.process_time() - start


def _by_reader(packets: Sequence[_Packet]) -> None:
    for packet in packets:
        for _ in fastavro.reader(io.BytesIO(packet.value)):
            pass


def _by_schemaless(packets: Sequence[_Packet]) -> None:
    for packet in packets:
        fastavro.schemaless_reader(io.BytesIO(packet.datum), packet.framed.schema.parsed, None)


def _to_columns(packets: Sequence[_Packet], layout: Layout) -> None:
    for first in range(0, len(packets), _BATCH):
        batch = packets[first : first + _BATCH]
        reader = SurveyReader(layout, len(batch), sum(len(packet.value) for packet in batch))
        for number, packet in enumerate(batch):
            reader.read(number, packet.value, frame(packet.value, _SCHEMAS))
        reader.rows()


def _to_batches(messages: Sequence[Message]) -> None:
    for first in range(0, len(messages), _BATCH):
        decode(messages[first : first + _BATCH], _SCHEMAS)
