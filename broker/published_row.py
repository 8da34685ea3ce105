"""A published alert as a row that filters can judge: nearly what was judged, for where no archive has it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from broker.astro.photometry import njy_to_mag
from broker.astro.sky import ecliptic_latitude_deg, galactic_latitude_deg
from broker.table import Column, ColumnSpec, Table, string_column

WANTED = (
    "kind", "diaSourceId", "diaObjectId", "ssObjectId", "objectName", "survey", "midpointMjdTai", "ra", "dec",
    "band", "psfFlux", "psfFluxErr", "mag", "magErr", "reliability", "historyIncomplete", "solarSystem",
    "packet", "features", "scores", "annotations", "filtersPassed", "provenance",
)  # fmt: skip
"""The fields of a message that it takes."""
_SAME = {
    "survey": "survey", "object_name": "objectName", "band": "band", "dia_source_id": "diaSourceId",
    "dia_object_id": "diaObjectId", "ss_object_id": "ssObjectId", "midpoint_mjd_tai": "midpointMjdTai",
    "ra": "ra", "dec": "dec", "psf_flux": "psfFlux", "psf_flux_err": "psfFluxErr", "mag": "mag",
    "mag_err": "magErr", "reliability": "reliability", "history_incomplete": "historyIncomplete",
}  # fmt: skip


def row_of(alert: Mapping[str, Any], specs: Mapping[str, ColumnSpec]) -> Table:
    """A table of one row, without a light curve and without the columns that messages do not carry.

    alert : decoded, the fields WANTED;  specs : the columns that filters may name
    Features, scores and fluxes are float32 in messages: a value next to a limit may be on its other side.
    """
    cells = _cells(alert)
    return Table([_column(spec, cells[name]) for name, spec in specs.items() if name in cells], 1)


def _cells(alert: Mapping[str, Any]) -> dict[str, Any]:
    flux = np.array([np.nan if alert["psfFlux"] is None else alert["psfFlux"]])
    place = np.array([float(alert["ra"])]), np.array([float(alert["dec"])])
    moving = alert["solarSystem"]
    known = moving["status"] != "unknown"
    computed = {
        "gal_b": galactic_latitude_deg(*place)[0],
        "ecl_lat": ecliptic_latitude_deg(*place)[0],
        "mag_abs": njy_to_mag(np.abs(flux))[0],
        "is_negative": None if np.isnan(flux[0]) else flux[0] < 0,
        "solar_system.associated": moving["status"] == "associated" if known else None,
        "solar_system.sep_arcsec": moving["sepArcsec"],
        "solar_system.v_mag_predicted": moving["vMagPredicted"],
    }
    parts = (alert["packet"], alert["features"], alert["scores"])
    carried = {name: value for part in parts for name, value in part.items()}
    return carried | {name: alert[field] for name, field in _SAME.items()} | computed


def _column(spec: ColumnSpec, value: Any) -> Column:
    if spec.kind == "string":
        return string_column(spec, [value or ""])
    if spec.kind == "int":
        return Column(spec, np.array([value or 0], dtype=np.int64))
    return Column(spec, np.array([np.nan if value is None else value], dtype=np.float64))
