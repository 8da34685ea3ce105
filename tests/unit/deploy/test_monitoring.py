"""Prometheus and Grafana ask for services, metrics, labels and label values that exist."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import Counter, Gauge, Histogram

from broker import metrics
from broker.config import load
from broker.drift.look import HIGH_NULLS, HIGH_PSI, NIGHTS_REFERENCE
from broker.message import REASONS
from broker.metrics_server import DriftGauge, FleetFigures, _DriftCollector, _FleetCollector, _LagCollector
from broker.run.restarts import exit_cause
from broker.worker import FENCED_EXIT

FROM_PROMETHEUS = {"up": {"job", "instance"}}
"""Series that Prometheus makes itself, and their labels."""
FROM_API: dict[str, set[str]] = {"broker_live_workers": set()}
"""Series of the API in use here, and their labels; its collector names them only while Redis answers."""
OUTCOMES = {"in", "published", "rejected", "duplicate"}
RESULTS = {"committed", "aborted"}
VALUES = {
    "outcome": OUTCOMES,
    "result": RESULTS,
    "reason": set(REASONS),
    "job": {"pipeline", "api"},
    "how": {"compiled", "fallback"},
    "reference": {NIGHTS_REFERENCE},
    "cause": {exit_cause(FENCED_EXIT)},
}
WORDS = {
    *("sum", "max", "rate", "increase", "deriv", "absent", "histogram_quantile", "topk", "count"),
    *("by", "and", "or", "unless"),
}
"""Functions and operators of PromQL in use here."""


def exposed() -> dict[str, set[str]]:
    """Every series of the pipeline's /metrics by name, with its labels."""
    series: dict[str, set[str]] = {}
    for metric in vars(metrics).values():
        labels = set(getattr(metric, "_labelnames", ()))
        if isinstance(metric, Counter):
            series[metric._name + "_total"] = labels
        elif isinstance(metric, Gauge):
            series[metric._name] = labels
        elif isinstance(metric, Histogram):
            series |= {f"{metric._name}_{part}": labels for part in ("sum", "count")}
            series[metric._name + "_bucket"] = labels | {"le"}
    drift = _DriftCollector(lambda: [DriftGauge("ztf", "mag", "nights", 0.5, 0.1)])
    fleet = _FleetCollector(lambda: FleetFigures(restarts={"error": 1}))
    for family in [*_LagCollector(lambda: {("topic", 0): 1}).collect(), *drift.collect(), *fleet.collect()]:
        series[family.samples[0].name] = set(family.samples[0].labels)
    return series


def dashboard(root: Path) -> dict[str, Any]:
    """The Grafana dashboard."""
    text = (root / "deploy" / "grafana" / "transient-broker.json").read_text(encoding="utf-8")
    tree: dict[str, Any] = json.loads(text)
    return tree


def alert_rules(root: Path) -> list[dict[str, Any]]:
    """Every alert rule."""
    tree = yaml.safe_load((root / "deploy" / "prometheus" / "alerts.yml").read_text(encoding="utf-8"))
    return [rule for group in tree["groups"] for rule in group["rules"]]


def expressions(root: Path) -> Iterator[str]:
    """Every PromQL expression of the rules and the dashboard."""
    yield from (rule["expr"] for rule in alert_rules(root))
    for panel in dashboard(root)["panels"]:
        yield from (target["expr"] for target in panel["targets"])


def names_in(expression: str) -> set[str]:
    """Names of the series in an expression: what is neither label, value, duration nor a word of PromQL."""
    bare = re.sub(r"\{[^}]*\}|\[[^]]*\]|\bby\s*\([^)]*\)", " ", expression)
    return set(re.findall(r"\b[a-z_][a-z0-9_]*\b", bare)) - WORDS


def labels_in(expression: str) -> set[str]:
    """Labels that an expression matches or groups by."""
    matched = set(re.findall(r"([a-z_]+)\s*(?:=~|!=|!~|=)\s*\"", expression))
    grouped = {
        label.strip() for inner in re.findall(r"\bby\s*\(([^)]*)\)", expression) for label in inner.split(",")
    }
    return matched | grouped


