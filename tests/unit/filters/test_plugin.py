"""Rules in Python called from filters: what they are given, and that their faults stay theirs."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from broker import plugin
from broker.cli.filters import filters as verb
from broker.filter import Filter
from broker.filters.functions import PLUGIN
from broker.filters.live import FilterSet, compile_set
from broker.filters.select import evaluate_select
from broker.filters.store import plugins_missing_here
from broker.plugin import installed, installed_names, named_plugins
from broker.table import ColumnSpec, Table
from tests.plugins import documented_module, install

Specs = Mapping[str, ColumnSpec]
RULES = """
import numpy as np

class Rule:
    reads = ("mag",)
    def __init__(self, judge): self.judge = judge
    def __call__(self, columns): return self.judge(columns)

class Everything:
    reads = ("mag", "band", "is_dipole", "dia_object_id")
    seen = []
    def __call__(self, columns):
        self.seen.append(columns)
        return np.ones(len(columns["mag"]), dtype=bool)

class NoReads:
    def __call__(self, columns): return columns

def fail(columns): raise ValueError("no such luck")
def leave(columns): raise SystemExit(3)
def write(columns): columns["mag"][:] = 0; return columns["mag"] > 0

bright = Rule(lambda columns: columns["mag"] < 18.5)
floats = Rule(lambda columns: columns["mag"] - 18)
failing, leaving, writing = Rule(fail), Rule(leave), Rule(write)
short = Rule(lambda columns: columns["mag"][:-1] > 0)
scalar = Rule(lambda columns: True)
words = Rule(lambda columns: np.array(["yes"] * len(columns["mag"])))
elsewhere = Rule(lambda columns: columns["mag"] > 0)
elsewhere.reads = ("never_heard_of",)
no_reads, five = NoReads(), 5
"""
NAMES = ("bright", "floats", "failing", "leaving", "writing", "short", "scalar", "words", "elsewhere")
NOT_RULES = ("no_reads", "five")


@pytest.fixture(autouse=True)
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine with some plug-ins, good and bad."""
    points = {name: f"made_rules:{name}" for name in (*NAMES, *NOT_RULES)}
    points |= {"everything": "made_rules:Everything", "absent": "made_rules:gone", "broken": "made_broken:it"}
    points |= {"deep-rule": "deep_rule:RULE"}
    modules = {
        "made_rules": RULES,
        "made_broken": "import sys; sys.exit(2)",
        "deep_rule": documented_module(),
    }
    install(tmp_path, modules, points)
    monkeypatch.syspath_prepend(str(tmp_path))
    for cached in (installed, named_plugins):
        cached.cache_clear()
    yield
    for cached in (installed, named_plugins):
        cached.cache_clear()
    for name in modules:
        monkeypatch.delitem(sys.modules, name, raising=False)


def compiled(specs: Specs, *texts: str, select: str = "") -> FilterSet:
    rules = [Filter("jo", f"r{k}", 1, text, select=select) for k, text in enumerate(texts)]
    return compile_set(1, rules, {}, specs, {PLUGIN: named_plugins()})


def test_a_plugin_is_a_condition_beside_others(table: Table, specs: Specs) -> None:
    texts = ["plugin('bright')", "plugin('bright') and ra > 1", "not plugin('bright')", "plugin('floats')"]
    made = compiled(specs, *texts, "plugin('floats') is null", select="plugin('bright') as bright")
    found = made.program.evaluate(table)
    assert found.failures == {}
    assert found.masks.astype(int).tolist() == [
        [1, 1, 0, 0, 0, 0],
        [0, 1, 0, 0, 0, 0],
        [0, 0, 1, 1, 1, 1],
        [1, 0, 1, 1, 1, 0],
        [0, 0, 0, 0, 0, 1],
    ]
    chosen = evaluate_select(made.selects, found.masks, table)
    assert dict(chosen.values[3]) == {"bright": [True, False, False, False]}
    assert found.cost_ns.all()


