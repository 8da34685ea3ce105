"""What the benchmarks count and divide; how fast anything is, is never asserted."""

from __future__ import annotations

import json
import math

import numpy as np

from broker.bench import context as bench_context
from broker.bench import decode as bench_decode
from broker.bench import hot_path as bench_hot_path
from broker.bench import lists as bench_lists
from broker.config import load
from broker.context.match import SkyIndex
from broker.context.positions import read_csv
from tests.unit.surveys.samples import few_lsst, few_ztf


def test_decode_is_measured_a_survey() -> None:
    ztf, lsst = bench_decode.measure([*few_ztf(), *few_lsst(), b"not an alert"], repeats=1)
    assert (ztf.survey, ztf.alerts) == ("ztf", len(few_ztf()))
    assert (lsst.survey, lsst.alerts) == ("lsst", len(few_lsst()))
    assert lsst.fastavro_reader is None
    figures = ztf.as_dict()
    assert figures["times_fastavro_reader"] == ztf.fastavro_reader / ztf.columns  # type: ignore[operator]
    assert figures["times_skip"] == ztf.columns / ztf.skip
    assert all(value > 0 and math.isfinite(value) for value in figures.values() if isinstance(value, float))


def test_the_hot_path_is_measured_a_stage() -> None:
    result = bench_hot_path.measure(load(env={}), few_ztf(), repeats=1)
    assert result.published == result.alerts == len(few_ztf())
    assert list(result.stages)[:3] == ["decode", "history", "features"]
    assert math.isclose(result.as_dict()["total"], sum(result.stages.values()))
    curves = result.as_dict()["light_curves"]
    assert curves["points"] > 1
    assert curves["together"] == curves["assembly"] + curves["cheap"] > 0


def test_matches_are_measured_on_files() -> None:
    (cost,) = bench_context.measure(1, sources=[2_000])
    figures = cost.as_dict()
    assert figures["sources"] == 2_000
    assert all(value > 0 for value in figures.values())
    sky = bench_context.RandomSky(2_000)
    (chunk,) = sky.chunks(["ra", "dec"])
    order = np.argsort(chunk["dec"])
    ra, dec = chunk["ra"][order], chunk["dec"][order]
    asked = np.concatenate([ra[::7], [10.0]]), np.concatenate([dec[::7] + 0.001, [89.9]])
    index, rows = SkyIndex.of(ra, dec)
    found = index.nearest(*asked, bench_context.RADIUS_ARCSEC / 3600.0)[0]
    expected = np.where(found < 0, -1, rows[found])
    assert (bench_context.by_declination(ra, dec, *asked) == expected).all()
    assert (expected >= 0).sum() > 100


def test_a_list_and_regions_are_measured_on_what_they_say() -> None:
    cost = bench_lists.measure(1, positions=500, order=2)
    assert json.loads(json.dumps(cost.as_dict())).keys() >= {"match_ms", "region_ms", "held_mib"}
    assert cost.region_ms.keys() == set(bench_lists.REGIONS)
    assert cost.region_mib == 192 * 24 / 2**20
    text = bench_lists.made_csv(500, np.random.default_rng(1))
    positions = read_csv(text).positions
    assert (len(positions), np.isfinite(positions.radius).sum()) == (500, 167)
    region = bench_lists.made_map(3, np.random.default_rng(1))
    assert len(set(region.levels.tolist())) == len(region) == 12 * 4**3
