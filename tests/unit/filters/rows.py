"""Tables of made-up alerts with every column a filter can name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from broker.columns import filter_columns
from broker.features.catalog import FEATURE_SPECS
from broker.scores.catalog import SCORE_SPECS
from broker.table import Column, Table, string_column

SPECS = filter_columns(FEATURE_SPECS, SCORE_SPECS)


def table_of(rows: Sequence[Mapping[str, Any]]) -> Table:
    """A table of these rows; a value that is not given is NULL."""
    columns = []
    for spec in SPECS.values():
        if spec.kind == "string":
            columns.append(string_column(spec, [row.get(spec.name, "") for row in rows]))
        elif spec.kind == "int":
            columns.append(Column(spec, np.array([row.get(spec.name, 0) for row in rows], dtype=np.int64)))
        else:
            values = [row.get(spec.name, np.nan) for row in rows]
            columns.append(Column(spec, np.array(values, dtype=np.float64)))
    return Table(columns, len(rows))
