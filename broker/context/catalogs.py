"""A catalogue on disk: a folder of arrays in the order of HEALPix cells, memory-mapped when it is opened.

    manifest.json                 rows, columns, and size and SHA-256 of every other file
    cells.npy ra.npy dec.npy      the positions, as SkyIndex takes them
    column-NNN.npy                a column: float64 or float32, NaN for NULL; int64, the lowest for NULL;
                                  int8 1, 0, -1 for true, false, NULL; int32 codes of texts, -1 for NULL
    column-NNN.text.npy           the texts in UTF-8, one after the other, and in
    column-NNN.starts.npy         where each begins
    footprint.npy                 (k, 2) ranges of cells that the catalogue covers; if absent, the whole sky

Opening reads the manifest and maps the files; a search reads the few pages it needs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from broker.astro.healpix import MAX_ORDER, cells_of
from broker.context.match import SkyIndex
from broker.errors import CatalogError
from broker.table import ColumnSpec, Kind

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

MANIFEST = "manifest.json"
FORMAT = 1
NULL_INTEGER = np.iinfo(np.int64).min
"""The number that stands for NULL in a file of integers."""

POSITION_COLUMNS = (
    ColumnSpec("ra", "deg", "Right ascension of the source (ICRS)"),
    ColumnSpec("dec", "deg", "Declination of the source (ICRS)"),
)
SEPARATION = ColumnSpec("sep_arcsec", "arcsec", "Distance of the source from the alert")


@dataclass(frozen=True)
class StoredColumn:
    """A column on disk.  file : its name without suffix;  source : what it was called in the files added"""

    spec: ColumnSpec
    file: str
    source: str


@dataclass(frozen=True)
class Manifest:
    """What a folder holds.

    columns : besides the position and what a search finds
    files : size in bytes and SHA-256 of each file, by name;  sources : names of the files that were added
    skipped : rows that were left out because they have no position
    """

    rows: int
    columns: tuple[StoredColumn, ...]
    files: Mapping[str, tuple[int, str]]
    sources: tuple[str, ...]
    skipped: int

    @property
    def specs(self) -> tuple[ColumnSpec, ...]:
        """Every column that can be asked for."""
        return (SEPARATION, *POSITION_COLUMNS, *(column.spec for column in self.columns))

    def to_text(self) -> str:
        """As the file has it: the same for the same content."""
        columns = [
            {"name": it.spec.name, "unit": it.spec.unit, "doc": it.spec.doc, "kind": it.spec.kind,
             "file": it.file, "source": it.source}
            for it in self.columns
        ]  # fmt: skip
        files = {name: {"bytes": size, "sha256": digest} for name, (size, digest) in self.files.items()}
        whole = {
            "format": FORMAT, "rows": self.rows, "skipped": self.skipped, "sources": self.sources,
            "columns": columns, "files": files,
        }  # fmt: skip
        return json.dumps(whole, indent=1, sort_keys=True)

    @classmethod
    def from_text(cls, text: str) -> Manifest:
        """From what to_text gives.  Raises ValueError, KeyError or TypeError."""
        whole = json.loads(text)
        if whole["format"] != FORMAT:
            raise ValueError(
                f"format {whole['format']!r} is not {FORMAT}, which this version of the code reads"
            )
        columns = tuple(
            StoredColumn(ColumnSpec(it["name"], it["unit"], it["doc"], it["kind"]), it["file"], it["source"])
            for it in whole["columns"]
        )
        files = {name: (int(it["bytes"]), str(it["sha256"])) for name, it in whole["files"].items()}
        return cls(int(whole["rows"]), columns, files, tuple(whole["sources"]), int(whole["skipped"]))


@dataclass(frozen=True)
class Taken:
    """A column of some rows, of the kinds of ColumnSpec but for integers: zero is a number here.

    values : float64 with NaN for NULL, int64, or int64 codes with -1 for NULL
    null : where integers are NULL;  categories : of codes
    """

    kind: Kind
    values: npt.NDArray[Any]
    null: npt.NDArray[np.bool_]
    categories: tuple[str, ...] = ()


class Catalog:
    """A catalogue that was opened: its files are mapped, and what was asked for of them is read."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self._folder = folder
        self.manifest = manifest
        self._columns = {column.spec.name: column for column in manifest.columns}
        self._arrays = {name: _mapped(folder / name) for name in manifest.files}

    @cached_property
    def index(self) -> SkyIndex:
        """The positions; a row's number is the same in every column."""
        return SkyIndex(self._array("cells"), self._array("ra"), self._array("dec"))

    def covers(self, ra: F64, dec: F64) -> npt.NDArray[np.bool_]:
        """Which positions [deg] are in the footprint; one that is no position is not."""
        cells = cells_of(MAX_ORDER, ra, dec)
        if "footprint.npy" not in self.manifest.files:
            return cells >= 0
        ranges = self._array("footprint")
        place = np.searchsorted(ranges[:, 0], cells, side="right") - 1
        return np.asarray((place >= 0) & (cells < ranges[place, 1]) & (cells >= 0))

    def take(self, name: str, rows: I64) -> Taken:
        """A column of some rows.  rows : (k,), NULL where negative.  Raises KeyError if there is none."""
        null = rows < 0
        at = np.where(null, 0, rows)
        if name in ("ra", "dec"):
            return _floats(getattr(self.index, name), at, null)
        column = self._columns[name]
        array = self._array(column.file)
        match column.spec.kind:
            case "float":
                return _floats(array, at, null)
            case "bool":
                found = _pick(array, at, null, -1)
                return Taken("bool", np.where(found < 0, np.nan, found.astype(np.float64)), found < 0)
            case "int":
                found = _pick(array, at, null, NULL_INTEGER)
                return Taken("int", found, found == NULL_INTEGER)
            case "string":
                return self._texts(column.file, _pick(array, at, null, -1))

    def _texts(self, file: str, codes: npt.NDArray[Any]) -> Taken:
        """Texts of some codes, coded anew, so that only these are read."""
        text, starts = self._array(f"{file}.text"), self._array(f"{file}.starts")
        used = np.unique(codes[codes >= 0])
        names = tuple(bytes(text[starts[code] : starts[code + 1]]).decode() for code in used.tolist())
        return Taken("string", np.where(codes < 0, -1, np.searchsorted(used, codes)), codes < 0, names)

    def _array(self, name: str) -> npt.NDArray[Any]:
        return self._arrays[f"{name}.npy"]

    def check(self) -> None:
        """Read every file whole and compare it with the manifest.  Raises CatalogError."""
        for name, (_, digest) in self.manifest.files.items():
            if file_sha256(self._folder / name) != digest:
                raise CatalogError(f"{self._folder / name} is not what was added; copy it again")


