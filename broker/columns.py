"""The table of a batch: every column that filters, packets and documentation can name."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from broker.annotations.columns import ANNOTATION_COLUMNS, no_annotations
from broker.astro.bands import BANDS
from broker.astro.photometry import njy_err_to_mag_err, njy_to_mag
from broker.astro.sky import ecliptic_latitude_deg, galactic_latitude_deg
from broker.batch import PACKET_COLUMNS, SS_ASSOCIATED, SS_UNKNOWN, AlertBatch
from broker.lightcurves import LightCurves
from broker.others import OTHER_COLUMNS, Others, no_others, other_columns
from broker.table import Column, ColumnSpec, Table, matrix_columns, string_column

F64 = npt.NDArray[np.float64]

ALERT_COLUMNS = (
    ColumnSpec("survey", "", "which survey the alert is from", "string"),
    ColumnSpec("object_name", "", "the object's name as astronomers write it", "string"),
    ColumnSpec("band", "", "passband of the detection: u g r i z y", "string"),
    ColumnSpec("dia_source_id", "", "the detection's id (ZTF candid)", "int"),
    ColumnSpec("dia_object_id", "", "the object's id", "int"),
    ColumnSpec("ss_object_id", "", "the associated solar-system object's id", "int"),
    ColumnSpec("midpoint_mjd_tai", "day", "mid-exposure, MJD in TAI"),
    ColumnSpec("ra", "deg", "right ascension, ICRS"),
    ColumnSpec("dec", "deg", "declination, ICRS"),
    ColumnSpec("gal_b", "deg", "galactic latitude"),
    ColumnSpec("ecl_lat", "deg", "ecliptic latitude"),
    ColumnSpec("psf_flux", "nJy", "difference flux, signed"),
    ColumnSpec("psf_flux_err", "nJy", "its error, one sigma"),
    ColumnSpec("mag", "AB mag", "magnitude of the difference flux; NULL where it is not positive"),
    ColumnSpec("mag_err", "mag", "its error"),
    ColumnSpec("mag_abs", "AB mag", "magnitude of the absolute difference flux (ZTF's magpsf)"),
    ColumnSpec("is_negative", "", "the place is fainter than in the reference image", "bool"),
    ColumnSpec("reliability", "", "the survey's own real/bogus score, 0..1; not comparable between surveys"),
    ColumnSpec("solar_system.associated", "", "a known solar-system object is at the place", "bool"),
    ColumnSpec("history_incomplete", "", "earlier points may be missing from the light curve", "bool"),
)
"""Columns of the alert itself; the survey's own numbers (PACKET_COLUMNS), features, scores and annotations
follow them."""


def filter_columns(features: Sequence[ColumnSpec], scores: Sequence[ColumnSpec]) -> dict[str, ColumnSpec]:
    """Every column a filter may name, in the table's order."""
    groups = (ALERT_COLUMNS, PACKET_COLUMNS, features, scores, OTHER_COLUMNS, ANNOTATION_COLUMNS)
    return {spec.name: spec for group in groups for spec in group}


def build_table(
    batch: AlertBatch,
    features: tuple[Sequence[ColumnSpec], F64],
    scores: tuple[Sequence[ColumnSpec], F64],
    history_incomplete: npt.NDArray[np.bool_],
    light_curves: LightCurves | None = None,
    others: Others | None = None,
    annotations: Sequence[Column] | None = None,
) -> Table:
    """The table of a batch.

    features, scores : specifications and (n, k) values;  others : without it no other survey is known
    annotations : the ANNOTATION_COLUMNS, None if nobody said anything
    """
    columns = [
        *_alert_columns(batch, history_incomplete),
        *(Column(spec, batch.packet[spec.name]) for spec in PACKET_COLUMNS),
        *matrix_columns(*features),
        *matrix_columns(*scores),
        *other_columns(others or no_others(len(batch)), batch.midpoint_mjd_tai),
        *(no_annotations(len(batch)) if annotations is None else annotations),
    ]
    return Table(columns, len(batch), light_curves)


def _alert_columns(batch: AlertBatch, history_incomplete: npt.NDArray[np.bool_]) -> list[Column]:
    flux, flux_err = batch.psf_flux, batch.psf_flux_err
    associated = np.where(
        batch.solar_system_status == SS_UNKNOWN, np.nan, batch.solar_system_status == SS_ASSOCIATED
    )
    count = len(batch)
    spec = {item.name: item for item in ALERT_COLUMNS}
    values = {
        "dia_source_id": batch.dia_source_id,
        "dia_object_id": batch.dia_object_id,
        "ss_object_id": batch.ss_object_id,
        "midpoint_mjd_tai": batch.midpoint_mjd_tai,
        "ra": batch.ra,
        "dec": batch.dec,
        "gal_b": galactic_latitude_deg(batch.ra, batch.dec),
        "ecl_lat": ecliptic_latitude_deg(batch.ra, batch.dec),
        "psf_flux": flux,
        "psf_flux_err": flux_err,
        "mag": njy_to_mag(flux),
        "mag_err": np.where(flux > 0, njy_err_to_mag_err(flux, flux_err), np.nan),
        "mag_abs": njy_to_mag(np.abs(flux)),
        "is_negative": np.where(np.isnan(flux), np.nan, flux < 0),
        "reliability": batch.reliability,
        "solar_system.associated": associated,
        "history_incomplete": history_incomplete.astype(np.float64),
    }
    band = np.where(batch.band < len(BANDS), batch.band.astype(np.int32), -1).astype(np.int32)
    strings = {
        "survey": Column(spec["survey"], np.zeros(count, dtype=np.int32), (batch.survey,)),
        "object_name": string_column(spec["object_name"], batch.object_name.astype(np.str_)),
        "band": Column(spec["band"], band, BANDS),
    }
    return [strings.get(item.name) or Column(item, values[item.name]) for item in ALERT_COLUMNS]
