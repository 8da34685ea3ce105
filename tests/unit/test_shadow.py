"""How far two models disagree, whose turn it is, and what happens when the shadow fails."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_bundle import made_bundle

from broker import control, model_store
from broker.config import load
from broker.context import CONTEXT_NAMES
from broker.control import ControlState
from broker.features.catalog import FEATURE_SPECS
from broker.models import Model, ModelSet, ShadowModel, load_checked, model_set
from broker.promotion import ALL, BundleName, Shadow
from broker.scored import WATCHED_SCORES, Scored, inputs_of
from broker.scores.catalog import SCORE_SPECS, Scorer
from broker.shadow import Disagreement, Shadows, disagreement, read_disagreements

NAMES = [spec.name for spec in SCORE_SPECS]
RECORD = Shadow("ztf", BundleName("made", "3"), "", "", "", epoch=5)


@pytest.fixture(scope="module")
def scorers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Scorer]:
    """Two bundles that know other families."""
    place = tmp_path_factory.mktemp("bundles")
    other = made_bundle(place / "3", "3", ("moving", "stochastic"))
    return {"1": load_checked(made_bundle(place / "1")), "3": load_checked(other)}


def scored(scorer: Scorer, count: int = 20) -> Scored:
    rng = np.random.default_rng(1)
    features = rng.normal(5.0, 3.0, (count, len(FEATURE_SPECS)))
    context = rng.normal(size=(count, len(CONTEXT_NAMES)))
    numbers = np.full(count, 61000.2), np.full(count, 19.0)
    return Scored("ztf", scorer, *numbers, features, context, scorer.score(features, context))


def beside(scorer: Any) -> ModelSet:
    model = Model(BundleName("made", "3"), "", scorer)
    return ModelSet(scorer, shadows={"ztf": ShadowModel(RECORD, model)})


class Told:
    """The notices."""

    def __init__(self) -> None:
        self.said: list[tuple[str, str]] = []

    def __call__(self, name: str, why: str) -> None:
        self.said.append((name, why))


class OneHash(SimpleNamespace):
    """What `changed` gave, as Redis has it."""

    def hgetall(self, key: str) -> dict[bytes, bytes]:
        return {name.encode(): value for (there, name), value in self.fields.items() if there == key}


def test_a_model_agrees_with_itself_and_differs_from_another(scorers: dict[str, Scorer]) -> None:
    batch = scored(scorers["1"])
    same = disagreement(batch.scores, batch.scores)
    assert same == Disagreement(alerts=20)
    other = disagreement(batch.scores, scorers["3"].score(batch.features, batch.context))
    assert other.alerts == 20
    assert 0 < other.differs <= 20
    assert 0.0 < other.distance <= 20.0


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1))
def test_the_distance_is_that_of_probabilities(seed: int) -> None:
    """Symmetric, at most 1 an alert, and half of what the probabilities differ by in all."""
    rng = np.random.default_rng(seed)
    pair = []
    for _ in range(2):
        scores = np.full((7, len(NAMES)), np.nan)
        scores[:, :4] = rng.dirichlet(np.ones(4), 7)
        scores[:, NAMES.index("anomaly")] = rng.random(7)
        pair.append(scores)
    found, back = disagreement(*pair), disagreement(*pair[::-1])
    assert found == back
    assert found.distance == pytest.approx(0.5 * np.abs(pair[0][:, :4] - pair[1][:, :4]).sum())
    assert found.distance <= 7.0


@pytest.mark.parametrize(("share", "turns"), [(0.0, 0), (0.1, 4), (0.25, 10), (1.0, 40)])
def test_a_share_of_the_batches_is_scored(scorers: dict[str, Scorer], share: float, turns: int) -> None:
    told, batch = Told(), scored(scorers["1"], 3)
    shadows = Shadows("g", share, told)
    other = replace(batch, survey="lsst")  # in turns with the first, and no shadow's business
    for _ in range(40):
        shadows.compare(batch, beside(scorers["3"]))
        shadows.compare(other, beside(scorers["3"]))
    found = read_disagreements(OneHash(fields=shadows.changed()), "g", 5)
    assert sum(one.alerts for one in found.values()) == 3 * turns
    assert told.said == []


def test_a_shadow_that_fails_is_told_of_once_and_counted(
    scorers: dict[str, Scorer], caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any) -> Any:
        raise ZeroDivisionError("broken")

    told = Told()
    shadows = Shadows("g", 1.0, told)
    for _ in range(3):
        shadows.compare(scored(scorers["1"]), beside(SimpleNamespace(score=fail)))
    (found,) = read_disagreements(OneHash(fields=shadows.changed()), "g", 5).values()
    assert found == Disagreement(failures=3)
    assert found.to_json()["differs"] is None
    assert [name for name, _ in told.said] == ["made:3"]
    assert caplog.text.count("cannot score") == 1


def test_two_workers_add_up_by_the_live_model(scorers: dict[str, Scorer]) -> None:
    fields: dict[tuple[str, str], bytes] = {}
    for _ in range(2):
        shadows = Shadows("g", 1.0, Told())
        for version in ("1", "3", "3"):
            shadows.compare(scored(scorers[version]), beside(scorers["3"]))
        fields |= shadows.changed()
        assert shadows.changed() == {}
    found = read_disagreements(OneHash(fields=fields), "g", 5)
    assert {live: one.alerts for live, one in found.items()} == {"made:1": 40, "made:3": 80}
    assert found["made:3"].distance == 0.0
    assert read_disagreements(OneHash(fields=fields), "g", 6) == {}


def folded(*records: tuple[bytes, bytes]) -> ControlState:
    state = ControlState()
    for offset, record in enumerate(records):
        state = control.apply(state, offset, *record)
    assert state.unreadable == ()
    return state


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return model_store.sealed(made_bundle(tmp_path_factory.mktemp("stored") / "made", "3"))


def test_the_newest_record_of_a_group_says_what_scores_beside(
    stored: Any, scorers: dict[str, Scorer]
) -> None:
    on = Shadow(ALL, stored.name, "now", "ann", "a try")
    first = folded(control.bundle_record(stored), control.shadow_record(on))
    assert first.shadows == {ALL: replace(on, epoch=1)}
    models = model_set(ModelSet(scorers["1"]), first)
    assert models.shadow_names() == {ALL: "made:3"}
    assert models.of("ztf") is scorers["1"], "a shadow serves nobody"
    shadow = models.shadow_of("lsst")
    assert shadow is not None
    assert model_set(models, first).shadow_of("lsst") == shadow, "what is loaded is not loaded again"
    off = folded(
        control.bundle_record(stored),
        control.shadow_record(on),
        control.shadow_record(replace(on, bundle=None)),
    )
    assert model_set(models, off).shadow_of("ztf") is None
    shown = model_store.describe(first, load({}, env={}), (), {ALL: {"made:1": Disagreement(4, 1, 0.5, 0.2)}})
    assert shown["shadows"][ALL]["against"] == {
        "made:1": {"alerts": 4, "differs": 0.25, "distance": 0.125, "anomaly_difference": 0.05, "failures": 0}
    }
    assert model_store.describe(off, load({}, env={}))["shadows"] == {}


def test_a_shadow_that_cannot_be_loaded_leaves_all_else_as_it_is(
    stored: Any, scorers: dict[str, Scorer]
) -> None:
    damaged = replace(stored, archive=b"damaged")
    state = folded(control.bundle_record(damaged), control.shadow_record(replace(RECORD, group=ALL)))
    models = model_set(ModelSet(scorers["1"]), state)
    assert (models.shadow_of("ztf"), models.refused) == (None, {})
    assert "not a packed bundle" in models.refused_shadows[BundleName("made", "3")]


def test_a_record_that_is_no_shadow_is_noted() -> None:
    bad = (b"shadow/all/1", b'{"group": "../up", "bundle": null, "at": "", "by": "", "why": ""}')
    state = control.apply(ControlState(), 0, *bad)
    assert (state.shadows, len(state.unreadable)) == ({}, 1)


def test_what_is_watched_are_the_inputs_the_scores_and_the_magnitude(scorers: dict[str, Scorer]) -> None:
    batch = scored(scorers["1"])
    names, values = batch.watched()
    assert names == (*inputs_of(scorers["1"]), *WATCHED_SCORES, "mag")
    assert set(inputs_of(scorers["1"])) == {"age_days", "n_detections"}
    place = [spec.name for spec in FEATURE_SPECS].index("age_days")
    np.testing.assert_array_equal(values[:, names.index("age_days")], batch.features[:, place])
    np.testing.assert_array_equal(values[:, names.index("anomaly")], batch.scores[:, NAMES.index("anomaly")])
    assert set(values[:, -1]) == {19.0}
