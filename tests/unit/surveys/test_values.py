"""Every value of every packet we have, against an independent reading of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest
from astropy.coordinates import SkyCoord

from broker.batch import PACKET_COLUMNS, AlertBatch
from broker.surveys import ztf
from broker.surveys.avro import LocalSchemas
from broker.surveys.base import position_scatter_arcsec
from broker.surveys.catalog import decode
from tests.unit.surveys import oracle
from tests.unit.surveys.samples import (
    KNOWN_AT_MS,
    changed,
    elasticc_values,
    few_lsst,
    few_ztf,
    lsst_values,
    messages,
    pgir_values,
    read_packet,
    winter_values,
    ztf_values,
)

MILLISECOND = 1e-3 / 86400.0
Points = Callable[[dict[str, Any]], list[oracle.Expected]]


def _batch(values: list[bytes], survey: str) -> AlertBatch:
    decoded = decode(messages(values), LocalSchemas())
    assert decoded.rejects == []
    (batch,) = decoded.batches
    assert batch.survey == survey
    return batch


@cache
def _ztf() -> tuple[AlertBatch, list[dict[str, Any]]]:
    return _batch(ztf_values(), "ztf"), [_slim(r, oracle.ztf_points) for r in _records(ztf_values())]


@cache
def _lsst() -> tuple[AlertBatch, list[dict[str, Any]]]:
    return _batch(lsst_values(), "lsst"), [_slim(r, oracle.lsst_points) for r in _records(lsst_values())]


def _records(values: list[bytes]) -> Iterator[dict[str, Any]]:
    return (record for value in values for record in read_packet(value))


def _slim(record: dict[str, Any], points: Points) -> dict[str, Any]:
    """A record with its history as expected points; the history itself takes megabytes."""
    return {k: v for k, v in record.items() if not isinstance(v, list)} | {"points": points(record)}


def check_points(batch: AlertBatch, expected: list[list[oracle.Expected]]) -> None:
    """Own point and history of every alert: identity, time to 1 ms, flux to 1e-6, band and flags."""
    assert len(batch) == len(expected)
    assert np.diff(batch.points.starts).tolist() == [len(row) for row in expected]
    flat = [point for row in expected for point in row]
    got = batch.points.points
    for name, attribute in (
        ("kind", "kind"),
        ("source_id", "source_id"),
        ("band", "band"),
        ("flags", "flags"),
    ):
        assert got[name].tolist() == [getattr(point, attribute) for point in flat], name
    assert np.abs(got["midpoint_mjd_tai"] - [p.time for p in flat]).max() < MILLISECOND
    np.testing.assert_allclose(got["psf_flux"], [p.flux for p in flat], rtol=1e-6)
    np.testing.assert_allclose(got["psf_flux_err"], [p.error for p in flat], rtol=1e-6)
    assert set(got["known_at"].tolist()) == {KNOWN_AT_MS // 1000}
    own = [row[0] for row in expected]
    assert np.abs(batch.midpoint_mjd_tai - [p.time for p in own]).max() < MILLISECOND
    np.testing.assert_allclose(batch.psf_flux, [p.flux for p in own], rtol=1e-9)
    np.testing.assert_allclose(batch.psf_flux_err, [p.error for p in own], rtol=1e-9)
    assert batch.band.tolist() == [p.band for p in own]
    assert batch.flags.tolist() == [p.flags for p in own]
    assert batch.dia_source_id.tolist() == [p.source_id for p in own]


def test_ztf_points() -> None:
    batch, records = _ztf()
    check_points(batch, [record["points"] for record in records])
    assert batch.object_name.tolist() == [record["objectId"].encode() for record in records]
    assert batch.ra.tolist() == [record["candidate"]["ra"] for record in records]
    assert batch.dec.tolist() == [record["candidate"]["dec"] for record in records]


def test_ztf_packet_columns() -> None:
    batch, records = _ztf()
    for row, record in enumerate(records):
        expected = _ztf_packet(record["candidate"])
        for spec in PACKET_COLUMNS:
            if spec.name == "position_scatter_arcsec":
                continue
            want = expected.get(spec.name, np.nan)
            np.testing.assert_allclose(
                batch.packet[spec.name][row], want, rtol=1e-6, err_msg=f"{record['candid']} {spec.name}"
            )


def _known(value: float | None) -> float:
    return np.nan if value is None or value < 0 else value


def _ztf_packet(c: dict[str, Any]) -> dict[str, float]:
    flux = (1 if c["isdiffpos"] in ("t", "1") else -1) * oracle.njy(c["magpsf"])
    near = c["distnr"] is not None and 0 <= c["distnr"] < 1.4
    reference = oracle.njy(c["magnr"]) if near else np.nan
    total = reference + flux
    moving = c["ssdistnr"] is not None and c["ssdistnr"] >= 0
    return {
        "snr": 2.5 / np.log(10) / c["sigmapsf"],
        "mag_total": 31.4 - 2.5 * np.log10(total) if total > 0 else np.nan,
        "reference_flux": reference,
        "limiting_mag": _known(c["diffmaglim"]),
        "exposure_time_s": c.get("exptime") or 30.0,
        "star_score": np.nan if c["sgscore1"] == 0.5 else _known(c["sgscore1"]),
        "star_sep_arcsec": _known(c["distpsnr1"]),
        "neargaia_arcsec": _known(c.get("neargaia")),
        "bright_star_sep_arcsec": _known(c.get("neargaiabright")),
        "solar_system.sep_arcsec": c["ssdistnr"] if moving else np.nan,
        "solar_system.v_mag_predicted": _known(c["ssmagnr"]) if moving else np.nan,
        "fwhm_arcsec": c["fwhm"] * 1.012,
        "programid": c["programid"],
        **_ztf_neighbours(c),
    }


def _ztf_neighbours(c: dict[str, Any]) -> dict[str, float]:
    """Host, counterpart and nearest Gaia star."""
    sources = [(c[f"distpsnr{k}"], c[f"sgscore{k}"], c[f"srmag{k}"]) for k in (1, 2, 3) if f"sgscore{k}" in c]
    galaxies = [one for one in sources if None not in one[:2] and one[0] >= 0 and 0 <= one[1] < 0.5]
    separation, _, mag = min(galaxies, default=(np.nan, np.nan, np.nan))
    return {
        "host_sep_arcsec": separation,
        "host_mag": _known(mag),
        "nucleus_offset_arcsec": _known(c["distnr"]),
        "neargaia_mag": _known(c.get("maggaia")),
        **{f"counterpart_mag_{band}": _known(c[f"s{band}mag1"]) for band in "griz"},
    }


def _places(record: dict[str, Any], own: str, history: str, identity: str) -> list[SkyCoord]:
    """Places of an alert's detections, each once."""
    earlier = [p for p in record.get(history) or [] if p[identity] and p[identity] != record[own][identity]]
    kept = [p for p in earlier if not (p.get("timeWithdrawnMjdTai") or 0.0) > 0.0]
    return [SkyCoord(p["ra"], _declination(p), unit="deg") for p in (record[own], *kept)]


