"""Labelled light curves of supernovae and their like, whatever the passbands, in the slots g and r."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from broker.astro.bands import BAND_INDEX
from broker.astro.photometry import mag_err_to_njy_err, mag_to_njy
from broker.astro.times import JD_MINUS_MJD, jd_utc_start_to_mjd_tai, mjd_utc_to_mjd_tai
from broker.errors import BrokerError
from broker.features.catalog import FEATURES, extract
from broker.lightcurves import DETECTION, LightCurves, empty_points
from broker.training.sample import F64, I64, Sample, Strings

Columns = dict[str, npt.NDArray[Any]]

OSC = "osc_supernovae"
ZTF_SOURCES = ("ztf_alert_histories", "ztf_bts_snia", "ztf_tde_fink", "manytde", "slsne_gomez2024")
"""Sources whose ZTF photometry, and that alone, is read."""
MIN_SNR = {OSC: 3.0}
"""Significance of a detection where it is not STREAM_SNR, as ZTF's alerts have it."""
STREAM_SNR = 5.0
ASSUMED_MAG_ERR = 0.1
"""Where none was published: for nearly half of the magnitudes of the Open Supernova Catalog."""
EXPOSURE_S = 30.0
NJY_PER_UJY = 1e3

COLOUR_GR, COLOUR_RI = 0.3, 0.1
"""Colours [mag] of a supernova near its peak, assumed where one magnitude is turned into another's band."""
TO_G: Mapping[str, float] = {
    "g": 0.0,
    "B": -0.3130 * COLOUR_GR - 0.2271,
    "V": 0.5784 * COLOUR_GR + 0.0038,
}
TO_R: Mapping[str, float] = {
    "r": 0.0,
    "R": 0.1837 * COLOUR_GR + 0.0971,
    "w": 0.0,
    "V": 0.5784 * COLOUR_GR + 0.0038 - COLOUR_GR,
    "i": COLOUR_RI,
    "I": 1.2444 * COLOUR_RI + 0.3820,
    "C": 0.5784 * COLOUR_GR + 0.0038 - COLOUR_GR,
    "z": COLOUR_RI,
    "y": COLOUR_RI,
}
"""What makes a magnitude of a band (B V R I Vega, the others AB; C is Catalina's, calibrated to V) one of g
or r [AB mag]: Lupton's relations of 2005 (sdss.org, "Transformations between SDSS magnitudes and other
systems") at those colours. A wrong colour shifts all magnitudes of a slot alike: only g - r feels it, which a
pair B, V shows 0.9 times, B, R 1.5 times and V, R 0.6 times as large as it is."""
VEGA_MINUS_AB: Mapping[str, float] = {"B": 0.09, "V": -0.02, "R": -0.21, "I": -0.45}
"""Blanton & Roweis 2007, AJ 133, 734, table 1."""
BLUE: Mapping[str, float] = {"g": 2.0, "B": 1.5, "V": 1.0}
RED: Mapping[str, float] = {"r": 1.0, "R": 1.0, "w": 1.0}
"""How much a detection counts when the best sampled band of a slot is looked for."""
LAST_RESORT = ("i", "I", "C", "z", "y")
"""For the red slot where there is none of RED."""
AB_TELESCOPES = ("P48", "p48", "PTF48")
"""The Palomar Transient Factory's R magnitudes are AB, whether the catalogue says so or not."""


