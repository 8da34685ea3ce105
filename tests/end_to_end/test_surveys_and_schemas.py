"""Every survey by the command line, and alerts whose schema only a registry has: found, denied, or away."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import Shell, decoded, headers, read_all, send, wait_until

from broker.embedded import owned
from broker.schemas import lsst_schema
from tests.registry_server import Registry
from tests.unit.surveys.samples import atlas_values, decam_values, few_lsst, pgir_values, winter_values

VALUES = {"atlas": atlas_values, "decam": decam_values, "pgir": pgir_values, "winter": winter_values}
BANDS = {"atlas": {"c", "o"}, "decam": {"g", "z"}, "pgir": {"J"}, "winter": {"y", "J", "H"}}
KNOWN_ID, UNKNOWN_ID = 90_001, 90_002


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    folder = tmp_path_factory.mktemp("surveys")
    with owned(quiet=True) as servers:
        yield Shell(servers.addresses, folder, {"no_proxy": "127.0.0.1"})


def bootstrap(shell: Shell) -> str:
    assert shell.addresses is not None
    return shell.addresses.bootstrap_servers


def test_replay_knows_every_survey_and_each_has_its_topic(shell: Shell) -> None:
    folder = shell.folder / "alerts"
    folder.mkdir()
    for survey, values in VALUES.items():
        for number, value in enumerate(values()):
            (folder / f"{survey}{number}.avro").write_bytes(value)
    shell("replay", str(folder))
    shell("run", "--workers", "1", "--until-idle", "2")
    for survey, values in VALUES.items():
        alerts = decoded(bootstrap(shell), f"alerts.{survey}")
        assert len(alerts) == len(values()), survey
        assert {alert["survey"] for alert in alerts} == {survey}
        assert {alert["band"] for alert in alerts} <= BANDS[survey]
    assert json.loads(shell("ledger", "--json"))["balanced"]


def test_alerts_wait_for_a_registry_that_is_down_and_only_a_denied_one_is_a_dead_letter(shell: Shell) -> None:
    usual = few_lsst()
    values = [usual[0], *(under(KNOWN_ID, value) for value in usual[1:3]), under(UNKNOWN_ID, usual[3])]
    away = Registry({})
    away.stop()
    shell.extra["BROKER_REGISTRY_URL"] = away.url
    shell("replay", str(written(shell, usual[4])))  # makes the topic
    send(bootstrap(shell), "lsst_replay", values)
    log = shell.folder / "run.log"
    with shell.running("run", "--workers", "1"):
        wait_until(lambda: log.exists() and "cannot be reached" in log.read_text(), "the registry is missed")
        wait_until(lambda: len(read_all(bootstrap(shell), "alerts.lsst")) == 2, "the others are published")
        assert read_all(bootstrap(shell), "dead-letters") == []
        usual_id = int.from_bytes(usual[0][1:5], "big")
        back = Registry({KNOWN_ID: json.dumps(lsst_schema(usual_id))}, away.port)
        wait_until(lambda: len(read_all(bootstrap(shell), "alerts.lsst")) == 4, "those that waited follow")
        wait_until(lambda: read_all(bootstrap(shell), "dead-letters"), "what was denied is refused")
    back.stop()
    alerts = decoded(bootstrap(shell), "alerts.lsst")
    assert len({alert["diaSourceId"] for alert in alerts}) == len(alerts) == 4
    (letter,) = read_all(bootstrap(shell), "dead-letters")
    assert letter.value() == values[3]
    assert headers(letter)["reason"] == "unknown_schema"
    assert headers(letter)["schema-id"] == str(UNKNOWN_ID)
    asked = Counter(path for path, _ in back.asked)
    assert asked == {f"/schemas/ids/{KNOWN_ID}": 1, f"/schemas/ids/{UNKNOWN_ID}": 1}
    assert json.loads(shell("ledger", "--json"))["balanced"]


def under(schema_id: int, value: bytes) -> bytes:
    """A Confluent-framed message that names another schema id."""
    return b"\x00" + schema_id.to_bytes(4, "big") + value[5:]


def written(shell: Shell, value: bytes) -> Path:
    path = shell.folder / "one.avro"
    path.write_bytes(value)
    return path
