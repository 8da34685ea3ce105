"""Objects that are judged again because something was said of them: from a batch's annotations to alerts.

An annotation is claimed by its position, as an alert is: the same position again is our own retry, another
position is a duplicate, of which nothing follows. What it says is stored first. Only then is the object read:
an alert that another worker judges at the same time is then either seen here, or its worker sees that
something was said meanwhile, and does its batch again.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from broker.annotations.kept import addition, line
from broker.annotations.originals import Fetch, Position
from broker.annotations.record import BROKER, MAX_CAUSE, Annotation, read
from broker.batch import AlertBatch
from broker.errors import AnnotationError, HistoryLost, RetryBatch
from broker.filters.compile import CompiledFilter
from broker.history import pack
from broker.history.base import Addition, Claim, HistoryStore
from broker.history.late import Late
from broker.history.merge import group, join_blobs, merge
from broker.history.recall import Recall, additions_of
from broker.history.revisit import Visit, recalled, visit
from broker.kafka.topics import ANNOTATIONS
from broker.lightcurves import FLAG_PRIVATE, I64, LightCurves
from broker.measured import reference_times
from broker.message import Message, Packet
from broker.publish.packets import notice
from broker.surveys.avro import SchemaSource
from broker.surveys.catalog import decode
from broker.surveys.registry import first_unreadable

F64 = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

NO_ALERT = "no alert of the object is known"
UNREADABLE = (
    "what the store holds of who was first with this id is damaged, so it may be out already; "
    "`broker history rebuild` restores the claims of all that was published: send it again then"
)
NOT_KEPT = "the record of its newest alert is not kept any more"


@dataclass(frozen=True)
class Said:
    """An annotation and the record it came in."""

    annotation: Annotation
    message: Message


@dataclass(frozen=True)
class Taken:
    """What became of a batch's annotations.

    fresh : those that count;  duplicates : how many were there before
    rejected : (record, reason, detail) of those that go to the dead letters
    """

    fresh: list[Said]
    duplicates: int
    rejected: list[tuple[Message, str, str]]


@dataclass(frozen=True)
class Again:
    """n alerts of one survey to be judged again.

    known : with all that is known of their objects now;  reference_mjd_tai : (n,) what features refer to
    said : (n,) why;  at_ms : (n,) [Unix ms] when that was said
    """

    known: Recall
    reference_mjd_tai: F64
    said: list[Annotation]
    at_ms: I64

    @property
    def scores_only(self) -> Bools:
        """(n,) those that concern only filters that read a score."""
        return np.array([item.scores_only for item in self.said], dtype=np.bool_)


def take_in(
    store: HistoryStore, messages: Sequence[Message], max_points: int, *, rebuilding: bool = False
) -> Taken:
    """Read annotations, claim them, and store what they say, durably.

    rebuilding : the caller sees to it that the store holds what Kafka remembers
    Raises RetryBatch, its kind HistoryLost when the store must be rebuilt first.
    """
    said, rejected = _read_all(messages)
    claims = [claim_of(item) for item in said]
    keys = list(dict.fromkeys(item.annotation.key for item in said))
    opened = store.open(
        claims, [], [pack.curve_key(key) for key in keys], [pack.annotation_key(key) for key in keys]
    )
    if not (opened.rebuilt or rebuilding):
        raise HistoryLost("Redis does not hold what Kafka remembers")
    pairs = list(zip(said, claims, opened.claims, strict=True))
    fresh = [item for item, claim, held in pairs if pack.same_position(claim.value, held)]
    rejected += [
        (item.message, "unreadable_claim", UNREADABLE)
        for item, claim, held in pairs
        if not pack.same_position(claim.value, held) and not pack.sound_claim(held)
    ]
    rejected += [
        (
            item.message,
            "duplicate_changed",
            f"annotation {item.annotation.id} was seen before with other content",
        )
        for item, claim, held in pairs
        if pack.sound_claim(held)
        and not pack.same_position(claim.value, held)
        and not pack.same_content(claim.value, held)
    ]
    additions = additions_for(fresh, keys, opened.curves, opened.gated, max_points)
    if additions and store.append(additions, []).server != opened.server:
        raise RetryBatch("Redis was restarted or emptied while a batch was in flight")
    return Taken(fresh, len(messages) - len(fresh) - len(rejected), rejected)


def claim_of(item: Said) -> Claim:
    """An annotation's claim to be the first of its object and id."""
    message, said = item.message, item.annotation
    digest = hashlib.sha256(message.value).digest()
    value = pack.claim_value(message.topic, message.partition, message.offset, 0, digest)
    name = hashlib.blake2b(said.id.encode(), digest_size=8).digest()  # as long as a diaSourceId
    return Claim(b"claims:{annotation:" + said.key + b"}", name, value)