@dataclass(frozen=True)
class Explosions:
    """Detections of n objects as flat columns, ordered by object and time; an object may have none.

    time [MJD, TAI], flux, err [nJy], band : (m,);  starts : (n+1,);
    source, object, group, label : (n,), label '' if unknown;  redshift : (n,), NaN if unknown
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
    redshift: F64

    def __len__(self) -> int:
        return len(self.source)

    def counts(self) -> I64:
        """(n,) detections of each object."""
        return np.diff(self.starts)


def load(data: Path, sources: Sequence[str]) -> Explosions:
    """Every object of some sources of a labelled folder, with its detections in the slots g and r.

    A source that the folder does not hold has no rows.  Raises BrokerError for a folder that cannot be read.
    """
    names = ("source", "object", "label", "group", "redshift")
    table = _read(data / "labels.parquet", names, sources).sort_by(
        [("source", "ascending"), ("object", "ascending")]
    )
    words: dict[str, Strings] = {name: _words(table[name]) for name in names[:4]}
    key = _key(words["source"], words["object"])
    points = _points(data, sources)
    owner = np.searchsorted(key, points["key"])
    known = (owner < len(key)) & (key[np.minimum(owner, len(key) - 1)] == points["key"]) if len(key) else []
    points = {name: values[known] for name, values in points.items()}
    order = np.lexsort((points["time"], owner[known]))
    count = np.bincount(owner[known], minlength=len(key))
    return Explosions(
        **{name: points[name][order] for name in ("time", "flux", "err", "band")},
        starts=np.concatenate([[0], np.cumsum(count)]).astype(np.int64),
        source=words["source"],
        object=words["object"],
        group=np.where(words["group"] != "", words["group"], key),
        label=words["label"],
        redshift=np.asarray(pc.cast(table["redshift"], pa.float64()).to_numpy(), dtype=np.float64),
    )


def in_one_band(explosions: Explosions, band: str, least: int) -> Explosions:
    """Objects with `least` detections in each slot, as if only the slot `band` had been observed.

    What a survey did not look at tells its classes in a sample of many surveys: shown so, objects teach that
    a missing band means nothing.
    """
    owner = np.repeat(np.arange(len(explosions)), explosions.counts())
    counts = [
        np.bincount(owner[explosions.band == BAND_INDEX[name]], minlength=len(explosions)) for name in "gr"
    ]
    both = np.minimum(*counts) >= least
    keep = both[owner] & (explosions.band == BAND_INDEX[band])
    count = np.bincount(owner[keep], minlength=len(explosions))[both]
    return Explosions(
        **{name: getattr(explosions, name)[keep] for name in ("time", "flux", "err", "band")},
        starts=np.concatenate([[0], np.cumsum(count)]).astype(np.int64),
        **{
            name: getattr(explosions, name)[both]
            for name in ("source", "object", "group", "label", "redshift")
        },
    )


def states(explosions: Explosions, owner: I64, last: I64, window_days: float = np.inf) -> Sample:
    """Objects as they stood at some of their detections.

    owner : (w,) the object;  last : (w,) how many of its detections had been made, 0 for none yet
    window_days : only what is at most so much older than the last detection was known
    """
    begin, end = explosions.starts[owner], explosions.starts[owner] + last
    time = np.append(explosions.time, 0.0)
    now = np.where(last > 0, time[end - 1], 0.0)
    first = np.array(
        [a + np.searchsorted(time[a:b], t - window_days) for a, b, t in zip(begin, end, now, strict=True)],
        dtype=np.int64,
    ).reshape(len(owner))
    length = end - first
    starts = np.concatenate([[0], np.cumsum(length)]).astype(np.int64)
    flat = np.arange(starts[-1]) + np.repeat(first - starts[:-1], length)
    points = empty_points(len(flat))
    points["midpoint_mjd_tai"], points["band"] = explosions.time[flat], explosions.band[flat]
    points["psf_flux"], points["psf_flux_err"] = explosions.flux[flat], explosions.err[flat]
    points["kind"] = DETECTION
    names = tuple(feature.name for feature in FEATURES)
    features = extract(LightCurves(points, starts), now)
    return Sample(
        names=names,
        features=features,
        label=explosions.label[owner],
        source=explosions.source[owner],
        object=explosions.object[owner],
        group=explosions.group[owner],
        n_points=length,
        n_nights=features[:, names.index("n_nights")].astype(np.int64),
        n_detections=features[:, names.index("n_detections")].astype(np.int64),
        age_days=features[:, names.index("age_days")],
    )


def last_of_all(explosions: Explosions) -> Sample:
    """Every object as it was last seen."""
    return states(explosions, np.arange(len(explosions)), explosions.counts())


def after(explosions: Explosions, counts: Sequence[int]) -> Sample:
    """Every object after so many of its detections, for each number that it reached."""
    reached = explosions.counts()[:, np.newaxis] >= np.array(counts)
    owner, which = np.nonzero(reached)
    return states(explosions, owner, np.array(counts, dtype=np.int64)[which])


def random_windows(
    explosions: Explosions, least: int, per_object: int, window_days: float, rng: np.random.Generator
) -> Sample:
    """Up to `per_object` random detections of each object as "now", with what a packet's history would hold.

    least : of the object's detections that must have been made
    """
    picks = [
        np.unique(rng.integers(least, count + 1, per_object)) if count >= least else np.empty(0, np.int64)
        for count in explosions.counts()
    ]
    owner = np.repeat(np.arange(len(explosions)), [len(pick) for pick in picks])
    return states(explosions, owner, np.concatenate([*picks, np.empty(0, np.int64)]), window_days)


def _points(data: Path, sources: Sequence[str]) -> Columns:
    """Detections of some sources in the slots: key of the object, time [MJD, TAI], flux, err [nJy], band."""
    names = (
        "source",
        "object",
        "mjd",
        "band",
        "mag",
        "magerr",
        "flux",
        "fluxerr",
        "upperlimit",
        "system",
        "kind",
    )
    table = _read(data / "photometry.parquet", names, sources)
    table = table.filter(pc.invert(pc.fill_null(table["upperlimit"], False)))
    parts = [
        _slots(table.filter(pc.equal(table["source"], source)), source)
        for source in pc.unique(table["source"]).to_pylist()
    ]
    kinds = {"key": np.str_, "time": np.float64, "flux": np.float64, "err": np.float64, "band": np.uint8}
    return {
        name: np.concatenate([np.empty(0, dtype=kind), *(part[name] for part in parts)])
        for name, kind in kinds.items()
    }


def _slots(table: pa.Table, source: str) -> Columns:
    """The detections of one source, each band as a slot's magnitudes or left out."""
    band = np.char.replace(_words(table["band"]), "'", "")
    object_ = _words(table["object"])
    mag, magerr, flux, fluxerr, mjd = (
        np.asarray(pc.cast(table[name], pa.float64()).to_numpy(), dtype=np.float64)
        for name in ("mag", "magerr", "flux", "fluxerr", "mjd")
    )
    slot, offset = np.full(len(band), "", dtype="U1"), np.zeros(len(band))
    if source == OSC:
        in_ab = (_words(table["system"]) == "AB") | (
            (band == "R") & np.isin(_words(table["kind"]), AB_TELESCOPES)
        )
        slot, offset = choose_slots(object_, band, in_ab)
        mjd = np.where(mjd > 0.0, mjd, np.nan)
    else:
        slot[band == "ztfg"], slot[band == "ztfr"] = "g", "r"
    given, from_mag = np.isfinite(flux), mag_to_njy(mag + offset)
    flux = np.where(given, flux * NJY_PER_UJY, from_mag)
    known = np.where(np.isfinite(magerr), magerr, ASSUMED_MAG_ERR)
    err = np.where(given, fluxerr * NJY_PER_UJY, mag_err_to_njy_err(from_mag, known))
    keep = (slot != "") & np.isfinite(mjd) & (err > 0.0)
    keep &= np.abs(flux) >= MIN_SNR.get(source, STREAM_SNR) * err
    own = np.where(slot == "g", BAND_INDEX["g"], BAND_INDEX["r"]).astype(np.uint8)
    to_tai: Callable[[F64], F64] = _ztf_midpoint if source in ZTF_SOURCES else mjd_utc_to_mjd_tai
    return {
        "key": _key(np.full(len(band), source), object_)[keep],
        "time": to_tai(mjd[keep]),
        "flux": flux[keep],
        "err": err[keep],
        "band": own[keep],
    }


