"""Where the files of catalogues, watchlists and regions are on this machine."""

from __future__ import annotations

from pathlib import Path

from broker.config import Settings


def context_folder(settings: Settings) -> Path:
    """The folder of the setting context.folder, else one beside the embedded servers' data."""
    if settings.context.folder:
        return Path(settings.context.folder).expanduser().absolute()
    from broker.embedded.folders import data_dir  # noqa: PLC0415 (imports much, and a worker may not need it)

    return data_dir() / "context"


def catalogs_folder(settings: Settings) -> Path:
    """The folder of all catalogues, one folder a name, one in it a revision."""
    return context_folder(settings) / "catalogs"
