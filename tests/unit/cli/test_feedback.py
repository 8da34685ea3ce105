"""What `broker feedback` prints, and how it ends when used wrongly."""

from __future__ import annotations

from dataclasses import replace

import pytest
from typer.testing import CliRunner

from broker.cli.feedback import feedback, summary
from broker.feedback import Mark, StoredForest
from broker.feedback_store import Told
from broker.filter import Filter

AT = "2025-01-01T00:00:00Z"
MARK = Mark("alice", "ztf", 7, "ZTF25a", "boring", "", {}, False, AT, "me")
FOREST = StoredForest("alice", "ztf", 3, 1, b"", (1, 2), (7,), 5000, AT)
TOLD = Told(MARK, FOREST, None, 9, 2, 2, 0.1, 1.25, "")


def test_a_mark_is_told_with_what_the_forest_knows_and_where_it_is_live() -> None:
    assert summary(TOLD).split("\n") == [
        "ZTF25a, alert 7, is marked boring by alice: forest 3 of ztf knows 2 interesting and 1 boring",
        "live on 2/2 workers, 1.2 s after it was said",
    ]


def test_the_first_mark_says_where_to_listen_and_what_to_know() -> None:
    rule = Filter("alice", "anomalies", 1, "personal_anomaly('alice') > 0.99")
    told = replace(TOLD, filter=rule, live=0, reached=0, note="few alerts")
    assert summary(told).split("\n")[1:] == [
        "no worker is running: it takes effect when `broker run` starts",
        "made the filter alice.anomalies: personal_anomaly('alice') > 0.99",
        "listen with: broker listen filters.alice.anomalies",
        "note: few alerts",
    ]
    assert "no longer marked" in summary(replace(TOLD, mark=replace(MARK, removed=True)))


@pytest.mark.parametrize("verb", ["add", "remove", "suggest"])
@pytest.mark.parametrize(
    ("owner", "survey", "says"),
    [("No Name", "ztf", "use 1 to 48"), ("broker", "ztf", "reserved"), ("alice", "hst", "no survey 'hst'")],
)
def test_wrong_use_ends_with_2_before_any_server_is_started(
    verb: str, owner: str, survey: str, says: str
) -> None:
    words = [verb, "--owner", owner, "--survey", survey]
    words += [] if verb == "suggest" else ["--alert", "7"]
    words += ["--verdict", "boring"] if verb == "add" else []
    done = CliRunner().invoke(feedback, words)
    assert (done.exit_code, says in done.output) == (2, True)
