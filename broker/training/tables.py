"""Reading the Parquet tables of a folder of labelled light curves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from broker.errors import BrokerError


def read_rows(
    path: Path, names: Sequence[str], sources: Sequence[str], optional: Sequence[str] = ()
) -> pa.Table:
    """The columns named, of the rows of some sources.  Raises BrokerError if they cannot be read.

    optional : columns that are read where the file has them
    """
    try:
        there = pq.read_schema(path).names
        missing = [name for name in names if name not in there]
        if missing:
            raise BrokerError(f"{path} lacks the columns {missing}; give the folder of labelled light curves")
        table = pq.read_table(path, columns=[*names, *(name for name in optional if name in there)])
    except (OSError, pa.ArrowException) as error:
        raise BrokerError(f"cannot read {path}: {error}; give the folder of labelled light curves") from None
    return table.filter(pc.is_in(pc.cast(table["source"], pa.string()), value_set=pa.array(list(sources))))
