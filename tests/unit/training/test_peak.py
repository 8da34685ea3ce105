"""Learning the peaks of made-up supernovae, and the truth about real ones."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from broker.errors import BrokerError
from broker.scores.peak import PEAK_SPECS, load_peak
from broker.training.tasks.peak import Row, conformal, fit, load_peaks, markdown, parabola, save, train_peak

SOURCE = "ztf_bts_snia"


def write(folder: Path, count: int) -> Path:
    """Parabolas with noise, seen every other day in turns of g and r from before the peak on."""
    rng = np.random.default_rng(6)
    photometry, labels, peaks = [], [], []
    for index in range(count):
        name, peak, top = f"ZTF{index}", 59_000.0 + rng.uniform(0.0, 300.0), rng.uniform(16.0, 18.0)
        bend = rng.uniform(0.008, 0.016)
        time = peak - rng.uniform(4.0, 18.0) + np.cumsum(rng.uniform(1.0, 3.0, 14))
        for k, moment in enumerate(time):
            mag = top + bend * (moment - peak) ** 2 + rng.normal(0.0, 0.03)
            photometry.append(
                {"source": SOURCE, "object": name, "mjd": moment, "band": ("ztfg", "ztfr")[k % 2], "mag": mag}
            )
        labels.append(
            {"source": SOURCE, "object": name, "label": "SNIa", "group": f"N|{name}", "redshift": 0.05}
        )
        peaks.append({"object": name, "peakt": peak - 57_999.5, "peakmag": top})
    table = pa.Table.from_pylist(photometry)
    table = table.append_column("magerr", pa.array(np.full(len(table), 0.03)))
    table = table.append_column("upperlimit", pa.array(np.zeros(len(table), dtype=bool)))
    for name in ("flux", "fluxerr"):
        table = table.append_column(name, pa.nulls(len(table), pa.float64()))
    pq.write_table(table, folder / "photometry.parquet")
    pq.write_table(pa.Table.from_pylist(labels), folder / "labels.parquet")
    peaks.append({"object": "ZTF0", "peakt": None, "peakmag": None})
    pq.write_table(pa.Table.from_pylist(peaks), folder / "ztf_label_lists.parquet")
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("peaks"), 60)


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Row]]:
    folder = tmp_path_factory.mktemp("bundle")
    return folder, train_peak(data, folder, 1)


def test_it_learns(trained: tuple[Path, list[Row]]) -> None:
    _, rows = trained
    early = {row.target: row for row in rows if row.detections == 3}
    assert early["days"].model < 0.6 * early["days"].typical
    assert early["mag"].model < 0.6 * early["mag"].typical
    assert all(0.5 < row.coverage[0] <= 1.0 for row in rows)
    assert all(row.gain[1] <= row.gain[0] <= row.gain[2] for row in rows)
    assert "| time | 3 detections | 60 |" in markdown(rows)


def test_what_is_served_is_what_was_fitted(
    data: Path, trained: tuple[Path, list[Row]], tmp_path: Path
) -> None:
    peaks = load_peaks(data)
    fitted = fit(peaks, 1)
    save(fitted, tmp_path)
    for name in ("peak.json", "peak_days_q10.txt"):
        assert (tmp_path / name).read_bytes() == (trained[0] / name).read_bytes()
    manifest: Any = SimpleNamespace(id="made", feature_names=peaks.sample.names, context_names=())
    served = load_peak(trained[0], manifest).score(peaks.sample.features)
    assert [spec.name for spec in PEAK_SPECS][:3] == ["peak_in_days", "peak_in_days_low", "peak_in_days_high"]
    np.testing.assert_allclose(served[:, :3], fitted.predict("days", peaks.sample), rtol=1e-12, atol=1e-12)


def test_the_truth_is_where_the_light_curve_peaks(data: Path) -> None:
    peaks = load_peaks(data)
    late = peaks.take(peaks.sample.n_points == 12)
    assert np.median(np.abs(late.change)) < 0.1
    since = late.sample.columns(["days_since_peak"])[:, 0]
    assert np.median(np.abs(late.days + since)) < 2.0


def test_real_peaks_agree_with_the_brightest_points(real_alerts: Path | None, data: Path) -> None:
    peaks = load_peaks(real_alerts / "labelled" if real_alerts else data)
    late = peaks.take((peaks.sample.n_points >= 12) & (peaks.days < -10.0))
    since = late.sample.columns(["days_since_peak"])[:, 0]
    assert np.median(np.abs(late.days + since)) < 2.0
    assert np.median(np.abs(late.change)) < 0.1


def test_a_parabola_is_found_again() -> None:
    time = np.array([-9.0, -6.0, -5.0, -3.0, -1.0, 0.0])
    band = np.array([1, 2, 1, 2, 1, 2], dtype=np.uint8)
    mag = 18.0 + 0.01 * (time - 4.0) ** 2 + 0.3 * (band == 1)
    assert parabola(time, mag, np.full(6, 0.05), band, 0.5) == pytest.approx((4.0, 18.0))
    assert parabola(time[:3], mag[:3], np.full(3, 0.05), band[:3], 0.01)[0] == pytest.approx(4.0)


def test_margins_make_up_for_what_is_missed() -> None:
    truth = np.random.default_rng(0).normal(size=50_000)
    zero, four = np.zeros(len(truth)), np.full(len(truth), 4.0)
    margins = conformal(zero - 1.0, zero + 2.0, truth, np.where(truth > 9.0, 1, 0))
    assert margins[0] == pytest.approx([0.28, -0.72], abs=0.03)
    assert np.array_equal(margins[1], margins[0])
    assert conformal(zero, four, truth, np.zeros(len(truth), dtype=np.int64))[0, 1] == pytest.approx(
        -2.72, abs=0.03
    )


def test_a_folder_without_peaks_is_refused(tmp_path: Path) -> None:
    write(tmp_path, 3)
    with pytest.raises(BrokerError, match="too few"):
        train_peak(tmp_path, tmp_path, 1)
    (tmp_path / "ztf_label_lists.parquet").unlink()
    with pytest.raises(BrokerError, match="cannot read"):
        load_peaks(tmp_path)
