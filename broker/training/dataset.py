"""Labelled ZTF light curves, each seen as the stream would have shown it on a few of its nights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from broker.astro.bands import BAND_INDEX
from broker.astro.photometry import mag_err_to_njy_err, mag_to_njy
from broker.astro.times import JD_MINUS_MJD, jd_utc_start_to_mjd_tai
from broker.features.catalog import FEATURES, extract
from broker.lightcurves import DETECTION, LightCurves, empty_points
from broker.training.tables import read_rows

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
Strings = npt.NDArray[np.str_]

STREAM_SOURCE = "ztf_alert_histories"
"""Histories of real alert packets: the only source that is a sample of the stream itself."""
SOURCES = (STREAM_SOURCE, "ztf_bts_snia", "ztf_tde_fink", "manytde", "slsne_gomez2024")
"""Sources with ZTF photometry in days and nJy. Other surveys' bands and cadence would give classes away."""
BANDS = {"ztfg": "g", "ztfr": "r"}

LABELS: dict[str, str] = {
    "SNIa": "SNIa",
    "SNII": "SNII",
    "SNIIn": "SNIIn",
    "SNIbc": "SNIbc",
    "SLSN": "SLSN",
    "TDE": "TDE",
    # Too few of each to learn alone; together they show the model what varies always.
    "AGN": "Other",
    "CV/Nova": "Other",
    "Symbiotic": "Other",
    "XRB": "Other",
    "YSO": "Other",
    "RRLyrae": "Other",
    "CEP": "Other",
    "DSCT": "Other",
    "EB": "Other",
    "LPV": "Other",
    "RotV": "Other",
}
"""Published label to the leaf it trains. A label that is not here is counted and left out."""

MIN_GROUPS = 40
"""A class with fewer objects is not made: its test part would hold too few to say anything."""
WINDOW_DAYS = 30.0
"""An alert packet carries this much history: every source is cut to it."""
MIN_SNR = 5.0
"""The strictest of the sources' own cuts: with a looser one the errors would give the source away."""
EXPOSURE_S = 30.0
_NJY_PER_UJY = 1e3


@dataclass(frozen=True)
class Detections:
    """Detections of labelled and unlabelled objects as flat columns, ordered by object and time.

    time [MJD, TAI, mid-exposure], flux, err [nJy], band : (m,);  starts : (objects+1,);
    source, object, group, label, leaf : (objects,); label '' if the object has none, leaf '' if it has none
    that LABELS knows or its sources disagree.
    """

    time: F64
    flux: F64
    err: F64
    band: npt.NDArray[np.uint8]
    starts: I64
    source: Strings
    object: Strings
    group: Strings
    label: Strings
    leaf: Strings


@dataclass(frozen=True)
class Windows:
    """What the stream would have shown: features at some detections of each object.

    features : (w, k);  the rest (w,): source, group, label and leaf of the object, detections in the window
    """

    features: F64
    source: Strings
    group: Strings
    label: Strings
    leaf: Strings
    detections: I64

    def take(self, rows: npt.NDArray[Any]) -> Windows:
        """Some of the windows.  rows : indices or boolean mask."""
        return Windows(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))

    def __len__(self) -> int:
        return len(self.leaf)


def load_detections(data: Path) -> Detections:
    """Detections of every object of SOURCES in a folder with `photometry.parquet` and `labels.parquet`."""
    labels = _labels(read_rows(data / "labels.parquet", ("source", "object", "label", "group"), SOURCES))
    names = ("source", "object", "mjd", "band", "mag", "magerr", "flux", "fluxerr", "upperlimit")
    rows = _measured(read_rows(data / "photometry.parquet", names, SOURCES))
    key = np.char.add(np.char.add(rows["source"], "\t"), rows["object"])
    order = np.lexsort((rows["time"], key))
    objects, first = np.unique(key[order], return_index=True)
    known = [labels.get(name, ("", name)) for name in objects.tolist()]
    parts = [name.split("\t", 1) for name in objects.tolist()]
    labels_of, groups_of = [label for label, _ in known], [group for _, group in known]
    return Detections(
        **{name: rows[name][order] for name in ("time", "flux", "err", "band")},
        starts=np.append(first, len(order)).astype(np.int64),
        source=np.array([source for source, _ in parts], dtype=np.str_),
        object=np.array([name for _, name in parts], dtype=np.str_),
        group=np.array(groups_of, dtype=np.str_),
        label=np.array(labels_of, dtype=np.str_),
        leaf=np.array(_leaves(labels_of, groups_of), dtype=np.str_),
    )


