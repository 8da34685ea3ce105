"""What kind of periodic star: learnt on total flux from surveys of one band or many, and blind to which.

Each object is put into one row of points as the stream would have it, its magnitudes turned into total flux
(the reference image holds nothing). What the task looks at is free of the flux's scale, of the band and of
the number of points, so that it can be asked of any survey's star whose total flux is known.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from broker.astro.bands import BAND_INDEX, NO_BAND
from broker.astro.photometry import mag_err_to_njy_err, mag_to_njy
from broker.features.catalog import FEATURES, extract
from broker.features.measurements import Reference
from broker.lightcurves import DETECTION, LightCurves, empty_points
from broker.training.questions import one_against_rest
from broker.training.sample import I64, Sample, Strings, joined
from broker.training.tables import read_rows

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
TAUGHT_COUNTS = (20, 50)
"""Points of the young states that are learnt from as well: without them a short light curve's lucky period
would be believed."""
PARENT = "periodic"
PARAMETRIC: tuple[str, ...] = (
    "period_days", "period_power", "fourier_r21", "fourier_r31", "fourier_phi21", "fourier_phi31",
    "total_std",
)  # fmt: skip
"""Of the baseline that knows the fitted cycle alone."""
LEAST_DETECTIONS = min(TAUGHT_COUNTS)
CAVEATS: tuple[str, ...] = (
    "rotating and young stars (RS CVn, Herbig Ae/Be, T Tauri) are not taught; most are called EB or LPV.",
    "no claim is made for ZTF: among its labelled histories hardly any star has 20 detections.",
)
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
    """Every object of TEACHERS that is known to be one of CLASSES, in two young states and in its last.

    data : folder with `labels.parquet` and `photometry.parquet`. An object whose sources name two classes
    is left out. The young states are those after TAUGHT_COUNTS measurements in the best-sampled band;
    the last states are the last rows.
    """
    last, stars = last_states(data), load(data)
    taught = np.isin(last.source, TEACHERS) & np.isin(last.label, CLASSES)
    taught &= ~_disputed(last.group, last.label)
    parts = []
    for count in TAUGHT_COUNTS:
        until = points_until(stars.curves, count)
        rows = np.flatnonzero(taught & (until > 0) & (until < np.diff(stars.curves.starts)))
        parts.append(states(stars, rows, until[rows]))
    return joined([with_gaps(parts[0]), *parts[1:], last.take(taught)])


def with_gaps(sample: Sample) -> Sample:
    """A sample in which every fourth row has no total flux, and every eighth has no period.

    So is a star whose packets name no reference source, or whose points are spread over too many bands; a
    model that never saw a gap would take it for a value.
    """
    features, row = sample.features.copy(), np.arange(len(sample))
    total = [sample.names.index(name) for name in INPUTS if name.startswith("total_")]
    folded = [sample.names.index(name) for name in INPUTS if not name.startswith("total_")]
    features[np.ix_(row % 4 == 0, total)] = np.nan
    features[np.ix_(row % 8 == 1, folded)] = np.nan
    return replace(sample, features=features)


def young_or_not(data: Path) -> Sample:
    """Every star of TEACHERS with one known label, in its last state: YSO or rest."""
    last = last_states(data)
    known = np.isin(last.source, TEACHERS) & np.isin(last.label, (*CLASSES, *REPORTED))
    return one_against_rest(last.take(known & ~_disputed(last.group, last.label)), "YSO")


@lru_cache(maxsize=1)
def last_states(data: Path) -> Sample:
    """Every object of SOURCES, labelled or not, in its last state."""
    stars = load(data)
    return states(stars, np.arange(len(stars.name)), np.diff(stars.curves.starts))


def early_states(data: Path) -> Sample:
    """Every object of SOURCES after each of COUNTS detections that it reached."""
    stars = load(data)
    reached = np.diff(stars.curves.starts)
    rows = [np.flatnonzero(reached >= count) for count in COUNTS]
    return joined(
        [
            states(stars, having, np.full(len(having), count))
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
        (row["source"], row["object"]): row
        for row in read_rows(data / "labels.parquet", LABELS, SOURCES).to_pylist()
    }
    table = read_rows(data / "photometry.parquet", PHOTOMETRY, SOURCES)
    mjd, mag, magerr = (np.asarray(table[name].to_numpy(), dtype=np.float64) for name in PHOTOMETRY[3:])
    flux = mag_to_njy(mag)
    err = mag_err_to_njy_err(flux, magerr)
    (source, sources), (name, objects), (band, bands) = (_coded(table[column]) for column in PHOTOMETRY[:3])
    order = np.lexsort((mjd, name, source))
    order = order[np.isfinite(flux[order]) & (err[order] > 0.0)]
    new = np.append(True, (np.diff(source[order]) != 0) | (np.diff(name[order]) != 0))[: len(order)]
    points = empty_points(len(order))
    points["midpoint_mjd_tai"], points["psf_flux"], points["psf_flux_err"] = (
        mjd[order],
        flux[order],
        err[order],
    )
    slots = np.array([_SLOTS.get(published, NO_BAND) for published in bands.tolist()], dtype=np.uint8)
    points["band"], points["kind"] = slots[band[order]], DETECTION
    first = np.flatnonzero(new)
    of_source, of_name = sources[source[order[first]]], objects[name[order[first]]]
    keys = list(zip(of_source.tolist(), of_name.tolist(), strict=True))
    rows = [known.get(key, {}) for key in keys]
    return Stars(
        LightCurves(points, np.append(first, len(order)).astype(np.int64)),
        of_source,
        of_name,
        np.array([row.get("label") or "" for row in rows], dtype=np.str_),
        np.array(
            [row.get("group") or " ".join(key) for row, key in zip(rows, keys, strict=True)], dtype=np.str_
        ),
    )


def _coded(column: pa.ChunkedArray) -> tuple[I64, Strings]:
    """Strings as numbers, and the strings that these stand for, in order."""
    words = pc.dictionary_encode(pc.cast(column, pa.string())).combine_chunks()
    names, code = np.unique(np.array(words.dictionary.to_pylist(), dtype=np.str_), return_inverse=True)
    return code[words.indices.to_numpy()], names


def states(stars: Stars, objects: I64, counts: I64) -> Sample:
    """Some objects as they stood after so many points.  objects : (n,) indices;  counts : (n,), >= 1."""
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


def points_until(curves: LightCurves, count: int) -> I64:
    """(n,) points of all bands up to the `count`-th in the best-sampled one; 0 where it has fewer."""
    lengths = np.diff(curves.starts)
    own = curves.points["band"] == np.repeat(best_sampled(curves), lengths)
    before = np.concatenate([[0], np.cumsum(own)])
    place = np.searchsorted(before, before[curves.starts[:-1]] + count)
    return np.where(
        before[curves.starts[1:]] - before[curves.starts[:-1]] >= count, place - curves.starts[:-1], 0
    )


def best_sampled(curves: LightCurves) -> npt.NDArray[np.uint8]:
    """(n,) the band with the most points; of equal ones the bluest, as the period search takes it."""
    row = np.repeat(np.arange(len(curves)), np.diff(curves.starts))
    counts = np.zeros((len(curves), NO_BAND + 1), dtype=np.int64)
    np.add.at(counts, (row, curves.points["band"]), 1)
    return np.asarray(counts[:, :NO_BAND].argmax(axis=1), dtype=np.uint8)


def _disputed(group: Strings, label: Strings) -> npt.NDArray[np.bool_]:
    """(n,) whether an object has another label under another name or in another source."""
    known = label != ""
    pairs = np.unique(np.stack([group[known], label[known]], axis=1), axis=0)
    names, labels = np.unique(pairs[:, 0], return_counts=True)
    return np.isin(group, names[labels > 1])
