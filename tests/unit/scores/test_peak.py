"""Peak forecasts from a folder of text models."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightgbm
import numpy as np
import pytest

from broker.errors import BundleError
from broker.scores.peak import FILE, NEEDED, PEAK_SPECS, QUANTILES, TARGETS, NoPeak, load_peak, model_name

NAMES = (*NEEDED, "slope_g")
MANIFEST: Any = SimpleNamespace(id="made", feature_names=NAMES, context_names=())
COLUMNS = [spec.name for spec in PEAK_SPECS]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Models of slope + noise, whose quantiles are 1.28 apart in days, a tenth of that in mag."""
    rng = np.random.default_rng(1)
    x = rng.choice([-2.0, 0.0, 2.0], (6000, 1))
    y = x[:, 0] + rng.normal(size=6000)
    for target, scale in zip(TARGETS, (1.0, 0.1), strict=True):
        for quantile in QUANTILES:
            settings = {"objective": "quantile", "alpha": quantile, "verbose": -1, "num_threads": 1}
            booster = lightgbm.train(settings, lightgbm.Dataset(x, scale * y), 60)
            booster.save_model(str(tmp_path / f"{model_name(target, quantile)}.txt"))
    content = {
        "inputs": ["slope_g"],
        "edges": [5.0],
        "margins": {name: [[0.0, 0.0], [9.0, 7.0]] for name in TARGETS},
    }
    (tmp_path / FILE).write_text(json.dumps(content))
    return tmp_path


def row(**values: float) -> list[float]:
    known = {
        "n_detections": 3.0,
        "age_days": 5.0,
        "peak_mag_g": 18.5,
        "peak_mag_r": 18.0,
        "slope_g": 2.0,
        **values,
    }
    return [known[name] for name in NAMES]


def score(folder: Path, *rows: list[float]) -> list[dict[str, float]]:
    found = load_peak(folder, MANIFEST).score(np.array(rows))
    return [dict(zip(COLUMNS, values, strict=True)) for values in found.tolist()]


def test_quantiles_and_margins(folder: Path) -> None:
    plain, wide = score(folder, row(), row(n_detections=5.0))
    assert plain["peak_in_days"] == pytest.approx(2.0, abs=0.15)
    assert plain["peak_in_days_low"] == pytest.approx(2.0 - 1.28, abs=0.15)
    assert plain["peak_in_days_high"] == pytest.approx(2.0 + 1.28, abs=0.15)
    assert wide["peak_in_days"] == plain["peak_in_days"]
    assert wide["peak_in_days_low"] == pytest.approx(plain["peak_in_days_low"] - 9.0)
    assert wide["peak_in_days_high"] == pytest.approx(plain["peak_in_days_high"] + 7.0)


def test_the_magnitude_is_relative_to_the_brightest(folder: Path) -> None:
    both, only_g = score(folder, row(slope_g=-2.0), row(slope_g=-2.0, peak_mag_r=np.nan))
    assert both["peak_mag_expected"] == pytest.approx(17.8, abs=0.02)
    assert only_g["peak_mag_expected"] == pytest.approx(18.3, abs=0.02)
    assert both["peak_mag_expected_low"] < both["peak_mag_expected"] < both["peak_mag_expected_high"]


@pytest.mark.parametrize(
    "unfit",
    [
        {"n_detections": 2.0},
        {"age_days": 101.0},
        {"age_days": np.nan},
        {"peak_mag_g": np.nan, "peak_mag_r": np.nan},
    ],
)
def test_no_answer_without_grounds(folder: Path, unfit: dict[str, float]) -> None:
    bad, good = score(folder, row(**unfit), row())
    assert np.isnan(list(bad.values())).all()
    assert np.isfinite(list(good.values())).all()


def test_no_rows_and_unknown_inputs(folder: Path) -> None:
    part = load_peak(folder, MANIFEST)
    assert part.score(np.empty((0, len(NAMES)))).shape == (0, len(PEAK_SPECS))
    assert np.isfinite(part.score(np.array([row(slope_g=np.nan)]))).all()


def test_crossing_quantiles_are_put_in_order(folder: Path) -> None:
    content = json.loads((folder / FILE).read_text())
    content["margins"]["days"] = [[-50.0, -50.0], [0.0, 0.0]]
    (folder / FILE).write_text(json.dumps(content))
    (found,) = score(folder, row())
    assert found["peak_in_days_low"] == found["peak_in_days"] == found["peak_in_days_high"]


def test_a_bundle_without_peaks(tmp_path: Path) -> None:
    part = load_peak(tmp_path, MANIFEST)
    assert isinstance(part, NoPeak)
    assert np.isnan(part.score(np.zeros((2, 5)))).all()


@pytest.mark.parametrize("damage", [{"edges": [5.0, 9.0]}, {"inputs": ["no_such"]}])
def test_parts_that_disagree_are_refused(folder: Path, damage: dict[str, Any]) -> None:
    content = json.loads((folder / FILE).read_text())
    (folder / FILE).write_text(json.dumps({**content, **damage}))
    with pytest.raises(BundleError):
        load_peak(folder, MANIFEST)
