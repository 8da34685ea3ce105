"""The labelled stars: which are learnt from, what is known of them when, that no band or clock matters."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from broker.errors import BrokerError
from broker.training.tasks import periodic
from broker.training.tasks.periodic import CLASSES, COUNTS, INPUTS, SOURCES, TAUGHT_COUNTS, TEACHERS
from tests.data import shared_data

POINTS = 70
STARS = (
    # source, object, label, group, band
    ("asas_richards12", "one", "RRLyrae", "g1", "V"),
    ("asas_richards12", "nameless", None, "g2", "V"),
    ("asas_richards12", "young", "YSO", "g3", "V"),
    ("debosscher", "two", "EB", "g4", "clear/Hp/I"),
    ("debosscher", "said so", "CEP", "g5", "clear/Hp/I"),
    ("debosscher", "or so", "RRLyrae", "g5", "clear/Hp/I"),
    ("asas_acvs", "machine's", "DSCT", "g6", "V"),
    ("ztf_bts_snia", "no star", "SNIa", "g7", "ztfg"),
)


def star(name: str, seed: int, shift: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Times and magnitudes of a star; `shift` moves its clock."""
    rng = np.random.default_rng(seed)
    time = np.sort(rng.uniform(0.0, 400.0, POINTS))
    return time + shift, 12.0 + 0.4 * np.sin(time / 0.6) + rng.normal(0.0, 0.02, POINTS)


def write(folder: Path, stars: Any = STARS, shift: float = 0.0, seed: int | None = None) -> Path:
    """A folder of these stars; with `seed` they all have one light curve."""
    labels, rows = [], []
    for number, (source, name, label, group, band) in enumerate(stars):
        labels.append({"source": source, "object": name, "label": label, "group": group, "label_raw": "x"})
        time, mag = star(name, number if seed is None else seed, 51_000.0 + shift * number)
        base = {"source": source, "object": name, "magerr": 0.02}
        rows += [{**base, "band": band, "mjd": t, "mag": m} for t, m in zip(time, mag, strict=True)]
        rows += [
            {**base, "band": "u", "mjd": t, "mag": m}
            for t, m in zip(time[:9] + 0.1, mag[:9] + 1, strict=True)
        ]
    np.random.default_rng(1).shuffle(rows)
    folder.mkdir()
    pq.write_table(pa.Table.from_pylist(labels), folder / "labels.parquet")
    pq.write_table(pa.Table.from_pylist(rows), folder / "photometry.parquet")
    return folder


def test_every_object_of_the_sources_is_judged_in_its_last_state(tmp_path: Path) -> None:
    sample = periodic.last_states(write(tmp_path / "data"))
    assert Counter(sample.source.tolist()) == {"asas_richards12": 3, "debosscher": 3, "asas_acvs": 1}
    assert sample.label[sample.object == "nameless"].tolist() == [""]
    assert set(sample.n_points.tolist()) == {POINTS + 9}
    assert sample.n_detections.tolist() == sample.n_points.tolist()
    assert (sample.age_days > 300.0).all()
    assert np.isfinite(sample.columns(INPUTS)).all()


def test_learnt_from_are_trusted_undisputed_labels_alone(tmp_path: Path) -> None:
    sample = periodic.samples(write(tmp_path / "data"))
    assert Counter(sample.object.tolist()) == {"one": 3, "two": 3}
    points = sample.n_points[sample.object == "one"].tolist()
    assert points[-1] == POINTS + 9
    for young, count in zip(points[:-1], TAUGHT_COUNTS, strict=True):
        assert count <= young <= count + 9
    time, _ = star("one", 0)
    late = np.sort(np.append(time, time[:9] + 0.1))
    assert [late[young - 1] for young in points[:-1]] == [time[count - 1] for count in TAUGHT_COUNTS]


def test_some_young_states_have_gaps_and_all_others_stay_as_they_are(tmp_path: Path) -> None:
    sample = periodic.last_states(write(tmp_path / "data"))
    total = [name for name in INPUTS if name.startswith("total_")]
    folded = [name for name in INPUTS if name not in total]
    gaps = periodic.with_gaps(sample)
    assert np.isnan(gaps.columns(total)).any(axis=1).nonzero()[0].tolist() == [0, 4]
    assert np.isnan(gaps.columns(folded)).all(axis=1).nonzero()[0].tolist() == [1]
    np.testing.assert_array_equal(gaps.features[[2, 3, 5, 6]], sample.features[[2, 3, 5, 6]])


