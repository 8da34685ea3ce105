"""What the benchmarks count and divide; how fast anything is, is never asserted."""

from __future__ import annotations

import math

from broker import bench_decode, bench_hot_path
from broker.config import load
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
