"""The path of a batch, one call a stage: read this page first.

    messages -> decode -> recall -> extract -> score -> judge -> packets

A batch of alerts, never one alert, is the unit everywhere. Nothing here talks to Kafka: `service.py` brings
the messages and sends what comes out, in one transaction.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from broker import reevaluate
from broker.annotations.columns import annotation_columns
from broker.annotations.originals import Fetch, nothing_kept
from broker.archive.sink import JudgedRows, archive_packets
from broker.batch import AlertBatch, plain_alert
from broker.columns import build_table, filter_columns
from broker.config import Settings
from broker.containment import Fault, FaultAccount, contain
from broker.context import CONTEXT_NAMES, context_matrix
from broker.errors import PacketTooLarge, RetryBatch
from broker.features import catalog as features
from broker.features.catalog import FEATURE_SPECS, extract, feature_set_hash
from broker.features.gated import Gated, extract_gated
from broker.features.measurements import F64, Reference
from broker.filters.budgets import sampled
from broker.filters.evaluate import Evaluation
from broker.filters.evaluate import warm_up as warm_up_filters
from broker.filters.live import FilterSet
from broker.filters.select import evaluate_select
from broker.history import merge, places
from broker.history import recall as history_recall
from broker.history.base import HistoryStore
from broker.history.memory import MemoryStore
from broker.history.places import find_others, located
from broker.history.recall import (
    Dedupe,
    Recall,
    annotated_meanwhile,
    claims_with_filters,
    newest_gated,
    outcome_counts,
    recall,
    withdrawn_meanwhile,
)
from broker.history.retract import retractions, unclaimed
from broker.kafka.clients import MAX_OUTPUT_BYTES
from broker.kafka.topics import ANNOTATIONS
from broker.lightcurves import FLAG_PRIVATE, I64, without_private
from broker.message import Message, Packet, Reject
from broker.models import ModelSet
from broker.publish import rows
from broker.publish.packets import Judged, PacketWriter, Withdrawn, dead_letter, retraction_notice
from broker.reevaluate import Again
from broker.scored import MAGNITUDE, Scored
from broker.scores import personal
from broker.scores.catalog import OWN_BUNDLES, STAMP_COLUMN, Scorer, load_scorer, stamps_of
from broker.surveys import arena
from broker.surveys.avro import SchemaSource
from broker.surveys.catalog import Decoded, decode
from broker.table import Table

Counts = Counter[tuple[str, str, str]]
"""Alerts by (survey, outcome, reason): outcome is in, published, rejected or duplicate."""
UNKNOWN_SURVEY = "unknown"
_MAX_PACKET_BYTES = MAX_OUTPUT_BYTES - 512 * 1024
"""Leaves room for a key and headers."""
GATED_ROWS_MIN = 20
"""Alerts of a batch, however small, whose expensive features may be computed anew."""


_TEXTS = ("failures", "select_failures")
"""What an Outcome tells in words, by name; the rest is lists and sums."""


@dataclass
class Outcome:
    """What became of a batch: everything to be sent, and the account of it."""

    packets: list[Packet] = field(default_factory=list)
    counts: Counts = field(default_factory=Counter)
    hits: Counter[str] = field(default_factory=Counter)
    """Alerts that each filter's topic gets, by owner.name."""
    failures: dict[str, str] = field(default_factory=dict)
    """Filters that could not be evaluated, and why."""
    select_failures: dict[tuple[str, str], str] = field(default_factory=dict)
    """Expressions that filters select and that could not be evaluated, as (filter, name), and why."""
    update_hits: Counter[str] = field(default_factory=Counter)
    """The same of alerts that were judged again."""
    retraction_hits: Counter[str] = field(default_factory=Counter)
    """Retractions that each filter's topic gets, by owner.name@version."""
    judged: int = 0
    """Alerts that the filters were evaluated on."""
    cost_ns: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    """Time that each filter took with what is no plain clause."""
    stage_s: Counter[str] = field(default_factory=Counter)
    """Seconds spent in each stage."""
    ingested_ms: list[int] = field(default_factory=list)
    observed_mjd_tai: list[float] = field(default_factory=list)
    points_dropped: int = 0
    late_points: int = 0
    retractions: int = 0
    annotations: Counter[str] = field(default_factory=Counter)
    """Annotations by what became of them: judged, waiting, rejected or duplicate."""
    updates: int = 0
    """Packets about alerts that were judged again."""
    decoded_by: Counter[str] = field(default_factory=Counter)
    """Messages read by the compiled decoder and by its fallback."""
    scored: list[Scored] = field(default_factory=list)
    """The published alerts of each survey with what they were judged by."""
    faults: list[Fault] = field(default_factory=list)
    """Why records could not be judged in a way that nobody foresaw; each is a dead letter."""

    def add(self, other: Outcome) -> None:
        """Take in what became of another part of the batch."""
        for item in fields(self):
            mine, more = getattr(self, item.name), getattr(other, item.name)
            if isinstance(mine, list):
                mine += more
            elif isinstance(mine, int):
                setattr(self, item.name, mine + more)
            elif item.name in _TEXTS:
                mine |= more
            else:
                for name, value in more.items():
                    mine[name] += value


