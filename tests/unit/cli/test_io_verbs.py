"""Verbs that bring records in and out: what they refuse, and how they show things."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from broker.cli import app
from broker.cli.listen import alert_cells, parse_start, top_class

USAGE = 2


def run(*words: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, list(words))
    return done.exit_code, done.stdout, done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("replay",),
        ("replay", ".", "--rate", "0"),
        ("replay", ".", "--rate", "nan"),
        ("replay", ".", "--rate", "5", "--burst", "5/1"),
        ("replay", ".", "--burst", "10000"),
        ("replay", ".", "--burst", "0/39"),
        ("replay", ".", "--burst", "5/inf"),
        ("replay", ".", "--survey", "sdss"),
        ("simulate", "--survey", "sdss"),
        ("simulate", "--alerts", "0"),
        ("simulate", "--rate", "5"),
        ("simulate", "--survey", "lsst", "--like", "x"),
        ("simulate", "--out", "x", "--topic", "y"),
        ("listen",),
        ("listen", "t", "--from", "yesterday"),
        ("listen", "t", "--format", "xml"),
        ("listen", "t", "--limit", "0"),
        ("services", "sideways"),
    ],
)
def test_wrong_usage_exits_2(words: tuple[str, ...]) -> None:
    code, out, err = run(*words)
    assert code == USAGE
    assert not out
    assert err


def test_simulate_writes_a_folder_that_replay_can_read(tmp_path: Path) -> None:
    code, out, err = run("simulate", "--alerts", "5", "--seed", "3", "--out", str(tmp_path / "sky"))
    assert code == 0
    assert "wrote 5 ztf alerts" in out
    assert "5 alerts in" in err
    assert len(list((tmp_path / "sky").glob("*.avro"))) == 5


def test_config_says_where_each_value_comes_from(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BROKER_RUN_WORKERS", "3")
    monkeypatch.setenv("BROKER_KAFKA_SASL_PASSWORD", "hush")
    code, out, _ = run("config", "--json", "--kafka", "example:9092")
    rows = {row["name"]: row for row in json.loads(out)}
    assert code == 0
    assert (rows["run.workers"]["value"], rows["run.workers"]["origin"]) == ("3", "environment")
    assert (rows["kafka.bootstrap_servers"]["value"], rows["kafka.bootstrap_servers"]["origin"]) == (
        "example:9092",
        "flag",
    )
    assert all(row["doc"] for row in rows.values())
    assert "hush" not in out
    assert "hush" not in run("config")[1]


def test_services_that_never_ran(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BROKER_DATA_DIR", str(tmp_path))
    code, out, _ = run("services", "status", "--json")
    found = json.loads(out)
    assert code == 0
    assert found["running"] is False
    assert found["kafka"]["state"] == found["valkey"]["state"] == "absent"
    assert "broker services up" in run("services", "status")[1]
    assert "nothing was running" in run("services", "down")[1]


def test_the_start_of_listening() -> None:
    assert parse_start("latest") == "latest"
    assert parse_start("beginning") == "beginning"
    assert parse_start("2025-11-21") == datetime(2025, 11, 21, tzinfo=UTC)
    assert parse_start("2025-11-21T03:00:00+02:00") == datetime(2025, 11, 21, 1, tzinfo=UTC)


def test_the_cells_of_an_alert() -> None:
    alert = {
        "provenance": {"observedAt": 1_700_000_000.0},
        "objectName": "ZTF21abcdefg",
        "survey": "ztf",
        "band": None,
        "mag": None,
        "scores": {"prob_SNIa": 0.25, "prob_AGN": 0.5, "prob_family_transient": 0.9, "anomaly": 0.123},
        "filtersPassed": ["a.b@1", "c.d@2"],
    }
    assert alert_cells(alert) == [
        "2023-11-14 22:13:20",
        "ZTF21abcdefg",
        "ztf",
        "-",
        "-",
        "AGN 0.50",
        "0.12",
        "a.b@1 c.d@2",
    ]
    assert top_class({"prob_SNIa": None, "novelty": 0.5}) == "-"
