"""The same place in another survey: which object is there, and what was known of it.

Every object's position is kept by cell of the sky and survey, as its alert gave it when its light curve was
new or had not been touched for a while. An alert of one survey then finds the nearest object of the others
within a radius, and that object's light curve up to the alert's own time. No light curves are mixed:
features and models see one survey's points alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from broker.astro.healpix import cells_of
from broker.astro.sky import ARCSEC_PER_DEGREE, separation_deg
from broker.batch import SS_ASSOCIATED, AlertBatch
from broker.history import pack
from broker.history.base import HistoryStore, Located
from broker.history.merge import as_known, group, join_blobs, merge
from broker.history.recall import Recall
from broker.lightcurves import LightCurves, empty_light_curves
from broker.others import Others, no_others

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

ORDER = 13
"""Cells 26 arcsec wide: rarely more than a few objects each, and a cone seldom crosses a border."""
_RIM = 16
"""Points around a position whose cells, and its own, hold everything within the radius.

They lie at twice the radius. A cell that holds something within it, but none of the points, would have to
reach in between two of them with a corner sharper than 44 degrees; HEALPix has none below 60.
"""


def located(recall: Recall) -> list[Located]:
    """Where the batch's objects are, of those that are new or were not touched for a while.

    Known solar-system objects are nowhere for long, and are left out.
    """
    batch = recall.batch
    renewed = {item.key for item in recall.additions if item.renew}
    settled = (batch.dia_object_id != 0) & (batch.solar_system_status != SS_ASSOCIATED)
    new = np.array([pack.curve_key(key) in renewed for key in recall.keys], dtype=np.bool_)
    rows = np.flatnonzero(settled & new & np.isfinite(batch.ra) & np.isfinite(batch.dec))
    return locate(batch.survey, batch.dia_object_id[rows].tolist(), batch.ra[rows], batch.dec[rows])


def locate(survey: str, objects: Sequence[int], ra: F64, dec: F64) -> list[Located]:
    """Where some objects of a survey are.  objects : diaObjectIds;  ra, dec : (n,) [deg, ICRS]"""
    cells, positions = cells_of(ORDER, ra, dec).tolist(), zip(ra.tolist(), dec.tolist(), strict=True)
    return [
        Located(pack.place_key(survey, cell), pack.place_object(name), pack.place_position(*position))
        for cell, name, position in zip(cells, objects, positions, strict=True)
    ]


def find_others(store: HistoryStore, recall: Recall, radius_arcsec: float) -> Others:
    """The nearest object of another survey at each alert's place, with its light curve up to the alert.

    radius_arcsec : up to MAX_RADIUS_ARCSEC; 0 looks for none. One round trip where there are other surveys
    at all, a second where one of their objects is near.  Raises RetryBatch.
    """
    batch = recall.batch
    surveys = sorted(recall.surveys - {batch.survey}) if radius_arcsec > 0 and len(batch) else []
    if not surveys:
        return no_others(len(batch))
    rows = np.flatnonzero(batch.solar_system_status != SS_ASSOCIATED)
    near = cells_near(batch.ra[rows], batch.dec[rows], radius_arcsec)
    asked = [
        (row, survey, pack.place_key(survey, cell))
        for row, cells in zip(rows.tolist(), near, strict=True)
        for cell in cells
        for survey in surveys
    ]
    places = list(dict.fromkeys(place for _, _, place in asked))
    there = dict(zip(places, store.near(places), strict=True))
    found = [
        (row, survey, pack.object_of_place(name), *pack.position_of_place(position))
        for row, survey, place in asked
        for name, position in there[place].items()
    ]
    return _with_curves(store, batch, _nearest(batch, found, radius_arcsec))


def cells_near(ra: F64, dec: F64, radius_arcsec: float) -> list[list[int]]:
    """The cells that hold everything within a radius of each position.

    ra, dec : (n,) [deg];  radius_arcsec : up to MAX_RADIUS_ARCSEC;  NaN has no cells
    """
    angle = np.linspace(0.0, 2.0 * np.pi, _RIM, endpoint=False)
    arc = np.radians(2.0 * radius_arcsec / ARCSEC_PER_DEGREE)
    lat = np.radians(dec)[:, None]
    rim_lat = np.arcsin(np.clip(np.sin(lat) * np.cos(arc) + np.cos(lat) * np.sin(arc) * np.cos(angle), -1, 1))
    turn = np.arctan2(np.sin(angle) * np.sin(arc) * np.cos(lat), np.cos(arc) - np.sin(lat) * np.sin(rim_lat))
    all_ra = np.concatenate([ra[:, None], ra[:, None] + np.degrees(turn)], axis=1)
    all_dec = np.concatenate([dec[:, None], np.degrees(rim_lat)], axis=1)
    cells = cells_of(ORDER, all_ra.ravel(), all_dec.ravel()).reshape(all_ra.shape)
    return [np.unique(row[row >= 0]).tolist() for row in cells]


_Found = tuple[int, str, int, float, float]
"""Row of an alert, survey, diaObjectId, ra and dec of an object in a cell near it."""


def _nearest(
    batch: AlertBatch, found: Sequence[_Found], radius_arcsec: float
) -> dict[int, tuple[float, str, int]]:
    """Of each row the nearest object within the radius: separation [arcsec], survey, diaObjectId."""
    rows = np.array([item[0] for item in found], dtype=np.int64)
    ra, dec = (np.array([item[place] for item in found], dtype=np.float64) for place in (3, 4))
    separation = separation_deg(batch.ra[rows], batch.dec[rows], ra, dec) * ARCSEC_PER_DEGREE
    nearest: dict[int, tuple[float, str, int]] = {}
    for (row, survey, name, _, _), distance in zip(found, separation.tolist(), strict=True):
        candidate = (distance, survey, name)
        if distance <= radius_arcsec and candidate < nearest.get(row, (np.inf, "", 0)):
            nearest[row] = candidate
    return nearest


def _with_curves(
    store: HistoryStore, batch: AlertBatch, nearest: dict[int, tuple[float, str, int]]
) -> Others:
    """Those objects with their light curves, in the order of the batch."""
    if not nearest:
        return no_others(len(batch))
    keys = [b""] * len(batch)
    for row, (_, survey, name) in nearest.items():
        keys[row] = b"%s:%d" % (survey.encode(), name)
    separation = np.full(len(batch), np.nan)
    separation[list(nearest)] = [item[0] for item in nearest.values()]
    distinct = list(dict.fromkeys(key for key in keys if key))
    stored = join_blobs(store.open([], [], [pack.curve_key(key) for key in distinct]).curves)
    nothing = group(empty_light_curves(0), np.zeros(0, dtype=np.int64), len(distinct) + 1)
    merged = merge(_and_an_empty_one(stored), nothing)
    number = {key: index for index, key in enumerate([*distinct, b""])}
    rows = np.array([number[key] for key in keys], dtype=np.int64)
    return Others(keys, separation, as_known(merged.curves, rows, batch.midpoint_mjd_tai))


def warm_up() -> None:
    """Compile (or load from the cache) the kernels of this file."""
    cells_near(np.zeros(1), np.zeros(1), 1.0)


def _and_an_empty_one(curves: LightCurves) -> LightCurves:
    return LightCurves(curves.points, np.append(curves.starts, curves.starts[-1]))
