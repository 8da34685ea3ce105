"""Small archives of made-up rows: every kind of column, of value, of point of a light curve."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from broker.archive import wire
from broker.archive.folder import FolderWriter, Manifest, place, temporary
from broker.archive.parquet import to_file_form, write
from broker.archive.wire import About, Rows
from broker.astro.healpix import MAX_ORDER, cells_of
from broker.lightcurves import DETECTION, FORCED, LIMIT, LightCurves, empty_points
from broker.table import Column, ColumnSpec, Table, string_column

ABOUT = About("ztf", "alert", 12, "ztf-v3", "3")
SURVEY = ColumnSpec("survey", "", "which survey the alert is from", "string")
MIDPOINT = ColumnSpec("midpoint_mjd_tai", "day", "mid-exposure")


def table_of(count: int, seed: int = 1) -> Table:
    """Rows with everything that a column can be: missing values, infinity, ids beyond 2^53, minus zero."""
    random = np.random.default_rng(seed)
    mag = random.normal(20.0, 1.0, count)
    mag[:: max(1, count // 3)] = np.nan
    mag[-1:] = np.inf
    bands = np.resize(["g", "", "r"], count)
    columns = [
        Column(SURVEY, np.zeros(count, np.int32), ("ztf",)),
        string_column(ColumnSpec("object_name", "", "name", "string"), [f"ZTF{n}" for n in range(count)]),
        string_column(ColumnSpec("band", "", "passband", "string"), bands),
        Column(ColumnSpec("dia_source_id", "", "id", "int"), 2**62 + np.arange(count)),
        Column(ColumnSpec("dia_object_id", "", "id", "int"), np.arange(count) // 2),
        Column(MIDPOINT, 60324.3 + np.arange(count) % 2),
        Column(ColumnSpec("ra", "deg", "ICRS"), random.uniform(0, 360, count)),
        Column(ColumnSpec("dec", "deg", "ICRS"), random.uniform(-90, 90, count)),
        Column(ColumnSpec("mag", "AB mag", "magnitude"), mag),
        Column(ColumnSpec("zero", "", "minus zero"), np.full(count, -0.0)),
        Column(ColumnSpec("is_negative", "", "?", "bool"), np.resize([1.0, 0.0, np.nan], count)),
    ]  # fmt: skip
    return Table(columns, count, curves_of(count, random))


def curves_of(count: int, random: np.random.Generator) -> LightCurves:
    """Light curves of 0, 1, 2, ... points of every kind and band, one unknown."""
    starts = np.concatenate([[0], np.cumsum(np.arange(count) % 5)]).astype(np.int64)
    points = empty_points(int(starts[-1]))
    points["midpoint_mjd_tai"] = random.uniform(60000, 60300, len(points))
    points["source_id"] = random.integers(1, 2**62, len(points))
    points["psf_flux"], points["psf_flux_err"] = np.abs(random.normal(0, 500, (2, len(points))))
    points["known_at"] = random.integers(0, 2**32, len(points))
    points["band"] = np.resize([0, 1, 5, 255], len(points))
    points["kind"] = np.resize([DETECTION, FORCED, LIMIT], len(points))
    points["psf_flux"][points["kind"] == LIMIT] = np.nan
    points["flags"] = random.integers(0, 2**16, len(points))
    return LightCurves(points, starts)


def rows_of(count: int, about: About = ABOUT, seed: int = 1) -> Rows:
    """Row i passed i % 3 of the filters."""
    passed = [np.arange(row % 3) for row in range(count)]
    return Rows(
        about,
        table_of(count, seed),
        [f"ztf:{row}".encode() for row in range(count)],
        [f"{row:064x}".encode() for row in range(count)],
        [""] * count,
        ["ztf_replay", "ztf_20240115_programid1"],
        np.arange(4 * count).reshape(count, 4) // 4 % 2,
        np.arange(count, dtype=np.int64) + 1_700_000_000_000,
        ["alice.bright@1", "bob.faint@12"],
        np.concatenate([*passed, np.zeros(0)]).astype(np.int64),
        np.concatenate([[0], np.cumsum([len(one) for one in passed])]).astype(np.int64),
    )  # fmt: skip


def file_form(rows: Rows) -> list[Any]:
    """The rows as files hold them, one table for each message."""
    found = []
    for message in wire.encode(rows):
        about, specs, table = wire.decode(message)
        found.append(
            to_file_form(
                about, specs, table, cells_of(MAX_ORDER, table["ra"].to_numpy(), table["dec"].to_numpy())
            )
        )
    return found


def write_archive(path: Path, *batches: Rows, cluster: str = "c") -> Manifest:
    """An archive as the writer makes it, a sequence number for each batch."""
    held = FolderWriter(path)
    assert held.take(cluster)
    for number, rows in enumerate(batches, 1):
        (table,) = file_form(rows)
        written = put(path, number, table)
        held.commit(written, {0: number}, len(table))
    held.close()
    assert held.manifest is not None
    return held.manifest


def put(path: Path, number: int, table: Any) -> list[tuple[Path, Path]]:
    """One file of all rows, where the writer would put the first of them."""
    then = place(path, "ztf", "20240115", 3) / f"{number:08d}-0.parquet"
    then.parent.mkdir(parents=True, exist_ok=True)
    write(temporary(then), table)
    return [(temporary(then), then)]
