"""The layout of what we keep in Redis, to the byte. Layout version: 2.

`lc:{<key>}`       a string: 32-byte points (broker.lightcurves.POINT, little-endian) one after another
    0  f8 midpoint_mjd_tai   8  i8 source_id   16 f4 psf_flux   20 f4 psf_flux_err
    24 u4 known_at           28 u1 band        29 u1 kind       30 u2 flags
`claims:{<survey>:<bucket>}`  a hash: field = 8 bytes diaSourceId (big-endian), value = 24 bytes
    0  4 bytes of BLAKE2b of the topic's name   4 u2 partition   6 u8 offset   14 u2 index
    16 first 8 bytes of SHA-256 of the record     then the 4-byte mark of each filter that published it
`told:{<survey>:<bucket>}`    a hash, of detections that the survey withdrew: field as above, value = 16 bytes
    0  position, as above, of the first alert that told of the withdrawal   then the claim as it was then
       (nothing if there was none): whom to tell, however often the batch has to be done again
`gated:{<key>}`    a string: u4 how many points of the object were withdrawn when it was written, then the
    expensive features and the count they were computed at, laid out by features/gated.py; that names its own
    list of features, so another list is simply not used
`at:{<survey>:<cell>}`  a hash, of the objects of a survey in a cell of the sky (nested HEALPix, order 13, 26
    arcsec wide): field = 8 bytes diaObjectId (big-endian), value = ra and dec as its alert gave them, f8 each
`surveys`          a set: the surveys of which there are such places
`an:{<key>}`       a string of JSON lines, what was said of the object: see annotations/kept.py
`annotated`        a number that grows whenever one of those strings does
`layout`           the layout version
`corrupt:<key>`    the copy of a value that was none of ours: see soundness.py; for a field of a hash its name
    follows in hexadecimal
`rebuilt:<cluster>` set once the server holds all that the Kafka cluster of this id remembers
`rebuilding:<cluster>` the lock of the one worker that sees to that

Ids of neighbouring exposures share their high bits, so a bucket is the claims of about one exposure, spread
over 32: small enough for Redis to keep it as a compact list, and idle (so expiring) once the night is over.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from broker.history.base import Addition, Claim, Withdrawal
from broker.lightcurves import POINT, Points

LAYOUT_VERSION = b"2"
ANNOTATED = b"annotated"
_ANNOTATION = b"an:{"
_TOLD = b"told"
CLAIM_BYTES = 24
POSITION_BYTES = 16
_MARK_BYTES = 4
_POSITION = struct.Struct(">4sHQH")
_ID = struct.Struct(">q")
_PLACE = struct.Struct("<dd")
_BUCKET_SHIFT = 34
_BUCKET_SPREAD = 31


def curve_key(key: bytes) -> bytes:
    """Redis key of an object's light curve."""
    return b"lc:{" + key + b"}"


def gone_mark(withdrawn: int) -> bytes:
    """What stands before kept features: how many of the object's points were withdrawn by then."""
    return struct.pack("<I", withdrawn)


def serving_gated(value: bytes, mark: bytes) -> bytes:
    """Kept features that still serve, else b"": a withdrawal since then makes them those of another curve."""
    return value[len(mark) :] if value.startswith(mark) else b""


def gated_key(key: bytes) -> bytes:
    """Redis key of an object's expensive features."""
    return b"gated:{" + key + b"}"


def place_key(survey: str, cell: int) -> bytes:
    """Redis key of a survey's objects in a cell of the sky."""
    return b"at:{%s:%x}" % (survey.encode(), cell)


def survey_of_place(place: bytes) -> bytes:
    """The survey in a place's key."""
    return place[4:].partition(b":")[0]


def place_object(dia_object_id: int) -> bytes:
    """The field of an object at its place."""
    return _ID.pack(dia_object_id)


def object_of_place(field: bytes) -> int:
    """The id in such a field."""
    return int(_ID.unpack(field)[0])


def place_position(ra: float, dec: float) -> bytes:
    """Where an object is [deg, ICRS], 16 bytes."""
    return _PLACE.pack(ra, dec)


