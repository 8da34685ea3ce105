"""The part of the sky that a catalogue covers, from a MOC file (IVOA Multi-Order Coverage map 2.0)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from broker.errors import CatalogError


def read_footprint(path: Path) -> npt.NDArray[np.int64]:
    """The ranges of a MOC, (k, 2) first and past-the-last cell of order 29, ascending.

    path : FITS, or JSON or text by its ending.  Raises CatalogError.
    """
    from mocpy import MOC  # noqa: PLC0415 (half a second to import; only who adds a footprint needs it)

    formats = {".json": "json", ".txt": "ascii"}
    try:
        moc = MOC.load(str(path), format=formats.get(path.suffix.lower(), "fits"))
    except Exception as error:  # its reader fails in many ways
        raise CatalogError(f"{path} cannot be read as a MOC: {error}") from error
    return np.asarray(moc.to_depth29_ranges, dtype=np.uint64).astype(np.int64).reshape(-1, 2)