def test_an_early_state_knows_nothing_of_what_came_later(tmp_path: Path) -> None:
    folder = write(tmp_path / "data")
    early = periodic.early_states(folder)
    assert Counter(early.n_points.tolist()) == dict.fromkeys(COUNTS, 7)
    table = pq.read_table(folder / "photometry.parquet").to_pylist()
    own = sorted((row for row in table if row["object"] == "one"), key=lambda row: row["mjd"])
    cut = tmp_path / "cut"
    cut.mkdir()
    pq.write_table(pa.Table.from_pylist(own[:20]), cut / "photometry.parquet")
    pq.write_table(pq.read_table(folder / "labels.parquet"), cut / "labels.parquet")
    alone = periodic.last_states(cut)
    seen = early.take((early.object == "one") & (early.n_points == 20))
    np.testing.assert_array_equal(alone.features, seen.features)


def test_neither_band_nor_zero_point_of_the_clock_matters(tmp_path: Path) -> None:
    """The same star in every source: nothing that the task looks at tells the source."""
    sample = periodic.last_states(write(tmp_path / "data", shift=-5_000.0, seed=3))
    inputs = sample.columns(INPUTS)
    np.testing.assert_allclose(inputs, np.tile(inputs[0], (len(inputs), 1)), rtol=1e-6, atol=1e-6)


def test_magnitudes_are_those_published(tmp_path: Path) -> None:
    sample = periodic.last_states(write(tmp_path / "data", seed=3))
    _, mag = star("one", 3)
    assert sample.columns(("total_std",))[0, 0] == pytest.approx(mag.std(ddof=1), rel=1e-5)
    assert sample.columns(("total_mean_mag",))[0, 0] == pytest.approx(12.0, abs=0.1)


def test_a_folder_without_the_columns_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BrokerError, match=r"labels\.parquet"):
        periodic.last_states(tmp_path)


def test_no_input_names_a_band_a_brightness_or_a_count() -> None:
    assert not [name for name in INPUTS if name.startswith("n_") or name.endswith(("_g", "_r", "_mag"))]


DATA = shared_data()


@pytest.mark.skipif(DATA is None, reason="no shared data")
def test_the_real_folder_is_read_whole() -> None:
    """Counts, labels, order and units against a plain reading of the files."""
    assert DATA is not None
    stars = periodic.load(DATA / "labelled")
    columns = ["source", "object", "mjd", "mag"]
    table = pq.read_table(
        DATA / "labelled" / "photometry.parquet", columns=columns, filters=[("source", "in", list(SOURCES))]
    )
    counts = table.group_by(["source", "object"]).aggregate([("mjd", "count")]).to_pylist()
    keys = list(zip(stars.source.tolist(), stars.name.tolist(), strict=True))
    ours = dict(zip(keys, np.diff(stars.curves.starts).tolist(), strict=True))
    assert {(row["source"], row["object"]): row["mjd_count"] for row in counts} == ours
    labels = {
        (row["source"], row["object"]): row["label"] or ""
        for row in pq.read_table(DATA / "labelled" / "labels.parquet").to_pylist()
    }
    assert [labels[key] for key in keys] == stars.label.tolist()
    for index in (0, len(keys) // 2, len(keys) - 1):
        rows = table.filter(pc.equal(table["object"].cast(pa.string()), keys[index][1])).to_pylist()
        own = sorted((row["mjd"], row["mag"]) for row in rows)
        points = stars.curves.row(index)
        assert points["midpoint_mjd_tai"].tolist() == [time for time, _ in own]
        mag = 31.4 - 2.5 * np.log10(points["psf_flux"].astype(float))
        np.testing.assert_allclose(np.sort(mag), np.sort([mag for _, mag in own]), atol=1e-5)
    assert {name for name in CLASSES if name in stars.label} == set(CLASSES)
    assert all((stars.source == name).any() for name in TEACHERS)
