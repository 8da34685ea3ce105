"""Where the real alerts are, when they are there at all."""

from __future__ import annotations

import os
from pathlib import Path

_DEFAULT = Path(__file__).resolve().parents[2] / "shared" / "data"


def shared_data() -> Path | None:
    """Folder of real alerts and labels: BROKER_TEST_DATA, else shared/data beside the checkout, else None."""
    folder = Path(os.environ.get("BROKER_TEST_DATA", _DEFAULT))
    return folder if folder.is_dir() else None
