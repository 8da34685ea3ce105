"""Watchlists and regions as they are stored in `control`: a small head, and its contents in parts.

The contents of a list may be larger than a message, so they are cut into parts whose keys hold the SHA-256
of the whole. Parts are written first and the head last: an upload that broke off leaves parts that no head
names. Each head is a revision of its own, removal too, so that what a name stood for at an older epoch stays
known.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from broker.errors import ListError
from broker.filter import check_name
from broker.text import whole

ListKind = Literal["watchlist", "region"]
LIST_KINDS: tuple[ListKind, ...] = get_args(ListKind)
ListState = Literal["active", "removed"]

BLOB = "blob"
_SHA256 = re.compile(r"[0-9a-f]{64}")
PART_BYTES = 8 * 1024 * 1024
"""Of a part; in base64 a third more, which leaves room in the 17 MiB of a message."""
MAX_PARTS = 32
MAX_UNPACKED_BYTES = 1024 * 1024 * 1024
MAX_DESCRIPTION = 2000

Parts = Mapping[int, bytes]
"""Values of the records that hold a blob's parts, as they came, by number from 0."""
Arrays = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class StoredList:
    """One revision of a watchlist or a region.

    revision : counted from 1;  form : 'positions', 'moc' or 'sky map'
    sha256, size, parts : of the packed contents; '' and 0 where it is removed
    rows : positions, ranges or cells;  radius_arcsec : of an entry that gives none, NaN for a region
    area_deg2 : of a MOC, or by credible level as text of a sky map;  notes : what people should know of it
    at : ISO 8601 time;  by : who wrote it
    """

    kind: ListKind
    name: str
    revision: int
    owner: str
    form: str
    sha256: str
    size: int
    parts: int
    rows: int
    description: str = ""
    radius_arcsec: float | None = None
    area_deg2: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    state: ListState = "active"
    at: str = ""
    by: str = ""

    def __post_init__(self) -> None:
        if (
            self.kind not in LIST_KINDS
            or self.state not in get_args(ListState)
            or not 1 <= self.revision < 2**31
        ):
            raise ListError(
                f"revision {self.revision} of a {self.kind!r} in state {self.state!r} is not known here"
            )
        check_name(f"{self.kind} name", self.name)
        check_name("owner", self.owner)
        if len(self.description) > MAX_DESCRIPTION:
            raise ListError(f"a description of {len(self.description)} characters; at most {MAX_DESCRIPTION}")
        numbers = [*self.area_deg2.values(), self.radius_arcsec or 0.0]
        if not all(map(math.isfinite, numbers)) or min(self.size, self.rows) < 0:
            raise ListError("sizes, areas and a radius must be finite, and not below 0")
        if not 0 <= self.parts <= MAX_PARTS:
            raise ListError(f"contents in {self.parts} parts; at most {MAX_PARTS} are read")

    @property
    def label(self) -> str:
        """How a message names this revision."""
        return f"{self.kind} {self.name} revision {self.revision}"

    def to_json(self) -> dict[str, Any]:
        """As a JSON object, names in camelCase."""
        record = asdict(self)
        for ours, theirs in _CAMEL.items():
            record[theirs] = record.pop(ours)
        return record

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> StoredList:
        """From what to_json gives; what a later version adds is ignored.

        Raises ListError, FilterError, ValueError, KeyError, AttributeError or TypeError.
        """
        radius = record.get("radiusArcsec")
        return cls(
            kind=record["kind"],
            name=str(record["name"]),
            revision=whole(record["revision"]),
            owner=str(record["owner"]),
            form=str(record["form"]),
            sha256=str(record["sha256"]),
            size=whole(record["size"]),
            parts=whole(record["parts"]),
            rows=whole(record["rows"]),
            description=str(record.get("description", "")),
            radius_arcsec=None if radius is None else float(radius),
            area_deg2={str(level): float(area) for level, area in record.get("areaDeg2", {}).items()},
            notes=tuple(str(note) for note in record.get("notes", ())),
            state=record["state"],
            at=str(record.get("at", "")),
            by=str(record.get("by", "")),
        )


_CAMEL = {"radius_arcsec": "radiusArcsec", "area_deg2": "areaDeg2"}


def list_record(item: StoredList) -> tuple[bytes, bytes]:
    """Key and value of a revision's control record."""
    return f"{item.kind}/{item.name}/{item.revision}".encode(), json.dumps(item.to_json()).encode()


