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
FORMAT = 2
"""Version of the layout of the folder and of the manifest."""


@dataclass(frozen=True)
class StageSpec:
    """One model of a bundle.

    parent : the family whose leaves it tells apart; '' for the stage that tells families apart
    inputs : features or context columns, in the model's order
    least_detections : with fewer the stage is not asked
    temperature, bias, prior, quantiles : see `calibration.Calibration`
    """

    name: str
    parent: str
    kind: str
    classes: tuple[str, ...]
    inputs: tuple[str, ...]
    least_detections: int
    temperature: float
    bias: tuple[float, ...]
    prior: tuple[float, ...]
    quantiles: tuple[float, ...]


@dataclass(frozen=True)
class Manifest:
    """What a bundle says about itself.

    feature_names : the prefix of the feature catalogue that the bundle was made for, in order
    context_names : further columns that its stages look at
    shares        : for each family the share of each leaf that is assumed where no stage tells them apart
    anomaly_inputs : the features that the anomaly forest looks at
    training : figures of the training (sample sizes, settings, test results), for people
    """

    id: str
    version: str
    created: str
    survey: str
    feature_set_hash: str
    feature_names: tuple[str, ...]
    context_names: tuple[str, ...]
    stages: tuple[StageSpec, ...]
    shares: dict[str, dict[str, float]]
    anomaly_inputs: tuple[str, ...]
    training: dict[str, Any] = field(default_factory=dict)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Seal a folder: every file in it is named with its SHA-256."""
    seal(folder, asdict(manifest))


def seal(folder: Path, content: Mapping[str, Any]) -> None:
    """Write a folder's manifest: what it says, and each file's SHA-256."""
    files = {path.name: _sha256(path) for path in sorted(folder.iterdir()) if path.name != MANIFEST}
    whole = {"format": FORMAT, **content, "files": files}
    (folder / MANIFEST).write_text(json.dumps(whole, indent=1) + "\n")


def read_sealed(folder: Path) -> dict[str, Any]:
    """What the manifest of an intact folder says, without its format and files; BundleError otherwise."""
    content = _content(folder)
    _check_files(folder, content.pop("files", {}))
    return content


def read_manifest(folder: Path, feature_names: Sequence[str], context_names: Sequence[str]) -> Manifest:
    """The manifest of an intact bundle that fits the columns given; BundleError otherwise.

    feature_names : the catalogue of this version of the code; the bundle's list must be a prefix of it
    context_names : the context columns of this version; the bundle's must be among them
    """
    content = read_sealed(folder)
    if "stages" not in content:
        raise BundleError(
            f"bundle {folder} has no models of light curves; a network for images is chosen by run.stamps"
        )
    try:
        manifest = _manifest(content)
    except (KeyError, TypeError, AttributeError) as error:
        raise BundleError(
            f"{folder / MANIFEST}: {error!r}; write the bundle again with broker train"
        ) from None
    _check_features(folder, manifest, feature_names)
    unknown = [name for name in manifest.context_names if name not in context_names]
    if unknown:
        raise BundleError(f"bundle {folder}: this version has no columns {unknown}; train it again")
    return manifest


def column_indices(manifest: Manifest, inputs: Sequence[str]) -> list[int]:
    """Positions of some features or context columns in the bundle's matrix: features first."""
    names = (*manifest.feature_names, *manifest.context_names)
    position = {name: index for index, name in enumerate(names)}
    missing = [name for name in inputs if name not in position]
    if missing:
        raise BundleError(f"bundle {manifest.id}: inputs {missing} are not among its columns; train it again")
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
    lists = ("feature_names", "context_names", "anomaly_inputs")
    stages = tuple(StageSpec(**{**stage, **_tuples(stage)}) for stage in content["stages"])
    return Manifest(**{**content, "stages": stages, **{name: tuple(content[name]) for name in lists}})


def _tuples(stage: Mapping[str, Any]) -> dict[str, tuple[Any, ...]]:
    return {name: tuple(value) for name, value in stage.items() if isinstance(value, list)}


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
