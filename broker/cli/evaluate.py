"""`broker evaluate`: what a bundle says of a folder of light curves, and how good that is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def evaluate(
    data: Annotated[
        Path, typer.Option(help="Folder with photometry.parquet and labels.parquet.", show_default=False)
    ],
    out: Annotated[Path, typer.Option(help="Folder for the predictions and the report.")] = Path("evaluated"),
    model: Annotated[
        Path | None, typer.Option(help="Folder of a bundle; the shipped one by default.", show_default=False)
    ] = None,
) -> None:
    """What a bundle says of every light curve of a folder, and how good that is where labels are known."""
    from rich.console import Console  # noqa: PLC0415

    from broker.cli.train import labelled_folder  # noqa: PLC0415
    from broker.training.predict import evaluate_folder  # noqa: PLC0415
    from broker.training.tasks.catalog import TASKS  # noqa: PLC0415

    with Console(stderr=True).status("reading light curves"):
        done = evaluate_folder(labelled_folder(data), out, TASKS, model)
    print(
        f"predictions: {done.predictions} ({done.rows} objects)\nearly: {done.early}\nreport: {done.report}"
    )
