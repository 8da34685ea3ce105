"""Every packet of the smaller surveys, against an independent reading of it."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

from broker.astro.bands import BANDS
from broker.astro.photometry import njy_to_mag
from broker.batch import SS_NONE, SS_UNKNOWN, AlertBatch
from broker.lightcurves import DETECTION, FLAG_UNUSED, FORCED, LIMIT
from broker.surveys.avro import LocalSchemas
from broker.surveys.base import name_ids
from broker.surveys.catalog import decode
from broker.surveys.winter import to_ab
from tests.unit.surveys import oracle
from tests.unit.surveys.samples import (
    atlas_values,
    changed,
    decam_values,
    made,
    messages,
    pgir_values,
    read_packet,
    winter_values,
)
from tests.unit.surveys.test_values import check_points

Read = tuple[AlertBatch, list[dict[str, Any]]]


def read(values: list[bytes], survey: str) -> Read:
    """A survey's batch and its packets as fastavro reads them."""
    decoded = decode(messages(values), LocalSchemas())
    assert decoded.rejects == []
    (batch,) = decoded.batches
    assert batch.survey == survey
    return batch, [record for value in values for record in read_packet(value)]


SAMPLES: dict[str, tuple[Callable[[], list[bytes]], Callable[[dict[str, Any]], list[oracle.Expected]]]] = {
    "atlas": (atlas_values, oracle.atlas_points),
    "decam": (decam_values, oracle.decam_points),
    "pgir": (pgir_values, oracle.pgir_points),
    "winter": (winter_values, oracle.winter_points),
}


@pytest.mark.parametrize("survey", SAMPLES)
def test_points(survey: str) -> None:
    values, expected = SAMPLES[survey]
    batch, records = read(values(), survey)
    check_points(batch, [expected(record) for record in records])


@pytest.mark.parametrize("survey", SAMPLES)
def test_place_and_name(survey: str) -> None:
    batch, records = read(SAMPLES[survey][0](), survey)
    place = [{name.lower(): value for name, value in r["candidate"].items()} for r in records]
    assert batch.ra.tolist() == [c["ra"] for c in place]
    assert batch.dec.tolist() == [c["dec"] for c in place]
    names = [r.get("objectId") or r.get("objectid") for r in records]
    assert batch.object_name.tolist() == [str(name).encode() for name in names]
    assert len(set(batch.dia_object_id.tolist())) == len(set(names))
    assert (batch.dia_object_id > 0).all()
    assert (batch.dia_source_id > 0).all()


def test_an_atlas_objects_id_is_its_number() -> None:
    batch, records = read(atlas_values(), "atlas")
    assert batch.dia_object_id.tolist() == [int(record["objectId"]) for record in records]