def choose_slots(object_: Strings, band: Strings, in_ab: npt.NDArray[np.bool_]) -> tuple[Strings, F64]:
    """Which slot each magnitude goes to, '' if none, and what to add to it.

    object_, band, in_ab : (m,), whether a magnitude that is usually Vega is AB. Of each object one band
    becomes g, the best sampled of BLUE, and one r: the best sampled of RED, or V beside B, or of LAST_RESORT.
    """
    slot, offset = np.full(len(band), "", dtype="U1"), np.zeros(len(band))
    names, of = np.unique(object_, return_inverse=True)
    order = np.argsort(of, kind="stable")
    for rows in np.split(order, np.cumsum(np.bincount(of, minlength=len(names)))[:-1]):
        own = band[rows]
        count = dict(zip(*np.unique(own, return_counts=True), strict=True))
        blue, red = _pair(count)
        for name, key, terms in ((blue, "g", TO_G), (red, "r", TO_R)):
            chosen = rows[own == name] if name else rows[:0]
            slot[chosen] = key
            offset[chosen] = terms.get(name, 0.0)
            offset[chosen] += in_ab[chosen] * VEGA_MINUS_AB.get(name, 0.0)
    return slot, offset


def _pair(count: Mapping[str, int]) -> tuple[str, str]:
    """The bands of the slots g and r, '' for none.  count : detections of each band."""

    def best(weight: Mapping[str, float]) -> str:
        known = [name for name in weight if count.get(name)]
        return max(known, key=lambda name: count[name] * weight[name], default="")

    blue, red = best(BLUE), best(RED)
    if not red and blue == "B" and count.get("V"):
        red = "V"
    return blue, red or best(dict.fromkeys(LAST_RESORT, 1.0))


def _ztf_midpoint(mjd: F64) -> F64:
    return jd_utc_start_to_mjd_tai(mjd + JD_MINUS_MJD, EXPOSURE_S)


def _read(path: Path, names: Sequence[str], sources: Sequence[str]) -> pa.Table:
    """The columns named, null where the file lacks one that is not needed, of the rows of some sources."""
    try:
        file = pq.ParquetFile(path)
        held = [name for name in names if name in file.schema_arrow.names]
        table = file.read(columns=held)
    except (OSError, pa.ArrowException) as error:
        raise BrokerError(f"cannot read {path}: {error}; give the folder of labelled light curves") from None
    if missing := [name for name in ("source", "object") if name not in held]:
        raise BrokerError(f"{path} lacks the columns {missing}; give the folder of labelled light curves")
    for name in names:
        if name not in held:
            table = table.append_column(name, pa.nulls(len(table), pa.null()))
    table = table.set_column(
        table.column_names.index("source"), "source", pc.cast(table["source"], pa.string())
    )
    return table.filter(pc.is_in(table["source"], value_set=pa.array(list(sources), pa.string())))


def _words(column: pa.ChunkedArray) -> Strings:
    """Text of a column, '' for null."""
    text = pc.fill_null(pc.cast(column, pa.string()), "")
    return np.asarray(text.to_pylist(), dtype=np.str_).reshape(len(column))


def _key(source: Strings, object_: Strings) -> Strings:
    return np.char.add(np.char.add(source, "\t"), object_)
