"""With no address set: background services, attached to by every verb, each verb returning by itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import psutil
import pytest
from harness import Shell, sha256, wait_until

from broker.simulate import simulate_ztf, write_folder

ALERTS = 150


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A shell with a data folder of its own; its services are down again at the end."""
    made = Shell(None, tmp_path_factory.mktemp("user"))
    try:
        yield made
    finally:
        made("services", "down")


def test_the_verbs_of_the_readme_one_after_another(shell: Shell) -> None:
    write_folder(shell.folder / "night", ALERTS, 4)
    shell("services", "up")
    running = json.loads(shell("services", "status", "--json"))
    assert f"sent {ALERTS} messages to ztf_replay" in shell("replay", "night")
    shell("run", "--until-idle", "2")
    lines = shell("listen", "alerts.ztf", "--from", "beginning", "--until-idle", "1", "--format", "jsonl")
    alerts = [json.loads(line) for line in lines.splitlines()]
    assert {alert["diaSourceId"] for alert in alerts} == {
        str(alert.candid) for alert in simulate_ztf(ALERTS, 4)
    }
    assert len(alerts) == ALERTS
    balance = json.loads(shell("ledger", "--json"))
    assert balance["balanced"]
    assert balance["published"] == balance["in"] == ALERTS
    again = json.loads(shell("services", "status", "--json"))
    assert again["kafka"]["pid"] == running["kafka"]["pid"], "every verb used the services that ran"


def test_metrics_of_all_workers_are_on_one_port(shell: Shell) -> None:
    with shell.running("run", "--workers", "2"):
        log = shell.folder / "run.log"
        wait_until(lambda: "metrics: http" in log.read_text(), "the run says where its metrics are", 60)
        url = log.read_text().rsplit("metrics: ", 1)[1].split()[0]
        shell("simulate", "--alerts", "60", "--seed", "9", "--topic", "ztf_replay")
        published = 'broker_alerts_total{outcome="published",reason="",survey="ztf"} 60.0'
        wait_until(lambda: published in page(url), "both workers' alerts are counted", 60)
        wait_until(
            lambda: 'broker_consumer_lag{partition="0",topic="ztf_replay"} 0.0' in page(url), "no lag", 20
        )
        for name in (
            "broker_stage_seconds_bucket",
            "broker_latency_seconds_bucket",
            "broker_batch_messages_sum",
        ):
            assert name in page(url)
        assert 'stage="decode"' in page(url)
        assert "broker_latency_seconds_count 60.0" in page(url)


def page(url: str) -> str:
    with urlopen(url, timeout=10) as answer:
        return str(answer.read().decode())


def test_a_run_with_addresses_set_starts_nothing(shell: Shell, tmp_path: Path) -> None:
    status = json.loads(shell("services", "status", "--json"))
    other = Shell(None, tmp_path)
    other.extra = {
        "BROKER_KAFKA_BOOTSTRAP_SERVERS": status["kafka"]["address"],
        "BROKER_REDIS_URL": status["valkey"]["address"],
    }
    other("run", "--until-idle", "0")
    assert json.loads(other("services", "status", "--json"))["kafka"]["state"] == "absent"


def test_the_demo_plays_given_alerts_and_leaves_nothing_behind(tmp_path: Path) -> None:
    write_folder(tmp_path / "night", 80, 6)
    (tmp_path / "night" / "broken.avro").write_bytes(b"not an alert")
    said = Shell(None, tmp_path)("demo", "--alerts", "night", "--rate", "200", "--for", "3", "--no-browser")
    assert "broker listen alerts.ztf" in said
    assert "81 alerts in, 80 published, 1 dead letters, 0 duplicates" in said
    assert "ledger: balanced" in said
    left = [process for process in psutil.process_iter(["cmdline"]) if str(tmp_path) in str(process.info)]
    assert left == []


def test_a_wrong_word_is_usage_and_a_failure_is_a_failure(shell: Shell) -> None:
    shell("listen", expect=2)
    shell("filters", "add", "bad", "--where", "psf_flx > 3", expect=2)
    shell("listen", "no.such.topic", expect=1)
    shell("replay", "absent-folder", expect=1)


def test_simulated_files_are_the_packets_themselves(shell: Shell) -> None:
    shell("simulate", "--alerts", "20", "--seed", "3", "--out", "files")
    files = sorted((shell.folder / "files").glob("*.avro"))
    expected = {sha256(alert.value) for alert in simulate_ztf(20, 3)}
    assert {sha256(path.read_bytes()) for path in files} == expected
