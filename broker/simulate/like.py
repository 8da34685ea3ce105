"""Observing as a real survey did: when, in which band, how deep and with what errors, from real histories.

Read from a folder of labelled light curves each time it is needed; nothing of it is kept here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from broker.astro.photometry import LIMIT_SIGMA, limit_to_njy_err
from broker.astro.times import JD_MINUS_MJD, jd_utc_start_to_mjd_tai
from broker.errors import BrokerError
from broker.training.tables import read_rows

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
Strings = npt.NDArray[np.str_]

SOURCE = "ztf_alert_histories"
"""Histories with the exposures that found nothing: the others say nothing of cadence and depth."""
BANDS = {"ztfg": "g", "ztfr": "r"}
BAND_NAMES = ("g", "r")
EXPOSURE_S = 30.0
NJY_PER_UJY = 1e3
LEAST_EXPOSURES, LEAST_DAYS = 8, 20.0
"""A shorter history tells little of a survey's rhythm: its object may have been looked for once only."""
LEAST_BLOCKS = 20
MOST_GAP_DAYS = 4
"""Between one real history and the next there are 1 to so many days: what a history of nights looks like."""
ALIKE = 15
"""Histories of the right hour to choose the next one from."""
NEAR_DAYS = 5.0
"""A limit of the same object and band so near in time stands for the depth of a detection's exposure."""
KNOTS = np.array([0.7, 0.9, 1.1, 1.3, 1.6, 2.0, 2.5, 3.2])
"""Flux over sky error, as a power of ten, where the error relation is fitted. Below 5 sigma (0.7) a detection
was made in a deeper exposure than the limit beside it says: it would teach errors below the sky's."""
LEAST_AT_KNOT, LEAST_OF_PLACE = 12, 4
TRIPLE_DAYS, LEAST_TRIPLES = 8.0, 30
GAP_DAYS, CLEAR = 10.0, 8.0
SMOOTH = ("SNIa", "SNII", "SNIIn", "SNIbc", "SLSN", "TDE")
"""Labels of objects whose light changes smoothly from night to night: what is left shows the noise."""


@dataclass(frozen=True)
class NoiseRelation:
    """How the error of a detection grows with its light, in one band.

    flux  : (k,) log10 of the flux in units of the exposure's sky error
    err   : (k,) log10 of the error in those units, median of the real detections there
    of_place, scatter : standard deviation of log10(error) about it: of places (host light), and at one place
    honesty : how far real points scatter, in units of their errors; below 1 if these are too cautious
    """

    flux: F64
    err: F64
    of_place: float
    scatter: float
    honesty: float

    def draw(self, flux: F64, sky_err: F64, place: float, rng: np.random.Generator) -> F64:
        """(n,) errors [nJy] of n difference fluxes [signed nJy] of a place, in exposures of those sky errors.

        place : standard normal number of the place: how bright a host and how crowded a field it has
        """
        bright = np.log10(np.maximum(np.abs(flux) / sky_err, 1e-3))
        typical = np.interp(bright, self.flux, self.err)
        spread = self.of_place * place + self.scatter * rng.standard_normal(len(flux))
        return np.asarray(sky_err * 10.0 ** (typical + spread))


