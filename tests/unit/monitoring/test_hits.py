"""What topics say held against the ledger, without a Kafka: every way in which they can differ."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from broker.config import KafkaSettings
from broker.monitoring.account import ALERT, RETRACTION, UPDATE, Account
from broker.monitoring.differences import named_alerts
from broker.monitoring.hits import Differences, FirstLook, Identity, Lines, Published, Scope, Seen

LABEL, HITS, ALERTS = "a.b@1", "filters.a.b", "alerts.ztf"
Record = tuple[str, Published]


def nothing_gone(_: str) -> bool:
    return False


def published(
    offset: int, *, kind: str = ALERT, passed: tuple[str, ...] = (LABEL,), at: int = 5
) -> Published:
    identity: Identity = (kind, "in", 0, offset, 0, 1000 + offset)
    return Published(kind, "ztf", f"ZTF{offset}", identity, at, passed)


class Night:
    """A ledger of two transactions of 50 alerts, all of which passed, and the topics that belong to it."""

    def __init__(self, since_ms: Callable[[str], float] = lambda _: 0.0, **hits: int) -> None:
        self.since_ms = since_ms
        self.account = Account(KafkaSettings(bootstrap_servers="127.0.0.1:1"), 1, since_ms)
        self.records: list[Record] = []
        for number in range(2):
            self.account.add(ledger_record(50 * number, 50 * number + 50, 1000 * number + 1000, **hits))
            for offset in range(50 * number, 50 * number + 50):
                self.records += [(ALERTS, published(offset)), (HITS, published(offset))]

    def look(self) -> tuple[FirstLook, Differences]:
        scope = Scope(self.account, 2, self.since_ms)
        look = FirstLook(scope)
        records = list(self.records)
        random.Random(1).shuffle(records)
        for topic, record in records:
            look.add(topic, record)
        return look, look.differences(self.account.totals, self.account.totals, nothing_gone)

    def names(self) -> list[str]:
        def read() -> Iterator[Record]:
            return iter(self.records)

        return named_alerts(self.look()[1], Scope(self.account, 2, self.since_ms), read, 100)


def ledger_record(before: int, after: int, at_ms: int, **hits: int) -> dict[str, Any]:
    figures = {"filter": LABEL, "alerts": 50, "updates": 0, "retractions": 0} | hits
    return {
        "committedAt": at_ms,
        "partitions": [{"topic": "in", "partition": 0, "before": before, "after": after, "expired": 0}],
        "counts": [{"survey": "ztf", "outcome": "published", "reason": "", "count": after - before}],
        "hits": [figures],
        "outputs": [],
    }


def test_what_is_as_it_should_be_differs_nowhere() -> None:
    look, found = Night().look()
    assert found == Differences([], [], [])
    assert look.problems() == []
    assert look.figures(LABEL, Night().account.totals).topic[ALERT] == 100


def test_a_hit_that_is_gone_is_named() -> None:
    night = Night()
    night.records.remove((HITS, published(7)))
    _, found = night.look()
    assert (found.alerts, found.ledger) == ([(LABEL, ALERT)], [(LABEL, ALERT)])
    assert night.names() == [
        f"{HITS}: in[0] offset 7 index 0 (ZTF7) passed it ({LABEL}) and is not in its topic"
    ]


def test_a_hit_exchanged_for_another_differs_though_the_counts_agree() -> None:
    night = Night()
    night.records.remove((HITS, published(7)))
    night.records.append((HITS, published(8)))
    _, found = night.look()
    assert (found.alerts, found.ledger) == ([(LABEL, ALERT)], [])
    assert len(night.names()) == 2


def test_an_alert_that_does_not_say_it_passed_is_named() -> None:
    night = Night()
    night.records.remove((ALERTS, published(7)))
    night.records.append((ALERTS, published(7, passed=())))
    (line,) = night.names()
    assert "is in its topic, and alerts.* do not say that it passed it" in line


def test_a_loss_from_both_topics_is_seen_by_the_ledger() -> None:
    night = Night()
    night.records.remove((HITS, published(7)))
    night.records.remove((ALERTS, published(7)))
    _, found = night.look()
    assert found == Differences([], [(LABEL, ALERT)], ["ztf"])


def test_what_came_after_the_ledger_was_read_is_no_difference_but_must_be_in_it_then() -> None:
    night = Night()
    night.records += [(ALERTS, published(120)), (HITS, published(130))]
    look, found = night.look()
    assert found == Differences([], [], [])
    assert len(look.problems()) == 2
    night.account.add(ledger_record(100, 150, 3000))
    assert look.problems() == []


def test_a_double_is_named_and_so_is_a_hit_in_the_wrong_topic() -> None:
    night = Night()
    night.records += [(ALERTS, published(7)), (HITS, published(9, passed=("a.c@1",)))]
    problems = night.look()[0].problems()
    assert problems == [
        f"{ALERTS}: in[0] offset 7 index 0 (ZTF7) is published twice",
        f"{HITS}: it holds a hit of a.c@1, in[0] offset 9 index 0 (ZTF9)",
    ]


def test_updates_of_one_alert_count_each() -> None:
    night = Night(updates=2)
    update = published(7, kind=UPDATE)
    night.records += [(topic, update) for topic in (HITS, ALERTS) for _ in range(4)]
    assert night.look()[1] == Differences([], [], [])
    night.records.remove((HITS, update))
    _, found = night.look()
    assert found.alerts == found.ledger == [(LABEL, UPDATE)]
    (line,) = night.names()
    assert "is 3 times in its topic, and passed it when it was judged again 4 times" in line


def test_updates_are_left_alone_while_some_are_being_made() -> None:
    night = Night(updates=1)
    night.records.append((HITS, published(7, kind=UPDATE)))
    look, _ = night.look()
    after = Night(updates=2).account.totals
    assert look.differences(night.account.totals, after, nothing_gone) == Differences([], [], [])


def test_a_retraction_that_only_a_filter_is_told_of_is_right() -> None:
    night = Night(retractions=1)
    night.records += [(HITS, published(offset, kind=RETRACTION)) for offset in (7, 60)]
    night.records.append((ALERTS, published(7, kind=RETRACTION)))
    assert night.look()[1] == Differences([], [], [])
    night.records.remove((HITS, published(60, kind=RETRACTION)))
    assert night.look()[1].ledger == [(LABEL, RETRACTION)]


@pytest.mark.parametrize("topic", [HITS, ALERTS])
def test_what_expired_is_not_missed_and_what_is_kept_still_is(topic: str) -> None:
    night = Night(lambda name: 1500.0 if name == topic else 0.0)
    night.records = [(name, it) for name, it in night.records if name != topic or it.identity[3] >= 40]
    assert night.look()[1] == Differences([], [], [])
    night.records.remove((HITS, published(60)))
    assert night.look()[1].alerts == [(LABEL, ALERT)]


def test_nothing_is_said_of_a_topic_that_is_gone() -> None:
    night = Night()
    night.records = [(name, it) for name, it in night.records if name != HITS]
    look, _ = night.look()
    totals = night.account.totals
    assert look.differences(totals, totals, lambda topic: topic == HITS) == Differences([], [], [])


def test_seen_tells_every_place_apart() -> None:
    seen, chosen = Seen(), random.Random(2)
    places = {
        (chosen.choice("ab"), chosen.randrange(3), chosen.randrange(10**6), chosen.randrange(3))
        for _ in range(5000)
    }
    identities: list[Identity] = [(ALERT, *place, 0) for place in places]
    assert not any(seen.add(identity) for identity in identities)
    assert all(seen.add(identity) for identity in identities)


def test_of_many_lines_the_first_are_told_and_the_others_counted() -> None:
    lines = Lines("things")
    for number in range(25):
        lines.add(str(number))
    assert lines.texts() == [*map(str, range(20)), "and 5 more things"]