@dataclass(frozen=True)
class Judgement:
    """n alerts of one survey judged: the table that filters saw, their verdict, and what goes out of it."""

    judged: Judged
    table: Table
    verdict: Evaluation
    gated: Gated
    context: F64
    scorer: Scorer


class Pipeline:
    """Everything between the messages of a batch and the packets it becomes."""

    def __init__(
        self,
        store: HistoryStore,
        scorer: Scorer,
        schemas: SchemaSource,
        settings: Settings,
        fetch: Fetch = nothing_kept,
    ) -> None:
        """The stages put together; `fetch` gives the records of alerts that are judged again."""
        self._store = store
        self._models = ModelSet(scorer)
        self._stamps = stamps_of(settings.run.stamps)
        self._schemas = schemas
        self._fetch = fetch
        self._settings = settings
        self._sample: Message | None = None
        self._filters = FilterSet(-1)
        self._account = FaultAccount(self._works)
        self.on_part: Callable[[], None] = lambda: None
        """Called before each part of a batch is judged: the batch, and smaller ones after a fault."""
        self.columns = filter_columns(FEATURE_SPECS, scorer.specs)
        self.writer = PacketWriter(
            FEATURE_SPECS,
            scorer.specs,
            feature_set=feature_set_hash(),
            publish_private=settings.run.publish_private,
        )

    def serve(self, models: ModelSet) -> None:
        """Score by these models from the next batch on."""
        self._models = models

    def process(self, messages: Sequence[Message], filters: FilterSet) -> Outcome:
        """Judge a batch. When this returns, the store holds it durably and only sending is left.

        Raises RetryBatch when the store or the schema registry is not there: nothing was counted, do the
        batch again.
        """
        outcome = Outcome()
        self._filters = filters
        said = [message for message in messages if message.topic == ANNOTATIONS]
        if said:
            messages = [message for message in messages if message.topic != ANNOTATIONS]
        for part, decoded in self._decoded(messages, outcome):
            outcome.decoded_by.update(compiled=decoded.compiled, fallback=decoded.fallback)
            outcome.points_dropped += decoded.future_points
            for reject in decoded.rejects:
                self._reject(outcome, UNKNOWN_SURVEY, part[reject.message], reject)
            for batch in decoded.batches:
                self._contain_survey(batch, filters, outcome)
        if said:
            self._contain_annotations(said, messages, filters, outcome)
        return outcome

    def quarantine(self, messages: Sequence[Message]) -> Outcome:
        """Messages that must not be judged, for it ended or held up the process each time."""
        outcome = Outcome()
        detail = "judging it, alone, ended the process or took longer than run.batch_limit_s each time"
        for number, message in enumerate(messages):
            survey = ANNOTATIONS if message.topic == ANNOTATIONS else UNKNOWN_SURVEY
            self._reject(outcome, survey, message, Reject(number, 0, "quarantined", "judging", detail))
            where = f"{message.topic}[{message.partition}] {message.offset}"
            outcome.faults.append(Fault("quarantined", "quarantined", f"{where}: {detail}"))
        return outcome

    def _decoded(
        self, messages: Sequence[Message], outcome: Outcome
    ) -> list[tuple[Sequence[Message], Decoded]]:
        """What messages hold, in one part or, where they fail together, several; without those at fault."""

        def read(rows: I64) -> tuple[Sequence[Message], Decoded]:
            self.on_part()
            part = messages if len(rows) == len(messages) else [messages[row] for row in rows.tolist()]
            return part, decode(part, self._schemas)

        with _timed(outcome, "decode"):
            contained = contain(len(messages), read, self._account)
        for number, fault in contained.faults.items():
            outcome.faults.append(fault)
            reject = Reject(number, 0, fault.reason, "surveys", fault.detail)
            self._reject(outcome, UNKNOWN_SURVEY, messages[number], reject)
        return contained.results

    def _contain_survey(self, batch: AlertBatch, filters: FilterSet, outcome: Outcome) -> None:
        """Judge a survey's alerts but those that cannot be judged, which nobody claimed then."""

        def judge(rows: I64) -> Outcome:
            self.on_part()
            part = Outcome()
            alerts = batch if len(rows) == len(batch) else batch.take(rows)
            self._process_survey(self._public(part, alerts), filters, part)
            _require_size(part.packets)
            return part

        contained = contain(len(batch), judge, self._account)
        for part in contained.results:
            outcome.add(part)
        bad = np.array(sorted(contained.faults), dtype=np.int64)
        if len(bad):
            history_recall.release(self._store, batch.take(bad))
        for row in bad.tolist():
            fault = contained.faults[row]
            outcome.faults.append(fault)
            self._reject_alert(outcome, batch, row, fault.reason, fault.detail, "judging")
        good = next((row for row in range(len(batch)) if row not in contained.faults), None)
        if good is not None:
            self._sample = batch.messages[int(batch.message[good])]

    def _contain_annotations(
        self, said: Sequence[Message], alerts: Sequence[Message], filters: FilterSet, outcome: Outcome
    ) -> None:
        """Take in annotations but those from which something follows that cannot be judged."""

        def judge(rows: I64) -> Outcome:
            self.on_part()
            part = Outcome()
            self._process_annotations([said[row] for row in rows.tolist()], alerts, filters, part)
            _require_size(part.packets)
            return part

        contained = contain(len(said), judge, self._account)
        for part in contained.results:
            outcome.add(part)
        for row, fault in contained.faults.items():
            outcome.faults.append(fault)
            reject = Reject(row, 0, fault.reason, "annotations", fault.detail)
            self._reject(outcome, ANNOTATIONS, said[row], reject)
            outcome.annotations["rejected"] += 1

    def _works(self) -> bool:
        """Whether alerts can be judged at all: the last one that was, else one that is made up, once more.

        What is judged here is not published, nor stored.
        """
        beside = copy(self)
        beside._store = MemoryStore()
        try:
            if self._sample is None:
                beside._process_survey(plain_alert(), FilterSet(-1), Outcome())
            else:
                for batch in decode([self._sample], self._schemas).batches:
                    beside._process_survey(batch, self._filters, Outcome())
        except Exception:
            return False
        return True

    def _process_survey(self, batch: AlertBatch, filters: FilterSet, outcome: Outcome) -> None:
        if len(batch) == 0:
            return
        with _timed(outcome, "history"):
            dedupe, known = recall(self._store, batch, self._settings.history)
        self._count_duplicates(outcome, batch, dedupe)
        judgement = self._judge(
            known, known.batch.midpoint_mjd_tai, _timestamps(known.batch), filters, outcome
        )
        scorer, verdict = judgement.scorer, judgement.verdict
        with _timed(outcome, "filters"):
            selected = _selected(filters, verdict.masks, judgement.table, outcome)
            judged = replace(judgement.judged, selected=selected)
        with _timed(outcome, "encode"):
            outcome.packets += self.writer.alerts(judged, filters.filters, filters.epoch)
            self._retract(outcome, known, judged, filters)
            outcome.packets += reevaluate.requests(batch.survey, known.late)
        self._archive(judged, judgement.table, filters, outcome)
        with _timed(outcome, "store"):
            self._keep(known, judgement.gated, verdict.masks, filters)
        _count_published(outcome, known, verdict.masks, filters)
        mag, midpoint = judgement.table[MAGNITUDE].values, known.batch.midpoint_mjd_tai
        parts = (judged.features, judgement.context, judged.scores)
        outcome.scored.append(Scored(batch.survey, scorer, midpoint, mag, *parts))

    def _judge(
        self, known: Recall, reference: F64, at_ms: I64, filters: FilterSet, outcome: Outcome
    ) -> Judgement:
        """Features, scores and filters of alerts whose light curves are known.

        reference : (n,) [MJD, TAI] what the features refer to;  at_ms : (n,) [Unix ms] of what made us judge
        """
        alerts = known.batch
        with _timed(outcome, "history"):
            others = find_others(self._store, known, self._settings.history.other_survey_arcsec)
        with _timed(outcome, "features"):
            matrix, gated = self._features(known, reference)
        with _timed(outcome, "scores"):
            scorer = self._models.of(alerts.survey)
            context = context_matrix(alerts.packet, alerts.ra, alerts.dec)
            scores = scorer.score(matrix, context)
        if self._stamps is not None:
            with _timed(outcome, "stamps"):
                found = self._stamps.score(alerts.survey, alerts.records, alerts.cutouts)
                scores[:, STAMP_COLUMN] = found
        with _timed(outcome, "filters"):
            said = annotation_columns(known.said, at_ms)
            table = build_table(
                known.batch, (FEATURE_SPECS, matrix), (scorer.specs, scores), known.history_incomplete,
                known.curves if self._settings.run.publish_private else without_private(known.curves),
                others, said,
            )  # fmt: skip
            verdict = filters.program.evaluate(table)
            masks = sampled(verdict.masks, filters.filters, alerts.dia_source_id)
        _count_costs(outcome, len(alerts), verdict, filters)
        judged = Judged(
            known.batch, known.keys, known.record_sha256, known.curves, matrix, scores,
            masks, known.history_incomplete, (scorer.id, scorer.version), others, said,
        )  # fmt: skip
        return Judgement(judged, table, replace(verdict, masks=masks), gated, context, scorer)

    def _process_annotations(
        self, said: Sequence[Message], alerts: Sequence[Message], filters: FilterSet, outcome: Outcome
    ) -> None:
        """Store what was said of objects, and judge the newest alert of each again.  Raises RetryBatch."""
        with _timed(outcome, "annotations"):
            taken = reevaluate.take_in(self._store, said, self._settings.history.max_points)
            private = self._settings.run.publish_private
            again, waiting = reevaluate.due(
                self._store, taken.fresh, self._fetch, self._schemas, alerts, private=private
            )
        for message, reason, detail in taken.rejected:
            self._reject(outcome, ANNOTATIONS, message, Reject(0, 0, reason, "annotations", detail))
        for item in again:
            self._judge_again(item, filters, outcome)
        outcome.packets += reevaluate.notices(waiting)
        outcome.annotations.update(
            rejected=len(taken.rejected), duplicate=taken.duplicates, waiting=len(waiting),
            judged=len(taken.fresh) - len(waiting),
        )  # fmt: skip

    def _judge_again(self, again: Again, filters: FilterSet, outcome: Outcome) -> None:
        """Publish alerts that were judged again as updates; their claims name who got them."""
        known = again.known
        judgement = self._judge(known, again.reference_mjd_tai, again.at_ms, filters, outcome)
        reading = reevaluate.reads_any(filters.compiled, [spec.name for spec in judgement.scorer.specs])
        hits = judgement.verdict.masks & (reading[:, None] | ~again.scores_only)
        to_alerts = ~again.scores_only | hits.any(axis=0)
        with _timed(outcome, "encode"):
            causes = [item.cause for item in again.said]
            selected = _selected(filters, hits, judgement.table, outcome)
            judged = replace(judgement.judged, hits=hits, selected=selected)
            packets = self.writer.updates(judged, filters.filters, filters.epoch, causes, to_alerts)
        self._archive(judged, judgement.table, filters, outcome, np.flatnonzero(to_alerts), causes)
        with _timed(outcome, "store"):
            claims = reevaluate.more_claims(known, hits, [item.mark for item in filters.filters])
            stored = self._store.append([], claims)
        if stored.server != known.server:
            raise RetryBatch("Redis was restarted or emptied while a batch was in flight")
        if any(stored.withdrawn):
            raise RetryBatch("an alert was withdrawn while it was judged again")
        outcome.packets += packets
        outcome.updates += len(packets)
        _count_hits(outcome.update_hits, hits, filters)

    def _archive(
        self,
        judged: Judged,
        table: Table,
        filters: FilterSet,
        outcome: Outcome,
        rows: I64 | None = None,
        causes: Sequence[str] = (),
    ) -> None:
        """Put what was judged into the archive, if one is kept.  rows : of updates, those published"""
        if not self._settings.archive.folder:
            return
        with _timed(outcome, "archive"):
            whole = JudgedRows(
                judged.batch, table, judged.keys, judged.record_sha256, judged.hits, filters.filters,
                filters.epoch, judged.model, "alert" if rows is None else "update", causes,
            )  # fmt: skip
            outcome.packets += archive_packets(whole if rows is None else whole.take(rows))

    def _retract(self, outcome: Outcome, known: Recall, judged: Judged, filters: FilterSet) -> None:
        """Tell those who got an alert that the survey took it back; a notice where nobody can be told."""
        found = retractions(known, judged.hits, [item.mark for item in filters.filters])
        missing = [mark for item in found for mark in item.marks if mark not in filters.addresses]
        if found:
            withdrawn = Withdrawn(
                np.array([item.row for item in found], dtype=np.int64),
                np.concatenate([item.point for item in found]),
                np.array([item.to_alerts for item in found], dtype=np.bool_),
                [[filters.addresses[m] for m in item.marks if m in filters.addresses] for item in found],
            )
            outcome.packets += self.writer.retractions(judged, withdrawn, filters.epoch)
            outcome.retraction_hits.update(item.label for told in withdrawn.filters for item in told)
            outcome.retractions += sum(item.to_alerts for item in found)
        strangers = unclaimed(known)
        if strangers or missing:
            outcome.packets.append(retraction_notice(known.batch.survey, strangers, len(missing)))

    def _features(self, known: Recall, ref: F64) -> tuple[F64, Gated]:
        """The feature matrix, and what the store should keep of its expensive part."""
        batch = known.batch
        budget = max(GATED_ROWS_MIN, int(self._settings.run.gated_share * len(batch)))
        gated = extract_gated(known.curves, ref, known.gated, budget)
        reference = Reference(batch.band, batch.packet["reference_flux"])
        return extract(known.curves, ref, reference, gated.values), gated

    def _keep(
        self,
        known: Recall,
        gated: Gated,
        hits: np.ndarray[tuple[int, ...], np.dtype[np.bool_]],
        filters: FilterSet,
    ) -> None:
        """Store the new points; a server that was replaced in between has forgotten the claims: redo."""
        claims = claims_with_filters(known, hits, [item.mark for item in filters.filters])
        stored = self._store.append(known.additions, claims, newest_gated(known, gated.blobs), located(known))
        if stored.server != known.server:
            raise RetryBatch("Redis was restarted or emptied while a batch was in flight")
        if withdrawn_meanwhile(known, claims, stored.withdrawn):
            raise RetryBatch("an alert was withdrawn while its batch was in flight")
        if annotated_meanwhile(self._store, known, stored):
            raise RetryBatch("something was said of an object while its batch was in flight")

    def _public(self, outcome: Outcome, batch: AlertBatch) -> AlertBatch:
        """The batch without proprietary alerts, which become dead letters unless publishing them is set."""
        private = (batch.flags & FLAG_PRIVATE) != 0
        if self._settings.run.publish_private or not private.any():
            return batch
        detail = "proprietary programme; run.publish_private lets such alerts out"
        for row in np.flatnonzero(private).tolist():
            self._reject_alert(outcome, batch, row, "private_programme", detail)
        return batch.take(~private)

    def _count_duplicates(self, outcome: Outcome, batch: AlertBatch, dedupe: Dedupe) -> None:
        counts = outcome_counts(dedupe)
        outcome.counts[(batch.survey, "in", "")] += counts["fresh"] + counts["duplicate"]
        outcome.counts[(batch.survey, "duplicate", "")] += counts["duplicate"]
        for row in np.flatnonzero(dedupe.changed).tolist():
            detail = "this diaSourceId was seen before with other content"
            self._reject_alert(outcome, batch, row, "duplicate_changed", detail)
        for row in np.flatnonzero(dedupe.unreadable).tolist():
            self._reject_alert(outcome, batch, row, "unreadable_claim", reevaluate.UNREADABLE)

    def _reject_alert(
        self,
        outcome: Outcome,
        batch: AlertBatch,
        row: int,
        reason: str,
        detail: str,
        stage: str = "history",
    ) -> None:
        number = int(batch.message[row])
        reject = Reject(number, int(batch.index[row]), reason, stage, detail)
        digest = hashlib.sha256(batch.records[row]).hexdigest()
        extra = (
            ("diaSourceId", str(int(batch.dia_source_id[row])).encode()),
            ("recordSha256", digest.encode()),
        )
        self._reject(outcome, batch.survey, batch.messages[number], reject, extra)

    def _reject(
        self,
        outcome: Outcome,
        survey: str,
        message: Message,
        reject: Reject,
        extra: tuple[tuple[str, bytes], ...] = (),
    ) -> None:
        outcome.counts[(survey, "in", "")] += 1
        outcome.counts[(survey, "rejected", reject.reason)] += 1
        outcome.packets.append(dead_letter(message, reject, extra))


