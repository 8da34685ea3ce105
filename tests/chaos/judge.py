"""What came out against what was sent, by sets and by offsets; nothing that the product says is believed."""

from __future__ import annotations

import json
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import redis
from harness import sha256

from broker.config import load
from broker.filters.live import FilterSet
from broker.history.memory import MemoryStore
from broker.history.merge import merge
from broker.ingest.kafka import as_message
from broker.lightcurves import POINT, LightCurves, Points, empty_light_curves
from broker.message import Message
from broker.pipeline import Pipeline, shipped_or_chosen_scorer
from broker.surveys.registry import LocalSchemas
from chaos import log
from chaos.feed import Feed, Meant
from chaos.log import Decoder, Partition
from chaos.run import ALL_HITS, TOPIC, Chaos, Event
from chaos.subscriber import digest

ANNOTATIONS = "annotations"
_READ = (TOPIC, ANNOTATIONS)
_ALERTS = "alerts.ztf"
_LETTERS = "dead-letters"
_LEDGER = "ledger"
_DOUBT = b"unreadable_claim"
"""Why an alert is a letter of which the damaged store cannot say whether it was published."""
_BATCH = 500
_SHOWN = 12
Place = tuple[str, int, int, int]
"""Topic, partition, offset and index of the alert of which a message tells."""


@dataclass
class Findings:
    """What was wrong, and what was counted."""

    problems: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    recovery_s: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def differ(self, what: str, items: Iterable[Any]) -> None:
        """Note a kind of difference, if there is any, with its first cases."""
        found = sorted(items, key=str)
        if found:
            self.problems.append(f"{len(found)} {what}: " + "; ".join(map(str, found[:_SHOWN])))

    def medians(self) -> dict[str, float]:
        """Median recovery times [s]."""
        return {what: round(statistics.median(times), 2) for what, times in self.recovery_s.items()}


@dataclass
class Input:
    """The input topic as it is in the log: what each offset means."""

    alerts: dict[int, list[tuple[str, int, int]]] = field(default_factory=lambda: defaultdict(list))
    """Where each alert is, by its number."""
    records: dict[int, str] = field(default_factory=dict)
    """SHA-256 of each alert's record."""
    values: dict[tuple[str, int, int], str] = field(default_factory=dict)
    """SHA-256 of each value that holds an alert, by where it is."""
    garbage: dict[tuple[str, int, int], str] = field(default_factory=dict)
    """SHA-256 of what is no alert, by where it is."""


def judge(chaos: Chaos, *, damaged: bool = False) -> Findings:
    """Everything that was wrong with a run that has ended.

    damaged : whether strangers wrote to `control`, `annotations` and Redis. Alerts may then have been
    judged again, light curves differ, and an alert of which nobody can know whether it is out is a letter.
    """
    findings = Findings(list(chaos.troubles))
    findings.differ("troubles of the subscriber", chaos.subscriber.troubles)
    _verdicts(chaos, findings)
    undisturbed = _Undisturbed()
    given = _read_input(chaos.direct, chaos.feed, findings, undisturbed)
    decode = Decoder(chaos.direct)
    order: dict[Partition, list[tuple[int, bytes]]] = defaultdict(list)
    said = {_at(item): sha256(item.value() or b"") for item in log.records(chaos.direct, [ANNOTATIONS])}
    letters = _noted(chaos.direct, [_LETTERS], order)
    doubtful = _judge_letters(letters, given, said, findings, _DOUBT if damaged else b"")
    out = _alerts(_noted(chaos.direct, [_ALERTS], order), decode, findings, damaged)
    passed = _judge_alerts(out, given, doubtful, findings)
    topics = [name for name in log.topic_names(chaos.direct) if name.startswith("filters.")]
    hits = _alerts(_noted(chaos.direct, topics, order), decode, findings, damaged)
    _judge_hits(hits, passed, findings)
    account = [decode(record.value()) for record in _noted(chaos.direct, [_LEDGER], order)]
    _judge_tiling(account, chaos.direct, findings)
    _judge_order(chaos.subscriber.shown, order, findings)
    if not damaged:
        _judge_curves(chaos.servers.addresses.redis_url, undisturbed, findings)
    _recoveries(chaos.events, account, findings)
    return findings


