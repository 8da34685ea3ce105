"""The simulated streams as their readers see them: fastavro and astropy are the judges."""

from __future__ import annotations

import csv
import gzip
import io
import math
import re
import struct
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import fastavro
import numpy as np
import pytest
from astropy.io import fits

from broker import schemas
from broker.astro.photometry import mag_to_njy, njy_to_mag
from broker.errors import BrokerError
from broker.simulate import START_MJD, SimulatedAlert, simulate_lsst, simulate_ztf, write_folder
from broker.simulate.cadence import LSST, ZTF
from broker.simulate.objects import KINDS
from broker.simulate.observe import detections

N, SEED = 900, 4
ZTF_NULLS_IN_LIMITS = ("candid", "isdiffpos", "magpsf", "sigmapsf", "ra", "dec")


@pytest.fixture(scope="module")
def ztf() -> list[tuple[SimulatedAlert, dict[str, Any]]]:
    read = []
    for alert in simulate_ztf(N, SEED):
        (record,) = fastavro.reader(io.BytesIO(alert.value))
        read.append((alert, record))
    return read


@pytest.fixture(scope="module")
def lsst() -> list[tuple[SimulatedAlert, dict[str, Any]]]:
    schema, read = schemas.lsst_schema(1100), []
    for alert in simulate_lsst(300, SEED):
        assert struct.unpack(">bi", alert.value[:5]) == (0, 1100)
        stream = io.BytesIO(alert.value[5:])
        read.append((alert, fastavro.schemaless_reader(stream, schema)))
        assert stream.read() == b""
    return read


def test_ztf_packets_are_valid(ztf: list[Any]) -> None:
    schema = fastavro.parse_schema(schemas.load("ztf/alert"))
    for alert, record in ztf:
        assert alert.value.startswith(b"Obj\x01")
        assert record["schemavsn"] == "4.02"
    for _, record in ztf[::20]:
        assert fastavro.validate(record, schema)
    header = fastavro.reader(io.BytesIO(ztf[0][0].value))
    assert header.codec == "null"
    assert header.writer_schema["name"] == "ztf.alert"


def test_exactly_n_in_time_order_with_unique_ids(ztf: list[Any]) -> None:
    assert len(ztf) == N
    times = [record["candidate"]["jd"] for _, record in ztf]
    assert times == sorted(times)
    midpoints = [alert.midpoint_mjd_tai for alert, _ in ztf]
    assert midpoints == sorted(midpoints)
    assert midpoints[0] >= START_MJD
    candids = [record["candid"] for _, record in ztf]
    assert len(set(candids)) == N
    assert max(candids) < 2**63
    assert candids == [alert.candid for alert, _ in ztf]
    assert candids == [record["candidate"]["candid"] for _, record in ztf]


@pytest.mark.parametrize("n", [0, 1, 150])
def test_any_number_is_exact(n: int) -> None:
    assert sum(1 for _ in simulate_ztf(n, SEED)) == n


def test_same_seed_same_bytes_other_seed_other_sky(ztf: list[Any], lsst: list[Any]) -> None:
    """Up to 4,800 alerts the population is the same, so a short run is the beginning of a longer one."""
    first = [alert.value for alert, _ in ztf[:60]]
    assert [alert.value for alert in simulate_ztf(60, SEED)] == first
    assert set(first).isdisjoint(alert.value for alert in simulate_ztf(60, SEED + 1))
    assert [alert.value for alert in simulate_lsst(20, SEED)] == [alert.value for alert, _ in lsst[:20]]


@pytest.mark.parametrize("seed", [0, SEED])
def test_every_class_is_there_in_the_first_two_thousand(seed: int) -> None:
    labels = Counter(found.sky_object.kind.label for found in detections(ZTF, 2000, seed, START_MJD))
    assert set(labels) == {kind.label for kind in KINDS}
    assert labels["Bogus"] > 100
    assert labels["SSO"] > 100
    assert labels["SNIa"] + labels["SNII"] > 60
    assert labels["SNIa"] + labels["SNII"] < 600


