"""The history stage: which alerts are new, and what was known of their objects up to each of them."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numba
import numpy as np
import numpy.typing as npt

from broker.batch import SS_ASSOCIATED, AlertBatch
from broker.config import HistorySettings
from broker.errors import HistoryLost
from broker.history import late, pack
from broker.history.base import Addition, Claim, HistoryStore, Kept, Opened, Stored, Withdrawal
from broker.history.late import Late, late_news
from broker.history.merge import Merged, as_known, group, join_blobs, merge, wants_compaction
from broker.lightcurves import (
    DETECTION,
    FLAG_OWN,
    FLAG_WITHDRAWN,
    I64,
    POINT,
    LightCurves,
    Points,
)

Bools = npt.NDArray[np.bool_]
RENEWAL_S = 30 * 86400
"""How long a light curve may go on being touched before its time to live starts anew."""


@dataclass(frozen=True)
class Dedupe:
    """What the claims say of a batch: an alert is fresh, a duplicate, or a duplicate with other content.

    fresh, changed, unreadable : (n,);  an alert that is none of these is a plain duplicate
    unreadable : what the store holds as the claim is damaged, so it may be any of the others
    claims : each alert's own claim;  record_sha256 : hexadecimal digests of the records
    """

    fresh: Bools
    changed: Bools
    unreadable: Bools
    claims: list[Claim]
    record_sha256: list[bytes]


@dataclass(frozen=True, slots=True)
class Told:
    """A detection that the survey withdrew, as a fresh alert of the batch is the first to say.

    row : that alert;  point : (1,) the detection as it says
    claim : the detection's own claim as it was then, empty if there was none: nobody knows of an alert
    """

    row: int
    point: Points
    claim: bytes


@dataclass(frozen=True)
class Recall:
    """A batch's fresh alerts with their light curves, and what the store must still be told.

    keys : (n,) history keys, also the Kafka keys of what is published
    curves : n light curves, points up to each alert's own midpoint;  history_incomplete : (n,)
    withdrawals : detections taken back;  withdrawn : (n,) notes of withdrawals that came before their alert
    late_points : points older than the newest of their object that was stored
    gated : (n,) the expensive features kept of each alert's object, b"" if none serve
    gone : (n,) how many points of the object were withdrawn so far, as it stands before kept features
    surveys : those of which the store knows objects' places
    said : (n,) the annotations of each alert's object (annotations/kept.py), b"" if there are none
    annotated : as in Opened
    late : objects whose newest alert was judged before, and is to be judged again
    """

    batch: AlertBatch
    keys: list[bytes]
    record_sha256: list[bytes]
    claims: list[Claim]
    curves: LightCurves
    history_incomplete: Bools
    additions: list[Addition]
    server: str
    dropped_points: int
    late_points: int
    withdrawals: list[Told]
    withdrawn: list[bytes]
    gated: list[bytes]
    gone: list[bytes]
    surveys: frozenset[str]
    said: list[bytes]
    annotated: bytes
    late: list[Late]


def history_keys(batch: AlertBatch) -> list[bytes]:
    """Each alert's object: its diaObject, else its solar-system object, else the detection alone.

    Id 0 means there is none and is never a key: it would merge strangers.
    """
    survey = batch.survey.encode()
    rows = zip(
        batch.dia_object_id.tolist(), batch.ss_object_id.tolist(), batch.dia_source_id.tolist(), strict=True
    )
    return [
        b"%s:%d" % (survey, dia_object)
        if dia_object
        else (b"ss:%d" % ss_object if ss_object else b"src:%d" % source)
        for dia_object, ss_object, source in rows
    ]


def recall(store: HistoryStore, batch: AlertBatch, settings: HistorySettings) -> tuple[Dedupe, Recall]:
    """Open a batch: one round trip to the store, then everything in memory.

    Raises RetryBatch, its kind HistoryLost when the store must be rebuilt first.
    """
    digests = [hashlib.sha256(record) for record in batch.records]
    claims = _claims(batch, [digest.digest() for digest in digests])
    keys = history_keys(batch)
    also = _solar_system_rows(batch, keys)
    asked = list(dict.fromkeys([*keys, *(key for _, key in also)]))
    carriers, taken_back = _withdrawn_points(batch)
    withdrawals = _withdrawals(batch.survey, claims, carriers, taken_back)
    own = list(dict.fromkeys(keys))
    opened = store.open(
        claims,
        withdrawals,
        [pack.curve_key(key) for key in asked],
        [name(key) for name in (pack.gated_key, pack.annotation_key) for key in own],
    )
    if not opened.rebuilt:
        raise HistoryLost("Redis does not hold what Kafka remembers")
    dedupe = _judge_claims(claims, opened.claims, [digest.hexdigest().encode() for digest in digests])
    fresh = np.flatnonzero(dedupe.fresh)
    also = [(row, key) for row, key in also if dedupe.fresh[row]]
    number = {key: index for index, key in enumerate(asked)}
    rows = np.array([number[keys[row]] for row in fresh], dtype=np.int64)
    new = _points_by_key(batch, fresh, rows, [(row, number[key]) for row, key in also], len(asked))
    stored = join_blobs(opened.curves)
    merged = merge(stored, new)
    additions, dropped = additions_of(asked, opened.curves, stored, merged, settings.max_points)
    kept = batch if len(fresh) == len(batch) else batch.take(fresh)
    curves = as_known(merged.curves, rows, kept.midpoint_mjd_tai)
    gated = dict(zip(own, opened.gated, strict=False))
    said = dict(zip(own, opened.gated[len(own) :], strict=True))
    told = _first_told(withdrawals, opened, fresh, carriers, taken_back)
    news = late_news(
        asked,
        rows,
        kept,
        stored,
        merged.curves,
        np.array(opened.retried, dtype=np.bool_)[fresh],
        [(item.row, int(item.point["source_id"][0])) for item in told],
    )
    gone = withdrawn_counts(merged)
    gone_of_row = [gone[row] for row in rows.tolist()]
    return dedupe, Recall(
        kept,
        [keys[row] for row in fresh],
        [dedupe.record_sha256[row] for row in fresh],
        [claims[row] for row in fresh],
        curves,
        begins_midlife(curves.points, curves.starts),
        additions,
        opened.server,
        dropped,
        merged.late,
        told,
        [opened.withdrawn[row] for row in fresh],
        [
            pack.serving_gated(gated[keys[row]], mark)
            for row, mark in zip(fresh.tolist(), gone_of_row, strict=True)
        ],
        gone_of_row,
        opened.surveys,
        [said[keys[row]] for row in fresh],
        opened.annotated,
        news,
    )


def release(store: HistoryStore, batch: AlertBatch) -> None:
    """Take back what alerts claimed that cannot be judged: they can be sent again.  Raises RetryBatch.

    A withdrawal of which one of them was the first to tell is told by the next that does.
    """
    claims = _claims(batch, [hashlib.sha256(record).digest() for record in batch.records])
    store.release(claims, _withdrawals(batch.survey, claims, *_withdrawn_points(batch)))


def newest_gated(recall: Recall, values: Sequence[bytes]) -> list[Kept]:
    """What to keep of expensive features computed anew: of each object those of its latest alert.

    values : (n,) b"" where nothing was computed
    """
    order = np.argsort(recall.batch.midpoint_mjd_tai, kind="stable").tolist()
    latest = {recall.keys[row]: recall.gone[row] + values[row] for row in order if values[row]}
    return [Kept(pack.gated_key(key), value) for key, value in latest.items()]


def withdrawn_counts(merged: Merged) -> list[bytes]:
    """Of each key how many of its points are withdrawn, as `pack.serving_gated` compares it."""
    flags = merged.kept["flags"] & FLAG_WITHDRAWN != 0
    seen = np.concatenate([[0], np.cumsum(flags)])
    return [pack.gone_mark(count) for count in np.diff(seen[merged.kept_starts]).tolist()]


def claims_with_filters(recall: Recall, hits: Bools, marks: Sequence[bytes]) -> list[Claim]:
    """The claims of the alerts that passed a filter, with those filters noted: a retraction's addresses.

    hits : (filters, n);  marks : (filters,) Filter.mark
    """
    rows, passed = np.nonzero(hits.T)
    tails: dict[int, bytes] = {}
    for row, number in zip(rows.tolist(), passed.tolist(), strict=True):
        tails[row] = tails.get(row, b"") + marks[number]
    claims = recall.claims
    return [Claim(claims[r].bucket, claims[r].field, claims[r].value + tail) for r, tail in tails.items()]


def withdrawn_meanwhile(recall: Recall, claims: Sequence[Claim], notes: Sequence[bytes]) -> bool:
    """Whether another worker told of the withdrawal of one of these alerts since the batch was opened.

    It did not see yet which filters publish the alert, and the batch did not see that they are to be told.
    claims : as overwritten;  notes : of their withdrawals
    """
    known = {claim.field for claim, note in zip(recall.claims, recall.withdrawn, strict=True) if note}
    return any(note and claim.field not in known for claim, note in zip(claims, notes, strict=True))


def annotated_meanwhile(store: HistoryStore, recall: Recall, stored: Stored) -> bool:
    """Whether something was said of an object of the batch after the batch was opened."""
    if stored.annotated == recall.annotated:
        return False
    keys = list(dict.fromkeys(recall.keys))
    now = dict(zip(keys, store.open([], [], [], [pack.annotation_key(k) for k in keys]).gated, strict=True))
    return any(now[key] != said for key, said in zip(recall.keys, recall.said, strict=True))


def additions_of(
    keys: Sequence[bytes], blobs: Sequence[bytes], stored: LightCurves, merged: Merged, max_points: int
) -> tuple[list[Addition], int]:
    """What to store of each key, and how many old points had to be dropped to stay below the cap."""
    additions: list[Addition] = []
    dropped = 0
    stored_counts, kept_counts = np.diff(stored.starts).tolist(), np.diff(merged.kept_starts).tolist()
    renew = _renewals(stored, merged).tolist()
    bounds = merged.added_starts.tolist()
    added, size = merged.added.tobytes(), POINT.itemsize
    for row in np.flatnonzero(np.diff(merged.added_starts)).tolist():
        key = pack.curve_key(keys[row])
        total = stored_counts[row] + bounds[row + 1] - bounds[row]
        if kept_counts[row] > max_points or wants_compaction(total, kept_counts[row]):
            kept = merged.kept[merged.kept_starts[row] : merged.kept_starts[row + 1]]
            newest = np.argsort(kept["midpoint_mjd_tai"], kind="stable")[-max_points:]
            dropped += len(kept) - len(newest)
            additions.append(Addition(key, kept[np.sort(newest)].tobytes(), len(blobs[row])))
        else:
            points = added[bounds[row] * size : bounds[row + 1] * size]
            additions.append(Addition(key, points, renew=renew[row]))
    return additions, dropped


def _renewals(stored: LightCurves, merged: Merged) -> Bools:
    """(k,) light curves whose time to live must start anew: new ones, and the first touched in a period."""
    before = _newest_known(stored.points, stored.starts)
    after = _newest_known(merged.added, merged.added_starts)
    return np.asarray((before == 0) | (before // RENEWAL_S < after // RENEWAL_S), dtype=np.bool_)


def outcome_counts(dedupe: Dedupe) -> Counter[str]:
    """How many alerts were fresh, changed and plain duplicates; claims of the others cannot be read."""
    fresh, changed = int(dedupe.fresh.sum()), int(dedupe.changed.sum())
    plain = len(dedupe.fresh) - fresh - changed - int(dedupe.unreadable.sum())
    return Counter(fresh=fresh, changed=changed, duplicate=plain)


def warm_up() -> None:
    """Compile (or load from the cache) the kernels of this file."""
    late.warm_up()
    one = np.zeros(1, dtype=POINT)
    begins_midlife(one, np.array([0, 1]))
    _newest_known(one, np.array([0, 1]))
    _newest_known(np.frombuffer(one.tobytes(), dtype=POINT), np.array([0, 1]))


def _withdrawn_points(batch: AlertBatch) -> tuple[I64, Points]:
    """Detections of earlier alerts that the batch's packets say were taken back, and which packet says so."""
    points = batch.points.points
    flags = points["flags"] & (FLAG_WITHDRAWN | FLAG_OWN)
    index = np.flatnonzero((flags == FLAG_WITHDRAWN) & (points["kind"] == DETECTION))
    return np.searchsorted(batch.points.starts, index, side="right") - 1, points[index]


