"""`broker train`: a model bundle from labelled light curves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from broker.errors import BrokerError

Show = Callable[[float, str], None]
Data = Annotated[
    Path | None,
    typer.Option(help="Folder with photometry.parquet and labels.parquet.", show_default=False),
]
Stamps = Annotated[
    Path | None,
    typer.Option(help="Folder of ZTF alerts: train the network for images.", show_default=False),
]

_ALERTS = "ztf"


def train(
    data: Data = None,
    out: Annotated[Path, typer.Option(help="New folder for the bundle and its report.")] = Path("trained"),
    task: Annotated[
        list[str] | None, typer.Option(help="Train these stages only.", show_default=False)
    ] = None,
    every: Annotated[
        bool, typer.Option("--all", help="Fail if the folder cannot teach one of the stages.")
    ] = False,
    budget: Annotated[int, typer.Option(min=1, help="Settings to try of each kind of model.")] = 6,
    seed: Annotated[int, typer.Option(help="The same seed gives the same bundle.")] = 1,
    check: Annotated[
        bool, typer.Option(help="Compare with the shipped bundles; fail outside the stated tolerance.")
    ] = False,
    stamps: Stamps = None,
) -> None:
    """Train the bundles of models, and write an honest report about them.

    With --all the network for images is trained, too, where a folder `ztf` of alerts lies beside the data.
    """
    if data is None and stamps is None:
        raise typer.BadParameter("give --data (light curves), --stamps (images), or both")
    if data is not None:
        data = labelled_folder(data)
        if every and stamps is None and (data.resolve().parent / _ALERTS).is_dir():
            stamps = data.resolve().parent / _ALERTS
        _light_curves(data, out, task, every, budget, seed, check)
    if stamps is not None:
        _images(stamps, out, seed)


def labelled_folder(data: Path) -> Path:
    """The folder of the tables, where a folder above it was given."""
    within = data / "labelled"
    return within if (within / "labels.parquet").exists() else data


def _light_curves(
    data: Path, out: Path, task: list[str] | None, every: bool, budget: int, seed: int, check: bool
) -> None:
    from broker.training.tasks.catalog import TASKS  # noqa: PLC0415
    from broker.training.train import train as run  # noqa: PLC0415

    unknown = set(task or ()) - {item.name for item in TASKS}
    if unknown:
        raise BrokerError(f"no stage {sorted(unknown)}; there are {', '.join(item.name for item in TASKS)}")
    tasks = [item for item in TASKS if not task or item.name in task]
    with _progress() as show:
        report = run(data, out, tasks, seed=seed, budget=budget, every=every, progress=show)
    for why in report.unfit.values():
        print(f"left out: {why}")
    for one in (report, report.other):
        if one is not None:
            print(f"bundle: {one.bundle}\nreport: {one.page}")
    found = [check and _as_shipped(one.bundle, data) for one in (report, report.other) if one]
    if check and not all(found):
        raise BrokerError("what was trained is not what is shipped; see docs/models/README.md")
    print(f"use it: broker run --model {report.bundle}, or broker models promote {report.bundle}")


def _as_shipped(bundle: Path, data: Path) -> bool:
    """Say how a bundle differs from the shipped one of its name; whether that is within the tolerance."""
    from broker.scores.catalog import BUNDLES  # noqa: PLC0415
    from broker.training.compare import compare  # noqa: PLC0415
    from broker.training.tasks.catalog import TASKS  # noqa: PLC0415

    shipped = BUNDLES / bundle.name
    if not shipped.exists():
        print(f"{bundle.name}: none of this name is shipped")
        return False
    found = compare(shipped, bundle, data, TASKS)
    print(f"{bundle.name}: {found}")
    return found.within_tolerance


def _images(alerts: Path, out: Path, seed: int) -> None:
    from broker.training.stamps import train_stamps  # noqa: PLC0415

    with _progress() as show:
        report = train_stamps(alerts, out, seed=seed, progress=show)
    print(f"bundle: {report.bundle}\nreport: {report.page}")
    print(f"use it: BROKER_RUN_STAMPS={report.bundle} broker run")


@contextmanager
def _progress() -> Iterator[Show]:
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import Progress  # noqa: PLC0415

    with Progress(console=Console(stderr=True)) as bar:
        row = bar.add_task("training", total=1.0)
        yield lambda done, text: bar.update(row, completed=done, description=text)