def test_object_ids_are_ztf_names_and_mean_one_object(ztf: list[Any]) -> None:
    places: dict[str, tuple[float, float]] = {}
    for alert, record in ztf:
        assert re.fullmatch(r"ZTF\d\d[a-z]{7}", alert.object_id)
        assert record["objectId"] == alert.object_id
        row = record["candidate"]
        ra, dec = places.setdefault(alert.object_id, (row["ra"], row["dec"]))
        assert 3600.0 * math.hypot((row["ra"] - ra) * math.cos(math.radians(dec)), row["dec"] - dec) < 12.0


def test_magnitudes_are_the_truth_within_noise(ztf: list[Any]) -> None:
    pulls = []
    for (_, record), truth in zip(ztf, detections(ZTF, N, SEED, START_MJD), strict=True):
        row, exposure = record["candidate"], truth.now.exposure
        sign = 1.0 if row["isdiffpos"] == "t" else -1.0
        flux = sign * float(mag_to_njy(row["magpsf"]))
        assert flux == pytest.approx(truth.now.flux, rel=1e-5)
        err = abs(flux) * row["sigmapsf"] * math.log(10.0) / 2.5
        expected = float(truth.sky_object.difference_flux(exposure.midpoint_mjd_tai, exposure.band))
        pulls.append((flux - expected) / err)
    assert np.std(pulls) == pytest.approx(1.0, abs=0.2)
    assert max(map(abs, pulls)) < 6.0


def test_total_flux_is_reference_plus_difference(ztf: list[Any]) -> None:
    """A star keeps its reference magnitude; reference and difference never add up to a negative star."""
    reference: dict[tuple[str, int], float] = {}
    for alert, record in ztf:
        row = record["candidate"]
        if alert.label in ("RRLyrae", "EB", "CEP", "LPV") and row["distnr"] < 1.4:
            assert reference.setdefault((alert.object_id, row["fid"]), row["magnr"]) == row["magnr"]
            sign = 1.0 if row["isdiffpos"] == "t" else -1.0
            flux, err = float(mag_to_njy(row["magpsf"])), row["sigmapsf"] * float(mag_to_njy(row["magpsf"]))
            assert float(mag_to_njy(row["magnr"])) + sign * flux > -5.0 * err
    assert len(reference) > 100


def test_eclipses_are_negative_and_supernovae_positive(ztf: list[Any]) -> None:
    signs = {label: Counter[str]() for label in ("EB", "SNIa", "SNII", "SSO", "LPV", "Bogus")}
    for alert, record in ztf:
        if alert.label in signs:
            signs[alert.label][record["candidate"]["isdiffpos"]] += 1
    assert signs["EB"]["f"] > 50
    assert signs["EB"]["t"] == 0
    for label in ("SNIa", "SNII", "SSO"):
        assert signs[label]["f"] == 0
    for label in ("LPV", "Bogus"):
        assert min(signs[label]["t"], signs[label]["f"]) > 10


def test_history_is_the_earlier_alerts_and_limits(ztf: list[Any]) -> None:
    """Detections in a history carry the values that their own alerts had; non-detections only a limit."""
    own, repeated, limits = {}, 0, 0
    for _, record in ztf:
        now = record["candidate"]
        for row in record["prv_candidates"]:
            assert now["jd"] - 30.1 < row["jd"] < now["jd"]
            assert row["candid"] != record["candid"]
            if row["candid"] is None:
                assert all(row[name] is None for name in ZTF_NULLS_IN_LIMITS)
                assert 18.5 < row["diffmaglim"] < 22.0
                limits += 1
            elif row["candid"] in own:
                assert all(row[name] == own[row["candid"]][name] for name in ("jd", "magpsf", "ra", "rb"))
                repeated += 1
        own[record["candid"]] = now
    assert limits > 4000
    assert repeated > 400


def test_new_transients_have_limits_before_them(ztf: list[Any]) -> None:
    first = [r for a, r in ztf if a.label in ("SNIa", "SNII", "CV") and r["candidate"]["ndethist"] == 1]
    assert first
    for record in first:
        assert record["candidate"]["jdstarthist"] == record["candidate"]["jd"]
        assert all(row["candid"] is None for row in record["prv_candidates"])
    assert any(len(record["prv_candidates"]) > 5 for record in first)