def test_atlas_sign_is_the_difference_images() -> None:
    """At the place of the detection the difference image has the flux's sign, not isdiffpos's."""
    batch, records = read(atlas_values(), "atlas")
    for flux, record in zip(batch.psf_flux, records, strict=True):
        if stamp := record["cutoutDifference"]["stampData"]:
            pixels = fits.getdata(io.BytesIO(stamp)).astype(float)
            centre = pixels[pixels.shape[0] // 2, pixels.shape[1] // 2] - np.nanmedian(pixels)
            assert np.sign(flux) == np.sign(centre)


def test_atlas_time_is_the_image_headers_mid_exposure() -> None:
    batch, records = read(atlas_values(), "atlas")
    for time, exposure, record in zip(
        batch.midpoint_mjd_tai, batch.packet["exposure_time_s"], records, strict=True
    ):
        if stamp := record["cutoutDifference"]["stampData"]:
            header = fits.getheader(io.BytesIO(stamp))
            assert (header["TIMESYS"], header["EXPTIME"]) == ("UTC", exposure)
            middle = header["MJD-OBS"] + header["EXPTIME"] / 2 / 86400
            assert abs(time - middle) * 86400 == pytest.approx(37.0, abs=0.1)


def test_atlas_magnitude_is_the_fluxes() -> None:
    batch, records = read(atlas_values(), "atlas")
    given = [abs(record["candidate"]["Mag"]) for record in records]
    known = np.array(given) > 0.0
    np.testing.assert_allclose(njy_to_mag(np.abs(batch.psf_flux))[known], np.array(given)[known], atol=2e-3)


def test_atlas_packet_columns() -> None:
    batch, records = read(atlas_values(), "atlas")
    scores = [record["candidate"]["rb"] or np.nan for record in records]
    np.testing.assert_allclose(batch.reliability, scores, rtol=1e-6)
    assert set(batch.solar_system_status.tolist()) == {SS_UNKNOWN}
    assert np.isnan(batch.packet["limiting_mag"]).all()


def test_an_atlas_detection_of_another_name_still_has_an_id() -> None:
    other = changed(atlas_values()[0], "candid", "03b60000d0001c_000001")
    batch, _ = read([atlas_values()[0], other], "atlas")
    assert batch.dia_source_id[1] == name_ids(["03b60000d0001c_000001"])[0] > 2**32


def test_decam_columns() -> None:
    batch, records = read(decam_values(), "decam")
    own = [record["candidate"] for record in records]
    assert batch.reliability.tolist() == [c["reliability"] for c in own]
    assert batch.packet["limiting_mag"].tolist() == [c["diffmaglim"] for c in own]
    assert np.isnan(batch.packet["exposure_time_s"]).all()
    assert set(batch.schema_version.tolist()) == {b"0.1.0"}
    assert FORCED in batch.points.points["kind"]


def test_decam_flux_is_njy() -> None:
    batch, records = read(decam_values(), "decam")
    given = np.array([record["candidate"]["forcediffimmag"] for record in records])
    np.testing.assert_allclose(njy_to_mag(batch.psf_flux)[given > 0], given[given > 0], atol=1e-4)


def test_pgir_columns() -> None:
    batch, records = read(pgir_values(), "pgir")
    own = [record["candidate"] for record in records]
    np.testing.assert_allclose(batch.reliability, [c["drb"] for c in own], rtol=1e-6)
    np.testing.assert_allclose(batch.packet["exposure_time_s"], [c["exptime"] for c in own], rtol=1e-6)
    limits = [oracle.vega_njy(c["diffmaglim"], "J") for c in own]
    np.testing.assert_allclose(batch.packet["limiting_mag"], njy_to_mag(np.array(limits)), atol=1e-6)
    stars = [c["tmdist1"] if c["tmdist1"] < 60 else np.nan for c in own]
    np.testing.assert_allclose(batch.packet["star_sep_arcsec"], stars, rtol=1e-6)
    assert set(batch.solar_system_status.tolist()) == {SS_NONE}
    assert np.isnan(batch.packet["solar_system.sep_arcsec"]).all()


def test_pgir_history_has_detections_and_limits() -> None:
    batch, _ = read(pgir_values(), "pgir")
    assert {DETECTION, LIMIT} == set(batch.points.points["kind"].tolist())
    assert {BANDS[band] for band in batch.points.points["band"].tolist()} == {"J"}


def test_winter_columns() -> None:
    batch, records = read(winter_values(), "winter")
    own = [record["candidate"] for record in records]
    assert batch.packet["exposure_time_s"].tolist() == [120.0] * len(own)
    for band in "riz":
        mags = [np.nan if (mag := c.get(f"s{band}mag1")) is None else mag for c in own]
        np.testing.assert_allclose(batch.packet[f"counterpart_mag_{band}"], mags, rtol=1e-6)
    given = np.array([c["diffmaglim"] for c in own])
    np.testing.assert_allclose(batch.packet["limiting_mag"], to_ab(given, batch.band), rtol=1e-9)
    stars = np.array([c["distpsnr1"] for c in own], dtype=float)
    np.testing.assert_allclose(batch.packet["star_sep_arcsec"], stars, rtol=1e-6)
    assert np.isnan(batch.reliability).all()
    assert set(batch.solar_system_status.tolist()) == {SS_UNKNOWN}


def winter(**candidate: Any) -> AlertBatch:
    """The batch of a made-up WINTER packet of magnitude 15 in J."""
    own = {"jd": 2460381.0, "fid": 2, "exptime": 120.0, "magpsf": 15.0, "sigmapsf": 0.1, "isdiffpos": True}
    value = made("winter", objectid="WNTR24awati", candid=5, candidate={**own, **candidate})
    return read([value], "winter")[0]


@pytest.mark.parametrize(
    ("fid", "positive", "band", "flux"),
    [
        (1, True, "y", 3630.78e9 * 10**-6),
        (2, True, "J", 1594e9 * 10**-6),
        (3, False, "H", -1024e9 * 10**-6),
    ],
)
def test_winter_bands_have_their_own_zero_points(fid: int, positive: bool, band: str, flux: float) -> None:
    batch = winter(fid=fid, isdiffpos=positive)
    assert BANDS[batch.band[0]] == band
    assert batch.psf_flux[0] == pytest.approx(flux, rel=1e-5)
    assert batch.psf_flux_err[0] == pytest.approx(abs(flux) * 0.0921034, rel=1e-5)


def test_a_winter_filter_that_is_none_has_no_flux() -> None:
    batch = winter(fid=4)
    assert np.isnan(batch.psf_flux[0])
    assert batch.flags[0] & FLAG_UNUSED


def test_a_deprecated_winter_candidate_is_not_used() -> None:
    batch = winter(deprecated=True)
    assert batch.flags[0] & FLAG_UNUSED


@pytest.mark.parametrize(
    ("survey", "path"),
    [("atlas", "objectId"), ("decam", "objectId"), ("pgir", "objectId"), ("winter", "objectid")],
)
def test_an_alert_without_an_object_is_invalid(survey: str, path: str) -> None:
    decoded = decode(messages([changed(SAMPLES[survey][0]()[0], path, "")]), LocalSchemas())
    assert [reject.reason for reject in decoded.rejects] == ["invalid_alert"]
    assert "no object name" in decoded.rejects[0].detail


def test_an_atlas_alert_without_a_candid_is_invalid() -> None:
    decoded = decode(messages([changed(atlas_values()[0], "candid", "")]), LocalSchemas())
    assert [reject.reason for reject in decoded.rejects] == ["invalid_alert"]