def _noted(
    bootstrap: str, topics: Sequence[str], order: dict[Partition, list[tuple[int, bytes]]]
) -> Iterator[Any]:
    """Records of some topics, each noted in the order in which it stands in the log."""
    for record in log.records(bootstrap, topics):
        key = (record.topic(), record.partition())
        order[key].append((record.offset(), digest(record.value() or b"")))
        yield record


def _verdicts(chaos: Chaos, findings: Findings) -> None:
    findings.counts["verdicts of the ledger"] = len(chaos.verdicts)
    for number, verdict in enumerate(chaos.verdicts, start=1):
        if verdict.code != 0:
            said = f"{verdict.said[-1500:]}{verdict.errors[-1500:]}"
            findings.problems.append(
                f"`broker ledger`, asked for time {number}, ended with {verdict.code}: {said}"
            )
        elif not json.loads(verdict.said)["balanced"]:
            findings.problems.append(f"the ledger does not balance: {verdict.said[-1500:]}")


def _read_input(bootstrap: str, feed: Feed, findings: Findings, undisturbed: _Undisturbed) -> Input:
    given, left = Input(), dict(feed.meant)
    unknown = []
    for record in log.records(bootstrap, [TOPIC]):
        value = record.value() or b""
        place, mark = _at(record), sha256(value)
        meant = feed.meant.get(mark)
        left.pop(mark, None)
        if meant is None:
            unknown.append(place)
        else:
            _note_input(given, place, mark, meant)
        undisturbed.take(as_message(record))
    undisturbed.end()
    findings.differ("values that the feed lost", left)
    findings.differ("input records that nobody sent", unknown)
    findings.counts["alerts"] = len(given.alerts)
    findings.counts["repeats"] = sum(len(places) - 1 for places in given.alerts.values())
    findings.counts["garbage"] = len(given.garbage)
    return given


def _note_input(given: Input, place: tuple[str, int, int], mark: str, meant: Meant) -> None:
    if meant.candid is None:
        given.garbage[place] = meant.record
    else:
        given.alerts[meant.candid].append(place)
        given.records[meant.candid] = meant.record
        given.values[place] = mark


