"""A backtest as pictures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from broker.astro.bands import BANDS
from broker.errors import BrokerError
from broker.lightcurves import LIMIT

if TYPE_CHECKING:
    from broker.backtest.judge import Backtest, Hit


def save(result: Backtest, where: Path) -> Iterator[Path]:
    """Hits a night into a PNG file; into a folder, with a light curve for each hit of the sample.

    Raises BrokerError without matplotlib.
    """
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ImportError:
        raise BrokerError("--plot needs matplotlib: pip install 'transient-broker[maps]'") from None
    if where.suffix.lower() == ".png":
        yield _saved(_nights(Figure, result), where)
        return
    where.mkdir(parents=True, exist_ok=True)
    yield _saved(_nights(Figure, result), where / "hits.png")
    for hit in result.sample:
        name = f"{hit.about['survey']}-{hit.about['diaSourceId']}.png"
        yield _saved(_curve(Figure, hit), where / name)


def _nights(figure_kind: Any, result: Backtest) -> Any:
    figure = figure_kind(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    names = sorted(result.nights)
    axes.bar(names, [result.nights[name].hits for name in names])
    axes.set(ylabel="hits", title=result.where[:100])
    axes.tick_params(axis="x", rotation=90)
    return figure


def _curve(figure_kind: Any, hit: Hit) -> Any:
    figure = figure_kind(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    points = hit.curve.points[hit.curve.points["kind"] != LIMIT]
    for number, band in enumerate(BANDS):
        own = points[points["band"] == number]
        if len(own):
            axes.errorbar(own["midpoint_mjd_tai"], own["psf_flux"], own["psf_flux_err"], fmt=".", label=band)
    axes.axvline(hit.about["midpointMjdTai"], color="0.8", zorder=0)
    axes.set(xlabel="MJD (TAI)", ylabel="difference flux [nJy]", title=hit.about["objectName"])
    axes.legend()
    return figure


def _saved(figure: Any, path: Path) -> Path:
    figure.savefig(path, dpi=120)
    return path