@dataclass(frozen=True)
class Like:
    """Real histories to draw from, all as flat columns.

    day   : (m,) days since the midnight before each history began
    band  : (m,) index into BAND_NAMES;  sky_err : (m,) one sigma of the empty sky [nJy]
    starts : (b+1,) boundaries of the b histories;  began : (b,) when they began [MJD, TAI]
    noise : a relation for each band
    found : share of exposures that made an alert where there was clearly light enough
    """

    day: F64
    band: I64
    sky_err: F64
    starts: I64
    began: F64
    noise: tuple[NoiseRelation, ...]
    found: float

    def exposures(self, rng: np.random.Generator) -> Iterator[tuple[F64, I64, F64]]:
        """Endless real histories one after the other: (day, band, sky error [nJy]) of each.

        Days count from the first one's midnight. Pairs of a night and the moon's depth stay real; each
        history begins about the hour at which the one before ended: a field drifts through the night slowly.
        """
        begin, hours = 0.0, self.day[self.starts[:-1]]
        block = int(rng.integers(len(hours)))
        while True:
            own = slice(self.starts[block], self.starts[block + 1])
            day = begin + self.day[own]
            yield day, self.band[own], self.sky_err[own]
            begin = float(np.floor(day[-1])) + int(rng.integers(1, MOST_GAP_DAYS + 1))
            apart = np.abs(hours - day[-1] % 1.0)
            near = np.argsort(np.minimum(apart, 1.0 - apart), kind="stable")[:ALIKE]
            block = int(rng.choice(near))

    def schedule(self, days: float, rng: np.random.Generator) -> tuple[F64, I64, F64]:
        """Exposures of one place for a while: (day, band, sky error [nJy]), each (n,), 0 <= day < days.

        It begins somewhere within a history, not with the night of its first exposure.
        """
        skip, parts = rng.uniform(0.0, 30.0), []
        for day, band, sky_err in self.exposures(rng):
            parts.append((day - skip, band, sky_err))
            if day[-1] - skip >= days:
                break
        day, band, sky_err = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        inside = (day >= 0.0) & (day < days)
        return day[inside], band[inside], sky_err[inside]

    def before(self, mjd: float) -> Like:
        """Only the histories that began before a time [MJD, TAI]: a survey's rhythm changes."""
        kept = np.flatnonzero(self.began < mjd)
        length = np.diff(self.starts)[kept]
        rows = np.concatenate([np.arange(self.starts[k], self.starts[k + 1]) for k in kept])
        starts = np.concatenate([[0], np.cumsum(length)]).astype(np.int64)
        return Like(
            self.day[rows],
            self.band[rows],
            self.sky_err[rows],
            starts,
            self.began[kept],
            self.noise,
            self.found,
        )

    def measure(
        self, flux: F64, band: I64, sky_err: F64, place: float, rng: np.random.Generator
    ) -> tuple[F64, F64]:
        """True difference fluxes of a place as they are measured: (flux, stated error), each (n,) [nJy].

        flux : (n,) [signed nJy];  band : (n,) index into BAND_NAMES;  sky_err : (n,) [nJy]
        place : standard normal number of the place
        """
        err, honesty = np.empty(len(flux)), np.empty(len(flux))
        for number, relation in enumerate(self.noise):
            own = band == number
            err[own] = relation.draw(flux[own], sky_err[own], place, rng)
            honesty[own] = relation.honesty
        return flux + honesty * err * rng.standard_normal(len(flux)), err


def read_like(data: Path) -> Like:
    """What a folder of labelled light curves says of when and how deep the ZTF stream looks.

    Raises BrokerError if it cannot be read or holds too few histories with their upper limits.
    """
    points = _points(data)
    names, owner = np.unique(points["object"], return_inverse=True)
    order = np.lexsort((points["mjd"], owner))
    owner = owner[order]
    mjd, band, limit, flux, err = (points[name][order] for name in ("mjd", "band", "limit", "flux", "err"))
    own_limit = np.isfinite(limit)
    sky_err, near = _depth(owner, mjd, band, limit_to_njy_err(limit), len(names))
    labels = read_rows(data / "labels.parquet", ("source", "object", "label"), (SOURCE,))
    known = labels.filter(pc.is_in(labels["label"], value_set=pa.array(SMOOTH, labels["label"].type)))
    smooth = np.isin(names, np.array(known["object"].to_pylist(), dtype=np.str_))
    relations = []
    for number in range(len(BAND_NAMES)):
        rows = ~own_limit & (band == number)
        calm = rows & smooth[owner]
        honesty = repeatability(owner[calm], mjd[calm], flux[calm], err[calm])
        rows &= near
        in_skies = np.abs(flux[rows]) / sky_err[rows], err[rows] / sky_err[rows]
        relations.append(fit_noise(*in_skies, owner[rows], honesty))
    calm, code = smooth[owner], owner * len(BAND_NAMES) + band
    blocks = [
        rows
        for rows in np.split(np.arange(len(owner)), np.cumsum(np.bincount(owner))[:-1])
        if len(rows) >= LEAST_EXPOSURES and np.ptp(mjd[rows]) >= LEAST_DAYS and own_limit[rows].any()
    ]
    if len(blocks) < LEAST_BLOCKS:
        raise BrokerError(
            f"{data} holds {len(blocks)} histories of source {SOURCE!r} with upper limits and "
            f"{LEAST_DAYS:.0f} days; {LEAST_BLOCKS} are needed to observe like it: give another folder"
        )
    rows = np.concatenate(blocks)
    return Like(
        day=np.concatenate([mjd[own] - np.floor(mjd[own[0]]) for own in blocks]),
        band=band[rows],
        sky_err=sky_err[rows],
        starts=np.concatenate([[0], np.cumsum([len(own) for own in blocks])]).astype(np.int64),
        began=np.array([mjd[own[0]] for own in blocks]),
        noise=tuple(relations),
        found=found_share(code[calm], mjd[calm], np.where(own_limit, np.nan, flux)[calm], sky_err[calm]),
    )


