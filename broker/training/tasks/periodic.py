"""What kind of periodic star: learnt on total flux from surveys of one band or many, and blind to which.

Each object is put into one row of points as the stream would have it, its magnitudes turned into total flux
(the reference image holds nothing). What the task looks at is free of the flux's scale, of the band and of
the number of points, so that it can be asked of any survey's star whose total flux is known.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from broker.astro.bands import BAND_INDEX, NO_BAND
from broker.astro.photometry import mag_err_to_njy_err, mag_to_njy
from broker.errors import BrokerError
from broker.features.catalog import FEATURES, extract
from broker.features.measurements import Reference
from broker.lightcurves import DETECTION, LightCurves, empty_points
from broker.training.sample import I64, Sample, Strings, joined

NAME = "periodic"
CLASSES: tuple[str, ...] = ("CEP", "DSCT", "EB", "LPV", "RRLyrae")
REPORTED: tuple[str, ...] = ("RotV", "YSO")
"""Too few to learn (12 and 26 objects): the report says what they are taken for."""
INPUTS: tuple[str, ...] = (
    "period_days", "period_power", "fourier_r21", "fourier_r31", "fourier_phi21", "fourier_phi31",
    "cycle_power", "cycle_double_gain", "cycle_half_ratio", "cycle_rise", "cycle_level", "cycle_width",
    "cycle_skew", "cycle_eta", "cycle_double_eta", "cycle_residual_eta", "series_eta",
    "total_std", "total_range_90", "total_level_90", "total_level_96", "total_skew", "total_excess_variance",
)  # fmt: skip
TEACHERS: tuple[str, ...] = ("asas_richards12", "debosscher", "s82_rrlyrae")
"""Sources whose labels are learnt from; those of asas_acvs are a machine's."""
SOURCES: tuple[str, ...] = (*TEACHERS, "asas_acvs")
BANDS = {"u": "u", "g": "g", "r": "r", "i": "i", "z": "z", "V": "g", "clear/Hp/I": "r"}
"""Slot of each published band. V and Hipparcos' are no g and r, but no input asks which band it is."""
_SLOTS = {published: BAND_INDEX[slot] for published, slot in BANDS.items()}
NAMES = tuple(feature.name for feature in FEATURES)
LABELS = ("source", "object", "label", "group")
PHOTOMETRY = ("source", "object", "band", "mjd", "mag", "magerr")
COUNTS = (1, 2, 3, 5, 10, 20, 50)
"""Detections after which an early state is taken."""


def samples(data: Path) -> Sample:
    """Every object of TEACHERS that is known to be one of CLASSES, in its last state.

    data : folder with `labels.parquet` and `photometry.parquet`. An object whose sources name two classes
    is left out.
    """
    every = last_states(data)
    kept = np.isin(every.source, TEACHERS) & np.isin(every.label, CLASSES)
    return every.take(kept & ~_disputed(every.group, every.label))


@lru_cache(maxsize=1)
def last_states(data: Path) -> Sample:
    """Every object of SOURCES, labelled or not, in its last state."""
    stars = load(data)
    return _states(stars, np.arange(len(stars.name)), np.diff(stars.curves.starts))


def early_states(data: Path) -> Sample:
    """Every object of SOURCES after each of COUNTS detections that it reached."""
    stars = load(data)
    reached = np.diff(stars.curves.starts)
    rows = [np.flatnonzero(reached >= count) for count in COUNTS]
    return joined(
        [
            _states(stars, having, np.full(len(having), count))
            for having, count in zip(rows, COUNTS, strict=True)
        ]
    )


@dataclass(frozen=True)
class Stars:
    """Photometry of n objects as total flux, and what is known of them.

    curves : n rows, ordered by time;  source, name, label, group : (n,), label '' if unknown
    """

    curves: LightCurves
    source: Strings
    name: Strings
    label: Strings
    group: Strings