def _alerts(
    records: Iterable[Any], decode: Decoder, findings: Findings, updates: bool
) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Records of alerts, each with its datum; those of alerts that were judged again are passed over."""
    again = []
    for record in records:
        datum = decode(record.value())
        if datum["kind"] == "alert":
            yield record, datum
        else:
            again.append((datum["kind"], record.topic(), record.partition(), record.offset()))
    if not updates:
        findings.differ("messages that are no alerts", again)


def _judge_alerts(
    records: Iterable[tuple[Any, dict[str, Any]]],
    given: Input,
    doubtful: set[tuple[str, int, int]],
    findings: Findings,
) -> dict[Place, set[str]]:
    """Every alert once, from one of its places, with its record's hash; the filters that each passed.

    doubtful : where there are alerts that are letters
    """
    times: Counter[int] = Counter()
    passed: dict[Place, set[str]] = {}
    wrong = []
    for record, alert in records:
        candid, place = alert["diaSourceId"], _place(alert["source"])
        times[candid] += 1
        passed[place] = set(alert["filtersPassed"])
        fits = place[:3] in given.alerts.get(candid, ())
        if not fits or alert["provenance"]["recordSha256"] != given.records.get(candid):
            wrong.append((candid, place, record.partition(), record.offset()))
    for candid, places in given.alerts.items():
        times[candid] += len(doubtful.intersection(places))
    missing = [(candid, places) for candid, places in given.alerts.items() if not times[candid]]
    findings.differ("alerts lost (id, where they are in the input)", missing)
    findings.differ(
        "alerts doubled (id, times, where)",
        [(candid, n, given.alerts.get(candid)) for candid, n in times.items() if n > 1],
    )
    findings.differ("alerts that are not what was sent (id, source, partition, offset)", wrong)
    findings.counts["published"] = len(passed)
    findings.counts["in doubt"] = len(doubtful)
    return passed


def _judge_letters(
    records: Iterable[Any],
    given: Input,
    said: Mapping[tuple[str, int, int], str],
    findings: Findings,
    doubt: bytes,
) -> set[tuple[str, int, int]]:
    """Every piece of garbage is one letter with its bytes, and nothing else is but annotations.

    said : SHA-256 of every annotation, by where it is: of those that are refused, the letter has the bytes
    doubt : the reason for which an alert may be a letter; returned is where those alerts are
    """
    times: Counter[tuple[str, int, int]] = Counter()
    wrong, doubtful = [], set()
    for record in records:
        try:
            about = dict(record.headers())
        except (SystemError, UnicodeError) as error:
            findings.problems.append(f"nobody can read the headers of letter {record.offset()}: {error!r}")
            continue
        place, mark = _place(json.loads(about["source"]))[:3], sha256(record.value() or b"")
        times[place] += 1
        if about["reason"] == doubt and given.values.get(place) == mark:
            doubtful.add(place)
        elif given.garbage.get(place, said.get(place)) != mark:
            wrong.append((place, about["reason"], about["detail"][:200]))
    findings.differ("dead letters missing (their source)", given.garbage.keys() - times.keys())
    findings.differ("dead letters doubled", [(place, n) for place, n in times.items() if n > 1])
    findings.differ("dead letters of what is no garbage, or with other bytes", wrong)
    findings.counts["letters"] = sum(times.values())
    return doubtful


def _judge_hits(
    records: Iterable[tuple[Any, dict[str, Any]]], passed: Mapping[Place, set[str]], findings: Findings
) -> None:
    """The alerts' filtersPassed and the filters' topics, both ways; one filter has every alert."""
    times: Counter[tuple[str, Place]] = Counter()
    bare = []
    for record, hit in records:
        place = _place(hit["source"])
        times[f"{hit['filter']['name']}@{hit['filter']['version']}", place] += 1
        own = {point["sourceId"] for point in hit.get("lightCurve", [{"sourceId": hit["diaSourceId"]}])}
        if hit["diaSourceId"] not in own:
            bare.append((record.topic(), record.offset()))
    said = {(name, place) for place, names in passed.items() for name in names}
    findings.differ("hits missing (filter, source)", said - times.keys())
    findings.differ("hits that filtersPassed does not name", times.keys() - said)
    findings.differ("hits doubled", [(key, n) for key, n in times.items() if n > 1])
    findings.differ("hits whose light curve lacks the detection itself", bare)
    whole = {place for place, names in passed.items() if any(f".{ALL_HITS}@" in name for name in names)}
    findings.differ(f"alerts that do not pass {ALL_HITS}", passed.keys() - whole)
    findings.counts["hits"] = sum(times.values())


def _judge_tiling(account: Sequence[dict[str, Any]], bootstrap: str, findings: Findings) -> None:
    """The transactions' ranges cover each input partition from its start to its end, none twice."""
    spans: dict[Partition, list[tuple[int, int]]] = defaultdict(list)
    for record in account:
        for part in record["partitions"]:
            if part["topic"] in _READ:
                spans[part["topic"], part["partition"]].append((part["before"], part["after"]))
    client = log.consumer(bootstrap)
    ends = log.settled_ends(bootstrap, log.partitions_of(client, _READ))
    client.close()
    for key, end in ends.items():
        edges = sorted(spans[key])
        starts, stops = [0, *(stop for _, stop in edges)], [*(start for start, _ in edges), end]
        seams = [(a, b) for a, b in zip(starts, stops, strict=True) if a != b]
        findings.differ(f"seams of {key} that the ledger does not join (end, next start)", seams)
    findings.counts["transactions"] = len(account)


