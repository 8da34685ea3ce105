"""Real alerts that the built-in filters let through: `python -m tests.builtin_yields` prints the table."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from broker.config import load
from broker.context.region_files import read_region
from broker.context.regions import BoundRegion
from broker.filters.builtin import BUILTIN_FILTERS
from broker.filters.functions import REGION, Named
from broker.filters.live import compile_set
from broker.history.memory import MemoryStore
from broker.message import Message
from broker.pipeline import Pipeline, shipped_or_chosen_models
from broker.simulate import simulate_ztf
from broker.surveys.avro import LocalSchemas
from tests.data import shared_data

FOLDERS = {
    "ztf": ("ztf/alerts", "ztf/alerts_reencoded"),
    "lsst": ("lsst/reencoded_v10_0",),
}
"""Where the real alerts of a survey lie."""


@dataclass(frozen=True)
class Yield:
    """Hits of each built-in filter among so many alerts of one survey, by the filter's name."""

    alerts: int
    hits: Counter[str]

    def per_1000(self, name: str) -> float:
        """Hits of a filter in a thousand alerts."""
        return 1000.0 * self.hits[f"broker.{name}"] / self.alerts


SIMULATED = 4800
SEED = 12
"""How many alerts of a made-up ZTF sky, and its seed: another than the recipes were looked at with."""


EXAMPLE_MAP = Path(__file__).parents[1] / "docs" / "examples" / "skymap.fits"


def measure(root: Path, named: Named | None = None) -> dict[str, Yield]:
    """Every real alert, in one batch a survey, through the pipeline with the shipped models.

    named : what filters may name, nothing if not given
    """
    return {
        survey: _passed(
            [path.read_bytes() for name in names for path in sorted((root / name).iterdir())], named
        )
        for survey, names in FOLDERS.items()
    }


def with_regions(root: Path) -> str:
    """What `gw-region` lets through when its region is the example's sky map, or the whole sky."""
    regions = {"the example": EXAMPLE_MAP.read_bytes(), "the whole sky": b"0/0-11"}
    lines = ["| region `gw` | ZTF | Rubin |", "| --- | --- | --- |"]
    for about, content in regions.items():
        found = measure(root, {REGION: {"gw": BoundRegion(read_region(content).region)}})
        rates = (f"{found[survey].per_1000('gw-region'):.1f}" for survey in FOLDERS)
        lines.append(f"| {about} | {' | '.join(rates)} |")
    return "\n".join(lines)


def _passed(values: Sequence[bytes], named: Named | None = None) -> Yield:
    settings = load(env={})
    settings = replace(settings, run=replace(settings.run, publish_private=True))
    models = shipped_or_chosen_models(settings)
    pipeline = Pipeline(MemoryStore(), models.default, LocalSchemas(), settings)
    pipeline.serve(models)
    filters = compile_set(0, BUILTIN_FILTERS, {}, pipeline.columns, named)
    messages = [Message("real", 0, offset, 0, value) for offset, value in enumerate(values)]
    outcome = pipeline.process(messages, filters)
    return Yield(sum(n for (_, what, _), n in outcome.counts.items() if what == "published"), outcome.hits)


def simulated() -> dict[str, Yield]:
    """What passes of a made-up ZTF sky, by what the objects are: each kind has a run of its own."""
    kinds: dict[str, list[bytes]] = {}
    for alert in simulate_ztf(SIMULATED, SEED):
        kinds.setdefault(alert.label, []).append(alert.value)
    return {kind: _passed(values) for kind, values in sorted(kinds.items())}


def table(found: dict[str, Yield]) -> str:
    """The yields as the documentation shows them."""
    lines = [f"| filter | ZTF ({found['ztf'].alerts} alerts) | Rubin ({found['lsst'].alerts} alerts) |"]
    lines.append("| --- | --- | --- |")
    for item in BUILTIN_FILTERS:
        rates = (f"{found[survey].per_1000(item.name):.1f}" for survey in FOLDERS)
        lines.append(f"| `{item.name}` | {' | '.join(rates)} |")
    return "\n".join(lines)


def kinds_table(found: dict[str, Yield]) -> str:
    """The kinds among a filter's hits, the most frequent first."""
    counts = ", ".join(f"{item.alerts} {kind}" for kind, item in found.items())
    lines = [f"Of {counts}:", "", "| filter | passes |", "| --- | --- |"]
    for item in BUILTIN_FILTERS:
        hits = Counter({kind: of.hits[f"broker.{item.name}"] for kind, of in found.items()})
        passed = ", ".join(f"{count} {kind}" for kind, count in hits.most_common() if count)
        lines.append(f"| `{item.name}` | {passed or '-'} |")
    return "\n".join(lines)


if __name__ == "__main__":
    folder = shared_data()
    sys.exit("no real alerts here: set BROKER_TEST_DATA to their folder") if folder is None else None
    print(table(measure(folder)), with_regions(folder), kinds_table(simulated()), sep="\n\n")
