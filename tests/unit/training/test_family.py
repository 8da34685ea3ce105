"""Families from made-up histories, with and without packets beside them, and the real folder's counts."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data import shared_data
from labelled import write_folder

from broker.context import ABS_GAL_B, CONTEXT_NAMES
from broker.errors import BrokerError
from broker.scores.taxonomy import FAMILIES
from broker.surveys.avro import LocalSchemas
from broker.surveys.catalog import decode
from broker.training.controls import check_inputs
from broker.training.dataset import STREAM_SOURCE
from broker.training.kinds import KINDS
from broker.training.sample import Sample
from broker.training.tasks import family
from tests.unit.surveys.samples import few_ztf, messages

COUNTS = {"SNII": 8, "AGN": 9, "SNIa": 4}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "labelled"
    root.mkdir()
    return write_folder(root, COUNTS)


def one_object(folder: Path) -> tuple[str, np.ndarray]:
    """An object of the stream and the times of its detections [MJD, TAI]."""
    histories = family.load(folder)
    number = int(np.flatnonzero(histories.source == STREAM_SOURCE)[0])
    return str(histories.object[number]), histories.time[slice(*histories.starts[number : number + 2])]


def test_inputs_are_known_and_tell_no_source() -> None:
    check_inputs(family.INPUTS)
    assert set(family.INPUTS) <= set(family.NAMES)
    assert set(family.CLASSES) <= set(FAMILIES)
    assert not any("solar_system" in name or name == "reliability" for name in family.INPUTS)


def test_of_the_stream_alone_the_labelled_are_learnt(folder: Path) -> None:
    sample = family.samples(folder)
    assert set(sample.source.tolist()) == {STREAM_SOURCE}
    assert set(sample.label.tolist()) == {"transient", "stochastic"}
    assert len(np.unique(sample.group[sample.label == "stochastic"])) == COUNTS["AGN"]
    assert np.isnan(sample.columns(family.CONTEXT)).all(), "there are no packets"


def test_every_object_has_its_last_state(folder: Path) -> None:
    labels = pq.read_table(folder / "labels.parquet").to_pylist()
    sample = family.last_states(folder)
    assert Counter(sample.object.tolist()) == Counter(row["object"] for row in labels)
    histories = family.load(folder)
    assert sample.n_detections.tolist() == np.diff(histories.starts).tolist()
    assert (sample.n_points >= sample.n_detections).all()
    assert (sample.n_nights <= sample.n_detections).all()


def test_early_states_do_not_see_what_came_later(folder: Path) -> None:
    sample = family.early_states(folder)
    assert set(sample.n_detections.tolist()) == {1, 2, 3, 5, 10}
    first = sample.n_detections == 1
    assert (sample.age_days[first] == 0.0).all()
    assert np.isnan(sample.columns(["slope"])[first]).all()


def test_limits_and_faint_points_are_no_detections(folder: Path) -> None:
    """The made folder has a limit of magnitude -1006 and a point below 5 sigma for every object."""
    histories = family.load(folder)
    assert np.isfinite(histories.flux).all()
    assert (histories.flux < 1e7).all()
    others = histories.source != STREAM_SOURCE
    lengths = np.diff(histories.limit_starts)
    assert (lengths[others] == 2).all()
    assert (lengths[~others] == 1).all(), "a point of the stream is one, however faint"


def test_context_is_the_packets_own_or_the_places(folder: Path) -> None:
    """Of a later packet nothing is known that belongs to its own detection."""
    histories = family.load(folder)
    name, times = one_object(folder)
    number = np.flatnonzero(histories.object == name)
    context = np.arange(float(len(CONTEXT_NAMES)))
    packets = family.Packets(np.array([name]), times[-1:] + 1e-5, context[np.newaxis])
    first, last = np.array([1]), np.diff(histories.starts)[number]
    early, late = (family.states(histories, number, count, packets) for count in (first, last))
    for column in family.CONTEXT:
        expected = context[CONTEXT_NAMES.index(column)]
        assert late.columns([column])[0, 0] == expected
        np.testing.assert_equal(
            early.columns([column])[0, 0], np.nan if column in family.OF_ONE_ALERT else expected
        )
    stranger = family.states(histories, (number + 1) % len(histories), first, packets)
    assert np.isnan(stranger.columns(family.CONTEXT)).all()


def test_packets_are_read_as_the_stream_reads_them(tmp_path: Path) -> None:
    place = tmp_path / family.PACKETS[0]
    place.mkdir(parents=True)
    values = few_ztf()
    for number, value in enumerate(values):
        (place / f"{number}.avro").write_bytes(value)
    packets = family.read_packets(tmp_path)
    assert packets is not None
    (batch,) = decode(messages(values), LocalSchemas()).batches
    order = np.argsort(batch.midpoint_mjd_tai, kind="stable")
    assert packets.name.tolist() == [name.decode() for name in batch.object_name[order]]
    column = packets.context[:, CONTEXT_NAMES.index("neargaia_arcsec")]
    np.testing.assert_array_equal(column, batch.packet["neargaia_arcsec"][order])
    assert family.read_packets(tmp_path / "elsewhere") is None


def test_cross_validation_judges_each_object_by_others() -> None:
    """Labels that a column gives away are found; labels by chance are not."""
    rng = np.random.default_rng(1)
    tree = next(kind for kind in KINDS if kind.name == "tree")
    settings = {"max_depth": 5, "min_samples_leaf": 1, "criterion": "gini"}
    label = np.repeat(family.CLASSES, 30)
    features = rng.normal(size=(len(label), len(family.NAMES)))
    told = features.copy()
    told[:, family.NAMES.index("slope")] += 10.0 * np.unique(label, return_inverse=True)[1]
    crossed = [
        family.cross_validated(sample_of(values, label), tree, settings, repeats=1)
        for values in (told, features)
    ]
    assert crossed[0].last.value > 0.95
    assert crossed[1].last.value < 0.5
    assert crossed[0].objects == dict.fromkeys(family.CLASSES, 30)


def sample_of(features: np.ndarray, label: np.ndarray) -> Sample:
    """One state with context of each of some objects after one detection, and one without."""
    bare = features.copy()
    bare[:, [family.NAMES.index(name) for name in family.CONTEXT]] = np.nan
    both, twice = np.vstack([features, bare]), np.tile(label, 2)
    name = np.tile(np.arange(len(label)).astype(np.str_), 2)
    ones = np.ones(len(twice), dtype=np.int64)
    source = np.full(len(twice), STREAM_SOURCE)
    return Sample(family.NAMES, both, twice, source, name, name, ones, ones, ones, 0.0 * ones)


def test_a_folder_without_light_curves_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BrokerError, match="give the folder"):
        family.load(tmp_path)


def test_the_folder_against_an_independent_reading(folder: Path) -> None:
    """The real folder where it is, else the made one."""
    shared = shared_data()
    root = folder if shared is None else shared / "labelled"
    rows = [r for r in pq.read_table(root / "labels.parquet").to_pylist() if r["source"] == STREAM_SOURCE]
    points = [
        r
        for r in pq.read_table(root / "photometry.parquet").to_pylist()
        if r["source"] == STREAM_SOURCE and not r["upperlimit"]
    ]
    sample = family.last_states(root)
    sample = sample.take(sample.source == STREAM_SOURCE)
    counts = Counter(point["object"] for point in points)
    assert dict(zip(sample.object.tolist(), (sample.n_points >= 1).tolist(), strict=True)) == dict.fromkeys(
        counts, True
    )
    labels = Counter(family.LABELS.get(row["label"] or "", "") for row in rows)
    assert Counter(sample.label.tolist()) == labels
    histories = family.load(root, (STREAM_SOURCE,))
    assert np.diff(histories.starts).sum() == len(points)
    assert sample.columns([ABS_GAL_B]).max() <= 90.0 or np.isnan(sample.columns([ABS_GAL_B])).all()


def test_with_packets_each_state_is_shown_with_and_without_the_catalogue(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    histories = family.load(folder, (STREAM_SOURCE,))
    count = len(histories)
    context = np.ones((count, len(CONTEXT_NAMES)))
    packets = family.Packets(histories.object, np.full(count, 59_030.0), context)
    bare = family.samples(folder)
    monkeypatch.setattr(family, "read_packets", lambda data: packets)
    sample = family.samples(folder)
    known = np.isfinite(sample.columns(["star_score"])[:, 0])
    whole = np.isfinite(sample.columns(family.CATALOGUE)).all(axis=1)
    labelled = len(np.unique(bare.object))
    assert known.sum() == 2 * whole.sum() == 2 * 3 * labelled, "after 1, 5 and all detections"
    assert np.isnan(sample.columns(family.CATALOGUE)[~whole]).all()
    assert (~known).sum() % labelled == 0
    assert set(sample.n_detections[~known].tolist()) == set(bare.n_detections.tolist())


def test_days_since_an_event_are_as_good_as_dates(folder: Path, tmp_path: Path) -> None:
    """The same light curves, their times counted from some event of each: days before it are negative."""
    for name in ("labels", "photometry"):
        rows = pq.read_table(folder / f"{name}.parquet").to_pylist()
        rows = [row | {"source": "tess_ztf_binned"} for row in rows if row["source"] == STREAM_SOURCE]
        rows = [row | ({"mjd": row["mjd"] - 59_020.0} if "mjd" in row else {}) for row in rows]
        rows = [row for row in rows if (row.get("magerr") or 0.0) < 0.3]  # the stream's alone
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / f"{name}.parquet")
    relative = family.last_states(tmp_path)
    assert len(relative) == len({row["object"] for row in rows})
    assert np.isfinite(relative.columns(("age_days", "amplitude"))).all()
    assert (relative.n_detections == 16).all()
    assert relative.age_days.max() > 30.0
