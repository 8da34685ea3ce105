"""Probabilities to columns."""

from __future__ import annotations

import numpy as np
import pytest

from broker.scores.classifier import CLASSIFIER_SPECS, softmax, spread


def test_softmax_of_large_numbers() -> None:
    np.testing.assert_allclose(softmax(np.array([[1e4, 1e4], [-1e4, 0.0]])), [[0.5, 0.5], [0.0, 1.0]])


def test_families_sum_their_leaves() -> None:
    columns = spread(np.array([[0.5, 0.2, 0.3]]), ("SNIa", "TDE", "AGN"))[0]
    value = {spec.name: column for spec, column in zip(CLASSIFIER_SPECS, columns, strict=True)}
    assert value["prob_family_transient"] == pytest.approx(0.7)
    assert value["prob_family_stochastic"] == pytest.approx(0.3)
    assert np.isnan(value["prob_family_periodic"])
    assert np.isnan(value["prob_KN"])
