"""A model on disk: a folder with a manifest that names every file's hash and the features it was made for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from broker.errors import BundleError

MANIFEST = "manifest.json"
FORMAT = 1
"""Version of the layout of the folder and of the manifest."""


@dataclass(frozen=True)
class Manifest:
    """What a bundle says about itself.

    feature_names : the prefix of the feature catalogue that the model's matrix has, in order
    classes : trained leaf -> the published labels that were counted as it
    classifier_inputs, anomaly_inputs : which of the features each part looks at
    training : figures of the training (sample sizes, settings, test results), for people
    """

    id: str
    version: str
    created: str
    survey: str
    feature_set_hash: str
    feature_names: tuple[str, ...]
    classes: dict[str, tuple[str, ...]]
    classifier_inputs: tuple[str, ...]
    anomaly_inputs: tuple[str, ...]
    training: dict[str, Any] = field(default_factory=dict)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Seal a folder: every file in it is named with its SHA-256."""
    files = {path.name: _sha256(path) for path in sorted(folder.iterdir()) if path.name != MANIFEST}
    content = {"format": FORMAT, **asdict(manifest), "files": files}
    (folder / MANIFEST).write_text(json.dumps(content, indent=1) + "\n")


def read_manifest(folder: Path, feature_names: Sequence[str]) -> Manifest:
    """The manifest of an intact bundle that fits the features given; BundleError otherwise.

    feature_names : the catalogue of this version of the code; the bundle's list must be a prefix of it.
    """
    content = _content(folder)
    _check_files(folder, content.pop("files", {}))
    try:
        manifest = _manifest(content)
    except (KeyError, TypeError, AttributeError) as error:
        raise BundleError(
            f"{folder / MANIFEST}: {error!r}; write the bundle again with broker train"
        ) from None
    _check_features(folder, manifest, feature_names)
    return manifest


def column_indices(manifest: Manifest, inputs: Sequence[str]) -> list[int]:
    """Positions of some features in the bundle's matrix."""
    position = {name: index for index, name in enumerate(manifest.feature_names)}
    missing = [name for name in inputs if name not in position]
    if missing:
        raise BundleError(
            f"bundle {manifest.id}: inputs {missing} are not among its features; train it again"
        )
    return [position[name] for name in inputs]


def _content(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise BundleError(f"cannot read {path}: {error}; give the folder of a bundle") from None
    if not isinstance(content, dict) or content.pop("format", None) != FORMAT:
        raise BundleError(f"{path} is not of format {FORMAT}; train the bundle again with this version")
    return content


def _manifest(content: Mapping[str, Any]) -> Manifest:
    lists = ("feature_names", "classifier_inputs", "anomaly_inputs")
    classes = {leaf: tuple(labels) for leaf, labels in content["classes"].items()}
    return Manifest(**{**content, "classes": classes, **{name: tuple(content[name]) for name in lists}})


def _check_files(folder: Path, files: Mapping[str, str]) -> None:
    found = {path.name for path in folder.iterdir() if path.name != MANIFEST}
    if found != set(files):
        odd = sorted(found ^ set(files))
        raise BundleError(f"bundle {folder}: files {odd} are missing or not in its manifest; get it anew")
    for name, digest in files.items():
        if _sha256(folder / name) != digest:
            raise BundleError(f"bundle {folder}: {name} is not the file that was sealed; get the bundle anew")


def _check_features(folder: Path, manifest: Manifest, feature_names: Sequence[str]) -> None:
    wanted = manifest.feature_names
    for index, name in enumerate(wanted):
        ours = feature_names[index] if index < len(feature_names) else None
        if ours != name:
            raise BundleError(
                f"bundle {folder}: its feature {index} is {name!r}, this version has {ours!r}; "
                "use the version it was trained with, or train it again"
            )


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
