"""`broker train`: a model bundle from labelled light curves."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def train(
    data: Annotated[
        Path, typer.Option(help="Folder with photometry.parquet and labels.parquet.", show_default=False)
    ],
    out: Annotated[Path, typer.Option(help="New folder for the bundle and its report.")] = Path("trained"),
    seed: Annotated[int, typer.Option(help="The same seed gives the same bundle.")] = 1,
) -> None:
    """Train the classifier and the anomaly forest, and write an honest report about them."""
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import Progress  # noqa: PLC0415

    from broker.training.train import train as run  # noqa: PLC0415

    with Progress(console=Console(stderr=True)) as bar:
        task = bar.add_task("training", total=1.0)

        def show(done: float, text: str) -> None:
            bar.update(task, completed=done, description=text)

        report = run(data, out, seed=seed, progress=show)
    print(f"bundle: {report.bundle}\nreport: {report.page}")
    print(f"use it: broker run --model {report.bundle}")
