"""Which family an object of the ZTF stream is of, from its first detection on.

Learnt on the histories of real alert packets alone: the only labelled source that is a sample of the stream.
Each labelled object is shown with what its packets say of the place (context) after 1 and 5 detections and
in its last state; each of these again without the hosts and magnitudes of the catalogue (else a model takes
an asteroid of which they are missing for a supernova); and in its last state without any context, so that
light curves from elsewhere can be judged too. First detections say next to nothing without context, and none
is shown so: a single detection of which nothing else is known is what an asteroid looks like.

What defined a label cannot predict it: asteroids were named by ssdistnr and bogus ones by rb, so no
solar-system column and no reliability is an input, and bogus is not learnt (there are no independent
labels). Stars and AGN were named by SIMBAD: bright, catalogued ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from broker.astro.bands import BAND_INDEX
from broker.astro.photometry import mag_err_to_njy_err, mag_to_njy
from broker.astro.sky import galactic_latitude_deg
from broker.astro.times import JD_MINUS_MJD, jd_utc_start_to_mjd_tai
from broker.batch import AlertBatch
from broker.context import ABS_GAL_B, CONTEXT_NAMES, COUNTERPART_COLOURS, context_matrix
from broker.features.catalog import FEATURES, extract
from broker.lightcurves import DETECTION, LightCurves, empty_points
from broker.message import Message
from broker.scores.calibration import softmax
from broker.surveys.avro import LocalSchemas
from broker.surveys.catalog import decode
from broker.training.dataset import MIN_SNR, SOURCES, STREAM_SOURCE
from broker.training.evaluate import Figure, balanced_accuracy
from broker.training.kinds import Kind, Settings
from broker.training.sample import Sample, joined
from broker.training.selection import folds, held_out_answers
from broker.training.tables import read_rows
from broker.training.task import Task

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
Strings = npt.NDArray[np.str_]
Mask = npt.NDArray[np.bool_]

TRANSIENT, STOCHASTIC, PERIODIC, MOVING = CLASSES = ("transient", "stochastic", "periodic", "moving")
LABELS: dict[str, str] = {
    **dict.fromkeys(("SNIa", "SNII", "SNIIn", "SNIbc", "SLSN", "TDE"), TRANSIENT),
    "AGN": STOCHASTIC,
    # Stars of every kind, whether they keep a period or not: what tells them apart is the place.
    **dict.fromkeys(("RRLyrae", "CEP", "DSCT", "EB", "LPV", "RotV"), PERIODIC),
    **dict.fromkeys(("CV/Nova", "YSO", "Symbiotic", "XRB"), PERIODIC),
    "SSO": MOVING,
}
"""Published label to the family it is counted for; an object with any other label is not learnt from."""

CONTEXT = (
    "star_score", "star_sep_arcsec", "neargaia_arcsec", "neargaia_mag", "host_sep_arcsec", "host_mag",
    "nucleus_offset_arcsec", "position_scatter_arcsec", "counterpart_mag_r", *COUNTERPART_COLOURS,
)  # fmt: skip
"""Context columns that are known of an alert only."""
OF_ONE_ALERT = ("nucleus_offset_arcsec", "position_scatter_arcsec")
"""Those of them that change from alert to alert; the others belong to the place."""
CATALOGUE = ("host_sep_arcsec", "host_mag", "counterpart_mag_r", *COUNTERPART_COLOURS)
"""Those that need the magnitudes of the catalogue."""
LIGHT_CURVE = (
    "age_days", "slope", "amplitude", "last_to_peak", "reduced_chi2", "color_gr",
)  # fmt: skip
INPUTS = (ABS_GAL_B, *LIGHT_CURVE, *CONTEXT)
PARAMETRIC = ("fit_days_since_peak", "fit_rise_days", "fit_fall_days", "fit_chi2", "fit_gain")
NAMES = (*(feature.name for feature in FEATURES), *CONTEXT_NAMES)

EARLY = (1, 2, 3, 5, 10, 20)
"""Detections after which an early state is taken."""
SHOWN = (1, 5)
"""Those that are learnt from, beside the last."""
_WITHOUT = 2
"""How often each object is shown without context: once is too little for models to make much of it."""
RUBIN_SOURCE = "lsst_real"
RELATIVE = {"tess_ztf_binned": 59_000.0}
"""Sources whose times are days since some event of each object, and a date [MJD] to count them from."""
JUDGED = (*SOURCES, RUBIN_SOURCE, *RELATIVE)
"""Sources that are judged, though only the stream's own is learnt from; Rubin's without any claim."""
BANDS = {"ztfg": "g", "ztfr": "r", "ztfR": "r", "ztfi": "i"} | {f"lsst{band}": band for band in "ugrizy"}
PACKETS = ("ztf/alerts", "ztf/alerts_reencoded")
"""Folders of alert packets beside the labelled folder, where context is read, if they are there."""
_EXPOSURE_S = 30.0
_NJY_PER_UJY = 1e3
_SAME_ALERT_DAYS = 1e-3


@dataclass(frozen=True)
class Histories:
    """Light curves of objects, ordered by object and time.

    time [MJD, TAI, mid-exposure], flux, err [nJy], band : (m,) of the detections;  starts : (n+1,)
    limit_time : (l,) of the exposures without one;  limit_starts : (n+1,)
    source, object, group, label : (n,), label as published, '' if unknown;  ra, dec : (n,) [deg], NaN if so
    """

    time: F64
    flux: F64
    err: F64
    band: npt.NDArray[np.uint8]
    starts: I64
    limit_time: F64
    limit_starts: I64
    source: Strings
    object: Strings
    group: Strings
    label: Strings
    ra: F64
    dec: F64

    def __len__(self) -> int:
        return len(self.object)


@dataclass(frozen=True)
class Packets:
    """Context that alert packets gave: rows sorted by time.  name, time : (k,);  context : (k, c)."""

    name: Strings
    time: F64
    context: F64


def load(data: Path, sources: Sequence[str] = JUDGED) -> Histories:
    """Every object of some sources of a folder with `labels.parquet` and `photometry.parquet`.

    Detections are in the surveys' own bands; forced photometry is left out. A point of another source than
    the stream counts as one from 5 sigma on.
    """
    labels = read_rows(
        data / "labels.parquet", ("source", "object", "label", "group"), sources, ("ra", "dec")
    )
    points = read_rows(
        data / "photometry.parquet",
        ("source", "object", "mjd", "band", "mag", "magerr", "flux", "fluxerr", "upperlimit"),
        sources,
        ("kind",),
    )
    if "kind" in points.column_names:
        kind = pc.fill_null(pc.cast(points["kind"], pa.string()), "")
        points = points.filter(pc.invert(pc.starts_with(kind, "forced")))
    points = points.filter(pc.is_in(pc.cast(points["band"], pa.string()), value_set=pa.array(list(BANDS))))
    rows = labels.to_pylist()
    number = {(row["source"], row["object"]): place for place, row in enumerate(rows)}
    owner = np.array(
        [
            number.get(key, -1)
            for key in zip(*(points[c].to_pylist() for c in ("source", "object")), strict=True)
        ],
        dtype=np.int64,
    )
    mjd, mag, magerr, flux, fluxerr = (
        np.asarray(points[name].to_numpy(), dtype=np.float64)
        for name in ("mjd", "mag", "magerr", "flux", "fluxerr")
    )
    mjd = mjd + np.array([RELATIVE.get(name, 0.0) for name in points["source"].to_pylist()])
    limit = np.asarray(pc.fill_null(points["upperlimit"], False).to_numpy(zero_copy_only=False), dtype=bool)
    given, from_mag = np.isfinite(flux), mag_to_njy(np.where(limit, np.nan, mag))
    njy = np.where(given, flux * _NJY_PER_UJY, from_mag)
    err = np.where(given, fluxerr * _NJY_PER_UJY, mag_err_to_njy_err(from_mag, magerr))
    ours = np.array([row["source"] == STREAM_SOURCE for row in rows] + [False])[owner]
    good = (owner >= 0) & (mjd > 0.0) & np.isfinite(mjd)
    found = good & ~limit & (err > 0.0) & np.isfinite(njy) & (ours | (np.abs(njy) >= MIN_SNR * err))
    time = jd_utc_start_to_mjd_tai(np.where(good, mjd, 0.0) + JD_MINUS_MJD, _EXPOSURE_S)
    band = np.array([BAND_INDEX[BANDS[name]] for name in points["band"].to_pylist()], dtype=np.uint8)
    order, starts = _rows(owner, time, found, len(rows))
    empty, limit_starts = _rows(owner, time, good & ~found, len(rows))
    source, names, label = (_texts(rows, name) for name in ("source", "object", "label"))
    ra, dec = (
        np.array([np.nan if row.get(name) is None else row[name] for row in rows], dtype=np.float64)
        for name in ("ra", "dec")
    )
    return Histories(
        time=time[order],
        flux=njy[order],
        err=err[order],
        band=band[order],
        starts=starts,
        limit_time=time[empty],
        limit_starts=limit_starts,
        source=source,
        object=names,
        group=np.array([row["group"] or f"{row['source']} {row['object']}" for row in rows], dtype=np.str_),
        label=label,
        ra=ra,
        dec=dec,
    )


def samples(data: Path) -> Sample:
    """States of the stream's labelled objects: with context where their packets are there, and without."""
    histories, packets = load(data, (STREAM_SOURCE,)), read_packets(data.parent)
    known = np.flatnonzero(np.isin(histories.label, list(LABELS)) & (np.diff(histories.starts) > 0))
    last = _last(histories)[known]
    bare = states(histories, known, last, None)
    if packets is None:
        return bare
    owner, count = _after(histories, SHOWN)
    early = np.isin(owner, known) & (count < _last(histories)[owner])
    owner, count = np.concatenate([owner[early], known]), np.concatenate([count[early], last])
    seen = np.isin(histories.object[owner], packets.name)
    with_context = states(histories, owner[seen], count[seen], packets)
    return joined([with_context, without(with_context, CATALOGUE), *[bare] * _WITHOUT])


