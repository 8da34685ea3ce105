"""The forests that judge alerts at one control epoch: what `personal_anomaly('owner')` stands for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from broker.control import ControlState
from broker.errors import BrokerError
from broker.features.catalog import FEATURE_SPECS
from broker.feedback import StoredForest
from broker.filters.functions import FOREST, Named
from broker.filters.values import Strings
from broker.scores.personal import PersonalForest, Trees, unpack_forest, unpack_trees

F64 = npt.NDArray[np.float64]

_FEATURES = frozenset(spec.name for spec in FEATURE_SPECS)


class ForestError(BrokerError):
    """A forest in `control` cannot be used."""


@dataclass(frozen=True)
class OwnerForests:
    """What a filter's function of an owner stands for.  forests : by survey"""

    forests: Mapping[str, PersonalForest]

    @cached_property
    def reads(self) -> tuple[str, ...]:
        """The survey, then every input of a forest."""
        inputs = {name for forest in self.forests.values() for name in forest.trees.inputs}
        return "survey", *sorted(inputs)

    def __call__(self, memo: dict[Any, Any], survey: Strings, *columns: F64) -> F64:
        """Share of the survey's recent alerts that are less strange to the owner than each alert, 0..1.

        memo : keeps the leaves, which are those of every forest on the same trees
        survey, columns : as in `reads`, each (n,);  returns (n,), NaN for a survey without a forest
        """
        known = dict(zip(self.reads[1:], columns, strict=True))
        found = np.full(survey.codes.shape, np.nan)
        for code, name in enumerate(survey.categories):
            forest = self.forests.get(name)
            rows = np.flatnonzero(survey.codes == code)
            if forest is not None and len(rows):
                trees = forest.trees
                key = (id(trees), name)
                if key not in memo:
                    memo[key] = trees.leaves(np.column_stack([known[item][rows] for item in trees.inputs]))
                found[rows] = forest.rank(memo[key])
        return found


@dataclass(frozen=True)
class ForestSet:
    """Who has which forest; a new object for each change.

    loaded : by (owner, survey), with the revision that serves
    trees  : trees by (survey, revision), one object for all that use them
    refused : label of a forest that is the newest but cannot be used here -> why
    """

    loaded: Mapping[tuple[str, str], tuple[int, PersonalForest]] = field(default_factory=dict)
    trees: Mapping[tuple[str, int], Trees] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def named(self) -> Named:
        """What filters may name."""
        owners: dict[str, dict[str, PersonalForest]] = {}
        for (owner, survey), (_, forest) in self.loaded.items():
            owners.setdefault(owner, {})[survey] = forest
        return {FOREST: {owner: OwnerForests(forests) for owner, forests in owners.items()}}


def forest_set(before: ForestSet, state: ControlState) -> ForestSet:
    """The forests of a control state; those of the set before are not loaded again.

    One that cannot be used (this code may be older than it) is passed over for the revision before it, so
    that all workers of one version of the code judge alike, whenever they started.
    """
    loaded: dict[tuple[str, str], tuple[int, PersonalForest]] = {}
    trees = dict(before.trees)
    refused: dict[str, str] = {}
    for whose, revisions in state.forests.items():
        for revision in sorted(revisions, reverse=True):
            held = before.loaded.get(whose)
            try:
                if held is None or held[0] != revision:
                    held = revision, load_forest(state, revisions[revision], trees)
                loaded[whose] = held
                break
            except ForestError as error:
                refused[revisions[revision].label] = str(error)
    used = {id(forest.trees) for _, forest in loaded.values()}
    return ForestSet(loaded, {key: item for key, item in trees.items() if id(item) in used}, refused)


def load_forest(
    state: ControlState, stored: StoredForest, known: dict[tuple[str, int], Trees]
) -> PersonalForest:
    """A forest in `control`, checked.  known : trees that were loaded; gains its own.  Raises ForestError."""
    key = stored.survey, stored.trees
    try:
        if key not in known:
            known[key] = load_trees(state, *key)
        return unpack_forest(stored.archive, known[key])
    except ForestError:
        raise
    except Exception as error:  # readers of arrays fail in many ways, and none may end a worker
        raise ForestError(f"forest {stored.label} cannot be used: {error!r}") from error


def load_trees(state: ControlState, survey: str, revision: int) -> Trees:
    """The trees of a survey in `control`, checked.  Raises ForestError."""
    stored = state.trees.get(survey, {}).get(revision)
    if stored is None:
        raise ForestError(f"the trees {survey}/{revision} are not in the control topic")
    try:
        trees = unpack_trees(stored.archive)
    except Exception as error:  # as above
        raise ForestError(f"the trees {survey}/{revision} cannot be used: {error!r}") from error
    if unknown := sorted(set(trees.inputs) - _FEATURES):
        raise ForestError(
            f"the trees {survey}/{revision} ask for features unknown here: {', '.join(unknown)}"
        )
    return trees