def repeatability(owner: I64, mjd: F64, flux: F64, err: F64) -> float:
    """How far detections of smooth light curves lie from their neighbours' line, in units of their errors.

    owner, mjd, flux, err : (n,) of one band, ordered by owner and time. Of each detection with one before and
    one after on other nights, all within TRIPLE_DAYS, the distance from the line between them: half the range
    of its middle 68 %, which is 1 for honest errors. 1 where fewer than LEAST_TRIPLES say nothing.
    """
    if len(owner) < 3:
        return 1.0
    left, right = mjd[1:-1] - mjd[:-2], mjd[2:] - mjd[1:-1]
    same = (owner[:-2] == owner[2:]) & (left > 0.5) & (right > 0.5) & (left + right < TRIPLE_DAYS)
    late = left / (left + right)
    line = flux[:-2] * (1.0 - late) + flux[2:] * late
    variance = err[1:-1] ** 2 + (err[:-2] * (1.0 - late)) ** 2 + (err[2:] * late) ** 2
    apart = ((flux[1:-1] - line) / np.sqrt(variance))[same]
    return _spread(apart) if len(apart) >= LEAST_TRIPLES else 1.0


def _spread(values: F64) -> float:
    """Half the range of the middle 68 %: a standard deviation that is blind to outliers; 0 of none."""
    if not len(values):
        return 0.0
    low, high = np.quantile(values, [0.16, 0.84])
    return float(high - low) / 2.0


def found_share(owner: I64, mjd: F64, flux: F64, sky_err: F64) -> float:
    """Share of exposures of smooth light curves that made an alert where the light was clearly enough.

    owner : (n,) object and band;  mjd, sky_err : (n,) of its exposures, any order;  flux : (n,), NaN where
    nothing was found. Asked of the exposures between two detections at most GAP_DAYS apart whose line is
    CLEAR times the sky's error; 1 where fewer than LEAST_TRIPLES are. Bad pixels, poor subtractions and
    the survey's own cuts take the rest.
    """
    asked = seen = 0
    order = np.lexsort((mjd, owner))
    for rows in np.split(order, np.flatnonzero(np.diff(owner[order])) + 1):
        known = rows[np.isfinite(flux[rows])]
        for row in rows:
            after = int(np.searchsorted(mjd[known], mjd[row], side="right"))
            before = int(np.searchsorted(mjd[known], mjd[row])) - 1
            if before < 0 or after >= len(known):
                continue
            a, b = known[before], known[after]
            if mjd[b] - mjd[a] > GAP_DAYS:
                continue
            line = np.interp(mjd[row], mjd[[a, b]], flux[[a, b]])
            if line > CLEAR * sky_err[row]:
                asked, seen = asked + 1, seen + int(np.isfinite(flux[row]))
    return seen / asked if asked >= LEAST_TRIPLES else 1.0