def blob_records(content: bytes) -> tuple[str, list[tuple[bytes, bytes]]]:
    """SHA-256 of some packed contents, and keys and values of the records of its parts.  Raises ListError."""
    pieces = [content[start : start + PART_BYTES] for start in range(0, len(content), PART_BYTES)]
    if len(pieces) > MAX_PARTS:
        raise ListError(
            f"{len(content):,} bytes when packed; at most {MAX_PARTS * PART_BYTES:,} can be stored: use a "
            "catalogue, or leave the faintest part out"
        )
    name = hashlib.sha256(content).hexdigest()
    return name, [(blob_key(name, part), _part_value(piece)) for part, piece in enumerate(pieces)]


def blob_key(sha256: str, part: int) -> bytes:
    """Key of the control record of one part."""
    return f"{BLOB}/{sha256}/{part}".encode()


def blob_place(key: bytes) -> tuple[str, int]:
    """Which part of which blob a key is of.  Raises ValueError."""
    _, sha256, part = key.decode().split("/")
    if _SHA256.fullmatch(sha256) is None or not part.isdecimal() or not 0 <= int(part) < MAX_PARTS:
        raise ValueError("the key of a part is blob/<sha256>/<number>")
    return sha256, int(part)


def purged_record(sha256: str, part: int) -> tuple[bytes, bytes]:
    """Key and value of the control record that takes the place of a part which is to be forgotten."""
    return blob_key(sha256, part), json.dumps({"purged": True}).encode()


def _part_value(piece: bytes) -> bytes:
    return json.dumps({"bytes": base64.b64encode(piece).decode()}).encode()


def content_of(item: StoredList, blobs: Mapping[str, Parts]) -> bytes:
    """The packed contents of a revision, put together and checked.  Raises ListError."""
    parts = blobs.get(item.sha256, {})
    missing = [part for part in range(item.parts) if part not in parts]
    if missing:
        raise ListError(f"{len(missing)} of its {item.parts} parts are not in the control topic")
    try:
        pieces = [_piece(parts[part]) for part in range(item.parts)]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ListError(f"a part of it cannot be read: {error}") from None
    content = b"".join(pieces)
    if hashlib.sha256(content).hexdigest() != item.sha256:
        raise ListError("its contents are not those that were stored: the SHA-256 differs")
    return content


def _piece(value: bytes) -> bytes:
    record = json.loads(value)
    if "purged" in record:
        raise ListError("its contents were purged")
    return base64.b64decode(record["bytes"], validate=True)


# --- arrays --------------------------------------------------------------------------------------------


def pack_arrays(arrays: Arrays) -> bytes:
    """One-dimensional arrays of numbers as compressed bytes; the same arrays give the same bytes."""
    about = [(name, item.dtype.str, len(item)) for name, item in arrays.items()]
    head = json.dumps(about).encode()
    squeeze = zlib.compressobj(6)
    pieces = [squeeze.compress(len(head).to_bytes(4, "little") + head)]
    pieces += [squeeze.compress(_shuffled(item)) for item in arrays.values()]
    return b"".join([*pieces, squeeze.flush()])


def unpack_arrays(content: bytes, names: Sequence[str]) -> dict[str, npt.NDArray[Any]]:
    """The arrays that were packed; all that are named must be there.  Raises ListError."""
    try:
        found = dict(_unpacked(content))
    except (zlib.error, ValueError, KeyError, TypeError) as error:
        raise ListError(f"its contents cannot be unpacked: {error}") from None
    if missing := [name for name in names if name not in found]:
        raise ListError(
            f"its contents have no {missing[0]!r}; was it stored by another version of the broker?"
        )
    return found


def _unpacked(content: bytes) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    squeeze = zlib.decompressobj()
    plain = squeeze.decompress(content, MAX_UNPACKED_BYTES)
    if not squeeze.eof:
        raise ValueError("they are cut, or larger than a list may be")
    start = 4 + int.from_bytes(plain[:4], "little")
    for name, kind, length in json.loads(plain[4:start]):
        dtype = np.dtype(kind)
        if dtype.kind not in "fiu":
            raise ValueError(f"an array of {dtype}")
        end = start + dtype.itemsize * length
        planes = np.frombuffer(plain[start:end], dtype=np.uint8).reshape(dtype.itemsize, length)
        yield name, np.ascontiguousarray(planes.T).view(dtype).reshape(length)
        start = end


def _shuffled(array: npt.NDArray[Any]) -> bytes:
    """The first bytes of all numbers, then the second: neighbours that are alike compress better."""
    columns = np.ascontiguousarray(array).view(np.uint8).reshape(len(array), array.dtype.itemsize)
    return columns.T.tobytes()
