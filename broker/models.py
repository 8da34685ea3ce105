"""The models that score alerts at one control epoch, loaded from what was promoted."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from broker.context import CONTEXT_NAMES
from broker.control import ControlState
from broker.errors import BundleError
from broker.features.catalog import FEATURE_SPECS
from broker.promotion import ALL, BundleName, Shadow, StoredBundle, candidates
from broker.scores.archive import plain_name, unpack
from broker.scores.bundle import MANIFEST
from broker.scores.catalog import Scorer, load_scorer


@dataclass(frozen=True)
class Model:
    """A bundle that was loaded.  sha256 : of its manifest."""

    name: BundleName
    sha256: str
    scorer: Scorer


@dataclass(frozen=True)
class ShadowModel:
    """A bundle that scores beside the live one, and the record that says so."""

    record: Shadow
    model: Model


@dataclass(frozen=True)
class ModelSet:
    """Which model scores which survey; a new object for each change.

    default : of the surveys of no group here: the shipped bundle, or run.model
    own     : shipped bundles of single surveys, by survey
    groups  : what was promoted, by survey or ALL
    refused : bundles that are live, or would be but for those, and cannot be loaded here -> why
    shadows : what scores beside them, by survey or ALL;  refused_shadows : those that cannot be loaded -> why
    """

    default: Scorer
    groups: Mapping[str, Model] = field(default_factory=dict)
    refused: Mapping[BundleName, str] = field(default_factory=dict)
    own: Mapping[str, Scorer] = field(default_factory=dict)
    shadows: Mapping[str, ShadowModel] = field(default_factory=dict)
    refused_shadows: Mapping[BundleName, str] = field(default_factory=dict)

    def of(self, survey: str) -> Scorer:
        """The model that scores a survey's alerts."""
        model = self.groups.get(survey) or self.groups.get(ALL)
        return model.scorer if model else self.own.get(survey, self.default)

    def shadow_of(self, survey: str) -> ShadowModel | None:
        """What scores a survey's alerts beside the live model, if anything does."""
        return self.shadows.get(survey) or self.shadows.get(ALL)

    def shadow_names(self) -> dict[str, str]:
        """id:version of the shadows by group."""
        return {group: str(shadow.model.name) for group, shadow in self.shadows.items()}

    def names(self) -> dict[str, str]:
        """id:version by group; ALL is always named."""
        own = {} if ALL in self.groups else self.own
        rest = {group: f"{item.id}:{item.version}" for group, item in {ALL: self.default, **own}.items()}
        return rest | {group: str(model.name) for group, model in self.groups.items()}


def model_set(before: ModelSet, state: ControlState) -> ModelSet:
    """The models of a control state; those of the set before are not loaded again.

    A bundle that cannot be loaded here (this code may be older than it) is passed over for the one that a
    rollback would come to, so that workers of one version of the code serve the same, whenever they started.
    """
    loaded = _loaded(before)
    groups: dict[str, Model] = {}
    refused: dict[BundleName, str] = {}
    for group, history in state.promotions.items():
        for name in candidates(history):
            try:
                groups[group] = _model(name, state, loaded)
                break
            except BundleError as error:
                refused[name] = str(error)
    return ModelSet(before.default, groups, refused, before.own, *_shadows(state, loaded))


def _shadows(
    state: ControlState, loaded: dict[_Loaded, Model]
) -> tuple[dict[str, ShadowModel], dict[BundleName, str]]:
    """The shadows by group, and those that cannot be loaded -> why: then the group has none."""
    shadows: dict[str, ShadowModel] = {}
    refused: dict[BundleName, str] = {}
    for group, record in state.shadows.items():
        if record.bundle is None:
            continue
        try:
            shadows[group] = ShadowModel(record, _model(record.bundle, state, loaded))
        except BundleError as error:
            refused[record.bundle] = str(error)
    return shadows, refused


_Loaded = tuple[BundleName, str]


def _loaded(before: ModelSet) -> dict[_Loaded, Model]:
    """Every model of a set by its name and hash."""
    models = [*before.groups.values(), *(shadow.model for shadow in before.shadows.values())]
    return {(model.name, model.sha256): model for model in models}


def _model(name: BundleName, state: ControlState, loaded: dict[_Loaded, Model]) -> Model:
    """A bundle of the control state, loaded once.  Raises BundleError."""
    stored = state.bundles.get(name)
    if stored is None:
        raise BundleError(f"bundle {name} is not in the control topic")
    key = (name, stored.sha256)
    if key not in loaded:
        loaded[key] = load_stored(stored)
    return loaded[key]


def load_stored(stored: StoredBundle) -> Model:
    """The model of a bundle in `control`, every file of it checked.  Raises BundleError."""
    files = unpack(stored.archive)
    if hashlib.sha256(files[MANIFEST]).hexdigest() != stored.sha256:
        raise BundleError(f"bundle {stored.name}: its manifest is not the one that was promoted")
    with tempfile.TemporaryDirectory(prefix="broker-bundle-") as place:  # nobody else can read or write it
        folder = Path(place)
        for name, content in files.items():
            (folder / plain_name(name)).write_bytes(content)
        scorer = load_checked(folder)
    if (scorer.id, scorer.version) != (stored.name.id, stored.name.version):
        raise BundleError(f"bundle {stored.name}: its manifest says {scorer.id}:{scorer.version}")
    return Model(stored.name, stored.sha256, scorer)


def load_checked(folder: Path) -> Scorer:
    """The scorer of a folder that may come from anywhere, tried on an alert of which nothing is known.

    Raises BundleError, whatever is wrong with the folder.
    """
    names = [spec.name for spec in FEATURE_SPECS]
    try:
        scorer = load_scorer(folder, feature_names=names, context_names=CONTEXT_NAMES)
        scores = scorer.score(np.full((1, len(names)), np.nan), np.full((1, len(CONTEXT_NAMES)), np.nan))
    except BundleError:
        raise
    except Exception as error:  # each format's reader fails in its own way, and none may end a worker
        raise BundleError(f"bundle {folder.name}: cannot be used: {error!r}") from error
    if scores.shape != (1, len(scorer.specs)):
        raise BundleError(f"bundle {folder.name}: it gives {scores.shape[1]} of {len(scorer.specs)} scores")
    return scorer