def _mapped(path: Path) -> npt.NDArray[Any]:
    try:
        return np.asarray(np.load(path, mmap_mode="r"))
    except (OSError, ValueError) as error:
        raise CatalogError(f"{path} cannot be read: {error}") from error


def _pick(array: npt.NDArray[Any], at: I64, null: npt.NDArray[np.bool_], missing: int) -> npt.NDArray[Any]:
    """Some values of a column."""
    return np.where(null, missing, array[at])


def _floats(array: npt.NDArray[Any], at: I64, null: npt.NDArray[np.bool_]) -> Taken:
    found = np.where(null, np.nan, array[at].astype(np.float64))
    return Taken("float", found, np.isnan(found))


def open_catalog(folder: Path, sha256: str) -> Catalog:
    """A catalogue in a folder.  Raises CatalogError unless the manifest has the hash and the files are there.

    The files' sizes are compared, not their content: see Catalog.check.
    """
    try:
        text = (folder / MANIFEST).read_bytes()
    except OSError as error:
        raise CatalogError(f"{folder} is not on this machine ({error.strerror}); copy it there") from error
    if hashlib.sha256(text).hexdigest() != sha256:
        raise CatalogError(f"{folder / MANIFEST} is not the one that was added; copy the folder again")
    try:
        manifest = Manifest.from_text(text.decode())
    except (ValueError, KeyError, TypeError) as error:
        raise CatalogError(f"{folder / MANIFEST} cannot be read: {error}") from error
    for name, (size, _) in manifest.files.items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != size:
            raise CatalogError(f"{path} is missing or not {size:,} bytes long; copy the folder again")
    return Catalog(folder, manifest)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