def without(sample: Sample, names: Sequence[str]) -> Sample:
    """The sample with some of its features unknown."""
    features = sample.features.copy()
    features[:, [sample.names.index(name) for name in names]] = np.nan
    return replace(sample, features=features)


def last_states(data: Path) -> Sample:
    """Every object of JUDGED in its last state, labelled or not; with context where there are packets."""
    histories = load(data)
    return states(histories, np.arange(len(histories)), _last(histories), read_packets(data.parent))


def early_states(data: Path) -> Sample:
    """Every object of JUDGED after each of EARLY detections; with context where there are packets."""
    histories = load(data)
    return states(histories, *_after(histories, EARLY), read_packets(data.parent))


def states(histories: Histories, owner: I64, count: I64, packets: Packets | None) -> Sample:
    """What was known of some objects after some of their detections.

    owner, count : (s,) object and its number of detections then;  packets : None leaves context unknown
    """
    first = histories.starts[owner]
    now = np.where(
        count > 0, histories.time[np.maximum(first + count - 1, 0)] if len(histories.time) else 0.0, 0.0
    )
    matrix = extract(_curves(histories, first, count), now)
    place = {feature.name: column for column, feature in enumerate(FEATURES)}
    label = np.array([LABELS.get(name, "") for name in histories.label[owner].tolist()], dtype=np.str_)
    limits = [
        int(
            np.searchsorted(
                histories.limit_time[histories.limit_starts[i] : histories.limit_starts[i + 1]], t
            )
        )
        for i, t in zip(owner.tolist(), now.tolist(), strict=True)
    ]
    return Sample(
        NAMES,
        np.hstack([matrix, _context(histories, owner, now, packets)]),
        label,
        histories.source[owner],
        histories.object[owner],
        histories.group[owner],
        n_points=count + np.array(limits, dtype=np.int64),
        n_nights=matrix[:, place["n_nights"]].astype(np.int64),
        n_detections=matrix[:, place["n_detections"]].astype(np.int64),
        age_days=np.nan_to_num(matrix[:, place["age_days"]]),
    )


