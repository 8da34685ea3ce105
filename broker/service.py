"""One worker: messages in, one transaction a batch, and what to do when something is not there.

The loop is plain; the care is in what follows a fault. Redis or Kafka away: abort, go back to the committed
offsets, try again. A filter's topic gone: abort, pause that filter, do the batch again without it. The schema
registry away: leave out the partitions that need it (waiting.py). Another process in our slot: exit and be
restarted.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

from broker import control, rebuild
from broker.annotations.originals import Originals
from broker.astro.times import unix_s_to_mjd_tai
from broker.budget_keeper import BudgetKeeper, Spent
from broker.config import RunSettings, Settings
from broker.context.lists import ListSet, list_set, without_loaded
from broker.context_files import catalogs_folder
from broker.control.topic import ControlTail, ControlWriter
from broker.drift.nights import NightCounts
from broker.errors import BrokerError, HistoryLost, RetryBatch, WidespreadFault, WorkerFenced
from broker.filters.budgets import paused
from broker.filters.functions import PLUGIN, Named
from broker.filters.live import FilterSet, compile_set
from broker.heartbeats import Heartbeat, HeartbeatSender
from broker.history.redis import RedisStore
from broker.ingest.kafka import KafkaInput, Polled
from broker.kafka.clients import admin, cluster_id
from broker.kafka.faults import ClientFaults
from broker.kafka.topics import ANNOTATIONS, ANNOTATIONS_GROUP, FILTERS, LEDGER
from broker.late_writes import LateWriter
from broker.message import Packet
from broker.metrics import (
    ALERTS,
    ANNOTATIONS_READ,
    BATCH_SIZE,
    BATCHES,
    CATALOG_INFO,
    CATALOG_REFUSED,
    CLIENT_FAULTS,
    DECODED_BY,
    DRIFT_MISSED,
    EXPIRED,
    FILTER_FAILURES,
    FILTER_HITS,
    LATE_POINTS,
    LATENCY,
    MODEL_INFO,
    MODEL_REFUSED,
    OBSERVED_LATENCY,
    POINTS_DROPPED,
    RETRACTIONS,
    SELECT_FAILURES,
    STAGE_SECONDS,
    UPDATES,
)
from broker.models import ModelSet, model_set
from broker.near import CatalogSet, catalog_set
from broker.personal import ForestSet, forest_set
from broker.pipeline import Outcome, Pipeline, shipped_or_chosen_models, warm_up
from broker.plugin import named_plugins
from broker.promotion import BundleName
from broker.publish.account import hits_of, outputs_of
from broker.publish.kafka import DeliveryFailed, KafkaOutput
from broker.publish.packets import encode_record, notice
from broker.publish.records import LEDGER_SCHEMA
from broker.run.attempts import BATCH, Attempts, Part
from broker.run.fault_notices import FaultNotices
from broker.run.limits import TimeLimit
from broker.run.progress import Progress
from broker.scored import Scored
from broker.shadow import Shadows
from broker.slots import Slot
from broker.surveys.avro import SchemaSource
from broker.surveys.registry import schema_source
from broker.waiting import Waiting

log = logging.getLogger(__name__)

_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 2.0
_SECONDS_PER_DAY = 86400.0
_ANNOTATIONS_A_BATCH = 50
"""Each costs an alert fetched once more and judged, the more so if they lie far apart."""


@dataclass
class Worker:
    """A worker from its start to its stop.

    stopping : asked between batches; True ends the loop after the batch in flight
    wait : returns once topics and built-in filters are there: until then nothing outside this process is used
    on_step : told of each part of the start that is done; the group is joined after all but "join"
    """

    settings: Settings
    slot: Slot
    stopping: Callable[[], bool]
    wait: Callable[[], None] = lambda: None
    on_step: Callable[[str], None] = lambda _: None

    def run(self) -> None:
        """Work until told to stop.  Raises WorkerFenced, or BrokerError when it cannot start."""
        models = shipped_or_chosen_models(self.settings)
        self.on_step("load")
        warm_up(models.default, *models.own.values())
        self.on_step("warm_up")
        self.wait()
        if not self.stopping():
            self._serve(models)

    def _serve(self, models: ModelSet) -> None:
        cluster = cluster_id(admin(self.settings.kafka))
        store = RedisStore(self.settings.redis.url, self.settings.history, cluster)
        store.check()
        self._guard(store)
        schemas = schema_source(self.settings.registry.url)
        self._originals = Originals(self.settings.kafka)
        self._pipeline = Pipeline(store, models.default, schemas, self.settings, self._originals.fetch)
        self._pipeline.on_part = self._limit.start
        self._tail = ControlTail(self.settings.kafka, self._faults_of("the reader of control"))
        self._control = ControlWriter(self.settings.kafka)
        self._announced: set[int] = set()
        self._inputs: tuple[KafkaInput, ...] = ()
        self._ready = False
        self._progress = Progress()
        self._filters = FilterSet(-1)
        self._models = models
        self._pipeline.serve(models)
        self._forests = ForestSet()
        self._catalogs = CatalogSet()
        self._budgets = BudgetKeeper(self.settings)
        self._lists = ListSet()
        _show_models(None, self._models)
        self._tail.catch_up()
        self._announce_schemas()
        self._swap()
        self._heart = HeartbeatSender(self.settings.redis.url, self.settings.run.group, self._beat)
        with ExitStack() as ends:
            for end in (store.close, self._tail.close, self._originals.close):
                ends.callback(_in_any_case, end)
            try:
                rebuild.ensure(self.settings, store, self.stopping)
                self._join(schemas, ends)
                self._loop()
            finally:
                _in_any_case(self._heart.stop)  # first: nobody is to wait for what this worker still hears

    def _join(self, schemas: SchemaSource, ends: ExitStack) -> None:
        """Take this slot's place in the groups, and start what looks on; `ends` undoes it."""
        self._output = KafkaOutput(self.settings.kafka, self.slot.id)
        self.on_step("state")
        ends.callback(_in_any_case, self._output.close)
        said = _of_annotations(self.settings.run)
        self._input = KafkaInput(self.settings.kafka, self.settings.run, self.slot.id, self._tell_fault)
        self._said = KafkaInput(self.settings.kafka, said, self.slot.id, self._tell_fault)
        self._inputs = (self._input, self._said)
        for source in self._inputs:
            ends.callback(_in_any_case, source.close)
        self._waiting = Waiting(self._input, schemas, self._notice_of_broker)
        self._nights = NightCounts(self.settings.run.group)
        run = self.settings.run
        self._shadows = Shadows(run.group, run.shadow_share, self._tell_shadow)
        sources = [self._nights.changed, self._shadows.changed]
        self._late = LateWriter(self.settings.redis.url, sources, DRIFT_MISSED.inc)
        self._budgets.start()
        for end in (self._budgets.stop, self._late.stop):
            ends.callback(_in_any_case, end)
        self._progress.step()

    def _guard(self, store: RedisStore) -> None:
        """What keeps a record from stopping the stream, and tells of it."""
        self._store, self._damage = store, Counter[str]()
        self._faults = FaultNotices(self.slot.id, self._notice_of_broker)
        self._limit = TimeLimit(self.settings.run.batch_limit_s)
        self._attempts = Attempts(self.settings.run.group, store.exchange_on_hash)

    def _loop(self) -> None:
        pause = _FIRST_PAUSE_S
        while not self.stopping():
            if self._tail.poll():
                self._swap()
            try:
                self._step()
                pause = _FIRST_PAUSE_S
            except DeliveryFailed as failed:
                BATCHES.labels("aborted").inc()
                self._progress.hold_up(str(failed))
                self._pause_filters(failed)
                self._again(pause)
            except HistoryLost as lost:
                # a rebuild may take longer than the group waits for a member: it is for a worker's start
                raise BrokerError(f"{lost}; a new worker will rebuild it") from lost
            except RetryBatch as trouble:
                if isinstance(trouble, WidespreadFault):
                    self._faults.add("widespread_fault", "pipeline", f"Nothing is lost. {trouble}")
                BATCHES.labels("aborted").inc()
                self._progress.hold_up(str(trouble))
                log.warning("%s: %s; the batch will be done again", self.slot.id, trouble)
                self._again(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_S)

    def _step(self) -> None:
        self._waiting.release()
        alerts, said = self._waiting.hold(self._input.poll()), self._said.poll()
        if self._input.assigned and self._said.assigned and not self._ready:
            self._ready = True
            self._heart.now()
            self.on_step("join")
        if not (alerts or said):
            return self._progress.step()
        for part in self._attempts.parts(alerts, said):
            self._progress.work()
            self._transact(part)
            if self.stopping():  # what is left was not committed
                return

    def _transact(self, part: Part) -> None:
        """Judge what goes into one transaction, and commit it.  Raises RetryBatch or WorkerFenced."""
        polled, alerts, said = part.polled, part.alerts, part.said
        with self._limit.judging(careful=part.level > BATCH):
            if part.quarantined:
                outcome = self._pipeline.quarantine(polled.messages)
            else:
                outcome = self._pipeline.process(polled.messages, self._filters)
        self._attempts.judged(part)
        self._announce_schemas()
        ledger = Packet(LEDGER, self.slot.id.encode(), self._ledger_record(polled, outcome))
        packets = [*outcome.packets, ledger]
        start = time.perf_counter()
        read = ((self._input, alerts), (self._said, said))
        self._output.transact(packets, [(it.offsets(part), it.metadata()) for it, part in read if part])
        outcome.stage_s["transaction"] = time.perf_counter() - start  # type: ignore[assignment]
        self._progress.step()
        self._measure(polled, outcome)
        self._tell_faults(outcome)
        hits = outcome.hits + outcome.update_hits
        self._budgets.note(Spent(outcome.judged, hits, outcome.failures, outcome.cost_ns))
        self._watch(outcome.scored)

    def _tell_faults(self, outcome: Outcome) -> None:
        """Tell people of what a committed batch met that nobody foresaw."""
        for fault in outcome.faults:
            kind = "quarantined" if fault.reason == "quarantined" else "internal_error"
            self._faults.add(kind, fault.kind, f"They are dead letters. The last one: {fault.detail}")
        before, self._damage = self._damage, Counter(self._store.damage.met)
        for what, count in (self._damage - before).items():
            text = f"Redis held a {what} that cannot be ours; keys corrupt:* have copies for a week"
            self._faults.add("damaged_values", what, text, count)

    def _again(self, pause_s: float) -> None:
        """Back to the committed offsets, once no transaction is open, however long the cluster takes."""
        while not self.stopping():
            time.sleep(pause_s)
            try:
                self._output.settle()
                self._input.rewind()
                return self._said.rewind()
            except RetryBatch as trouble:
                log.warning("%s: %s", self.slot.id, trouble)

    def _swap(self) -> None:
        """Take the newest epoch; called between batches only, so one epoch scores and judges a batch."""
        state = self._tail.state
        if state.epoch == self._filters.epoch:
            return
        self._tell_skipped(state)
        by_hand = bool(self.settings.run.model)  # such a model is not promoted away
        self._swap_models(model_set(self._models, replace(state, promotions={}) if by_hand else state))
        self._swap_forests(forest_set(self._forests, state))
        self._swap_catalogs(catalog_set(self._catalogs, state, lambda: catalogs_folder(self.settings)))
        self._budgets.serve(state)
        self._swap_lists(list_set(self._lists, state))
        known = dict(self._filters.refused)
        self._filters = compile_set(
            state.epoch,
            state.active_filters(),
            state.filter_addresses(),
            self._pipeline.columns,
            {**self._forests.named, **self._catalogs.named, **self._lists.named, **_plugins(state)},
            self._filters,
            state.members(),
        )
        self._tail.state = without_loaded(state, self._lists)
        for name, why in self._filters.refused:
            if known.get(name) != why:
                log.error("filter %s is not evaluated: %s", name, why)
                text = f"{self.slot.id} does not evaluate it: {why}"
                self._try_notice(name.partition(".")[0], name, "filter_refused", text)
        if hasattr(self, "_heart"):
            self._heart.now()

    def _tell_skipped(self, state: control.ControlState) -> None:
        """Name the records of `control` that cannot be applied, each once in a worker's life."""
        for item in state.unreadable:
            if item.offset > self._filters.epoch:
                log.error("%s", item)
                self._try_notice(
                    "broker", item.key or "control", "control_skipped", f"{self.slot.id}: {item}"
                )

    def _swap_models(self, models: ModelSet) -> None:
        before, self._models = self._models, models
        self._pipeline.serve(models)
        _show_models(before, models)
        for name, why in models.refused.items():
            if before.refused.get(name) != why:
                log.error("model %s is not served: %s", name, why)
                self._tell_refused(name, why)
        for name, why in models.refused_shadows.items():
            if before.refused_shadows.get(name) != why:
                log.error("model %s does not score beside the live one: %s", name, why)
                self._tell_shadow(str(name), f"it cannot be loaded as a shadow: {why}")

    def _swap_forests(self, forests: ForestSet) -> None:
        before, self._forests = self._forests, forests
        for label, why in forests.refused.items():
            if before.refused.get(label) != why:
                log.error("forest %s is passed over: %s", label, why)
                owner, text = label.partition("/")[0], f"{self.slot.id} cannot load it: {why}"
                self._try_notice(owner, label, "forest_refused", text)

    def _swap_catalogs(self, catalogs: CatalogSet) -> None:
        before, self._catalogs = self._catalogs, catalogs
        _show_catalogs(before, catalogs)
        for label, why in catalogs.refused.items():
            if before.refused.get(label) != why:
                log.error("catalogue %s has no answers: %s", label, why)
                text = f"{self.slot.id} cannot read it, so every match with it is failed: {why}"
                self._try_notice("broker", label, "catalog_refused", text)

    def _swap_lists(self, lists: ListSet) -> None:
        before, self._lists = self._lists, lists
        for label, why in lists.failed.items():
            if before.failed.get(label) != why:
                log.error("%s fails: %s", label, why)
                text = f"{self.slot.id} cannot read it, so every answer about it is NULL: {why}"
                self._try_notice(lists.owners[label], label, "list_failed", text)

    def _tell_refused(self, name: BundleName, why: str) -> None:
        self._try_notice("broker", str(name), "model_refused", f"{self.slot.id} cannot load it: {why}")

    def _faults_of(self, client: str) -> ClientFaults:
        return ClientFaults(
            client, lambda name: CLIENT_FAULTS.labels("control", name).inc(), self._tell_fault
        )

    def _tell_fault(self, text: str) -> None:
        self._try_notice("broker", self.slot.id, "client_fault", f"{self.slot.id}: {text}")

    def _tell_shadow(self, name: str, why: str) -> None:
        self._try_notice("broker", name, "shadow_refused", f"{self.slot.id}: {why}")

    def _try_notice(self, owner: str, subject: str, kind: str, text: str) -> None:
        try:
            self._notice(owner, subject, kind, text)
        except WorkerFenced:  # the client that sends it is of no more use
            raise
        except BrokerError as error:  # a notice is not worth a worker
            log.warning("no notice of it: %s", error)

    def _announce_schemas(self) -> None:
        """Put every schema we may refer to into `control` before anything refers to it."""
        new = self._pipeline.writer.schemas.keys() - self._announced - self._tail.state.schemas.keys()
        for identifier in sorted(new):
            self._control.write(*control.schema_record(identifier, self._pipeline.writer.schemas[identifier]))
        self._announced |= new

    def _pause_filters(self, failed: DeliveryFailed) -> None:
        """A filter whose topic cannot be written must not stop the others: pause it, and say so."""
        self._tail.catch_up()  # another worker may have paused it a moment ago
        in_force = self._tail.state.filters_in_force()
        epoch = self._tail.state.epoch
        for topic, why in failed.failures.items():
            item = in_force.get(topic.removeprefix(FILTERS)) if topic.startswith(FILTERS) else None
            if item is None:
                log.error("%s cannot be written: %s", topic, why)
                continue
            if item.state != "active":
                continue
            change = paused(item, f"its topic {topic} cannot be written ({why})", time.time(), option="")
            log.error("%s", change.text)
            epoch = self._control.write(*control.filter_record(change.filter))
            self._notice(item.owner, item.full_name, change.kind, change.text)
        self._tail.wait_for(epoch)
        self._swap()

    def _notice(self, owner: str, subject: str, kind: str, text: str) -> None:
        packet = notice(owner, subject, kind, text)
        self._control.send(packet.topic, packet.key or b"", packet.value)

    def _notice_of_broker(self, subject: str, kind: str, text: str) -> None:
        self._notice("broker", subject, kind, text)

    def _ledger_record(self, polled: Polled, outcome: Outcome) -> bytes:
        record = {
            "slot": self.slot.id,
            "worker": f"{socket.gethostname()}:{os.getpid()}",
            "epoch": self._filters.epoch,
            "committedAt": int(time.time() * 1000),
            "partitions": [
                {
                    "topic": item.topic,
                    "partition": item.partition,
                    "before": item.before,
                    "after": item.after,
                    "expired": item.expired,
                }
                for item in polled.ranges
            ],
            "counts": [
                {"survey": survey, "outcome": outcome, "reason": reason, "count": count}
                for (survey, outcome, reason), count in sorted(outcome.counts.items())
                if count
            ],
            "hits": hits_of(
                self._filters.filters, outcome.hits, outcome.update_hits, outcome.retraction_hits
            ),
            "outputs": outputs_of(outcome.packets),
        }
        return encode_record(LEDGER_SCHEMA, record)

    def _measure(self, polled: Polled, outcome: Outcome) -> None:
        """Metrics of a committed batch: what was aborted is never counted."""
        now = time.time()
        now_mjd = float(unix_s_to_mjd_tai(now))
        BATCHES.labels("committed").inc()
        BATCH_SIZE.observe(len(polled.messages))
        for key, count in outcome.counts.items():
            ALERTS.labels(*key).inc(count)
        for how, count in outcome.decoded_by.items():
            DECODED_BY.labels(how).inc(count)
        for name, count in outcome.hits.items():
            FILTER_HITS.labels(name).inc(count)
        for name in outcome.failures:
            FILTER_FAILURES.labels(name).inc()
        for name, _ in outcome.select_failures:
            SELECT_FAILURES.labels(name).inc()
        for stage, seconds in outcome.stage_s.items():
            STAGE_SECONDS.labels(stage).observe(seconds)
        for ingested in outcome.ingested_ms:
            LATENCY.observe(max(0.0, now - ingested / 1000))
        for observed in outcome.observed_mjd_tai:
            OBSERVED_LATENCY.observe(max(0.0, (now_mjd - observed) * _SECONDS_PER_DAY))
        EXPIRED.inc(sum(item.expired for item in polled.ranges))
        POINTS_DROPPED.inc(outcome.points_dropped)
        LATE_POINTS.inc(outcome.late_points)
        RETRACTIONS.inc(outcome.retractions)
        for what, count in outcome.annotations.items():
            ANNOTATIONS_READ.labels(what).inc(count)
        UPDATES.inc(outcome.updates)

    def _watch(self, scored: Sequence[Scored]) -> None:
        """Count a committed batch for those who look for drift, and let the shadows score it.

        The batch is done with, whatever happens here.
        """
        try:
            for part in scored:
                self._shadows.compare(part, self._models)
                self._nights.add(part.survey, part.midpoint_mjd_tai, *part.watched())
        except Exception:
            DRIFT_MISSED.inc()
            log.exception("%s: a batch is missing from the counts of drift", self.slot.id)

    def _beat(self) -> Heartbeat:
        progress, joined = self._progress, self._ready and all(it.assigned for it in self._inputs)
        faults = [self._tail.faults, *(source.faults for source in self._inputs)]
        return Heartbeat(
            self.slot.id,
            self._filters.epoch,
            joined and progress.ready,
            os.getpid(),
            models=self._models.names(),
            shadows=self._models.shadow_names(),
            since=-progress.quiet_s,
            trouble="; ".join(filter(None, (progress.trouble, *(it.trouble for it in faults)))),
            starting=not self._inputs,
            owns=[f"{topic}[{number}]" for source in self._inputs for topic, number in source.owned()],
        )