def _withdrawals(survey: str, claims: Sequence[Claim], carriers: I64, points: Points) -> list[Withdrawal]:
    return [
        Withdrawal(
            pack.claim_bucket(survey, source),
            pack.claim_field(source),
            claims[row],
        )
        for row, source in zip(carriers.tolist(), points["source_id"].tolist(), strict=True)
    ]


def _first_told(
    withdrawals: Sequence[Withdrawal], opened: Opened, fresh: I64, carriers: I64, points: Points
) -> list[Told]:
    """The withdrawals whose note in force is a fresh alert's of this batch: each once, for good."""
    number = {row: index for index, row in enumerate(fresh.tolist())}
    told: dict[bytes, Told] = {}
    for at, (item, note) in enumerate(zip(withdrawals, opened.noted, strict=True)):
        row = number.get(int(carriers[at]))
        if row is not None and pack.same_position(note, item.carrier.value):
            told.setdefault(item.field, Told(row, points[at : at + 1], note[pack.POSITION_BYTES :]))
    return list(told.values())


def _claims(batch: AlertBatch, digests: Sequence[bytes]) -> list[Claim]:
    rows = zip(
        batch.dia_source_id.tolist(), batch.message.tolist(), batch.index.tolist(), digests, strict=True
    )
    return [
        Claim(
            pack.claim_bucket(batch.survey, source),
            pack.claim_field(source),
            pack.claim_value(message.topic, message.partition, message.offset, index, digest),
        )
        for source, number, index, digest in rows
        for message in [batch.messages[number]]
    ]