def read_packets(folder: Path) -> Packets | None:
    """Context of every alert packet in a folder of data; None where it has none."""
    paths = tuple(path for name in PACKETS for path in sorted((folder / name).glob("*.avro")))
    return _read_packets(paths) if paths else None


@lru_cache(maxsize=2)
def _read_packets(paths: tuple[Path, ...]) -> Packets:
    messages = [Message("packets", 0, offset, 0, path.read_bytes()) for offset, path in enumerate(paths)]
    batches: list[AlertBatch] = [b for b in decode(messages, LocalSchemas()).batches if b.survey == "ztf"]
    names, times, contexts = [], [], []
    for batch in batches:
        names.append(np.char.decode(batch.object_name, "ascii"))
        times.append(batch.midpoint_mjd_tai)
        contexts.append(context_matrix(batch.packet, batch.ra, batch.dec))
    time = np.concatenate(times)
    order = np.argsort(time, kind="stable")
    return Packets(np.concatenate(names)[order], time[order], np.concatenate(contexts)[order])


def _context(histories: Histories, owner: I64, now: F64, packets: Packets | None) -> F64:
    """(s, len(CONTEXT_NAMES)) of some objects at some times: of the alert's own packet, else of the place's.

    Of what later packets say only what belongs to the place is used. CONTEXT is NaN without a packet.
    """
    found = np.full((len(owner), len(CONTEXT_NAMES)), np.nan)
    column = {name: place for place, name in enumerate(CONTEXT_NAMES)}
    of_place = [column[name] for name in CONTEXT if name not in OF_ONE_ALERT]
    of_alert = [column[name] for name in OF_ONE_ALERT]
    if packets is not None:
        rows_of = _rows_by_name(packets.name)
        for state, (name, time) in enumerate(
            zip(histories.object[owner].tolist(), now.tolist(), strict=True)
        ):
            rows = rows_of.get(name)
            if rows is None:
                continue
            nearest = rows[np.argmin(np.abs(packets.time[rows] - time))]
            found[state, of_place] = packets.context[nearest, of_place]
            if abs(packets.time[nearest] - time) < _SAME_ALERT_DAYS:
                found[state, of_alert] = packets.context[nearest, of_alert]
    found[:, column[ABS_GAL_B]] = np.abs(galactic_latitude_deg(histories.ra, histories.dec))[owner]
    return found


