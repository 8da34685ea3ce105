"""Small bundles for the tests of what is done with bundles, made in a moment."""

from __future__ import annotations

from pathlib import Path

import lightgbm
import numpy as np

from broker.context import CONTEXT_NAMES
from broker.features.catalog import FEATURES, feature_set_hash
from broker.scores.anomaly import FOREST_FILE, Forest, save_forest
from broker.scores.bundle import Manifest, StageSpec, write_manifest

INPUTS = ("age_days", "n_detections")


def made_bundle(
    folder: Path, version: str = "1", families: tuple[str, str] = ("transient", "moving")
) -> Path:
    """A bundle 'made' whose one stage tells two families apart, badly; the others it does not know."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(5)
    rows = rng.normal(5.0, 3.0, (80, len(INPUTS)))
    data = lightgbm.Dataset(rows, label=(rows.sum(axis=1) > 10.0).astype(int))
    settings = {"objective": "binary", "num_threads": 1, "verbosity": -1}
    lightgbm.train(settings, data, num_boost_round=2).save_model(str(folder / "family.txt"))
    save_forest(folder / FOREST_FILE, one_leaf())
    leaf = {"transient": "SNIa", "moving": "SSO", "stochastic": "AGN"}
    (folder / "card.md").write_text("# made for a test\n")
    manifest = Manifest(
        "made", version, "2025-01-01", "ztf", feature_set_hash(),
        tuple(feature.name for feature in FEATURES), tuple(CONTEXT_NAMES),
        (StageSpec("family", "", "trees", families, INPUTS, 1, 1.0, (0.0, 0.0), (0.5, 0.5), (0.9, 0.9)),),
        {family: {leaf[family]: 1.0} for family in families}, INPUTS,
    )  # fmt: skip
    write_manifest(folder, manifest)
    return folder


def one_leaf() -> Forest:
    """A forest of one tree that finds everything equally strange."""
    whole, real = np.array([0], dtype=np.int32), np.zeros(1)
    nowhere = np.array([-1], dtype=np.int32)
    return Forest(nowhere, real, whole, whole, np.ones(1), whole, 1.0, np.zeros(len(INPUTS)))