def _judge_claims(claims: Sequence[Claim], held: Sequence[bytes], digests: list[bytes]) -> Dedupe:
    fresh = np.array(
        [pack.same_position(c.value, h) for c, h in zip(claims, held, strict=True)], dtype=np.bool_
    )
    same = np.array(
        [pack.same_content(c.value, h) for c, h in zip(claims, held, strict=True)], dtype=np.bool_
    )
    unreadable = ~fresh & ~np.array([pack.sound_claim(h) for h in held], dtype=np.bool_)
    return Dedupe(fresh, ~fresh & ~same & ~unreadable, unreadable, list(claims), digests)


def _solar_system_rows(batch: AlertBatch, keys: Sequence[bytes]) -> list[tuple[int, bytes]]:
    """(row, second key) of detections that belong to a solar-system object as well as to a place."""
    rows = np.flatnonzero((batch.solar_system_status == SS_ASSOCIATED) & (batch.ss_object_id != 0))
    seconds = [(int(row), b"ss:%d" % int(batch.ss_object_id[row])) for row in rows]
    return [(row, key) for row, key in seconds if key != keys[row]]


def _points_by_key(
    batch: AlertBatch, fresh: I64, rows: I64, also: Sequence[tuple[int, int]], keys: int
) -> LightCurves:
    """Points the fresh alerts bring, by key; a second key gets the detection alone, not its place's past."""
    packets = batch.points if len(fresh) == len(batch) else batch.points.take(fresh)
    if not also:
        return group(packets, rows, keys)
    own = batch.points.points[batch.points.starts[[row for row, _ in also]]]
    lengths = np.concatenate([np.diff(packets.starts), np.ones(len(also), dtype=np.int64)])
    together = LightCurves(
        np.concatenate([packets.points, own]), np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    )
    return group(together, np.concatenate([rows, [key for _, key in also]]).astype(np.int64), keys)


@numba.njit(cache=True, nogil=True)
def begins_midlife(points, starts):  # type: ignore[no-untyped-def]
    """Whether the earliest detection known is a packet's copy: we did not see that alert ourselves."""
    result = np.zeros(len(starts) - 1, dtype=np.bool_)
    for row in range(len(starts) - 1):
        for k in range(starts[row], starts[row + 1]):
            if points[k].kind == DETECTION:
                result[row] = (points[k].flags & FLAG_OWN) == 0
                break
    return result


@numba.njit(cache=True, nogil=True)
def _newest_known(points, starts):  # type: ignore[no-untyped-def]
    """The latest `known_at` of each row, 0 if it has no point."""
    result = np.zeros(len(starts) - 1, dtype=np.int64)
    for row in range(len(starts) - 1):
        for k in range(starts[row], starts[row + 1]):
            result[row] = max(result[row], np.int64(points[k].known_at))
    return result
