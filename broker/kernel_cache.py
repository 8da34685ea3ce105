"""Where compiled kernels are kept from one start to the next."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

_VARIABLE = "NUMBA_CACHE_DIR"


def ensure_place() -> None:
    """Name a place for compiled code where numba would find none and refuse to start.

    It takes NUMBA_CACHE_DIR if that is set, else the folders of the source files, else the user's cache
    folder. Where neither can be written (an installation of root's, run by a user without a home), it is in
    our data folder, which a run must be able to write in any case.
    """
    sources, own = Path(__file__).parent, Path(platformdirs.user_cache_dir("numba", appauthor=False))
    if _VARIABLE in os.environ or _writable(sources) or _writable(own):
        return
    from broker.embedded import data_dir  # noqa: PLC0415 (only here, and it imports much)

    os.environ[_VARIABLE] = str(data_dir() / "numba")


def _writable(folder: Path) -> bool:
    """Whether a folder can be written, or made."""
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    return os.access(existing, os.W_OK | os.X_OK)