def test_columns_come_as_the_protocol_says_and_cannot_be_written_to(table: Table, specs: Specs) -> None:
    found = compiled(specs, "plugin('everything')", "plugin('everything') and mag < 18").program.evaluate(
        table
    )
    assert found.masks[0].all()
    (columns,) = installed()["everything"].rule.seen  # type: ignore[union-attr]
    assert columns["band"].tolist() == ["g", "r", "g", "u", "y", None]
    np.testing.assert_array_equal(columns["is_dipole"], [1, 0, 1, 0, np.nan, np.nan])
    np.testing.assert_array_equal(columns["mag"], table["mag"].values)
    assert np.isnan(columns["dia_object_id"][5])
    assert not any(column.flags.writeable for column in columns.values())


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("failing", "plug-in 'failing': ValueError: no such luck"),
        ("leaving", "plug-in 'leaving': SystemExit: 3"),
        ("writing", "plug-in 'writing': ValueError: assignment destination is read-only"),
        ("short", r"plug-in 'short' returned the shape \(5,\) for columns of \(6,\)"),
        ("scalar", "plug-in 'scalar' returned a bool; it must be a numpy array"),
        ("words", "plug-in 'words' returned an array of <U3"),
    ],
)
def test_a_fault_on_a_batch_is_that_filters_alone(table: Table, specs: Specs, name: str, why: str) -> None:
    made = compiled(specs, f"plugin('{name}') or mag < 30", "plugin('bright')", "mag < 18")
    found = made.program.evaluate(table)
    assert list(found.failures) == [0]
    assert re.search(why, found.failures[0])
    assert found.masks.sum(axis=1).tolist() == [0, 2, 1]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("nobody", "no plug-in 'nobody' at 7; it is not installed here"),
        ("absent", "no plug-in 'absent' at 7; AttributeError"),
        ("broken", "no plug-in 'broken' at 7; SystemExit: 2"),
        ("no_reads", "it has no `reads`"),
        ("five", "it has no `reads`"),
        ("elsewhere", "plug-in 'elsewhere' reads 'never_heard_of', which is no column at 7"),
    ],
)
def test_what_cannot_be_called_is_refused_by_name_and_harms_nobody(specs: Specs, name: str, why: str) -> None:
    made = compiled(specs, f"plugin('{name}')", "plugin('bright')")
    ((refused, reason),) = made.refused
    assert refused == "jo.r0"
    assert why in reason
    assert [item.name for item in made.filters] == ["r1"]


def test_a_plugin_that_a_select_list_calls_is_asked_for_too(specs: Specs) -> None:
    assert compiled(specs, "mag < 19", select="plugin('nobody') as x").refused


def test_a_filter_may_be_added_where_its_plugin_is_not(specs: Specs) -> None:
    rule = Filter("jo", "r", 1, "plugin('bright') and plugin('nobody')", select="plugin('other') as x")
    assert plugins_missing_here(rule, specs) == ["nobody", "other"]
    assert plugins_missing_here(Filter("jo", "r", 1, "mag < 19"), specs) == []
    assert "broken" in installed_names()


def test_the_documented_example_works(table: Table, specs: Specs) -> None:
    wider = {**specs, "n_detections": ColumnSpec("n_detections", "", "")}
    assert compiled(wider, "plugin('deep-rule') and mag < 19").refused == ()


def test_the_verb_lists_them_with_their_faults() -> None:
    result = CliRunner().invoke(verb, ["plugins", "--json"])
    assert result.exit_code == 0
    listed = {item["name"]: item for item in json.loads(result.stdout)}
    assert listed["bright"] == {
        "name": "bright",
        "package": "made",
        "version": "0.1",
        "reads": ["mag"],
        "fault": "",
    }
    assert "SystemExit" in listed["broken"]["fault"]
    assert "bright" in CliRunner().invoke(verb, ["plugins"], env={"COLUMNS": "150"}).stdout


def test_nothing_is_looked_for_twice() -> None:
    assert plugin.named_plugins()["bright"] is plugin.named_plugins()["bright"]
