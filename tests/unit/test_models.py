"""Which model scores which survey at one control state, and what happens to bundles that cannot be served."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_bundle import made_bundle

from broker import model_store
from broker.config import load
from broker.control import ControlState
from broker.errors import BundleError
from broker.models import ModelSet, load_checked, load_stored, model_set
from broker.promotion import ALL, BundleName, Promotion, StoredBundle, promoted, rolled_back
from broker.scores.archive import pack
from broker.scores.bundle import MANIFEST, write_manifest
from broker.scores.catalog import BUNDLES, STAMPS_BUNDLE, Scorer


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, StoredBundle]:
    """Three versions of a bundle, as they are stored."""
    place = tmp_path_factory.mktemp("bundles")
    return {version: model_store.sealed(made_bundle(place / version, version)) for version in "123"}


@pytest.fixture(scope="module")
def default(tmp_path_factory: pytest.TempPathFactory) -> Scorer:
    """What scores before anything is promoted."""
    return load_checked(made_bundle(tmp_path_factory.mktemp("shipped") / "made", "0"))


def state_of(bundles: dict[str, StoredBundle], **groups: list[str]) -> ControlState:
    """The state in which versions were promoted for groups, one after the other; '-' is a rollback."""
    promotions: dict[str, dict[int, Promotion]] = {}
    for group, versions in groups.items():
        history = promotions.setdefault(group, {})
        for version in versions:
            back = version == "-"
            new = Promotion(group, 1, None if back else BundleName("made", version), 0, False, "", "", "")
            done = rolled_back(history, new) if back else promoted(history, new)
            assert done is not None
            history[done.revision] = done
    return ControlState(7, bundles={item.name: item for item in bundles.values()}, promotions=promotions)


def test_a_survey_has_its_own_model_or_that_of_all_or_the_shipped_one(
    bundles: dict[str, StoredBundle], default: Scorer
) -> None:
    nothing = model_set(ModelSet(default), ControlState())
    assert (nothing.of("ztf"), nothing.names()) == (default, {ALL: "made:0"})
    mixed = model_set(nothing, state_of(bundles, all=["1"], lsst=["2"], atlas=["3", "-"]))
    assert {survey: mixed.of(survey).version for survey in ("ztf", "lsst", "atlas")} == {
        "ztf": "1", "lsst": "2", "atlas": "1",
    }  # fmt: skip
    assert mixed.names() == {ALL: "made:1", "lsst": "made:2"}
    own = ModelSet(default, own={"lsst": mixed.of("lsst")})
    assert (own.of("lsst").version, own.of("ztf")) == ("2", default)
    assert own.names() == {ALL: "made:0", "lsst": "made:2"}
    for_all = model_set(own, state_of(bundles, all=["1"]))
    assert {for_all.of(survey).version for survey in ("ztf", "lsst")} == {"1"}
    assert for_all.names() == {ALL: "made:1"}
    assert model_set(for_all, ControlState()).of("lsst") is mixed.of("lsst"), "a rollback gives it back"
    back = model_set(mixed, state_of(bundles, all=["1", "-"], lsst=["2"]))
    assert back.of("ztf") is default
    assert back.of("lsst") is mixed.of("lsst"), "what is loaded is not loaded again"


def test_a_bundle_that_cannot_be_loaded_keeps_the_one_before(
    bundles: dict[str, StoredBundle], default: Scorer
) -> None:
    damaged = bundles | {"2": replace(bundles["2"], archive=b"damaged")}
    found = model_set(ModelSet(default), state_of(damaged, all=["1", "2"]))
    assert found.of("ztf").version == "1"
    assert "not a packed bundle" in found.refused[BundleName("made", "2")]
    alone = model_set(ModelSet(default), state_of(damaged, all=["2"]))
    assert alone.of("ztf") is default
    missing = model_set(ModelSet(default), state_of(bundles, all=["9"]))
    assert "is not in the control topic" in missing.refused[BundleName("made", "9")]
    healed = model_set(found, state_of(bundles, all=["1", "2"]))
    assert (healed.of("ztf").version, healed.refused) == ("2", {})


def test_a_bundle_is_what_it_was_promoted_as(bundles: dict[str, StoredBundle]) -> None:
    with pytest.raises(BundleError, match="not the one that was promoted"):
        load_stored(replace(bundles["1"], archive=bundles["2"].archive))
    with pytest.raises(BundleError, match="says made:1"):
        load_stored(replace(bundles["1"], name=BundleName("other", "1")))


def with_manifest(change: Callable[[dict[str, object]], None]) -> Callable[[Path], None]:
    """A bundle whose manifest says something else, its files unharmed."""

    def damage(folder: Path) -> None:
        content = json.loads((folder / MANIFEST).read_text())
        change(content)
        (folder / MANIFEST).write_text(json.dumps(content))

    return damage


def resealed(name: str, content: bytes) -> Callable[[Path], None]:
    """A bundle one of whose files is other bytes, and sealed so."""

    def damage(folder: Path) -> None:
        manifest = load_checked(folder).manifest
        (folder / name).write_bytes(content)
        write_manifest(folder, manifest)

    return damage


def stage_named(name: str) -> Callable[[dict[str, object]], None]:
    return lambda content: content["stages"][0].update(name=name)  # type: ignore[index]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda folder: (folder / "family.txt").unlink(), "missing or not in its manifest"),
        (lambda folder: (folder / "extra.py").write_text("x"), "missing or not in its manifest"),
        (lambda folder: (folder / "card.md").write_text("better"), "not the file that was sealed"),
        (resealed("family.txt", b"no model"), "no model|damaged"),
        (resealed("anomaly.npz", b"no arrays"), "damaged"),
        (with_manifest(lambda content: content.update(format=1)), "not of format"),
        (with_manifest(lambda content: content.update(feature_names=["nothing"])), "its feature 0"),
        (with_manifest(lambda content: content.update(files=[])), "missing or not in its manifest"),
        (with_manifest(lambda content: content.update(files=7)), "cannot be used"),
        (with_manifest(lambda content: content.update(stages=7)), "write the bundle again"),
        (with_manifest(stage_named("../family")), "cannot be the name"),
        (with_manifest(lambda content: content.update(id="../up")), "id or version"),
        (with_manifest(lambda content: content.update(version=3)), "id or version"),
    ],
)
def test_what_cannot_be_served_is_not_stored(
    tmp_path: Path, damage: Callable[[Path], object], words: str
) -> None:
    folder = made_bundle(tmp_path / "made")
    damage(folder)
    with pytest.raises(BundleError, match=words):
        model_store.sealed(folder)


def test_a_folder_can_be_stored_under_a_version_of_its_own(tmp_path: Path) -> None:
    folder = made_bundle(tmp_path / "made")
    stored = model_store.sealed(folder, "mine")
    assert load_stored(stored).scorer.version == "mine"
    assert load_checked(folder).version == "1"
    with pytest.raises(BundleError, match="id or version"):
        model_store.sealed(folder, "a b")


def test_the_shipped_bundles_can_be_stored_and_served() -> None:
    rows = np.full((1, 500), np.nan)
    current = [path for path in BUNDLES.iterdir() if json.loads((path / MANIFEST).read_text())["format"] == 2]
    folders = [path for path in current if path != STAMPS_BUNDLE]
    assert folders
    for folder in folders:
        model, whole = load_stored(model_store.sealed(folder)), load_checked(folder)
        np.testing.assert_array_equal(model.scorer.score(rows, rows), whole.score(rows, rows))
        assert pack(folder) == model_store.sealed(folder).archive


def test_the_network_for_images_cannot_be_promoted() -> None:
    with pytest.raises(BundleError, match=r"run\.stamps"):
        model_store.sealed(STAMPS_BUNDLE)


def test_a_name_is_never_given_to_two_bundles(bundles: dict[str, StoredBundle]) -> None:
    settings = load({}, env={})
    state = state_of(bundles, all=["1"])
    with pytest.raises(model_store.UnknownModel, match="promoted before: made:1, made:2, made:3"):
        model_store.find(state, "made")
    assert model_store.find(state, "made:2") is bundles["2"]
    shown = model_store.describe(state, settings)
    assert shown["live"][ALL]["bundle"] == "made:1"
    assert [item["version"] for item in shown["known"]] == ["1", "2", "3"]
    assert all("archive" not in item for item in shown["known"])
    by_hand = load({"run.model": "somewhere"}, env={})
    assert "ignore promotions" in model_store.describe(state, by_hand)["note"]
    details = model_store.details(state, bundles["1"])
    assert (details["manifest"]["id"], details["card"]) == ("made", "# made for a test\n")
    assert [item["revision"] for item in details["promotions"]] == [1]
