"""Rows in a Parquet file: the columns that filters judged, with what says whose they are, and back.

A NULL is a null, so that other readers of the files see it as such too: a missing number is no NaN, a missing
id no 0. Everything else is kept bit for bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from broker.archive.wire import CURVE, IDENTITY, PASSED, About
from broker.astro.bands import BANDS, NO_BAND
from broker.lightcurves import KINDS, POINT, LightCurves, Points, empty_points
from broker.table import Column, ColumnSpec, Table, string_column

SURVEY = "survey"
"""A column of the table that no file holds: the folder says it."""
HEALPIX = "healpix29"
ROWS_A_GROUP = 16_384
_TYPES = {"float": pa.float64(), "bool": pa.bool_(), "int": pa.int64(), "string": pa.string()}
_POINT_FIELDS = pa.struct(
    [
        ("midpoint_mjd_tai", pa.float64()),
        ("source_id", pa.int64()),
        ("psf_flux", pa.float32()),
        ("psf_flux_err", pa.float32()),
        ("known_at", pa.uint32()),
        ("band", pa.string()),
        ("kind", pa.string()),
        ("flags", pa.uint16()),
    ]
)
_TEXTS = ("kind", "cause", "model_id", "model_version", "source_topic")
_NESTED_TEXTS = (f"{PASSED}.list.element", f"{CURVE}.list.element.band", f"{CURVE}.list.element.kind")
"""Texts of few kinds: what a file spells once each."""
ABOUT_NAMES = ("kind", "control_epoch", "model_id", "model_version", HEALPIX)
"""Columns of a file that are neither the table's nor IDENTITY's."""
FILTER_IDENTITY = ("kind", "control_epoch", PASSED)
"""What a backtest needs of a row besides the columns its filter names."""


def to_file_form(about: About, specs: Sequence[ColumnSpec], rows: Any, healpix: npt.NDArray[np.int64]) -> Any:
    """The rows of a message (wire.decode) as a file holds them.  healpix : (n,) nested, order 29"""
    columns: dict[str, tuple[Any, Any]] = {}
    for spec in specs:
        if spec.name != SURVEY:
            described = {"unit": spec.unit, "doc": spec.doc, "kind": spec.kind}
            form = pa.field(spec.name, _TYPES[spec.kind], metadata=described)
            columns[spec.name] = form, _nullable(spec, rows[spec.name].combine_chunks())
    shared = {
        "kind": about.kind, "control_epoch": about.epoch,
        "model_id": about.model_id, "model_version": about.model_version,
    }  # fmt: skip
    for name, value in shared.items():
        repeated = pa.repeat(value, len(rows))
        columns[name] = pa.field(name, repeated.type), repeated
    for item in list(IDENTITY)[:-1]:
        kind = _plain(item.type)
        columns[item.name] = pa.field(item.name, kind), rows[item.name].combine_chunks().cast(kind)
    columns[HEALPIX] = pa.field(HEALPIX, pa.int64()), pa.array(healpix)
    curves = _unpacked(rows[CURVE].combine_chunks())
    columns[CURVE] = pa.field(CURVE, pa.list_(_POINT_FIELDS)), curves
    fields, arrays = zip(*columns.values(), strict=True)
    return pa.Table.from_arrays(list(arrays), schema=pa.schema(fields))


def write(path: Path, table: Any) -> None:
    """One file.  table : of to_file_form, in order of HEALPIX, by which readers can pass over row groups"""
    own = [item.name for item in table.schema if (item.metadata or {}).get(b"kind") == b"string"]
    pq.write_table(
        table, path, compression="zstd", compression_level=3, row_group_size=ROWS_A_GROUP,
        use_dictionary=[*own, *_TEXTS, *_NESTED_TEXTS],
        write_statistics=[HEALPIX, "midpoint_mjd_tai", "dia_source_id"],
    )  # fmt: skip


@dataclass(frozen=True)
class Kept:
    """n rows of one file, read back.

    table : the columns asked for, as the filters saw them, with light curves where they were asked for
    kind : (n,) alert or update;  epoch : (n,) control epoch
    passed : (k,) labels of filters passed, row after row;  passed_starts : (n+1,)
    """

    table: Table
    kind: npt.NDArray[np.str_]
    epoch: npt.NDArray[np.int64]
    passed: npt.NDArray[np.str_]
    passed_starts: npt.NDArray[np.int64]


def specs_of(schema: Any, survey: str) -> dict[str, ColumnSpec]:
    """The table's columns that a file has, its survey among them."""
    found = {SURVEY: ColumnSpec(SURVEY, "", "which survey the alert is from", "string")}
    for item in schema:
        about: Mapping[bytes, bytes] = item.metadata or {}
        if b"kind" in about:
            unit, doc, kind = (about.get(key, b"").decode() for key in (b"unit", b"doc", b"kind"))
            found[item.name] = ColumnSpec(item.name, unit, doc, kind)  # type: ignore[arg-type]
    return found


