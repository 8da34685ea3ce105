"""Every leaf has one family."""

from __future__ import annotations

from broker.scores.taxonomy import FAMILIES, FAMILY_OF, LEAVES
from broker.training.tasks.family import LABELS


def test_every_leaf_is_in_exactly_one_family() -> None:
    members = [leaf for leaves in FAMILIES.values() for leaf in leaves]
    assert sorted(members) == sorted(LEAVES)
    assert len(set(members)) == len(members)
    assert set(FAMILY_OF) == set(LEAVES)


def test_families_are_the_agreed_five() -> None:
    assert tuple(FAMILIES) == ("transient", "stochastic", "periodic", "moving", "bogus")


def test_cv_and_nova_share_a_family() -> None:
    """The published label CV/Nova counts for either."""
    assert FAMILY_OF["CV"] == FAMILY_OF["Nova"]


def test_labels_of_the_family_stage_agree_with_the_leaves() -> None:
    """A label that names a leaf is learnt as the family that the leaf's probability is part of."""
    for label, family in LABELS.items():
        for leaf in label.split("/"):
            assert FAMILY_OF.get(leaf, family) == family, label
