"""The archive read back: nights of it, in pieces of bounded size, as the filters saw them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from broker.archive.folder import MANIFEST, File, Manifest, files, read_manifest
from broker.archive.parquet import FILTER_IDENTITY, SURVEY, Kept, from_file_form, specs_of
from broker.archive.wire import CURVE
from broker.errors import ArchiveError
from broker.lightcurves import LightCurves
from broker.table import ColumnSpec

CHUNK_ROWS = 50_000
_CURVE_ROWS = 2_000
"""Rows at a time where light curves are asked for: some have 20,000 points."""


@dataclass(frozen=True)
class Chunk:
    """Some rows of one file.

    first : place in the file of the first;  missing : columns asked for that this file does not have
    """

    file: File
    first: int
    rows: Kept
    missing: tuple[str, ...]


class Archive:
    """A folder that `broker run` writes, as it was when opened.  Raises ArchiveError if it is none."""

    def __init__(self, folder: Path) -> None:
        manifest = read_manifest(folder)
        if manifest is None:
            raise ArchiveError(
                f"there is no archive in {str(folder)!r} (no {MANIFEST}); `broker run` keeps one once "
                "archive.folder is set"
            )
        self.folder = folder
        self.manifest: Manifest = manifest
        self.files: Sequence[File] = files(folder, manifest)

    def nights(self, survey: str = "") -> list[str]:
        """Nights that it has rows of, oldest first, as YYYYMMDD."""
        return sorted({item.night for item in self.files if survey in {"", item.survey}})

    def of(
        self, nights: Collection[str], survey: str = "", cells: Collection[int] | None = None
    ) -> list[File]:
        """The files of some nights.  cells : HEALPix cells of CELL_ORDER, None for all"""
        return [
            item
            for item in self.files
            if item.night in nights and survey in {"", item.survey} and (cells is None or item.cell in cells)
        ]

    def chunks(
        self, chosen: Sequence[File], columns: Collection[str], *, curves: bool = False
    ) -> Iterator[Chunk]:
        """The rows of some files, with the columns of the table that are asked for."""
        for item in chosen:
            yield from _chunks(item, columns, curves)


def rows_in(item: File) -> int:
    """How many rows a file has.  Raises ArchiveError."""
    with _opened(item) as file:
        return int(file.metadata.num_rows)


def epochs_in(item: File) -> set[int]:
    """Control epochs by which a file's rows were judged.  Raises ArchiveError."""
    with _opened(item) as file:
        return set(file.read(columns=["control_epoch"])["control_epoch"].unique().to_pylist())


def find_rows(item: File, alert: int) -> bool:
    """Whether a file has rows of an alert, by its diaSourceId.  Raises ArchiveError."""
    with _opened(item) as file:
        place = file.schema.names.index("dia_source_id")
        for number in range(file.num_row_groups):
            about = file.metadata.row_group(number).column(place).statistics
            if about is not None and about.has_min_max and not about.min <= alert <= about.max:
                continue
            if alert in file.read_row_group(number, columns=["dia_source_id"])["dia_source_id"].to_numpy():
                return True
    return False


def columns_in(item: File) -> dict[str, ColumnSpec]:
    """The table's columns that a file has.  Raises ArchiveError."""
    with _opened(item) as file:
        return specs_of(file.schema_arrow, item.survey)


def _chunks(item: File, columns: Collection[str], curves: bool) -> Iterator[Chunk]:
    with _opened(item) as file:
        schema = file.schema_arrow  # read anew by each access
        have = specs_of(schema, item.survey)
        wanted = {name: spec for name, spec in have.items() if name in columns}
        missing = tuple(sorted(set(columns) - set(have)))
        stored = [name for name in wanted if name != SURVEY]
        names = [*stored, *FILTER_IDENTITY, *([CURVE] if curves else [])]
        first = 0
        for batch in file.iter_batches(_CURVE_ROWS if curves else CHUNK_ROWS, columns=names):
            rows = from_file_form(pa.Table.from_batches([batch]), item.survey, wanted)
            yield Chunk(item, first, rows, missing)
            first += rows.table.length


def light_curves(item: File, rows: Sequence[int]) -> LightCurves:
    """Of some rows of a file, in order.  Raises ArchiveError."""
    first, found = 0, []
    for chunk in _chunks(item, (), True):
        table = chunk.rows.table
        assert table.light_curves is not None
        own = [row - first for row in rows if first <= row < first + table.length]
        found.append(table.light_curves.take(np.array(own, dtype=np.int64)))
        first += table.length
    lengths = np.concatenate([np.diff(one.starts) for one in found])
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return LightCurves(np.concatenate([one.points for one in found]), starts)


def _opened(item: File) -> Any:
    try:
        return pq.ParquetFile(item.path)
    except (OSError, ValueError) as error:
        raise ArchiveError(f"{item.path} cannot be read: {error}") from error