def from_file_form(table: Any, survey: str, specs: Mapping[str, ColumnSpec]) -> Kept:
    """Rows as they were judged.  table : of a file, with FILTER_IDENTITY;  specs : the columns wanted"""
    count = len(table)
    columns = [
        _survey_column(spec, survey, count) if name == SURVEY else _restored(spec, table[name])
        for name, spec in specs.items()
    ]
    curves = _packed(table[CURVE].combine_chunks()) if CURVE in table.column_names else None
    passed = table[PASSED].combine_chunks()
    starts = passed.offsets.to_numpy().astype(np.int64)
    labels = passed.values.slice(starts[0], starts[-1] - starts[0])
    return Kept(
        Table(columns, count, curves),
        np.asarray(table["kind"].to_numpy(), dtype=np.str_),
        table["control_epoch"].to_numpy(),
        np.asarray(labels.to_numpy(zero_copy_only=False), dtype=np.str_),
        starts - starts[0],
    )


def _plain(kind: Any) -> Any:
    """A type without the coding of its texts."""
    if pa.types.is_list(kind):
        return pa.list_(_plain(kind.value_type))
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _nullable(spec: ColumnSpec, values: Any) -> Any:
    """A column with nulls in place of what says that a value is missing (see ColumnSpec)."""
    if spec.kind == "string":
        return values.cast(pa.string())
    numbers = values.to_numpy(zero_copy_only=False)
    if spec.kind == "int":
        return pa.array(numbers, mask=numbers == 0)
    if spec.kind == "bool":
        return pa.array(numbers != 0, mask=np.isnan(numbers))
    return pa.array(numbers, from_pandas=True)


def _restored(spec: ColumnSpec, values: Any) -> Column:
    """The inverse of _nullable."""
    values = values.combine_chunks()
    if spec.kind == "string":
        texts = values.fill_null("").to_numpy(zero_copy_only=False)
        return string_column(spec, np.asarray(texts, dtype=np.str_))
    if spec.kind == "int":
        return Column(spec, values.fill_null(0).to_numpy(zero_copy_only=False))
    return Column(spec, values.cast(pa.float64()).to_numpy(zero_copy_only=False).astype(np.float64))


def _survey_column(spec: ColumnSpec, survey: str, count: int) -> Column:
    return Column(spec, np.zeros(count, dtype=np.int32), (survey,))


def _unpacked(curves: Any) -> Any:
    """Light curves of packed points as lists of records."""
    points = np.frombuffer(_bytes_of(curves.flatten()), dtype=POINT)
    arrays = [
        pa.array(points["midpoint_mjd_tai"]),
        pa.array(points["source_id"]),
        pa.array(points["psf_flux"], from_pandas=True),
        pa.array(points["psf_flux_err"], from_pandas=True),
        pa.array(points["known_at"]),
        _words(BANDS, points["band"]),
        _words(KINDS, points["kind"]),
        pa.array(points["flags"]),
    ]
    records = pa.StructArray.from_arrays(arrays, fields=list(_POINT_FIELDS))
    starts = curves.offsets.to_numpy()
    return pa.ListArray.from_arrays(pa.array(starts - starts[0], pa.int32()), records)


def _bytes_of(packed: Any) -> memoryview:
    data, width = packed.buffers()[1], POINT.itemsize
    if data is None:
        return memoryview(b"")
    return memoryview(data)[packed.offset * width : (packed.offset + len(packed)) * width]


def _words(words: Sequence[str], codes: npt.NDArray[np.uint8]) -> Any:
    known = codes < len(words)
    return pa.array(words, pa.string()).take(pa.array(codes.astype(np.int32), mask=~known))


def _packed(curves: Any) -> LightCurves:
    """The inverse of _unpacked."""
    records, starts = curves.flatten(), curves.offsets.to_numpy().astype(np.int64)
    points: Points = empty_points(len(records))
    for name in ("midpoint_mjd_tai", "source_id", "psf_flux", "psf_flux_err", "known_at", "flags"):
        points[name] = records.field(name).to_numpy(zero_copy_only=False)
    points["band"] = _codes(BANDS, records.field("band"), NO_BAND)
    points["kind"] = _codes(KINDS, records.field("kind"), 0)
    return LightCurves(points, starts - starts[0])


def _codes(words: Sequence[str], values: Any, unknown: int) -> npt.NDArray[np.uint8]:
    coded = values.dictionary_encode()
    table = np.array([*(words.index(word) for word in coded.dictionary.to_pylist()), unknown], dtype=np.uint8)
    codes = coded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    return np.asarray(table[codes])