def _rows_by_name(names: Strings) -> Mapping[str, I64]:
    unique, inverse = np.unique(names, return_inverse=True)
    return {str(name): np.flatnonzero(inverse == place) for place, name in enumerate(unique)}


def _curves(histories: Histories, first: I64, count: I64) -> LightCurves:
    """The light curves of `count` detections from `first` on."""
    starts = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(count)])
    flat = np.arange(starts[-1]) + np.repeat(first - starts[:-1], count)
    points = empty_points(len(flat))
    points["midpoint_mjd_tai"], points["band"] = histories.time[flat], histories.band[flat]
    points["psf_flux"], points["psf_flux_err"] = histories.flux[flat], histories.err[flat]
    points["kind"], points["source_id"] = DETECTION, flat + 1
    return LightCurves(points, starts)


def _last(histories: Histories) -> I64:
    """(n,) detections of each object."""
    return np.diff(histories.starts)


def _after(histories: Histories, counts: Sequence[int]) -> tuple[I64, I64]:
    """(object, detections) of every object that has at least so many detections."""
    owner, count = np.meshgrid(np.arange(len(histories)), np.array(counts), indexing="ij")
    enough = count <= _last(histories)[:, np.newaxis]
    return owner[enough], count[enough]


def _rows(owner: I64, time: F64, keep: Mask, objects: int) -> tuple[I64, I64]:
    """(order of the points kept, by object and time; row boundaries)."""
    chosen = np.flatnonzero(keep)
    order = chosen[np.lexsort((time[chosen], owner[chosen]))]
    starts = np.zeros(objects + 1, dtype=np.int64)
    np.cumsum(np.bincount(owner[chosen], minlength=objects), out=starts[1:])
    return order, starts


def _texts(rows: Sequence[Mapping[str, str | None]], name: str) -> Strings:
    return np.array([row[name] or "" for row in rows], dtype=np.str_)


@dataclass(frozen=True)
class Crossed:
    """Balanced accuracy by cross-validation over objects, each repeat dealing them anew.

    bare, last, first : without context in the last state; with context in the last, and after one detection.
    The value is the mean over the repeats, the interval that of the first repeat's objects drawn again.
    """

    objects: dict[str, int]
    bare: Figure
    last: Figure
    first: Figure


def cross_validated(sample: Sample, kind: Kind, settings: Settings, repeats: int = 3) -> Crossed:
    """How good a kind of model is where every object is judged by a model that did not see it."""
    x, y, weight = sample.columns(INPUTS), sample.truth(CLASSES), sample.weights()
    known = np.isfinite(sample.columns(CONTEXT)).any(axis=1)
    most = {name: sample.n_detections[sample.object == name].max() for name in np.unique(sample.object)}
    done = sample.n_detections == np.array([most[name] for name in sample.object])
    chosen = {"bare": ~known, "last": known & done, "first": known & (sample.n_detections == 1)}
    _, once = np.unique(
        np.column_stack([sample.object, known, sample.n_detections]), axis=0, return_index=True
    )
    found: dict[str, list[Figure]] = {name: [] for name in chosen}
    for seed in range(repeats):
        fold = folds(sample.group, sample.label, seed)
        p = softmax(held_out_answers(kind, settings, x, y, weight, fold, len(CLASSES), seed))
        for name, rows in chosen.items():
            own = once[rows[once]]
            part, rng = sample.take(own), np.random.default_rng(seed)
            found[name].append(balanced_accuracy(p[own], y[own], part, rng))
    means = {
        name: Figure(float(np.mean([one.value for one in each])), each[0].low, each[0].high)
        for name, each in found.items()
    }
    counts = {name: len(np.unique(sample.group[sample.label == name])) for name in CLASSES}
    return Crossed(counts, means["bare"], means["last"], means["first"])


CAVEATS = (
    "`periodic` means a star of any kind, eruptive ones too; `stochastic` means an AGN.",
    "a single detection of whose surroundings nothing is known is nearly always called moving.",
    "bogus is not learnt: no labels are independent of the survey's own score.",
    "CV, YSO, flares and microlensing are not told from other stars: taught by simulation alone, regular "
    "variables on real objects are told from them no better than by chance.",
)
TASK = Task(
    "family",
    "",
    CLASSES,
    INPUTS,
    PARAMETRIC,
    JUDGED,
    1,
    samples,
    last_states,
    early_states,
    CAVEATS,
    dated=(STREAM_SOURCE,),
)
