"""ELAsTiCC, the DESC's simulated Rubin stream: packets shaped like Rubin's early ones, other flux unit.

Fluxes are SNANA's, AB magnitude 27.5 for 1; ccdVisitId is not set, so the forced source's own id tells its
image; there is no word about the solar system.
"""

from __future__ import annotations

from dataclasses import replace

from broker.astro.photometry import mag_to_njy
from broker.batch import AlertBatch
from broker.surveys import lsst
from broker.surveys.base import Source, Survey
from broker.surveys.columns import ChildTable, Field, Layout, RawColumns

SNANA_ZERO_POINT_MAG = 27.5
"""AB magnitude of flux 1 in SNANA (Kessler et al. 2009, PASP 121, 1028)."""


def _with_forced_id(table: ChildTable) -> ChildTable:
    """A child table whose image is told by the forced source's id."""
    image = Field("image_id", "int", ("diaForcedSourceId",))
    return replace(table, fields=tuple(image if f.name == image.name else f for f in table.fields))


LAYOUT = Layout(
    lsst.LAYOUT.alert,
    tuple(_with_forced_id(table) if table.name == "forced" else table for table in lsst.LAYOUT.children),
    lsst.LAYOUT.cutouts,
)
"""Rubin's, but for the identity of forced points."""


def normalise(raw: RawColumns, source: Source) -> AlertBatch:
    """ELAsTiCC's columns in everybody's words and units."""
    unit = float(mag_to_njy(SNANA_ZERO_POINT_MAG))
    return lsst.normalise_as("elasticc", raw, source, flux_unit_njy=unit, solar_system=False)


SURVEY = Survey(
    name="elasticc",
    required=(*lsst.REQUIRED, ("diaObject.mwebv",), ("diaObject.hostgal_ellipticity",)),
    layout=LAYOUT,
    normalise=normalise,
    bands=("u", "g", "r", "i", "z", "y"),
    topics=("^elasticc_replay$",),
)