def fit_noise(flux: F64, err: F64, owner: I64, honesty: float) -> NoiseRelation:
    """The relation of error to flux of real detections, both in units of the sky's error.

    flux, err : (n,) > 0;  owner : (n,) object. Medians at KNOTS of the detections about each; a knot with
    fewer than LEAST_AT_KNOT is not used, the ends go on flat. Raises BrokerError if none is left.
    """
    seen = flux >= LIMIT_SIGMA
    bright, error = np.log10(flux[seen]), np.log10(err[seen])
    half = np.append(np.diff(KNOTS), KNOTS[-1] - KNOTS[-2]) / 2.0
    near = np.abs(bright[:, np.newaxis] - KNOTS) <= half
    known = near.sum(axis=0) >= LEAST_AT_KNOT
    if not known.any():
        raise BrokerError(
            f"{len(flux)} detections near an upper limit are too few to learn errors from; give more data"
        )
    typical = np.array([np.median(error[column]) for column in near.T[known]])
    left = error - np.interp(bright, KNOTS[known], typical)
    _, own = np.unique(owner[seen], return_inverse=True)
    middle = np.array([np.median(left[own == number]) for number in range(own.max() + 1)])
    several = np.bincount(own)[own] >= LEAST_OF_PLACE
    return NoiseRelation(
        KNOTS[known], typical, _spread(middle), _spread((left - middle[own])[several]), honesty
    )


def _points(data: Path) -> dict[str, npt.NDArray[Any]]:
    """Detections and limits of SOURCE: object, mjd [MJD, TAI], band, limit [mag], flux and err [nJy]."""
    names = ("source", "object", "mjd", "band", "mag", "flux", "fluxerr", "upperlimit")
    table = read_rows(data / "photometry.parquet", names, (SOURCE,))
    table = table.filter(pc.is_in(pc.cast(table["band"], pa.string()), value_set=pa.array(list(BANDS))))
    mjd, mag, flux, err = (_numbers(table, name) for name in ("mjd", "mag", "flux", "fluxerr"))
    empty = np.asarray(pc.fill_null(table["upperlimit"], False).to_numpy(zero_copy_only=False), dtype=bool)
    keep = (mjd > 0.0) & np.where(empty, (mag > 0.0) & (mag < 30.0), (err > 0.0) & np.isfinite(flux))
    band = [BAND_NAMES.index(BANDS[name]) for name in table["band"].to_pylist()]
    return {
        "object": np.array(table["object"].to_pylist(), dtype=np.str_)[keep],
        "mjd": jd_utc_start_to_mjd_tai(mjd[keep] + JD_MINUS_MJD, EXPOSURE_S),
        "band": np.array(band, dtype=np.int64)[keep],
        "limit": np.where(empty, mag, np.nan)[keep],
        "flux": flux[keep] * NJY_PER_UJY,
        "err": err[keep] * NJY_PER_UJY,
    }


def _numbers(table: pa.Table, name: str) -> F64:
    return np.asarray(pc.cast(table[name], pa.float64()).to_numpy(), dtype=np.float64)


def _depth(
    owner: I64, mjd: F64, band: I64, limit_err: F64, objects: int
) -> tuple[F64, npt.NDArray[np.bool_]]:
    """(sky error of each exposure [nJy], whether it is its own or a near one's).

    limit_err : (m,) of the exposures without a detection, NaN where there is one: those take the error of the
    same object's nearest limit of that band, or where it has none the median of the band.
    """
    found, near = limit_err.copy(), np.isfinite(limit_err)
    for rows in _by_object_and_band(owner, band, objects):
        known = rows[np.isfinite(limit_err[rows])]
        if not len(known):
            continue
        away = np.abs(mjd[rows][:, np.newaxis] - mjd[known])
        nearest = away.argmin(axis=1)
        found[rows] = limit_err[known][nearest]
        near[rows] = away.min(axis=1) <= NEAR_DAYS
    for number in np.unique(band):
        own = band == number
        found[own & np.isnan(found)] = np.nanmedian(limit_err[own])
    return found, near


def _by_object_and_band(owner: I64, band: I64, objects: int) -> Sequence[I64]:
    code = owner * len(BAND_NAMES) + band
    order = np.argsort(code, kind="stable")
    counts = np.bincount(code, minlength=objects * len(BAND_NAMES))
    return [rows for rows in np.split(order, np.cumsum(counts)[:-1]) if len(rows)]


def detected(flux: F64, sky_err: F64) -> npt.NDArray[np.bool_]:
    """Whether a measured difference flux makes an alert: beyond 5 sigma of the empty sky, either sign.

    flux, sky_err : (n,) [nJy]
    """
    return np.asarray(np.abs(flux) > LIMIT_SIGMA * sky_err)
