"""Groups of a night's anomalies, where they were planted."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import typer

from broker import cluster_page, embedding_map
from broker.cli.anomalies import period_of
from broker.cluster_page import DATA, MAP, PAGE, write_page
from broker.clusters import Clustered, Objects, cluster, grouped, how_many, strangeness
from broker.errors import BrokerError
from broker.scores.embedding import DIMENSIONS
from broker.similar import State

FEATURES = ["amplitude", "color_gr", "rise_rate_g", "n_nights"]
ORDINARY, FLARES, DIPPERS, ALONE = 400, 15, 8, 3


def state(number: int, anomaly: float, error: float, name: str = "") -> State:
    return State(
        f"ztf:{number}", name or f"ZTF{number}", "ztf", "ztf:2", 60000.0 + number / 1e4, number, 1.0, 2.0,
        anomaly, error, "CV" if number % 2 else "", 0.5,
    )  # fmt: skip


def night() -> Objects:
    """Ordinary objects, two kinds of strange ones, and three that are like nothing; shuffled."""
    rng = np.random.default_rng(4)
    sizes = (ORDINARY, FLARES, DIPPERS, ALONE)
    kind = rng.permutation(np.repeat(np.arange(4), sizes))
    centre = np.zeros((4, DIMENSIONS))
    centre[1, 0], centre[2, 1] = 12.0, -12.0
    places = centre[kind] + rng.normal(0.0, 0.5, (len(kind), DIMENSIONS))
    places[kind == 3] = rng.normal(0.0, 25.0, (ALONE, DIMENSIONS))
    features = rng.normal(size=(len(kind), len(FEATURES))).astype(np.float32)
    features[kind == 1, 2] += 30.0
    features[kind == 2, 0] -= 20.0
    features[rng.random(features.shape) < 0.1] = np.nan
    level = np.where(kind > 0, 0.7, 0.4) + rng.normal(0.0, 0.02, len(kind))
    states = [
        state(number, own, own + 0.1, f"kind{kind[number]}") for number, own in enumerate(level.tolist())
    ]
    return Objects(states, places, features, FEATURES, others=2, unknown=7)


@pytest.fixture(scope="module")
def found() -> Clustered:
    return cluster(night(), str(FLARES + DIPPERS + ALONE))


def test_planted_groups_are_found_and_nothing_else(found: Clustered) -> None:
    assert [group.size for group in found.groups] == [FLARES, DIPPERS]
    names = [
        {one.name for one, own in zip(found.chosen, found.group, strict=True) if own == n} for n in (0, 1)
    ]
    assert names == [{"kind1"}, {"kind2"}]


def test_what_sets_a_group_apart_is_named_first(found: Clustered) -> None:
    flares, dippers = (group.traits[0] for group in found.groups)
    assert (flares.name, dippers.name) == ("rise_rate_g", "amplitude")
    assert flares.spreads > 10
    assert dippers.spreads < -10
    assert abs(flares.usual) < 1
    assert flares.value == pytest.approx(30.0, abs=2.0)


def test_what_is_like_nothing_is_in_no_group(found: Clustered) -> None:
    assert {one.name for one in found.outliers} == {"kind3"}
    assert len(found.outliers) == ALONE


def test_examples_are_members(found: Clustered) -> None:
    assert {one.name for one in found.groups[1].examples} == {"kind2"}
    assert len(found.groups[0].examples) == 5


def test_one_blob_is_no_group_and_too_few_are_none() -> None:
    few = np.zeros((4, DIMENSIONS))
    assert grouped(few, 5).tolist() == [-1] * 4
    assert grouped(np.zeros((0, DIMENSIONS)), 5).tolist() == []


def test_a_feature_that_nobody_has_or_that_never_varies_sets_nobody_apart() -> None:
    objects = night()
    objects.features[:, 3] = np.nan
    objects.features[:, 1] = 2.0
    traits = [trait.name for group in cluster(objects, "26").groups for trait in group.traits]
    assert set(traits) == {"amplitude", "rise_rate_g"}


def test_strangeness_is_the_mean_rank_of_what_is_known() -> None:
    states = [state(0, 0.1, 0.9), state(1, 0.2, np.nan), state(2, np.nan, 0.95), state(3, np.nan, np.nan)]
    assert strangeness(states).tolist() == [0.0, 1.0, 1.0, 0.0]


@pytest.mark.parametrize("top", ["", "x", "0", "-1", "1.5", "0%", "101%", "nan", "inf", "%"])
def test_a_wrong_top_is_refused(top: str) -> None:
    with pytest.raises(BrokerError, match="such as 1%"):
        how_many(top, 100)


def test_nights_are_utc_dates() -> None:
    period = period_of("20251121", None)
    assert period.begin == datetime(2025, 11, 21, tzinfo=UTC)
    assert period.since is not None
    assert period.until - period.since == pytest.approx(1.0)
    assert period_of(None, "2025-11-21T03:00").since == pytest.approx(period.since + 0.125)
    assert period_of(None, None).since is None


@pytest.mark.parametrize(("night", "since"), [("2025-11-21", None), ("20251340", None), (None, "yesterday")])
def test_what_is_no_date_is_refused(night: str | None, since: str | None) -> None:
    with pytest.raises(typer.BadParameter, match="is no date"):
        period_of(night, since)
    with pytest.raises(typer.BadParameter, match="exclude"):
        period_of("20251121", "2025-11-21")


def test_the_page_shows_all_and_runs_nothing(
    found: Clustered, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding_map, "find_spec", lambda name: None)
    found.chosen[0] = state(1, 0.9, 0.9, "<script>alert(1)</script>")
    page = write_page(tmp_path / "page", found)
    text = page.read_text()
    assert "<script>" not in text
    assert "&lt;script&gt;" in text
    assert "rise_rate_g" in text
    assert {path.name for path in page.parent.iterdir()} == {PAGE, MAP, DATA}


def test_without_matplotlib_there_is_a_page_without_a_map(
    found: Clustered, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_page, "find_spec", lambda name: None)
    assert "needs matplotlib" in write_page(tmp_path, found).read_text()
    assert not (tmp_path / MAP).exists()