def test_forced_photometry_agrees_with_detections(ztf: list[Any]) -> None:
    compared = failed = 0
    for _, record in ztf[::3]:
        flux = {}
        for row in record["fp_hists"]:
            assert (row["forcediffimflux"] == -99999.0) == (row["procstatus"] != "0")
            failed += row["procstatus"] != "0"
            if row["procstatus"] == "0":
                flux[row["pid"]] = row["forcediffimflux"] * float(mag_to_njy(row["magzpsci"]))
        for row in record["prv_candidates"]:
            if row["candid"] is not None and row["pid"] in flux:
                assert float(njy_to_mag(abs(flux[row["pid"]]))) == pytest.approx(row["magpsf"], abs=1e-3)
                assert (flux[row["pid"]] > 0.0) == (row["isdiffpos"] == "t")
                compared += 1
    assert compared > 200
    assert failed > 10


def test_candids_hold_the_exposure(ztf: list[Any]) -> None:
    for _, record in ztf:
        row = record["candidate"]
        assert record["candid"] // 1_000_000 == row["pid"]
        assert row["nid"] == row["pid"] // 10**9
        assert row["programid"] == 1
        assert row["exptime"] == 30.0


def test_scores_separate_bogus_and_movers_are_matched(ztf: list[Any]) -> None:
    for alert, record in ztf:
        row = record["candidate"]
        assert 0.0 <= row["drb"] <= 1.0
        assert 0.0 <= row["rb"] <= 1.0
        assert (alert.label == "SSO") == (0.0 <= row["ssdistnr"] < 5.0) == (row["ssnamenr"] != "null")
    by_label = {
        bogus: [r["candidate"]["drb"] for a, r in ztf if (a.label == "Bogus") == bogus]
        for bogus in (True, False)
    }
    assert np.quantile(by_label[True], 0.9) < 0.3
    assert np.quantile(by_label[False], 0.1) > 0.5


def test_every_field_of_a_candidate_is_filled(ztf: list[Any]) -> None:
    empty = {name for _, record in ztf for name, value in record["candidate"].items() if value is None}
    assert empty == set()
    values = [v for _, r in ztf for v in r["candidate"].values() if isinstance(v, float)]
    assert np.isfinite(values).all()


def open_stamp(data: bytes) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with fits.open(io.BytesIO(data)) as hdus:
            hdus.verify("exception")
            return hdus[0].data.copy()


def test_ztf_cutouts_are_fits_images(ztf: list[Any]) -> None:
    for _, record in ztf[::30]:
        images = [
            open_stamp(gzip.decompress(record[name]["stampData"]))
            for name in ("cutoutScience", "cutoutTemplate", "cutoutDifference")
        ]
        science, template, difference = images
        assert all(image.shape == (63, 63) and image.dtype == np.dtype(">f4") for image in images)
        assert np.array_equal(difference, science - template)
        assert np.isfinite(science).all()


def test_the_difference_holds_the_flux_at_its_centre(ztf: list[Any]) -> None:
    checked = 0
    for alert, record in ztf:
        row = record["candidate"]
        if alert.label != "Bogus" and row["scorr"] > 50.0 and checked < 40:
            difference = open_stamp(gzip.decompress(record["cutoutDifference"]["stampData"])).astype(float)
            counts = float(mag_to_njy(row["magpsf"]) / mag_to_njy(row["magzpsci"]))
            sign = 1.0 if row["isdiffpos"] == "t" else -1.0
            assert difference[27:36, 27:36].sum() == pytest.approx(sign * counts, rel=0.3)
            checked += 1
    assert checked > 20


def test_lsst_packets_hold_together(lsst: list[Any]) -> None:
    assert len(lsst) == 300
    schema = fastavro.parse_schema(schemas.lsst_schema(1100))
    times = [record["diaSource"]["midpointMjdTai"] for _, record in lsst]
    assert times == sorted(times)
    assert len({alert.candid for alert, _ in lsst}) == 300
    for alert, record in lsst:
        source = record["diaSource"]
        assert record["diaSourceId"] == source["diaSourceId"] == alert.candid < 2**63
        assert source["isNegative"] == (source["psfFlux"] < 0.0)
        assert source["scienceFlux"] == pytest.approx(
            source["psfFlux"] + source["templateFlux"], rel=1e-3, abs=2.0
        )
        assert abs(source["psfFlux"]) > 4.99 * source["psfFluxErr"]
        assert source["timeWithdrawnMjdTai"] is None
    for _, record in lsst[::20]:
        assert fastavro.validate(record, schema)
    assert {record["diaSource"]["band"] for _, record in lsst} <= set("ugrizy")
    assert any(record["diaSource"]["psfFlux"] < 0.0 for _, record in lsst)