def _require_size(packets: Sequence[Packet]) -> None:
    """Whether Kafka takes all that is to be sent.  Raises PacketTooLarge."""
    for packet in packets:
        if len(packet.value) > _MAX_PACKET_BYTES:
            size = f"{len(packet.value):,} bytes for {packet.topic}"
            raise PacketTooLarge(f"{size}; at most {_MAX_PACKET_BYTES:,} are taken")


def _selected(
    filters: FilterSet, hits: npt.NDArray[np.bool_], table: Table, outcome: Outcome
) -> dict[int, tuple[tuple[str, list[Any]], ...]]:
    """What filters select of the alerts that they publish, by the filter's number."""
    selected = evaluate_select(filters.selects, hits, table)
    for (number, what), why in selected.failures.items():
        outcome.select_failures[(filters.filters[number].full_name, what)] = why
    for number, cost_ns in selected.cost_ns.items():
        outcome.cost_ns[filters.filters[number].full_name] += cost_ns
    return selected.values


def _count_hits(counts: Counter[str], hits: npt.NDArray[np.bool_], filters: FilterSet) -> None:
    for item, count in zip(filters.filters, hits.sum(axis=1).tolist(), strict=True):
        if count:
            counts[item.full_name] += count


def _count_costs(outcome: Outcome, alerts: int, verdict: Evaluation, filters: FilterSet) -> None:
    """Note what the filters cost on some alerts, and which of them failed."""
    names = [item.full_name for item in filters.filters]
    outcome.failures |= {names[index]: why for index, why in verdict.failures.items()}
    outcome.judged += alerts
    for place in np.flatnonzero(verdict.cost_ns).tolist():
        outcome.cost_ns[names[place]] += verdict.cost_ns[place]