def load(data: Path) -> Stars:
    """Every object of SOURCES that has photometry.

    Times are taken as published (heliocentric, some with a zero point of their own): only differences count.
    """
    known = {
        (row["source"], row["object"]): row for row in _read(data / "labels.parquet", LABELS).to_pylist()
    }
    table = _read(data / "photometry.parquet", PHOTOMETRY)
    mjd, mag, magerr = (np.asarray(table[name].to_numpy(), dtype=np.float64) for name in PHOTOMETRY[3:])
    flux = mag_to_njy(mag)
    err = mag_err_to_njy_err(flux, magerr)
    source, name, band = (np.asarray(table[column].to_pylist(), dtype=np.str_) for column in PHOTOMETRY[:3])
    order = np.lexsort((mjd, name, source))
    order = order[np.isfinite(flux[order]) & (err[order] > 0.0)]
    source, name = source[order], name[order]
    new = np.append(True, (source[1:] != source[:-1]) | (name[1:] != name[:-1]))[: len(order)]
    points = empty_points(len(order))
    points["midpoint_mjd_tai"], points["psf_flux"], points["psf_flux_err"] = (
        mjd[order],
        flux[order],
        err[order],
    )
    points["band"], points["kind"] = [_SLOTS.get(one, NO_BAND) for one in band[order].tolist()], DETECTION
    first = np.flatnonzero(new)
    keys = list(zip(source[first].tolist(), name[first].tolist(), strict=True))
    rows = [known.get(key, {}) for key in keys]
    return Stars(
        LightCurves(points, np.append(first, len(order)).astype(np.int64)),
        source[first],
        name[first],
        np.array([row.get("label") or "" for row in rows], dtype=np.str_),
        np.array(
            [row.get("group") or " ".join(key) for row, key in zip(rows, keys, strict=True)], dtype=np.str_
        ),
    )


def _states(stars: Stars, objects: I64, counts: I64) -> Sample:
    """Objects after so many points.  objects, counts : (n,)."""
    curves = stars.curves.take(objects)
    flat = np.arange(len(curves.points)) - np.repeat(curves.starts[:-1], np.diff(curves.starts))
    points = curves.points[flat < np.repeat(counts, np.diff(curves.starts))]
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    now = points["midpoint_mjd_tai"][starts[1:] - 1]
    seen = LightCurves(points, starts)
    features = extract(seen, now, Reference(best_sampled(seen), np.zeros(len(objects))))
    count_of = {name: features[:, NAMES.index(name)] for name in ("n_nights", "n_detections", "age_days")}
    return Sample(
        names=NAMES,
        features=features,
        label=stars.label[objects],
        source=stars.source[objects],
        object=stars.name[objects],
        group=stars.group[objects],
        n_points=np.asarray(counts, dtype=np.int64),
        n_nights=count_of["n_nights"].astype(np.int64),
        n_detections=count_of["n_detections"].astype(np.int64),
        age_days=count_of["age_days"],
    )


def best_sampled(curves: LightCurves) -> npt.NDArray[np.uint8]:
    """(n,) the band with the most points; of equal ones the bluest, as the period search takes it."""
    row = np.repeat(np.arange(len(curves)), np.diff(curves.starts))
    counts = np.zeros((len(curves), NO_BAND + 1), dtype=np.int64)
    np.add.at(counts, (row, curves.points["band"]), 1)
    return np.asarray(counts[:, :NO_BAND].argmax(axis=1), dtype=np.uint8)


def _read(path: Path, names: tuple[str, ...]) -> pa.Table:
    """The columns named, of the rows of SOURCES."""
    try:
        table = pq.read_table(path, columns=list(names))
    except (OSError, pa.ArrowException) as error:
        raise BrokerError(f"cannot read {path}: {error}; give the folder of labelled light curves") from None
    missing = [name for name in names if name not in table.column_names]
    if missing:
        raise BrokerError(f"{path} lacks the columns {missing}; give the folder of labelled light curves")
    return table.filter(pc.is_in(pc.cast(table["source"], pa.string()), value_set=pa.array(SOURCES)))


def _disputed(group: Strings, label: Strings) -> npt.NDArray[np.bool_]:
    """(n,) whether an object has another label under another name or in another source."""
    known = label != ""
    pairs = np.unique(np.stack([group[known], label[known]], axis=1), axis=0)
    names, labels = np.unique(pairs[:, 0], return_counts=True)
    return np.isin(group, names[labels > 1])
