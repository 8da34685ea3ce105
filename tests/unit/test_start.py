"""What a worker loads at its start: no more than it needs, and all that its first batch needs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from numba.core.dispatcher import Dispatcher

from broker import worker
from broker.config import load
from broker.filters.builtin import BUILTIN_FILTERS
from broker.filters.live import compile_set
from broker.history.memory import MemoryStore
from broker.message import Message
from broker.pipeline import Pipeline, shipped_or_chosen_scorer, warm_up
from broker.surveys.avro import LocalSchemas
from tests.unit.surveys.samples import few_lsst, few_ztf, winter_values

ROOT = Path(worker.__file__).parents[1]


def in_a_new_process(code: str) -> Any:
    """What some code prints as JSON where nothing was imported or called before."""
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}); {code}"],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("modules", "unwanted"),
    [
        ("broker.worker", ["numba", "broker.pipeline", "redis", "fastavro"]),
        ("broker.cli.run, broker.assemble, broker.supervisor", ["numba", "broker.pipeline", "sqlglot"]),
        (
            "broker.service",
            ["sklearn", "lightgbm", "matplotlib", "fastapi", "uvicorn", "astropy", "pandas", "rich", "typer"],
        ),
    ],
)
def test_nothing_is_imported_that_is_not_needed(modules: str, unwanted: list[str]) -> None:
    code = f"import json, {modules}; print(json.dumps([m for m in {unwanted!r} if m in sys.modules]))"
    assert in_a_new_process(code) == []


def test_the_first_batch_finds_everything_compiled() -> None:
    code = "import json; from tests.unit import test_start as t; print(json.dumps(t.new_variants()))"
    assert in_a_new_process(code) == {}


def new_variants() -> dict[str, list[str]]:
    """The variants of kernels that first batches compile or load though the warm-up is over."""
    scorer, settings = shipped_or_chosen_scorer(load(env={})), load(env={})
    warm_up(scorer)
    before = _variants()
    pipeline = Pipeline(MemoryStore(), scorer, LocalSchemas(), settings)
    filters = compile_set(0, list(BUILTIN_FILTERS), {}, pipeline.columns)
    for start, values in enumerate((few_ztf(), few_lsst(), winter_values())):
        for again in range(2):
            offset = 1000 * (2 * start + again)
            messages = [Message("t", 0, offset + number, 0, value) for number, value in enumerate(values)]
            assert sum(pipeline.process(messages, filters).counts.values()) >= len(values)
    found = {name: sorted(variants - before.get(name, set())) for name, variants in _variants().items()}
    return {name: variants for name, variants in found.items() if variants}


def _variants() -> dict[str, set[str]]:
    """The compiled variants of each kernel of this package."""
    modules = [module for name, module in sys.modules.items() if name.startswith("broker.")]
    kernels = [item for module in modules for item in vars(module).values() if isinstance(item, Dispatcher)]
    return {f"{k.py_func.__module__}.{k.py_func.__name__}": {str(s) for s in k.signatures} for k in kernels}