def position_of_place(value: bytes) -> tuple[float, float]:
    """Right ascension and declination of such a position [deg, ICRS]."""
    ra, dec = _PLACE.unpack(value)
    return ra, dec


def annotation_key(key: bytes) -> bytes:
    """Redis key of what was said of an object."""
    return _ANNOTATION + key + b"}"


def holds_annotations(additions: Sequence[Addition]) -> bool:
    """Whether anything is added to what was said of objects."""
    return any(is_annotation_key(item.key) for item in additions)


def is_annotation_key(key: bytes) -> bool:
    """Whether a key is of what was said of an object."""
    return key.startswith(_ANNOTATION)


def sound_claim(claim: bytes) -> bool:
    """Whether bytes are of the form of a claim, with the marks of any filters."""
    return len(claim) >= CLAIM_BYTES and (len(claim) - CLAIM_BYTES) % _MARK_BYTES == 0


def sound_note(note: bytes) -> bool:
    """Whether bytes are of the form of a note of a withdrawal, or nothing."""
    return len(note) in (0, POSITION_BYTES) or sound_claim(note[POSITION_BYTES:])


def claim_position(claim: bytes) -> tuple[bytes, int, int, int]:
    """Where an alert came from: hash of the topic's name (`topic_hash`), partition, offset, index."""
    topic, partition, offset, index = _POSITION.unpack_from(claim)
    return topic, partition, offset, index


def claim_bucket(survey: str, dia_source_id: int) -> bytes:
    """Redis key of the hash that holds an alert's claim."""
    return b"claims:{%s:%x:%x}" % (
        survey.encode(),
        dia_source_id >> _BUCKET_SHIFT,
        dia_source_id & _BUCKET_SPREAD,
    )


def claim_field(dia_source_id: int) -> bytes:
    """The field of an alert's claim in its bucket."""
    return _ID.pack(dia_source_id)


def claim_value(topic: str, partition: int, offset: int, index: int, record_sha256: bytes) -> bytes:
    """What claims an alert for one position: the position and the content's hash, 24 bytes."""
    return _POSITION.pack(topic_hash(topic), partition, offset, index) + record_sha256[:8]


def same_position(claim: bytes, other: bytes) -> bool:
    """Whether two claims are of one position: then the second is our own retry."""
    return claim[: _POSITION.size] == other[: _POSITION.size]


def same_content(claim: bytes, other: bytes) -> bool:
    """Whether two claims are of records with equal bytes."""
    return claim[_POSITION.size : CLAIM_BYTES] == other[_POSITION.size : CLAIM_BYTES]


def claim_marks(claim: bytes) -> list[bytes]:
    """The tail of a claim: the marks of the filters that published the alert."""
    return [claim[at : at + _MARK_BYTES] for at in range(CLAIM_BYTES, len(claim), _MARK_BYTES)]


def released(
    claims: Sequence[Claim], withdrawals: Sequence[Withdrawal]
) -> list[tuple[tuple[bytes, bytes], bytes]]:
    """What to take back where it begins with a position: ((hash, field), position)."""
    notes = [(Claim(told_bucket(it.bucket), it.field, it.carrier.value)) for it in withdrawals]
    return [((it.bucket, it.field), it.value[:POSITION_BYTES]) for it in (*claims, *notes)]


def told_bucket(claim_bucket: bytes) -> bytes:
    """Redis key of the hash that says who first told of the withdrawal of a bucket's detections."""
    return _TOLD + claim_bucket.removeprefix(b"claims")


def is_told_bucket(bucket: bytes) -> bool:
    """Whether a hash holds notes of withdrawals, not claims."""
    return bucket.startswith(_TOLD)


def unpack_points(blob: bytes) -> Points:
    """The points of a stored light curve; a torn tail (never written by us) is dropped."""
    return np.frombuffer(blob, dtype=POINT, count=len(blob) // POINT.itemsize)


@lru_cache(maxsize=4096)
def topic_hash(topic: str) -> bytes:
    """Four bytes that stand for a topic's name in a claim."""
    return hashlib.blake2b(topic.encode(), digest_size=4).digest()
