"""A catalogue of positions as it is stored in `control`: what it has, and whether filters may name it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from broker.errors import CatalogError
from broker.table import ColumnSpec, Kind

CatalogState = Literal["active", "removed"]

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,47}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class StoredCatalog:
    """One revision of a catalogue; the rows themselves are in files of the folder `context.folder`.

    revision : counts the catalogue's from 1; a removal is one too
    sha256 : of the files' manifest, which names the hashes of all others
    columns : what a filter may ask of the nearest source
    at : ISO 8601 time;  by : who stored it;  epoch : offset of the record in `control`, -1 until it is there
    """

    name: str
    revision: int
    sha256: str
    rows: int
    columns: tuple[ColumnSpec, ...]
    state: CatalogState
    description: str
    at: str
    by: str
    epoch: int = -1

    def __post_init__(self) -> None:
        check_name(self.name)
        whole = type(self.revision) is int and type(self.rows) is int
        if (
            not whole
            or not 1 <= self.revision < 2**31
            or self.rows < 0
            or _SHA256.fullmatch(self.sha256) is None
        ):
            raise CatalogError(f"catalogue {self.name}: revision, rows or sha256 are malformed")
        if self.state not in get_args(CatalogState):
            raise CatalogError(f"catalogue {self.name}: {self.state!r} is no state")

    @property
    def label(self) -> str:
        """How people and notices name it."""
        return f"{self.name}/{self.revision}"

    @property
    def folder(self) -> str:
        """The folder of its files, relative to that of all catalogues."""
        return f"{self.name}/{self.revision}-{self.sha256[:8]}"

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {name: value for name, value in asdict(self).items() if name != "epoch"}

    @classmethod
    def from_json(cls, record: Mapping[str, Any], epoch: int = -1) -> StoredCatalog:
        """From what to_json gives.  Raises CatalogError, KeyError or TypeError."""
        columns = tuple(
            ColumnSpec(str(it["name"]), str(it["unit"]), str(it["doc"]), _kind(it["kind"]))
            for it in record["columns"]
        )
        return cls(
            record["name"], record["revision"], record["sha256"], record["rows"], columns, record["state"],
            str(record["description"]), str(record["at"]), str(record["by"]), epoch,
        )  # fmt: skip


def check_name(name: str) -> None:
    """Raise CatalogError for what cannot be a catalogue's name."""
    if not isinstance(name, str) or _NAME.fullmatch(name) is None:
        raise CatalogError(f"{name!r} is no name of a catalogue; use 1 to 48 of a-z, 0-9, '_' and '-'")


def _kind(kind: Any) -> Kind:
    if kind not in get_args(Kind):
        raise CatalogError(f"{kind!r} is no kind of column")
    found: Kind = kind
    return found
