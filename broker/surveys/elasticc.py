"""ELAsTiCC, the DESC's simulated Rubin stream: packets shaped like Rubin's early ones, other flux unit.

Fluxes are SNANA's, AB magnitude 27.5 for 1; ccdVisitId is not set, so the forced source's own id tells its
image; there is no word about the solar system. The matched galaxy is host and counterpart in one (in Rubin's
bands, without a star score); -9 and 999 are unknown.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from broker.astro.photometry import mag_to_njy
from broker.batch import AlertBatch
from broker.surveys import lsst
from broker.surveys.base import Source, Survey, not_negative, positive, without
from broker.surveys.columns import ChildTable, Field, Layout, RawColumns

F64 = npt.NDArray[np.float64]

SNANA_ZERO_POINT_MAG = 27.5
"""AB magnitude of flux 1 in SNANA (Kessler et al. 2009, PASP 121, 1028)."""


def _with_forced_id(table: ChildTable) -> ChildTable:
    """A child table whose image is told by the forced source's id."""
    image = Field("image_id", "int", ("diaForcedSourceId",))
    return replace(table, fields=tuple(image if f.name == image.name else f for f in table.fields))


_UNKNOWN_MAG = 90.0
"""Magnitudes from here on are the sentinel 999."""
_HOST = (
    Field("hostgal_snsep", "float", ("diaObject.hostgal_snsep",)),
    *(Field(f"hostgal_mag_{band}", "float", (f"diaObject.hostgal_mag_{band}",)) for band in "griz"),
)

LAYOUT = Layout(
    (*lsst.LAYOUT.alert, *_HOST),
    tuple(_with_forced_id(table) if table.name == "forced" else table for table in lsst.LAYOUT.children),
    lsst.LAYOUT.cutouts,
)
"""Rubin's, but for the identity of forced points, and the host."""


def normalise(raw: RawColumns, source: Source) -> AlertBatch:
    """ELAsTiCC's columns in everybody's words and units."""
    unit = float(mag_to_njy(SNANA_ZERO_POINT_MAG))
    batch = lsst.normalise_as("elasticc", raw, source, flux_unit_njy=unit, solar_system=False)
    return replace(batch, packet={**batch.packet, **_host(raw)})


def _host(raw: RawColumns) -> dict[str, F64]:
    mags = {band: raw[f"hostgal_mag_{band}"] for band in "griz"}
    known = {band: without(positive(mag), mag > _UNKNOWN_MAG) for band, mag in mags.items()}
    return {
        "host_sep_arcsec": not_negative(raw["hostgal_snsep"]),
        "host_mag": known["r"],
        **{f"counterpart_mag_{band}": mag for band, mag in known.items()},
    }


SURVEY = Survey(
    name="elasticc",
    required=(*lsst.REQUIRED, ("diaObject.mwebv",), ("diaObject.hostgal_ellipticity",)),
    layout=LAYOUT,
    normalise=normalise,
    bands=("u", "g", "r", "i", "z", "y"),
    topics=("^elasticc_replay$",),
)
