"""ATLAS alert packets, schema 0.1.

Known from the image headers inside the packets: `mjd` is UTC at the middle of an exposure of 30 s. Taken
from the numbers of all packets seen: `flux` [uJy] has the sign that the difference image has at its centre,
while `isdiffpos` says the opposite and is not read; `Dflux` has the flux's sign too; `rb` is 0, which is no
score. A packet has no history, no limit and no word about known asteroids.
"""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt

from broker.astro.photometry import NJY_PER_UJY
from broker.astro.times import mjd_utc_to_mjd_tai
from broker.batch import SS_UNKNOWN, AlertBatch
from broker.lightcurves import DETECTION, FLAG_OWN
from broker.surveys.base import (
    Source,
    Survey,
    ascii_names,
    band_indices,
    finite,
    join_rows,
    make_points,
    name_ids,
    packet_columns,
    positive,
)
from broker.surveys.columns import Field, Layout, RawColumns

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

EXPOSURE_S = 30.0
"""The header of every cutout says so; the packet's own fields do not."""
_CANDID = re.compile(r"(\d{2})a(\d{5})o(\d{4})[a-z]_(\d{6})", re.ASCII)
"""Site, camera a, night, exposure of the sky, filter, number in the image."""

LAYOUT = Layout(
    alert=(
        Field("candid", "text", ("candid",)),
        Field("object_name", "text", ("objectId",)),
        Field("schema_version", "text", ("schemavsn",)),
        Field("mjd", "float", ("candidate.mjd",)),
        Field("band", "text", ("candidate.filter",)),
        Field("ra", "float", ("candidate.RA",)),
        Field("dec", "float", ("candidate.Dec",)),
        Field("flux", "float", ("candidate.flux",)),
        Field("flux_err", "float", ("candidate.Dflux",)),
        Field("reliability", "float", ("candidate.rb",)),
    ),
    children=(),
    cutouts=(("cutoutScience.stampData",), ("cutoutTemplate.stampData",), ("cutoutDifference.stampData",)),
)
"""Our raw columns and where ATLAS's packets keep them."""


def normalise(raw: RawColumns, source: Source) -> AlertBatch:
    """ATLAS's columns in everybody's words and units."""
    time = mjd_utc_to_mjd_tai(raw["mjd"])
    psf_flux = finite(raw["flux"] * NJY_PER_UJY)
    psf_flux_err = finite(np.abs(raw["flux_err"]) * NJY_PER_UJY)
    identity, band = source_ids(raw["candid"].tolist()), band_indices(raw["band"])
    own = make_points(
        DETECTION,
        midpoint_mjd_tai=time,
        source_id=identity,
        psf_flux=psf_flux,
        psf_flux_err=psf_flux_err,
        known_at=source.known_at,
        band=band,
        flags=np.full(raw.length, FLAG_OWN, dtype=np.uint16),
    )
    return AlertBatch(
        survey="atlas",
        dia_source_id=identity,
        dia_object_id=name_ids(raw["object_name"].tolist()),
        ss_object_id=np.zeros(raw.length, dtype=np.int64),
        object_name=ascii_names(raw["object_name"].tolist()),
        midpoint_mjd_tai=time,
        ra=raw["ra"],
        dec=raw["dec"],
        band=band,
        psf_flux=psf_flux,
        psf_flux_err=psf_flux_err,
        reliability=positive(raw["reliability"]),
        solar_system_status=np.full(raw.length, SS_UNKNOWN, dtype=np.uint8),
        flags=own["flags"],
        packet=packet_columns(
            raw.length,
            {
                "snr": np.abs(psf_flux) / positive(psf_flux_err),
                "exposure_time_s": np.full(raw.length, EXPOSURE_S),
            },
        ),
        points=join_rows(own, []),
        schema_version=ascii_names(raw["schema_version"].tolist()),
        **source.provenance(),
    )


def source_ids(names: list[str]) -> I64:
    """Ids of detections: the digits of a name such as '02a59543o0040o_006230', one after the other.

    Returns (n,): site, night, exposure (which has one filter) and number as one number; of a name of another
    shape what `name_ids` makes of it.

    >>> source_ids(["02a59543o0040o_006230", ""]).tolist()
    [2595430040006230, 0]
    """
    matches = [_CANDID.fullmatch(name) for name in names]
    return name_ids(
        ["".join(m.groups()).lstrip("0") if m else n for m, n in zip(matches, names, strict=True)]
    )


SURVEY = Survey(
    name="atlas",
    required=(
        ("objectId",),
        ("candid",),
        ("candidate.mjd",),
        ("candidate.filter",),
        ("candidate.RA",),
        ("candidate.Dec",),
        ("candidate.flux",),
        ("candidate.Dflux",),
    ),
    layout=LAYOUT,
    normalise=normalise,
    bands=("c", "o"),
    topics=("^atlas_replay$",),
    needs_object=True,
)
