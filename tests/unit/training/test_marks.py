"""Sessions of marks on made-up objects: whole groups on one side, gains where a class can be told."""

from __future__ import annotations

import numpy as np
import pytest

from broker.scores.personal import PERSONAL_INPUTS
from broker.training import marks
from broker.training.marks import WAYS, Case, auc, session
from broker.training.sample import Sample


def sample(seed: int, objects: int = 600) -> Sample:
    """A tenth of the objects belongs to a class that two features tell; three rows a group."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(objects, len(PERSONAL_INPUTS)))
    group = np.array([f"g{number // 3:04}" for number in range(objects)])
    label = np.where(np.arange(objects) // 3 % 10 == 0, "SLSN", "SNIa")
    rows[label == "SLSN", :2] += 3.0
    names, count = np.array([f"o{number}" for number in range(objects)]), np.full(objects, 5)
    source = np.full(objects, "made")
    return Sample(
        PERSONAL_INPUTS, rows, label, source, names, group, count, count, count, count.astype(np.float64)
    )


@pytest.mark.parametrize("way", WAYS)
def test_a_session_marks_and_learns(way: str) -> None:
    stream, rest = sample(1), sample(2)
    wanted = stream.label == "SLSN"
    before, after, count = session(stream.features, wanted, way, seed=1)
    columns = rest.columns(after.trees.inputs)
    leaves = after.trees.leaves(columns)
    truth = rest.label == "SLSN"
    assert auc(truth, after.strangeness(leaves)) > auc(truth, before.strangeness(leaves)) + 0.05
    assert 0 < count <= marks.MARKS
    assert way != "examples" or count == marks.MARKS // 2


def test_a_case_is_measured_with_an_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(marks, "SPLITS", 3)
    monkeypatch.setattr(marks, "RESAMPLES", 20)
    told: list[None] = []
    found = marks._raised(
        Case("made", ("made",), "SLSN", np.inf), "examples", sample(3), np.random.default_rng(1),
        lambda: told.append(None),
    )  # fmt: skip
    assert len(told) == 3
    assert (found.objects, found.wanted) == (600, 60)
    assert found.interval[0] < found.gain < found.interval[1]
    assert found.gain == pytest.approx(found.after - found.before)
    assert found.interval[0] > 0.0


def test_groups_stay_whole() -> None:
    group = sample(1).group
    half = marks._half(group, np.random.default_rng(1))
    assert half.sum() == len(group) // 2
    assert not set(group[half]) & set(group[~half])


def test_resampling_draws_groups_and_not_rows() -> None:
    """All rows of a class in one group: some draws have none of it, and say nothing."""
    wanted = np.arange(30) < 10
    score = np.where(wanted, 1.0, 0.0)
    gains = marks._resampled(
        np.where(wanted, "one", np.arange(30).astype("U3")), wanted, -score, score, np.random.default_rng(1)
    )
    assert 10 < np.isnan(gains).sum() < 90
    assert np.nanmin(gains) == 1.0


def test_ties_count_half() -> None:
    assert auc(np.array([True, False]), np.zeros(2)) == 0.5
    assert np.isnan(auc(np.zeros(3, dtype=bool), np.zeros(3)))
