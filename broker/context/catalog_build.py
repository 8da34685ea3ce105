"""Makes the folder of a catalogue: reads tables in chunks, sorts their rows by HEALPix cell, writes arrays.

Columns of numbers are first written as they come, then brought into order one at a time, so that what is in
memory at once is the order of the rows and one column; texts are kept in memory, each distinct one of a chunk
once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from broker.astro.healpix import MAX_ORDER, cells_of
from broker.context.catalog_files import Chunk, Position, SourceColumn, TableFile, find_position, renamed
from broker.context.catalogs import (
    MANIFEST,
    POSITION_COLUMNS,
    SEPARATION,
    Manifest,
    StoredColumn,
    file_sha256,
)
from broker.errors import CatalogError
from broker.table import ColumnSpec

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

_GATHERED = 2_000_000
"""Rows that are brought into order at once."""


@dataclass(frozen=True)
class Chosen:
    """What of some tables becomes a catalogue.

    columns : of the files, by the name that filters write
    """

    tables: Sequence[TableFile]
    position: Position
    columns: dict[str, SourceColumn]

    @property
    def rows(self) -> int:
        """Rows of all tables."""
        return sum(table.rows for table in self.tables)


def choose(
    tables: Sequence[TableFile], ra: str = "", dec: str = "", columns: Sequence[str] | None = None
) -> Chosen:
    """What to take of some tables, which must have the same columns.  Raises CatalogError.

    ra, dec : the columns of the position; '' finds them;  columns : names in the files, None for all
    """
    position = find_position(tables[0], ra, dec)
    first = {column.name: column for column in tables[0].columns}
    where = {position.ra.name, position.dec.name}
    unknown = [name for name in columns or () if name not in first]
    if unknown:
        raise CatalogError(f"{tables[0].path} has no column {unknown[0]!r}; it has {', '.join(first)}")
    wanted = [first[name] for name in (first if columns is None else columns) if name not in where]
    for table in tables[1:]:
        kinds = {column.name: column.kind for column in table.columns}
        for name in [*where, *(column.name for column in wanted)]:
            if kinds.get(name) != first[name].kind:
                raise CatalogError(
                    f"{table.path}: column {name!r} is {kinds.get(name, 'missing')}, in {tables[0].path} "
                    f"it is {first[name].kind}; add files of one table"
                )
    taken = [SEPARATION.name, *(spec.name for spec in POSITION_COLUMNS)]
    return Chosen(tables, position, renamed(wanted, taken))


def build(
    chosen: Chosen,
    folder: Path,
    footprint: I64 | None = None,
    say: Callable[[int], None] = lambda rows: None,
) -> tuple[Manifest, str]:
    """Write a catalogue into an empty folder; its manifest and that file's SHA-256.

    footprint : (k, 2) ascending ranges of cells of order 29 that the catalogue covers; None for the whole sky
    say : told how many more rows were read.  Raises CatalogError.
    """
    raw = _Raw(folder, chosen)
    skipped = raw.read(say)
    order = _ordered_positions(folder)
    for number, (name, column) in enumerate(chosen.columns.items()):
        raw.finish(name, column, f"column-{number:03}", order)
    if footprint is not None:
        np.save(folder / "footprint.npy", footprint)
    stored = tuple(
        StoredColumn(ColumnSpec(name, it.unit, it.doc, it.kind), f"column-{number:03}", it.name)
        for number, (name, it) in enumerate(chosen.columns.items())
    )
    files = {path.name: (path.stat().st_size, file_sha256(path)) for path in sorted(folder.glob("*.npy"))}
    sources = tuple(table.path.name for table in chosen.tables)
    manifest = Manifest(len(order), stored, files, sources, skipped)
    text = manifest.to_text().encode()
    (folder / MANIFEST).write_bytes(text)
    return manifest, hashlib.sha256(text).hexdigest()


@dataclass
class _Texts:
    """The texts of a column as they come, each distinct one of a chunk once."""

    chunks: list[pa.Array] = field(default_factory=list)

    def add(self, texts: pa.Array, good: npt.NDArray[np.bool_]) -> None:
        """Take those rows of a chunk that are good."""
        self.chunks.append(texts.filter(pa.array(good)).dictionary_encode())

    def save(self, folder: Path, file: str) -> npt.NDArray[np.int32]:
        """Write the distinct texts in alphabetical order; which of them each row has, -1 where NULL."""
        whole = pa.chunked_array(self.chunks).unify_dictionaries()
        distinct = whole.chunk(0).dictionary
        order = pc.sort_indices(distinct).to_numpy()
        places = np.full(len(order) + 1, -1, dtype=np.int32)
        places[order] = np.arange(len(order), dtype=np.int32)
        starts, text = _bytes_of(distinct.take(pa.array(order)))
        np.save(folder / f"{file}.text.npy", text)
        np.save(folder / f"{file}.starts.npy", starts)
        numbers = [pc.fill_null(chunk.indices, len(order)).to_numpy() for chunk in whole.chunks]
        return np.asarray(places[np.concatenate(numbers)])


def _bytes_of(texts: pa.Array) -> tuple[I64, npt.NDArray[np.uint8]]:
    """Where each text begins in all of them together, and these."""
    _, offsets, data = texts.buffers()
    starts = np.frombuffer(offsets, np.int64)[texts.offset : texts.offset + len(texts) + 1]
    text = np.frombuffer(data or b"", np.uint8)[starts[0] : starts[-1]]
    # at least one byte: an empty file cannot be mapped
    return starts - starts[0], text if len(text) else np.zeros(1, np.uint8)


class _Raw:
    """The columns of all tables in the order of the files, as plain numbers in files of their own."""

    def __init__(self, folder: Path, chosen: Chosen) -> None:
        self._folder, self._chosen = folder, chosen
        self._types: dict[str, np.dtype[Any]] = {}
        self._texts = {name: _Texts() for name, it in chosen.columns.items() if it.kind == "string"}

    def read(self, say: Callable[[int], None]) -> int:
        """Write what the tables have; returns how many rows were left out because they have no position."""
        skipped = 0
        position = self._chosen.position
        names = {position.ra.name, position.dec.name, *(it.name for it in self._chosen.columns.values())}
        wanted = sorted(names)
        files: dict[str, BinaryIO] = {}
        try:
            for table in self._chosen.tables:
                for chunk in table.chunks(wanted):
                    skipped += self._append(chunk, files)
                    say(len(chunk[position.ra.name]))
        finally:
            for file in files.values():
                file.close()
        if "cells" not in self._types:
            raise CatalogError(f"{self._chosen.tables[0].path} has no row with a position")
        return skipped

    def _append(self, chunk: Chunk, files: dict[str, BinaryIO]) -> int:
        ra, dec = self._chosen.position.degrees(chunk)
        ra = ra % 360.0
        cells = cells_of(MAX_ORDER, ra, dec)
        good = cells >= 0
        if good.any():
            for name, values in (("cells", cells), ("ra", ra), ("dec", dec)):
                self._write(name, values[good], files)
            for name, column in self._chosen.columns.items():
                if column.kind == "string":
                    self._texts[name].add(chunk[column.name], good)
                else:
                    self._write(f"column {name}", chunk[column.name][good], files)
        return int((~good).sum())

    def _write(self, name: str, values: npt.NDArray[Any], files: dict[str, BinaryIO]) -> None:
        if name not in files:
            files[name] = (self._folder / f"{name}.raw").open("wb")
            self._types[name] = values.dtype
        values.astype(self._types[name], copy=False).tofile(files[name])

    def finish(self, name: str, column: SourceColumn, file: str, order: I64) -> None:
        """Bring a column into order, and remove its first form."""
        if column.kind == "string":
            _gather(self._texts.pop(name).save(self._folder, file), order, self._folder / f"{file}.npy")
            return
        path = self._folder / f"column {name}.raw"
        _gather(np.memmap(path, self._types[f"column {name}"], mode="r"), order, self._folder / f"{file}.npy")
        path.unlink()


def _ordered_positions(folder: Path) -> I64:
    """Write the positions in the order of their cells; which row each was."""
    cells = np.fromfile(folder / "cells.raw", np.int64)
    order = np.argsort(cells, kind="stable")
    np.save(folder / "cells.npy", cells[order])
    del cells
    for name in ("ra", "dec"):
        _gather(np.memmap(folder / f"{name}.raw", np.float64, mode="r"), order, folder / f"{name}.npy")
    for name in ("cells", "ra", "dec"):
        (folder / f"{name}.raw").unlink()
    return order


def _gather(raw: npt.NDArray[Any], order: I64, path: Path) -> None:
    """Write values in an order."""
    out = np.lib.format.open_memmap(path, "w+", raw.dtype, (len(order),))
    for start in range(0, len(order), _GATHERED):
        out[start : start + _GATHERED] = raw[order[start : start + _GATHERED]]
    out.flush()
