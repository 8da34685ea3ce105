"""Learning to tell real detections from bogus ones by their images: injections into real cutouts."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from broker.errors import BrokerError

if TYPE_CHECKING:
    from broker.training.stamps.train import StampReport

EPOCHS = 16
_LIBRARIES = ("jax", "matplotlib", "onnx")


def train_stamps(
    alerts: Path,
    folder: Path,
    *,
    seed: int = 1,
    epochs: int = EPOCHS,
    progress: Callable[[float, str], None] | None = None,
) -> StampReport:
    """Teach the network on the cutouts of a folder of ZTF packets; write `folder/stamps-v1` and its report.

    alerts : folder with .avro files, in sub-folders too;  seed : all chance of the run comes from it
    epochs : passes over the sample;  progress : called with the fraction done and what is being done
    Two runs with one seed, the same libraries and one kind of processor give the same network. BrokerError
    for unfit data, a missing library, or a folder that has a bundle already.
    """
    missing = [name for name in _LIBRARIES if find_spec(name) is None]
    if missing:
        raise BrokerError(f"training needs {', '.join(missing)}: pip install 'transient-broker[train]'")
    from broker.training.stamps.train import run  # noqa: PLC0415  (jax takes a second to import)

    return run(alerts, folder, seed, epochs, progress or (lambda done, text: None))