def test_the_parser_of_these_tests_reads_an_expression() -> None:
    text = 'sum by (le, stage) (rate(broker_x_bucket{stage="decode"}[5m])) > 2 and up{job=~"a|b"} == 0'
    assert names_in(text) == {"broker_x_bucket", "up"}
    assert labels_in(text) == {"le", "stage", "job"}


def test_every_series_and_label_exists(root: Path) -> None:
    known = exposed() | FROM_PROMETHEUS | FROM_API
    for expression in expressions(root):
        names = names_in(expression)
        assert names, expression
        assert names <= known.keys(), expression
        assert labels_in(expression) <= set().union(*(known[name] for name in names)), expression


def test_the_api_has_the_series_that_are_asked_of_it(root: Path) -> None:
    source = (root / "broker" / "api" / "metrics.py").read_text(encoding="utf-8")
    assert all(f'"{name}"' in source for name in FROM_API)


def test_every_value_that_is_matched_exists(root: Path) -> None:
    for expression in expressions(root):
        for label, text in re.findall(r"([a-z_]+)=~?\"([^\"]*)\"", expression):
            assert set(text.split("|")) <= VALUES[label], expression


def test_every_metric_is_on_the_dashboard(root: Path) -> None:
    shown = {
        name for panel in dashboard(root)["panels"] for t in panel["targets"] for name in names_in(t["expr"])
    }
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in shown}
    assert {re.sub(r"_(bucket|sum|count)$", "", name) for name in exposed()} <= families


def test_what_is_not_known_of_drift_is_left_out() -> None:
    gauges = [DriftGauge("ztf", "mag", "nights", float("nan"), 0.1)]
    psi, nulls = _DriftCollector(lambda: gauges).collect()
    assert (psi.samples, [item.value for item in nulls.samples]) == ([], [0.1])


def test_the_alerts_of_drift_have_the_thresholds_of_the_command_line(root: Path) -> None:
    rules = {rule["alert"]: rule["expr"] for rule in alert_rules(root)}
    assert f"> {HIGH_PSI:g}) > 0" in rules["BrokerStreamDrifted"]
    assert f"> {HIGH_NULLS:g}) > 0" in rules["BrokerColumnsLost"]


def test_the_lag_is_never_summed_over_pipelines(root: Path) -> None:
    for expression in expressions(root):
        once = expression.count("max by (topic, partition) (broker_consumer_lag)")
        assert once == expression.count("broker_consumer_lag"), expression


def test_panels_do_not_overlap_and_legends_use_labels_that_are_kept(root: Path) -> None:
    panels = dashboard(root)["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels]
    assert len(set(places)) == len(places)
    for panel in panels:
        for target in panel["targets"]:
            used = set(re.findall(r"\{\{\s*([a-z_]+)\s*\}\}", target["legendFormat"]))
            assert used <= labels_in(target["expr"]) | {"instance"}


def test_every_alert_says_what_it_means(root: Path) -> None:
    rules = alert_rules(root)
    assert len({rule["alert"] for rule in rules}) == len(rules)
    for rule in rules:
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"].keys() == {"summary", "description"}


@pytest.mark.parametrize("job", ["pipeline", "api"])
def test_scrape_targets_are_services_that_listen(
    root: Path, services: dict[str, Any], job: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # a developer's broker.toml is not part of the deployment
    tree = yaml.safe_load((root / "deploy" / "prometheus" / "prometheus.yml").read_text(encoding="utf-8"))
    jobs = {item["job_name"]: item["static_configs"][0]["targets"] for item in tree["scrape_configs"]}
    assert jobs[job]
    for target in jobs[job]:
        name, _, port = target.partition(":")
        settings = load(env=services[name]["environment"])
        assert int(port) == (settings.api.port if job == "api" else settings.metrics.port)


def test_every_pipeline_is_scraped_and_every_rule_file_exists(root: Path, services: dict[str, Any]) -> None:
    tree = yaml.safe_load((root / "deploy" / "prometheus" / "prometheus.yml").read_text(encoding="utf-8"))
    targets = {
        t.partition(":")[0] for item in tree["scrape_configs"] for t in item["static_configs"][0]["targets"]
    }
    assert {
        name for name, service in services.items() if service["image"].startswith("transient-broker")
    } == targets
    assert all((root / "deploy" / "prometheus" / name).is_file() for name in tree["rule_files"])