def additions_for(
    said: Sequence[Said],
    keys: Sequence[bytes],
    curves: Sequence[bytes],
    lines: Sequence[bytes],
    max_points: int,
) -> list[Addition]:
    """What to store of annotations: a line for each, and the forced points that are not there yet.

    keys : the objects;  curves, lines : what the store holds of each
    """
    held = dict(zip(keys, lines, strict=True))
    new: dict[bytes, list[bytes]] = {}
    for item in said:
        words = line(item.annotation, item.message.timestamp_ms)
        if item.annotation.kind != "reevaluate" and words not in held[item.annotation.key]:
            new.setdefault(item.annotation.key, []).append(words)
    found = [addition(key, held[key], words) for key, words in new.items()]
    forced = [item for item in said if item.annotation.points]
    if not forced:
        return found
    stored, number = join_blobs(curves), {key: row for row, key in enumerate(keys)}
    rows = np.array([number[item.annotation.key] for item in forced], dtype=np.int64)
    fresh = group(_forced_points(forced), rows, len(keys))
    return found + additions_of(keys, curves, stored, merge(stored, fresh), max_points)[0]


def due(
    store: HistoryStore,
    said: Sequence[Said],
    fetch: Fetch,
    schemas: SchemaSource,
    at_hand: Sequence[Message],
    *,
    private: bool,
) -> tuple[list[Again], list[tuple[Said, str]]]:
    """The alerts to be judged again, and what nothing can be judged for now, and why.

    at_hand : messages of this batch, which need not be fetched;  private : whether proprietary alerts are too
    Raises RetryBatch.
    """
    if not said:
        return [], []
    seen = visit(store, [(item.annotation.key, item.annotation.survey) for item in said])
    waiting = [(item, NO_ALERT) for item, claim in zip(said, seen.claims, strict=True) if claim is None]
    known = [row for row, claim in enumerate(seen.claims) if claim is not None]
    batches = _decoded_again(seen, known, fetch, schemas, at_hand)
    again: list[Again] = []
    judged: set[int] = set()
    for batch, rows in batches:
        good = [at for at, flags in enumerate(batch.flags.tolist()) if private or not flags & FLAG_PRIVATE]
        if good:
            again.append(_again(seen, [rows[at] for at in good], batch.take(np.array(good)), said))
        judged |= {rows[at] for at in good}
    waiting += [(said[row], NOT_KEPT) for row in known if row not in judged]
    return again, waiting


def _again(seen: Visit, rows: Sequence[int], batch: AlertBatch, said: Sequence[Said]) -> Again:
    known = recalled(seen, np.array(rows, dtype=np.int64), batch)
    at_ms = np.array([said[row].message.timestamp_ms for row in rows], dtype=np.int64)
    return Again(
        known,
        reference_times(known.curves, known.batch.midpoint_mjd_tai),
        [said[row].annotation for row in rows],
        at_ms,
    )


def _decoded_again(
    seen: Visit, rows: Sequence[int], fetch: Fetch, schemas: SchemaSource, at_hand: Sequence[Message]
) -> list[tuple[AlertBatch, list[int]]]:
    """The newest alerts of some objects from their original records: a batch a survey, and which objects.

    A record that is gone, or that cannot be read now, is left out.
    """
    places = {row: pack.claim_position(claim.value) for row in rows if (claim := seen.claims[row])}
    messages = _messages([place[:3] for place in places.values()], fetch, at_hand)
    unreadable = first_unreadable(messages.values(), schemas)
    readable = {
        position: message
        for position, message in messages.items()
        if (message.topic, message.partition) not in unreadable
    }
    number = {position: index for index, position in enumerate(readable)}
    wanted: dict[tuple[int, int, int], list[int]] = {}
    for row, (topic, partition, offset, index) in places.items():
        if (topic, partition, offset) in number:
            place = (number[topic, partition, offset], index, seen.sources[row])
            wanted.setdefault(place, []).append(row)
    found = []
    for batch in decode(list(readable.values()), schemas).batches:
        names = zip(batch.message.tolist(), batch.index.tolist(), batch.dia_source_id.tolist(), strict=True)
        pairs = [(at, row) for at, name in enumerate(names) for row in wanted.get(name, ())]
        if pairs:
            chosen = np.array([at for at, _ in pairs], dtype=np.int64)
            found.append((batch.take(chosen), [row for _, row in pairs]))
    return found


