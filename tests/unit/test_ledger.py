from __future__ import annotations

import pytest

from broker.kafka.lag import lag_of, matching_topics
from broker.ledger import find_gaps

KEY = ("ztf_replay", 0)


@pytest.mark.parametrize(
    ("spans", "committed", "expected"),
    [
        ([(0, 5), (5, 9)], 9, []),
        ([(5, 9), (0, 5)], 9, []),
        ([(3, 5), (5, 9)], 9, []),
        ([(0, 5), (6, 9)], 9, [(5, 6, "hole")]),
        ([(0, 5), (4, 9)], 9, [(4, 5, "overlap")]),
        ([(0, 9), (2, 3), (9, 12)], 12, [(2, 3, "overlap")]),
        ([(0, 5)], 8, [(5, 8, "committed without a ledger record")]),
        ([(0, 5)], 3, []),
        ([(0, 5)], None, []),
    ],
)
def test_ranges_must_tile(
    spans: list[tuple[int, int]], committed: int | None, expected: list[tuple[int, int, str]]
) -> None:
    assert [(gap.start, gap.end, gap.kind) for gap in find_gaps(KEY, spans, committed)] == expected


def test_lag_counts_from_the_commit_or_from_the_first_record_there_is() -> None:
    ends, starts = {("t", 0): 10, ("t", 1): 10, ("t", 2): 4}, {("t", 0): 0, ("t", 1): 6, ("t", 2): 4}
    assert lag_of(ends, starts, {("t", 0): 7, ("t", 1): 2}) == {("t", 0): 3, ("t", 1): 4, ("t", 2): 0}


def test_patterns_and_plain_names() -> None:
    names = [
        "ztf_20260101_programid1",
        "ztf_20260101_programid2",
        "lsst-alerts-v11",
        "ztf_replay",
        "alerts.ztf",
    ]
    wanted = ["^ztf_[0-9]{8}_programid1$", "^lsst-alerts-v.*$", "ztf_replay"]
    assert matching_topics(names, wanted) == ["lsst-alerts-v11", "ztf_20260101_programid1", "ztf_replay"]
