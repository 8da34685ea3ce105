"""An invented folder of histories whose cadence, depth and errors are known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

SOURCE = "ztf_alert_histories"
OBJECTS, NIGHTS = 40, 15
LIMIT = 20.5
HOUR = 0.3
HONESTY = 0.5
FOUND = 0.8
NJY_PER_UJY = 1e3


def write_histories(folder: Path, objects: int = OBJECTS) -> Path:
    """Objects of constant light seen in g and r every second night; errors twice as large as the scatter."""
    rng = np.random.default_rng(5)
    rows = [row for number in range(objects) for row in _history(f"ZTF{number:03d}", rng)]
    pq.write_table(pa.Table.from_pylist(rows), folder / "photometry.parquet")
    labels = [
        {
            "source": SOURCE,
            "object": f"ZTF{number:03d}",
            "label": "SNIa",
            "group": f"g{number}",
        }
        for number in range(objects)
    ]
    pq.write_table(pa.Table.from_pylist(labels), folder / "labels.parquet")
    return folder


def _history(name: str, rng: np.random.Generator) -> list[dict[str, Any]]:
    """In each night one exposure in g and one in r; one in five finds nothing."""
    sky = 10.0 ** ((31.4 - LIMIT) / 2.5) / 5.0
    rows = []
    for night in range(NIGHTS):
        for band, hour in (("ztfg", HOUR), ("ztfr", HOUR + 0.02)):
            found = rng.random() < FOUND
            err = 2.0 * sky
            flux = 20.0 * sky + HONESTY * err * rng.standard_normal()
            rows.append(
                {
                    "source": SOURCE,
                    "object": name,
                    "mjd": 59000.0 + 2.0 * night + hour,
                    "band": band,
                    "mag": 31.4 - 2.5 * np.log10(flux) if found else LIMIT,
                    "flux": flux / NJY_PER_UJY if found else None,
                    "fluxerr": err / NJY_PER_UJY if found else None,
                    "upperlimit": not found,
                }
            )
    return rows
