"""Training, validation and test parts that share no object."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from broker.errors import BrokerError

Strings = npt.NDArray[np.str_]
Mask = npt.NDArray[np.bool_]

FRACTIONS = (0.6, 0.2, 0.2)
PARTS = ("training", "validation", "test")


@dataclass(frozen=True)
class Split:
    """Groups (objects, whatever their source) of each part."""

    training: frozenset[str]
    validation: frozenset[str]
    test: frozenset[str]

    def mask(self, part: str, group: Strings) -> Mask:
        """Which rows belong to a part.  group : (n,);  returns (n,)."""
        return np.isin(group, sorted(getattr(self, part)))


def split_groups(group: Strings, leaf: Strings, rng: np.random.Generator) -> Split:
    """Deal the groups of each class to the parts by FRACTIONS; at least one to each where there are three.

    group, leaf : (n,) of the objects, one leaf a group.
    """
    parts: list[list[str]] = [[], [], []]
    for name in np.unique(leaf):
        members = rng.permutation(np.unique(group[leaf == name]))
        held = [max(round(fraction * len(members)), 1) for fraction in FRACTIONS[1:]]
        edges = [len(members) - sum(held), len(members) - held[1]]
        for part, chosen in zip(parts, np.split(members, edges), strict=True):
            part.extend(chosen.tolist())
    split = Split(*(frozenset(part) for part in parts))
    check_disjoint(split)
    return split


def check_disjoint(split: Split) -> None:
    """BrokerError if an object is in two parts: every figure of the report would be worthless."""
    total = len(split.training) + len(split.validation) + len(split.test)
    if len(split.training | split.validation | split.test) != total:
        raise BrokerError("a group is in two parts of the split; does one group carry two classes?")