def _count_published(
    outcome: Outcome, known: Recall, hits: np.ndarray[tuple[int, ...], np.dtype[np.bool_]], filters: FilterSet
) -> None:
    batch = known.batch
    outcome.counts[(batch.survey, "published", "")] += len(batch)
    _count_hits(outcome.hits, hits, filters)
    outcome.ingested_ms += _timestamps(batch).tolist()
    outcome.observed_mjd_tai += batch.midpoint_mjd_tai.tolist()
    outcome.points_dropped += known.dropped_points
    outcome.late_points += known.late_points


def _timestamps(batch: AlertBatch) -> I64:
    """(n,) Kafka timestamps of the alerts' records [Unix ms]."""
    timestamps = np.array([message.timestamp_ms for message in batch.messages], dtype=np.int64)
    return timestamps[batch.message]


def shipped_or_chosen_scorer(settings: Settings) -> Scorer:
    """The model bundle of the settings, checked against the features that this code computes."""
    return _scorer(Path(settings.run.model) if settings.run.model else None)


def shipped_or_chosen_models(settings: Settings) -> ModelSet:
    """That bundle and, unless it was chosen by hand, the bundles that single surveys have of their own."""
    own = {} if settings.run.model else {survey: _scorer(path) for survey, path in OWN_BUNDLES.items()}
    return ModelSet(shipped_or_chosen_scorer(settings), own=own)


def _scorer(folder: Path | None) -> Scorer:
    names = [spec.name for spec in FEATURE_SPECS]
    return load_scorer(folder, feature_names=names, context_names=CONTEXT_NAMES)


def warm_up(*scorers: Scorer) -> None:
    """Compile every kernel, or load it from the cache: a worker joins its group only when warm."""
    arena.warm_up()
    merge.warm_up()
    history_recall.warm_up()
    places.warm_up()
    features.warm_up()
    for scorer in scorers:
        scorer.score(np.full((1, len(FEATURE_SPECS)), np.nan), np.full((1, len(CONTEXT_NAMES)), np.nan))
    personal.warm_up()
    warm_up_filters()
    rows.warm_up()


@contextmanager
def _timed(outcome: Outcome, stage: str, clock: Callable[[], float] = time.perf_counter) -> Iterator[None]:
    start = clock()
    yield
    outcome.stage_s[stage] += clock() - start  # type: ignore[assignment]
