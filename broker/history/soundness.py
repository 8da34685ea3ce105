"""What a stored value must look like, and what becomes of one that does not: no byte in a store stops us.

The store is a cache of Kafka, so what is damaged can be forgotten. It is copied to `corrupt:<key>` for a
week, counted by kind and logged by its size and hash; then

curve        forgotten: the object starts again from the history in its next packet
annotations  the lines that can be read stay
place        forgotten: it is kept again with the object's next renewal
note         of a withdrawal: told once more, which harms nobody, rather than perhaps never
claim        stays, and every alert that meets it becomes a dead letter `unreadable_claim`. Whoever was first
             with that id, perhaps it is published: to take the alert as fresh might double it, to take it for
             a duplicate might lose it without a word. `broker history rebuild` writes the claims of all that
             was published anew. A claim that still begins with the alert's own position is its own.

Expensive features that are none are not used, and written over: features/gated.py sees to that. A key that
holds another type of thing (a list, say) is set aside as a whole, but in place of claims it stays too. A
value with changed bytes but of the right form cannot be told from a sound one.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from broker.annotations.kept import sound, sound_lines
from broker.astro.bands import BANDS, NO_BAND
from broker.history import pack
from broker.history.base import Claim, Opened, Withdrawal
from broker.lightcurves import KINDS, POINT, Points
from broker.metrics import CORRUPT_VALUES

log = logging.getLogger(__name__)

ASIDE = b"corrupt:"
ASIDE_S = 7 * 86400
"""How long a damaged value is kept for a person to look at."""
MAX_ASIDE_BYTES = 1024 * 1024
"""A larger one is not copied."""
ANY_TIME = 1e10
"""Beyond this [MJD] a time is damage, as surveys/catalog.py has it."""
_LOG_EVERY_S = 60.0
_PLACE_OBJECT_BYTES = 8
_PLACE_BYTES = 16
NO_CLAIM = b"?"
"""Stands for a claim that cannot be asked for: it is as good as a damaged one."""
UNKNOWN_NOTE = bytes(pack.POSITION_BYTES)
"""Stands for a damaged note: a withdrawal of which nobody was told so far."""


@dataclass(frozen=True, slots=True)
class Damage:
    """A stored value that cannot be ours.

    what : its kind;  key, field : where it is, field b"" where it is all of the key
    value : as it is;  instead : what is put in its place, b"" if nothing
    """

    what: str
    key: bytes
    field: bytes
    value: bytes
    instead: bytes = b""

    @property
    def aside(self) -> bytes:
        """The key of its copy, of the same hash slot."""
        return ASIDE + self.key + (b":" + self.field.hex().encode() if self.field else b"")


class DamageAccount:
    """The damaged values that a store met: counted, and logged now and then."""

    def __init__(self) -> None:
        self.met: Counter[str] = Counter()
        self._logged_at: dict[str, float] = {}

    def add(self, damages: Sequence[Damage]) -> None:
        """Count damaged values, and log the first of each kind within a minute."""
        for item in damages:
            self.met[item.what] += 1
            CORRUPT_VALUES.labels(item.what).inc()
            now = time.monotonic()
            if now - self._logged_at.get(item.what, -_LOG_EVERY_S) < _LOG_EVERY_S:
                continue
            self._logged_at[item.what] = now
            log.error("the store's %s", described(item))


def described(item: Damage) -> str:
    """A damaged value for a person, not its content."""
    where = f"{item.key!a} {item.field.hex()}".rstrip()
    digest = hashlib.sha256(item.value).hexdigest()[:16]
    size = f"{len(item.value)} bytes, sha256 {digest}"
    return f"{item.what} at {where} is damaged ({size}); it is set aside as {item.aside!a}"


def damages(
    opened: Opened,
    claims: Sequence[Claim],
    withdrawals: Sequence[Withdrawal],
    keys: Sequence[bytes],
    gated: Sequence[bytes],
) -> list[Damage]:
    """Everything damaged among the answers to a question, each once."""
    found = [Damage("curve", keys[row], b"", opened.curves[row]) for row in damaged_curves(opened.curves)]
    found += [
        Damage("annotations", key, b"", value, sound_lines(value))
        for key, value in zip(gated, opened.gated, strict=True)
        if value and pack.is_annotation_key(key) and not sound(value)
    ]
    found += [
        Damage("claim", claim.bucket, claim.field, held, _restored(claim, held))
        for claim, held in zip(claims, opened.claims, strict=True)
        if held != NO_CLAIM and not pack.sound_claim(held)
    ]
    carried = {(pack.told_bucket(item.bucket), item.field) for item in withdrawals}
    notes = {(pack.told_bucket(it.bucket), it.field): note
             for it, note in zip(claims, opened.withdrawn, strict=True)}  # fmt: skip
    notes |= {(pack.told_bucket(it.bucket), it.field): note
              for it, note in zip(withdrawals, opened.noted, strict=True)}  # fmt: skip
    found += [
        Damage("note", *place, note, b"" if place in carried else UNKNOWN_NOTE)
        for place, note in notes.items()
        if note and not pack.sound_note(note)
    ]
    return list({(item.key, item.field): item for item in found}.values())


def cleaned(opened: Opened, gated: Sequence[bytes]) -> Opened:
    """Answers without what is still damaged (somebody wrote it anew meanwhile); claims stay as they are."""
    curves = list(opened.curves)
    for row in damaged_curves(curves):
        curves[row] = b""
    return replace(
        opened,
        curves=curves,
        withdrawn=[note if pack.sound_note(note) else UNKNOWN_NOTE for note in opened.withdrawn],
        noted=[note if pack.sound_note(note) else b"" for note in opened.noted],
        gated=[
            sound_lines(value) if pack.is_annotation_key(key) else value
            for key, value in zip(gated, opened.gated, strict=True)
        ],
    )


def damaged_curves(blobs: Sequence[bytes]) -> list[int]:
    """The light curves that hold anything but points: a torn one too, for what is appended would be torn."""
    size = POINT.itemsize
    torn = [row for row, blob in enumerate(blobs) if len(blob) % size]
    whole = [blob if len(blob) % size == 0 else b"" for blob in blobs]
    bad = np.flatnonzero(_impossible(np.frombuffer(b"".join(whole), dtype=POINT)))
    if not len(bad):
        return torn
    starts = np.concatenate([[0], np.cumsum([len(blob) // size for blob in whole])])
    rows = np.searchsorted(starts, bad, side="right") - 1
    return sorted({*torn, *rows.tolist()})


def sound_places(place: bytes, found: Mapping[bytes, bytes]) -> tuple[dict[bytes, bytes], list[Damage]]:
    """The objects at a place, and what is none."""
    good = {name: at for name, at in found.items() if _is_place(name, at)}
    bad = [Damage("place", place, name, at) for name, at in found.items() if name not in good]
    return good, bad


def sound_claims(asked: Sequence[tuple[bytes, bytes]], held: Sequence[bytes]) -> list[bytes]:
    """Claims and notes that are only looked at: a damaged claim is none, a damaged note an unknown one."""
    return [_looked_at(bucket, value) for (bucket, _), value in zip(asked, held, strict=True)]


def _looked_at(bucket: bytes, value: bytes) -> bytes:
    if pack.is_told_bucket(bucket):
        return value if not value or pack.sound_note(value) else UNKNOWN_NOTE
    return value if pack.sound_claim(value) else b""


def _restored(claim: Claim, held: bytes) -> bytes:
    """A damaged claim stays, but an alert's own; what is empty would be taken for nothing."""
    return claim.value if pack.same_position(claim.value, held) else held or NO_CLAIM


def _is_place(name: bytes, at: bytes) -> bool:
    return len(name) == _PLACE_OBJECT_BYTES and len(at) == _PLACE_BYTES


def _impossible(points: Points) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """(m,) points that nobody could have written."""
    band = points["band"]
    kind = points["kind"] >= len(KINDS)
    return np.asarray(
        kind | ((band >= len(BANDS)) & (band != NO_BAND)) | ~(np.abs(points["midpoint_mjd_tai"]) < ANY_TIME)
    )