def _in_any_case(end: Callable[[], None]) -> None:
    """Close one thing; that it fails hides neither why all is closed nor keeps the others open."""
    try:
        end()
    except Exception as error:
        log.warning("while closing: %s", error)


def _plugins(state: control.ControlState) -> Named:
    """The plug-ins of this machine, which are looked for only if a filter may ask for one."""
    asked = any(PLUGIN in item.where or PLUGIN in item.select for item in state.active_filters())
    return {PLUGIN: named_plugins()} if asked else {}


def _of_annotations(run: RunSettings) -> RunSettings:
    """How annotations are read: beside the alerts, without waiting, few at a time.

    What is said of many objects at once must not make alerts wait.
    """
    return replace(
        run,
        group=run.group + ANNOTATIONS_GROUP,
        topics=(ANNOTATIONS,),
        batch_min=1,
        batch_max=_ANNOTATIONS_A_BATCH,
        poll_ms=1,
    )


def _show_models(before: ModelSet | None, now: ModelSet) -> None:
    """Metrics of the models of this process: 1 for each that serves or is refused, 0 for what no more is."""
    groups, old_groups = now.names().items(), before.names().items() if before else ()
    refused, old_refused = now.refused.keys(), before.refused.keys() if before else ()
    for group, name in [*old_groups, *groups]:
        MODEL_INFO.labels(group, *name.split(":", 1)).set((group, name) in groups)
    for bundle in [*old_refused, *refused]:
        MODEL_REFUSED.labels(bundle.id, bundle.version).set(bundle in refused)


def _show_catalogs(before: CatalogSet, now: CatalogSet) -> None:
    """Metrics of the catalogues of this process: 1 for each that is read or refused, 0 for others."""
    labels = {item.label for item in [*before.live.values(), *now.live.values()]}
    current = {item.label for item in now.live.values()}
    for label in labels:
        name, _, revision = label.partition("/")
        CATALOG_INFO.labels(name, revision).set(label in current - now.refused.keys())
        CATALOG_REFUSED.labels(name, revision).set(label in now.refused)
