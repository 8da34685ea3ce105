"""`broker train` and `broker evaluate` by the command line, and a run that scores with their bundle."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from harness import Shell, decoded
from labelled import write_folder

from broker.embedded import owned

CLASSES = ("EB", "RRLyrae")


def test_a_trained_bundle_scores_the_stream(tmp_path: Path) -> None:
    data = tmp_path / "labelled"
    data.mkdir()
    write_folder(data, {"SNIa": 20, "AGN": 20}, {"EB": 30, "RRLyrae": 30})
    shell = Shell(None, tmp_path)
    words = ("--data", "labelled", "--task", "periodic", "--budget", "1", "--seed", "2")
    said = shell("train", *words, "--out", "made")
    bundle = next(line.split(": ", 1)[1] for line in said.splitlines() if line.startswith("bundle: "))
    report = next(line.split(": ", 1)[1] for line in said.splitlines() if line.startswith("report: "))
    assert "confusion" in (tmp_path / report).read_text().lower()
    shell("evaluate", "--data", "labelled", "--model", bundle, "--out", "judged")
    predictions = pq.read_table(tmp_path / "judged" / "predictions.parquet").to_pylist()
    assert len(predictions) == 60
    assert (
        sum(row["object"].startswith(max(CLASSES, key=lambda c: row[f"prob_{c}"])) for row in predictions)
        > 50
    )
    manifest = json.loads((tmp_path / bundle / "manifest.json").read_text())
    with owned(quiet=True) as servers:
        shell = Shell(servers.addresses, tmp_path)
        shell("simulate", "--alerts", "40", "--topic", "ztf_replay")
        shell("run", "--model", bundle, "--until-idle", "1")
        alerts = decoded(servers.addresses.bootstrap_servers, "alerts.ztf")
        chosen = str(alerts[7]["diaSourceId"])
        told = json.loads(shell("explain", chosen, "--model", bundle, "--json"))
        shell("explain", "1", "--model", bundle, expect=1)
    (stage,) = told["stages"]
    assert stage["probability"] == pytest.approx(alerts[7]["scores"][f"prob_{stage['answer']}"], abs=1e-5)
    assert len(alerts) == 40
    assert {alert["provenance"]["modelVersion"] for alert in alerts} == {str(manifest["version"])}
    known = [name for name, value in alerts[0]["scores"].items() if value is not None]
    assert "anomaly" in known
    for alert in alerts:
        leaves = [
            value
            for name, value in alert["scores"].items()
            if name.startswith("prob_") and not name.startswith("prob_family_") and value is not None
        ]
        assert abs(sum(leaves) - 1) < 1e-5