def _declination(point: dict[str, Any]) -> float:
    return float(oracle._get(point, "dec", "decl"))


def _scatter(places: list[SkyCoord]) -> float:
    """Root mean square distance from the mean direction, by astropy's vectors."""
    if len(places) < 2:
        return np.nan
    vectors = np.array([place.cartesian.xyz.value for place in places])
    centre = SkyCoord(*vectors.mean(axis=0), representation_type="cartesian")
    apart = [
        place.separation(SkyCoord(centre.spherical.lon, centre.spherical.lat)).arcsec for place in places
    ]
    return float(np.sqrt(np.mean(np.square(apart))))


SCATTERS = {
    "ztf": (ztf_values, "candidate", "prv_candidates", "candid"),
    "pgir": (pgir_values, "candidate", "prv_candidates", "candid"),
    "winter": (winter_values, "candidate", "prv_candidates", "candid"),
    "lsst": (lsst_values, "diaSource", "prvDiaSources", "diaSourceId"),
    "elasticc": (elasticc_values, "diaSource", "prvDiaSources", "diaSourceId"),
}


@pytest.mark.parametrize("survey", SCATTERS)
def test_scatter_of_the_place_is_astropys(survey: str) -> None:
    """Few alerts of each survey, but with histories of every length."""
    values, *names = SCATTERS[survey]
    chosen = values()[:: max(1, len(values()) // 40)]
    batch = _batch(chosen, survey)
    expected = [_scatter(_places(record, *names)) for record in _records(chosen)]
    got = batch.packet["position_scatter_arcsec"]
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=2e-4)


def test_ztf_reliability_is_drb_else_rb() -> None:
    batch, records = _ztf()
    candidates = [record["candidate"] for record in records]
    expected = [c["drb"] if c.get("drb") is not None else c["rb"] for c in candidates]
    np.testing.assert_allclose(batch.reliability, expected, rtol=1e-7)


def test_lsst_points() -> None:
    batch, records = _lsst()
    check_points(batch, [record["points"] for record in records])
    assert batch.ra.tolist() == [record["diaSource"]["ra"] for record in records]
    assert batch.dec.tolist() == [oracle._get(record["diaSource"], "dec", "decl") for record in records]


def test_lsst_identity() -> None:
    batch, records = _lsst()
    for row, record in enumerate(records):
        source, beside = record["diaSource"], record.get("diaObject") or {}
        moving = record.get("ssSource") or record.get("ssObject") or {}
        assert batch.dia_object_id[row] == (source["diaObjectId"] or beside.get("diaObjectId") or 0)
        assert batch.ss_object_id[row] == (source.get("ssObjectId") or moving.get("ssObjectId") or 0)
        assert batch.solar_system_status[row] == (1 if batch.ss_object_id[row] else 0)
        if batch.dia_object_id[row]:
            assert batch.object_name[row] == str(batch.dia_object_id[row]).encode()


def test_lsst_packet_columns() -> None:
    batch, records = _lsst()
    for row, record in enumerate(records):
        source, moving = record["diaSource"], record.get("ssSource") or {}
        science = source.get("scienceFlux")
        expected = {
            "reference_flux": oracle._number(source.get("templateFlux")),
            "mag_total": 31.4 - 2.5 * np.log10(science) if science and science > 0 else np.nan,
            "is_dipole": oracle._number(source.get("isDipole")),
            "trail_length_arcsec": oracle._number(source.get("trailLength")),
            "solar_system.v_mag_predicted": moving.get("ephVmag") or np.nan,
            "ss_rate": moving.get("ephRate") or np.nan,
            "programid": np.nan,
        }
        for name, want in expected.items():
            np.testing.assert_allclose(batch.packet[name][row], want, rtol=1e-6, err_msg=name)


def test_elasticc_fluxes_are_snana_units() -> None:
    values = elasticc_values()
    batch = _batch(values, "elasticc")
    unit = oracle.njy(27.5)
    check_points(batch, [oracle.lsst_points(r, unit, "diaForcedSourceId") for r in _records(values)])
    assert set(batch.solar_system_status.tolist()) == {3}


def test_elasticc_host() -> None:
    values = elasticc_values()
    batch = _batch(values, "elasticc")
    hosts = [record["diaObject"] for record in _records(values)]
    apart = [_known(host.get("hostgal_snsep")) for host in hosts]
    np.testing.assert_allclose(batch.packet["host_sep_arcsec"], apart, rtol=1e-6)
    for band in "griz":
        mags = [host.get(f"hostgal_mag_{band}", np.nan) for host in hosts]
        mags = [np.nan if mag == 999.0 else mag for mag in mags]
        np.testing.assert_allclose(batch.packet[f"counterpart_mag_{band}"], mags, rtol=1e-6)
    np.testing.assert_array_equal(batch.packet["host_mag"], batch.packet["counterpart_mag_r"])


def test_records_are_the_original_bytes() -> None:
    values = few_ztf() + few_lsst()
    for batch in decode(messages(values), LocalSchemas()).batches:
        for row in range(len(batch)):
            value = batch.messages[batch.message[row]].value
            assert batch.records[row] in value
            assert len(batch.writer_schemas[batch.writer_schema[row]]) > 1000


@pytest.mark.parametrize(
    ("path", "new", "column", "expected"),
    [
        ("candidate.isdiffpos", "1", "sign", 1.0),
        ("candidate.isdiffpos", "0", "sign", -1.0),
        ("candidate.isdiffpos", "?", "sign", np.nan),
        ("candidate.distnr", 1.39, "reference", True),
        ("candidate.distnr", 1.41, "reference", False),
        ("candidate.ssdistnr", 5.0, "status", 1),
        ("candidate.ssdistnr", 5.1, "status", 2),
        ("candidate.ssdistnr", -999.0, "status", 0),
        ("candidate.ssdistnr", None, "status", 3),
        ("candidate.fid", 7, "band", 255),
        ("candidate.programid", 3, "private", 4),
        ("candidate.programid", 1, "private", 0),
        ("candidate.distnr", -999.0, "nucleus", np.nan),
        ("candidate.distnr", 1.5, "nucleus", 1.5),
        ("candidate.maggaia", -999.0, "gaia", np.nan),
        ("candidate.szmag1", -999.0, "counterpart", np.nan),
        ("candidate.szmag1", 18.5, "counterpart", 18.5),
    ],
)
def test_ztf_meaning_of_one_value(path: str, new: Any, column: str, expected: float) -> None:
    batch = _batch([changed(few_ztf()[0], path, new)], "ztf")
    got = {
        "sign": np.sign(batch.psf_flux[0]),
        "reference": np.isfinite(batch.packet["reference_flux"][0]),
        "status": batch.solar_system_status[0],
        "band": batch.band[0],
        "private": batch.flags[0] & 4,
        "nucleus": batch.packet["nucleus_offset_arcsec"][0],
        "gaia": batch.packet["neargaia_mag"][0],
        "counterpart": batch.packet["counterpart_mag_z"][0],
    }[column]
    np.testing.assert_equal(got, expected)


def test_a_known_asteroid_has_its_number_and_an_unnumbered_one_a_stable_hash() -> None:
    near = changed(few_ztf()[0], "candidate.ssdistnr", 1.0)
    names = ["433", "2010 EQ133", "2010EQ133", "null", None]
    batch = _batch([changed(near, "candidate.ssnamenr", name) for name in names], "ztf")
    numbered, spaced, joined, null, none = batch.ss_object_id.tolist()
    assert (numbered, null, none) == (433, 0, 0)
    assert spaced == joined > 2**32


@pytest.mark.parametrize(
    ("scores", "separations", "mags", "expected"),
    [
        ((0.1, 0.2, 0.9), (5.0, 3.0, 1.0), (20.0, 19.0, 15.0), (3.0, 19.0)),
        ((0.5, 0.49, 1.0), (1.0, 3.0, 1.0), (20.0, -999.0, 15.0), (3.0, np.nan)),
        ((0.5, -999.0, 0.2), (1.0, 3.0, -999.0), (20.0, 19.0, 15.0), (np.nan, np.nan)),
        ((np.nan, np.nan, np.nan), (1.0, 3.0, 4.0), (20.0, 19.0, 15.0), (np.nan, np.nan)),
    ],
)
def test_host_is_the_nearest_like_a_galaxy(
    scores: tuple[float, ...],
    separations: tuple[float, ...],
    mags: tuple[float, ...],
    expected: tuple[float, float],
) -> None:
    found = ztf.nearest_galaxy(*(np.array(values)[:, None] for values in (scores, separations, mags)))
    np.testing.assert_equal(tuple(column.item() for column in found), expected)


def test_scatter_near_the_pole_and_across_0_h() -> None:
    ra, dec = np.array([359.9999, 10.0]), np.array([60.0, 10.0])
    scatter = position_scatter_arcsec(
        ra, dec, np.array([0.0001, np.nan]), np.array([60.0, 10.0]), np.array([0, 1])
    )
    np.testing.assert_allclose(scatter, [0.0001 * 3600 * 0.5, np.nan], rtol=1e-6)