def _messages(
    positions: Sequence[Position], fetch: Fetch, at_hand: Sequence[Message]
) -> dict[Position, Message]:
    here = {(pack.topic_hash(m.topic), m.partition, m.offset): m for m in at_hand}
    wanted = dict.fromkeys(positions)
    found = {position: here[position] for position in wanted if position in here}
    missing = [position for position in wanted if position not in here]
    return found | dict(fetch(missing)) if missing else found


def more_claims(known: Recall, hits: Bools, marks: Sequence[bytes]) -> list[Claim]:
    """The claims of alerts that passed filters they had not passed before, with those noted as well.

    hits : (filters, n);  marks : (filters,) Filter.mark.  A retraction then goes to these filters too.
    """
    values = {(claim.bucket, claim.field): claim.value for claim in known.claims}
    before = dict(values)
    for row, number in zip(*(found.tolist() for found in np.nonzero(hits.T)), strict=True):
        place = (known.claims[row].bucket, known.claims[row].field)
        if marks[number] not in pack.claim_marks(values[place]):
            values[place] += marks[number]
    return [Claim(*place, value) for place, value in values.items() if value != before[place]]


def _read_all(messages: Sequence[Message]) -> tuple[list[Said], list[tuple[Message, str, str]]]:
    said: list[Said] = []
    rejected: list[tuple[Message, str, str]] = []
    for message in messages:
        try:
            said.append(Said(read(message.value), message))
        except AnnotationError as error:
            rejected.append((message, "invalid_annotation", str(error)))
    return said, rejected


def _forced_points(forced: Sequence[Said]) -> LightCurves:
    parts = [item.annotation.forced_points(max(0, item.message.timestamp_ms) // 1000) for item in forced]
    starts = np.concatenate([[0], np.cumsum([len(part) for part in parts])]).astype(np.int64)
    return LightCurves(np.concatenate(parts), starts)


def reads_any(filters: Sequence[CompiledFilter], columns: Sequence[str]) -> Bools:
    """(filters,) those that look at any of some columns."""
    return np.array([not item.columns.isdisjoint(columns) for item in filters], dtype=np.bool_)


def notices(waiting: Sequence[tuple[Said, str]]) -> list[Packet]:
    """What annotators are told whose objects could not be judged now: nothing is lost by it.

    Re-evaluations are not a person's: all of a batch make one notice.
    """
    found = []
    ours: Counter[str] = Counter()
    for item, why in waiting:
        said = item.annotation
        if said.kind == "reevaluate":
            ours[why] += 1
            continue
        text = f"annotation {said.id} ({said.said}): {why}; it takes part in the object's next alert"
        found.append(notice(said.by, f"{said.survey}:{said.object}", "annotation_waits", text))
    for why, count in ours.items():
        text = f"{count} objects could not be judged again: {why}"
        found.append(notice(BROKER, ANNOTATIONS, "annotation_waits", text))
    return found


def requests(survey: str, late: Sequence[Late]) -> list[Packet]:
    """What asks the pipeline itself to judge objects again for which something came late.

    Named by the points that came, so that each case counts once.
    """
    packets = []
    for item in late:
        sources = ",".join(map(str, item.sources))
        name = hashlib.sha256(b"%b/%b" % (item.key, sources.encode())).hexdigest()[:16]
        cause = "; ".join(item.causes)
        said = Annotation(
            name, survey, item.key.decode(), "reevaluate", BROKER, text=shortened(cause, MAX_CAUSE)
        )
        packets.append(Packet(ANNOTATIONS, item.key, said.encode()))
    return packets


def shortened(text: str, length: int) -> str:
    """A text of at most so many characters."""
    return text if len(text) <= length else text[: length - 3] + "..."