def test_lsst_objects_and_movers(lsst: list[Any]) -> None:
    for alert, record in lsst:
        if alert.label == "SSO":
            assert record["diaObject"] is None
            assert record["ssSource"]["designation"] == alert.object_id
            assert record["ssSource"]["ssObjectId"] == record["diaSource"]["ssObjectId"] > 0
            assert record["prvDiaSources"] is None
        else:
            assert record["ssSource"] is None
            assert str(record["diaObject"]["diaObjectId"]) == alert.object_id
            assert record["diaSource"]["diaObjectId"] == record["diaObject"]["diaObjectId"]
    assert {alert.label for alert, _ in lsst} >= {"SSO", "SNIa", "AGN", "Bogus"}


def test_lsst_history_and_summary(lsst: list[Any]) -> None:
    for _, record in lsst:
        past, forced = record["prvDiaSources"] or [], record["prvDiaForcedSources"] or []
        if record["diaObject"] is None:
            continue
        sources = [*past, record["diaSource"]]
        assert record["diaObject"]["nDiaSources"] == len(sources)
        assert record["diaObject"]["firstDiaSourceMjdTai"] == min(s["midpointMjdTai"] for s in sources)
        for band in "ugrizy":
            flux = [s["psfFlux"] for s in sources if s["band"] == band]
            assert record["diaObject"][f"{band}_psfFluxNdata"] == len(flux)
            if flux:
                assert record["diaObject"][f"{band}_psfFluxMean"] == pytest.approx(
                    np.mean(flux), rel=1e-4, abs=0.1
                )
        assert bool(past) == bool(forced)
        assert len(forced) >= len(past)


def test_lsst_cutouts_are_fits_images(lsst: list[Any]) -> None:
    for _, record in lsst[::40]:
        science, template, difference = (
            open_stamp(record[name]) for name in ("cutoutScience", "cutoutTemplate", "cutoutDifference")
        )
        assert science.shape == (30, 30)
        assert np.array_equal(difference, science - template)


def test_lsst_is_as_deep_as_lsst() -> None:
    assert all(LSST.dark_limit[band] > ZTF.dark_limit[band] + 3.0 for band in ZTF.dark_limit)


@pytest.mark.parametrize("survey", ["ztf", "lsst"])
def test_folder_holds_alerts_and_truth(tmp_path: Path, survey: str, request: pytest.FixtureRequest) -> None:
    seen: list[int] = []
    truth = write_folder(tmp_path / "sky", 40, SEED, seen.append, survey=survey)
    assert seen == list(range(1, 41))
    alerts = [alert for alert, _ in request.getfixturevalue(survey)[:40]]
    for alert in alerts:
        assert (tmp_path / "sky" / f"{alert.candid}.avro").read_bytes() == alert.value
    with truth.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {(row["objectId"], row["label"]) for row in rows} == {(a.object_id, a.label) for a in alerts}
    assert sum(int(row["n_alerts"]) for row in rows) == 40
    assert all(math.isfinite(float(row["ra"])) and math.isfinite(float(row["dec"])) for row in rows)


def test_a_folder_in_use_or_an_unknown_survey_is_refused(tmp_path: Path) -> None:
    (tmp_path / "old.avro").write_bytes(b"")
    with pytest.raises(BrokerError, match="not empty"):
        write_folder(tmp_path, 1, 0)
    with pytest.raises(BrokerError, match="choose one of: ztf, lsst"):
        write_folder(tmp_path / "new", 1, 0, survey="atlas")
    assert not (tmp_path / "new").exists()


def test_packets_come_one_by_one() -> None:
    """The first of many comes at once: nothing is kept for later."""
    assert next(simulate_ztf(8_000, SEED)).midpoint_mjd_tai >= START_MJD
