"""What filters and messages see of annotations: columns over a batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from broker.annotations.kept import Kept, kept
from broker.table import Column, ColumnSpec, string_column

I64 = npt.NDArray[np.int64]

ANNOTATION_COLUMNS = (
    ColumnSpec("annotation_class", "", "newest class that somebody gave the object", "string"),
    ColumnSpec("annotation_probability", "", "its probability, 0 to 1, where that was given"),
    ColumnSpec("annotation_spectrum_type", "", "newest type that somebody saw in a spectrum", "string"),
    ColumnSpec("annotation_redshift", "", "newest redshift that somebody gave the object"),
    ColumnSpec("annotation_note", "", "newest note on the object", "string"),
    ColumnSpec("annotation_by", "", "who made the newest annotation of any kind", "string"),
    ColumnSpec(
        "annotation_age_days",
        "day",
        "from the newest annotation to the record that was judged (an alert's, or the update's cause)",
    ),
)
"""NULL where nobody said anything."""
_MS_PER_DAY = 86_400_000.0


def annotation_columns(blobs: Sequence[bytes], at_ms: I64) -> list[Column]:
    """The ANNOTATION_COLUMNS of n rows.

    blobs : (n,) what the store holds of each row's object (annotations/kept.py), b"" if nothing
    at_ms : (n,) [Unix ms] Kafka timestamps of the records that are judged
    """
    columns = no_annotations(len(blobs))
    index = [row for row, blob in enumerate(blobs) if blob]
    if not index:
        return columns
    found = [_row(kept(blobs[row]), int(at_ms[row])) for row in index]
    return [_filled(column, index, [row[column.spec.name] for row in found]) for column in columns]


def no_annotations(rows: int) -> list[Column]:
    """The columns of rows of which nobody said anything."""
    return [_nothing(spec, rows) for spec in ANNOTATION_COLUMNS]


def _row(item: Kept, at_ms: int) -> dict[str, str | float | None]:
    last = item.last
    return {
        "annotation_class": item.of("class").get("class"),
        "annotation_probability": item.of("class").get("probability"),
        "annotation_spectrum_type": item.of("spectrum-type").get("class"),
        "annotation_redshift": item.of("redshift").get("redshift"),
        "annotation_note": item.of("note").get("text"),
        "annotation_by": last.get("by"),
        "annotation_age_days": max(0.0, (at_ms - last["t"]) / _MS_PER_DAY) if last else None,
    }


def _filled(column: Column, index: Sequence[int], values: Sequence[str | float | None]) -> Column:
    """An empty column with the values of some rows in it."""
    spec, whole = column.spec, column.values.copy()
    if spec.kind == "string":
        few = string_column(spec, [str(value or "") for value in values])
        whole[index] = few.values
        return Column(spec, whole, few.categories)
    whole[index] = [np.nan if value is None else value for value in values]
    return Column(spec, whole)


def _nothing(spec: ColumnSpec, rows: int) -> Column:
    if spec.kind == "string":
        return Column(spec, np.full(rows, -1, dtype=np.int32))
    return Column(spec, np.full(rows, np.nan))
