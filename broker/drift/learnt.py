"""What the model that scores a survey has learnt from, where its bundle says so."""

from __future__ import annotations

import json
from pathlib import Path

from broker.config import Settings
from broker.control import ControlState
from broker.drift.histogram import REFERENCE_FILE, Histograms, read_reference
from broker.errors import BundleError
from broker.promotion import ALL, StoredBundle, candidates
from broker.scores.archive import unpack
from broker.scores.bundle import MANIFEST
from broker.scores.catalog import DEFAULT_BUNDLE, OWN_BUNDLES


def training_sample(state: ControlState, settings: Settings, survey: str) -> tuple[str, Histograms]:
    """(id:version, histograms of its training sample) of a survey's model; none if the bundle has none.

    Raises BundleError if the bundle cannot be read.
    """
    stored = None if settings.run.model else live_bundle(state, survey)
    if stored is not None:
        content = unpack(stored.archive).get(REFERENCE_FILE)
        return str(stored.name), read_reference(content) if content else {}
    return _of_folder(Path(settings.run.model or OWN_BUNDLES.get(survey, DEFAULT_BUNDLE)))


def live_bundle(state: ControlState, survey: str) -> StoredBundle | None:
    """The bundle promoted for a survey, or for all; None where it is the shipped one."""
    for group in (survey, ALL):
        for name in candidates(state.promotions.get(group, {})):
            if name in state.bundles:
                return state.bundles[name]
    return None


def _of_folder(folder: Path) -> tuple[str, Histograms]:
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        name = f"{manifest['id']}:{manifest['version']}"
        path = folder / REFERENCE_FILE
        return name, read_reference(path.read_bytes()) if path.exists() else {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BundleError(f"cannot read {folder}: {error!r}; give the folder of a bundle") from None
