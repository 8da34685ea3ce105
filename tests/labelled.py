"""A labelled folder made for the tests, laid out like the real one: two kinds that differ, and traps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

SOURCE = {"SNIa": "ztf_bts_snia", "AGN": "ztf_alert_histories", "SNII": "ztf_alert_histories"}
Row = dict[str, object]


def bell(days: np.ndarray) -> np.ndarray:
    """Magnitudes of something that rises and fades."""
    return 17.5 + 0.004 * (days - 15.0) ** 2


def flicker(days: np.ndarray) -> np.ndarray:
    """Magnitudes of something that varies without end."""
    return 19.0 + 0.5 * np.sin(days * 2.1)


def object_rows(label: str, name: str, group: str, rng: np.random.Generator) -> tuple[Row, list[Row]]:
    """Label and photometry of one object, as the labelled folder has them."""
    days = np.sort(rng.uniform(0.0, 40.0, 16))
    mags = (bell if label.startswith("SN") else flicker)(days) + rng.normal(0.0, 0.05, len(days))
    source = SOURCE[label]
    base: Row = {"source": source, "object": name, "flux": None, "fluxerr": None, "upperlimit": False}
    photometry: list[Row] = [
        {**base, "mjd": 59_000.0 + day, "band": band, "mag": mag, "magerr": 0.05}
        for day, mag, band in zip(days, mags, ["ztfg", "ztfr"] * 8, strict=True)
    ]
    photometry.append(
        {**base, "mjd": 58_999.0, "band": "ztfg", "mag": -1006.0, "magerr": None, "upperlimit": True}
    )
    photometry.append({**base, "mjd": 59_001.0, "band": "ztfr", "mag": 20.9, "magerr": 0.4})  # below 5 sigma
    return {"source": source, "object": name, "label": label, "group": group}, photometry


def star_rows(label: str, name: str, rng: np.random.Generator) -> tuple[Row, list[Row]]:
    """Label and photometry of a periodic star: eclipses, or the sawtooth of an RR Lyrae star."""
    source = "asas_richards12"
    days = np.sort(rng.uniform(0.0, 900.0, 80))
    phase = days / rng.uniform(0.45, 0.65) % 1.0
    dips = 0.7 * (np.abs(phase - 0.5) < 0.06) + 0.4 * (np.minimum(phase, 1.0 - phase) < 0.06)
    mags = 11.0 + (dips if label == "EB" else 0.9 * phase) + rng.normal(0.0, 0.02, len(days))
    base: Row = {"source": source, "object": name, "flux": None, "fluxerr": None, "upperlimit": False}
    photometry: list[Row] = [
        {**base, "mjd": 53_000.0 + day, "band": "V", "mag": mag, "magerr": 0.02}
        for day, mag in zip(days, mags, strict=True)
    ]
    return {"source": source, "object": name, "label": label, "group": f"group {name}"}, photometry


def rubin_rows(label: str | None, name: str, rng: np.random.Generator) -> tuple[Row, list[Row]]:
    """Label and photometry of an object of Rubin's one deep field, signed flux in microjansky."""
    days = np.sort(rng.uniform(0.0, 40.0, 30))
    base: Row = {"source": "lsst_real", "object": name, "mag": None, "magerr": None, "upperlimit": False}
    photometry: list[Row] = [
        {**base, "mjd": 60_900.0 + day, "band": band, "flux": 3.0 + np.sin(day), "fluxerr": 0.1}
        for day, band in zip(days, ["lsstg", "lsstr", "lssti"] * 10, strict=True)
    ]
    ra, dec = rng.uniform(150.0, 150.5), rng.uniform(2.0, 2.5)
    known = {"source": "lsst_real", "object": name, "label": label, "group": f"group {name}"}
    return {**known, "ra": ra, "dec": dec}, photometry


def write_folder(
    folder: Path,
    counts: dict[str, int],
    stars: dict[str, int] | None = None,
    rubin: dict[str | None, int] | None = None,
) -> Path:
    """A labelled folder with some objects of each class, every fourth one under two names.

    stars, rubin : and some periodic stars, and objects of Rubin's
    """
    rng = np.random.default_rng(11)
    labels: list[Row] = []
    photometry: list[Row] = []
    for label, count in counts.items():
        for i in range(count):
            for name in [f"{label}{i}", f"{label}{i}b"][: 2 if i % 4 == 0 else 1]:
                own, rows = object_rows(label, name, f"group {label}{i}", rng)
                labels.append(own)
                photometry.extend(rows)
    for label, count in (stars or {}).items():
        for i in range(count):
            own, rows = star_rows(label, f"{label}{i}", rng)
            labels.append(own)
            photometry.extend(rows)
    for known, count in (rubin or {}).items():
        for i in range(count):
            own, rows = rubin_rows(known, f"1690000000{known}{i}", rng)
            labels.append({**own})
            photometry.extend(rows)
    types = {"flux": pa.float32(), "fluxerr": pa.float32(), "mag": pa.float64(), "magerr": pa.float64()}
    table = pa.Table.from_pylist(photometry)
    for name, kind in types.items():
        table = table.set_column(table.column_names.index(name), name, table[name].cast(kind))
    pq.write_table(table, folder / "photometry.parquet")
    pq.write_table(
        pa.Table.from_pylist([{"ra": None, "dec": None, **row} for row in labels]), folder / "labels.parquet"
    )
    return folder