def _judge_order(
    shown: Mapping[Partition, Sequence[tuple[int, bytes]]],
    order: Mapping[Partition, Sequence[tuple[int, bytes]]],
    findings: Findings,
) -> None:
    """What the subscriber saw while it happened is what the log holds, in the log's order, each once."""
    for key in sorted(shown.keys() | order.keys()):
        seen, stands = list(shown.get(key, ())), list(order.get(key, ()))
        if seen == stands:
            continue
        findings.differ(f"records of {key} that the subscriber was not shown", set(stands) - set(seen))
        findings.differ(f"records of {key} that it was shown and that are not there", set(seen) - set(stands))
        if sorted(seen) == sorted(stands):
            findings.problems.append(f"{key} was shown out of order")
        elif len(set(seen)) < len(seen):
            findings.problems.append(f"records of {key} were shown twice")


class _Undisturbed:
    """The same input through a pipeline without servers and faults: the light curves that there must be."""

    def __init__(self) -> None:
        settings = load({}, env={}, path=None)
        self._store = MemoryStore()
        self._pipeline = Pipeline(self._store, shipped_or_chosen_scorer(settings), LocalSchemas(), settings)
        self._waiting: list[Message] = []

    def take(self, message: Message) -> None:
        """One record of the input."""
        self._waiting.append(message)
        if len(self._waiting) >= _BATCH:
            self.end()

    def end(self) -> None:
        """Work off what waits."""
        self._pipeline.process(self._waiting, FilterSet(-1))
        self._waiting = []

    def curves(self) -> dict[bytes, bytes]:
        """Stored points by key."""
        return {key: data for key, data in self._store.curves.items() if key.startswith(b"lc:")}


def _judge_curves(url: str, undisturbed: _Undisturbed, findings: Findings) -> None:
    client = redis.Redis.from_url(url)
    try:
        keys = sorted(client.scan_iter(b"lc:{*", count=5000))
        stored = {
            key: data or b""
            for start in range(0, len(keys), 1000)
            for key, data in zip(
                keys[start : start + 1000], client.mget(keys[start : start + 1000]), strict=True
            )
        }
    finally:
        client.close()
    there, right = _in_force(stored), _in_force(undisturbed.curves())
    findings.differ("light curves missing", right.keys() - there.keys())
    findings.differ("light curves that there should not be", there.keys() - right.keys())
    other = [key for key in there.keys() & right.keys() if there[key] != right[key]]
    findings.differ("light curves with other points than without faults", other)
    findings.counts["light curves"] = len(there)


def _in_force(stored: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """The points of each key as readers see them, but for when they became known."""
    if not stored:
        return {}
    rows = [np.frombuffer(data, dtype=POINT) for data in stored.values()]
    starts = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    curves = merge(LightCurves(np.concatenate(rows), starts), empty_light_curves(len(rows))).curves
    points: Points = curves.points.copy()
    points["known_at"] = 0
    seen = LightCurves(points, curves.starts)
    return {key: seen.row(number).tobytes() for number, key in enumerate(stored)}


def _recoveries(events: Sequence[Event], account: Sequence[dict[str, Any]], findings: Findings) -> None:
    """How long after each event its slot, or any worker, committed again."""
    slots = {record["worker"].rpartition(":")[2]: record["slot"] for record in account}
    commits = sorted((record["committedAt"] / 1000, record["slot"], record["worker"]) for record in account)
    for event in events:
        slot = slots.get(str(event.pid))
        if event.pid and slot is None:
            continue  # it never committed anything
        later = [
            at - event.at
            for at, whose, worker in commits
            if at > event.at and (not event.pid or (whose == slot and not worker.endswith(f":{event.pid}")))
        ]
        if later and event.what != "worker goes on":
            findings.recovery_s[event.what].append(later[0])


def _at(record: Any) -> tuple[str, int, int]:
    return record.topic(), record.partition(), record.offset()


def _place(source: Mapping[str, Any]) -> Place:
    return source["topic"], source["partition"], source["offset"], source["index"]