def windows(detections: Detections, objects: I64, per_object: int, rng: np.random.Generator) -> Windows:
    """Features of each object at up to `per_object` of its detections, drawn at random, as "now".

    objects : indices of the objects. What came before is cut to WINDOW_DAYS, what came after is not seen.
    """
    picks = [_draw(detections.starts[i], detections.starts[i + 1], per_object, rng) for i in objects]
    now = np.concatenate([*picks, np.empty(0, dtype=np.int64)])
    owner = np.repeat(objects, [len(pick) for pick in picks])
    curves = cut(detections, owner, now)
    return Windows(
        features=extract(curves, detections.time[now]),
        source=detections.source[owner],
        group=detections.group[owner],
        label=detections.label[owner],
        leaf=detections.leaf[owner],
        detections=np.diff(curves.starts),
    )


def cut(detections: Detections, owner: I64, now: I64) -> LightCurves:
    """Light curves of the WINDOW_DAYS up to and with a detection.

    owner : (w,) the object;  now : (w,) position of the detection. Returns w light curves.
    """
    begin = np.array(
        [
            first + np.searchsorted(detections.time[first : last + 1], detections.time[last] - WINDOW_DAYS)
            for first, last in zip(detections.starts[owner], now, strict=True)
        ],
        dtype=np.int64,
    )
    lengths = now + 1 - begin
    starts = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths)])
    flat = np.arange(starts[-1]) + np.repeat(begin - starts[:-1], lengths)
    points = empty_points(len(flat))
    points["midpoint_mjd_tai"], points["band"] = detections.time[flat], detections.band[flat]
    points["psf_flux"], points["psf_flux_err"] = detections.flux[flat], detections.err[flat]
    points["kind"] = DETECTION
    return LightCurves(points, starts)


def feature_indices(names: tuple[str, ...]) -> list[int]:
    """Columns of the feature matrix by name."""
    position = {feature.name: index for index, feature in enumerate(FEATURES)}
    return [position[name] for name in names]


def _labels(table: pa.Table) -> dict[str, tuple[str, str]]:
    """'source TAB object' to (published label or '', group)."""
    return {
        f"{row['source']}\t{row['object']}": (
            row["label"] or "",
            row["group"] or f"{row['source']} {row['object']}",
        )
        for row in table.to_pylist()
    }


def _measured(table: pa.Table) -> dict[str, npt.NDArray[Any]]:
    """Usable detections in g and r: strings, time [MJD, TAI], flux and error [nJy, signed], band."""
    passband = pc.cast(table["band"], pa.string())
    in_band = pc.is_in(passband, value_set=pa.array(list(BANDS)))
    # Limits go first: their magnitudes hold meaningless values that are no flux.
    table = table.filter(pc.and_(in_band, pc.invert(pc.fill_null(table["upperlimit"], False))))
    mjd, mag, magerr, flux, fluxerr = (
        np.asarray(table[name].to_numpy(), dtype=np.float64)
        for name in ("mjd", "mag", "magerr", "flux", "fluxerr")
    )
    given, from_mag = np.isfinite(flux), mag_to_njy(mag)
    flux = np.where(given, flux * _NJY_PER_UJY, from_mag)
    err = np.where(given, fluxerr * _NJY_PER_UJY, mag_err_to_njy_err(from_mag, magerr))
    keep = (np.abs(flux) >= MIN_SNR * err) & (err > 0) & (mjd > 0)
    words = {name: np.asarray(table[name].to_pylist(), dtype=np.str_)[keep] for name in ("source", "object")}
    band = [BAND_INDEX[BANDS[name]] for name in table["band"].filter(pa.array(keep)).to_pylist()]
    return {
        **words,
        "time": jd_utc_start_to_mjd_tai(mjd[keep] + JD_MINUS_MJD, EXPOSURE_S),
        "flux": flux[keep],
        "err": err[keep],
        "band": np.array(band, dtype=np.uint8),
    }


def _leaves(labels: list[str], groups: list[str]) -> list[str]:
    """Leaf of each object; '' without a label that LABELS knows, or where a group has two leaves."""
    leaves = [LABELS.get(label, "") for label in labels]
    by_group: dict[str, set[str]] = {}
    for leaf, group in zip(leaves, groups, strict=True):
        by_group.setdefault(group, set()).update({leaf} - {""})
    return [leaf if len(by_group[group]) < 2 else "" for leaf, group in zip(leaves, groups, strict=True)]


def _draw(first: int, end: int, count: int, rng: np.random.Generator) -> I64:
    """Up to `count` different positions in [first, end), sorted."""
    return np.sort(rng.choice(np.arange(first, end), size=min(count, end - first), replace=False))
