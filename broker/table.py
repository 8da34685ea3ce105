"""Named columns over a batch: what filters, packets, the API and the documentation all read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from broker.lightcurves import LightCurves

Kind = Literal["float", "int", "bool", "string"]


@dataclass(frozen=True, slots=True)
class ColumnSpec:
    """What a column is: the name users write, its unit ('' if it has none) and one line about it.

    kind "float" is float64 with NaN for missing; "int" int64 with 0 for a missing id; "bool" is float64
    0, 1 or NaN (unknown); "string" is int32 codes into the column's categories, -1 for missing.
    """

    name: str
    unit: str
    doc: str
    kind: Kind = "float"


@dataclass(frozen=True, slots=True)
class Column:
    """A column's specification and its (n,) values."""

    spec: ColumnSpec
    values: npt.NDArray[Any]
    categories: tuple[str, ...] = ()


class Table(Mapping[str, Column]):
    """n rows of named columns, in a fixed order; read-only.

    light_curves : each row's light curve as it was known, up to the row's own alert; None if not at hand
    """

    def __init__(
        self, columns: Iterable[Column], length: int, light_curves: LightCurves | None = None
    ) -> None:
        self._columns = {column.spec.name: column for column in columns}
        self.length = length
        self.light_curves = light_curves
        for name, column in self._columns.items():
            if column.values.shape != (length,):
                raise ValueError(f"column {name!r} has shape {column.values.shape}, expected ({length},)")

    def take(self, rows: npt.NDArray[np.int64]) -> Table:
        """Some rows, in the order asked for.  rows : indices"""
        columns = [replace(column, values=column.values[rows]) for column in self.values()]
        return Table(columns, len(rows), None if self.light_curves is None else self.light_curves.take(rows))

    def __getitem__(self, name: str) -> Column:
        return self._columns[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)


def matrix_columns(specs: Sequence[ColumnSpec], matrix: npt.NDArray[np.float64]) -> list[Column]:
    """The columns of an (n, k) matrix, one for each of its k specifications."""
    if matrix.shape[1] != len(specs):
        raise ValueError(f"matrix has {matrix.shape[1]} columns, expected {len(specs)}")
    return [Column(spec, matrix[:, index]) for index, spec in enumerate(specs)]


def string_column(spec: ColumnSpec, values: Sequence[str] | npt.NDArray[Any]) -> Column:
    """A column of strings, coded; '' is missing."""
    categories, codes = np.unique(np.asarray(values, dtype=np.str_), return_inverse=True)
    names = tuple(str(name) for name in categories)
    codes = codes.astype(np.int32)
    if names and names[0] == "":
        return Column(spec, codes - 1, names[1:])
    return Column(spec, codes, names)
