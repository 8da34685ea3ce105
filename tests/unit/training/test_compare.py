"""Two bundles side by side."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from shutil import copytree
from typing import Any

from made_task import FAMILY, TRANSIENT

from broker.scores.bundle import MANIFEST
from broker.scores.catalog import DEFAULT_BUNDLE
from broker.training.compare import Comparison, compare

TASKS = [FAMILY, TRANSIENT]


def changed(tmp_path: Path, change: Callable[[dict[str, Any]], None]) -> Comparison:
    """The shipped bundle beside a copy whose manifest says something else."""
    twin = Path(copytree(DEFAULT_BUNDLE, tmp_path / "twin"))
    said = json.loads((twin / MANIFEST).read_text())
    change(said)
    (twin / MANIFEST).write_text(json.dumps(said))
    return compare(DEFAULT_BUNDLE, twin, tmp_path, TASKS)


def test_the_date_makes_no_difference(tmp_path: Path) -> None:
    found = changed(tmp_path, lambda said: said.update(created="1987-02-23"))
    assert str(found) == "the same, file by file"
    assert found.within_tolerance


def test_a_little_less_sure_is_within_the_tolerance(tmp_path: Path) -> None:
    found = changed(tmp_path, lambda said: said["stages"][0].update(temperature=1.01 * temperature(said)))
    assert found.differing == [MANIFEST]
    assert found.same_class == 1.0
    assert 0.0 < found.mean < found.largest < 0.05
    assert found.within_tolerance


def test_another_opinion_is_outside_the_tolerance(tmp_path: Path) -> None:
    def upside_down(said: dict[str, Any]) -> None:
        said["stages"][0]["bias"] = [-9.0 if place == 0 else 9.0 for place in range(4)]

    found = changed(tmp_path, upside_down)
    assert found.same_class < 0.9
    assert not found.within_tolerance
    assert "OUTSIDE" in str(found)


def temperature(said: dict[str, Any]) -> float:
    return float(said["stages"][0]["temperature"])
