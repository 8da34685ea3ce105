"""The table of topics: name, partitions, retention, clean-up and size of each that we create."""

from __future__ import annotations

from dataclasses import dataclass

from broker.config import TopicSettings

ALERTS = "alerts."
ALERT_TOPICS = "^alerts[.].*"
"""Every survey's alerts, as a pattern."""
FILTERS = "filters."
DEAD_LETTERS = "dead-letters"
CONTROL = "control"
LEDGER = "ledger"
ANNOTATIONS = "annotations"
"""What people and programs say of objects: an input topic of every run, beside those of run.topics."""
ANNOTATIONS_GROUP = ".annotations"
"""Ends the name of the group that reads them, which is shared out by itself: else a worker could be given
annotations in place of alerts."""
NOTICES = "notices"
REPLAY_SUFFIX = "_replay"
ARCHIVE = "archive"
"""Internal: the rows of every batch as judged, on their way to the archive's folder."""

_MAX_MESSAGE = ("max.message.bytes", str(17 * 1024 * 1024))
_FOREVER = "-1"


@dataclass(frozen=True)
class TopicSpec:
    """A topic as we create it."""

    name: str
    partitions: int
    replication: int
    config: tuple[tuple[str, str], ...]


def alerts_topic(survey: str) -> str:
    """Where every alert of a survey is published once."""
    return ALERTS + survey


def replay_topic(survey: str) -> str:
    """Where `broker replay` puts a survey's packets unless told otherwise."""
    return survey + REPLAY_SUFFIX


def filter_topic(owner: str, name: str) -> str:
    """Where the hits of one filter go."""
    return f"{FILTERS}{owner}.{name}"


def input_spec(name: str, settings: TopicSettings) -> TopicSpec:
    """An input topic (replayed or mirrored packets)."""
    return _kept(name, settings.partitions, settings)


def filter_spec(owner: str, name: str, settings: TopicSettings) -> TopicSpec:
    """A filter's own topic: one partition, so that a subscriber sees one order."""
    return _kept(filter_topic(owner, name), 1, settings)


def core_specs(surveys: tuple[str, ...], settings: TopicSettings) -> list[TopicSpec]:
    """Every topic a run needs before its first batch, the built-in filters' own excepted."""
    ledger = TopicSpec(LEDGER, 1, settings.replication, (("retention.ms", _FOREVER),))
    control = TopicSpec(CONTROL, 1, settings.replication, (("cleanup.policy", "compact"), _MAX_MESSAGE))
    return [
        *(input_spec(replay_topic(survey), settings) for survey in surveys),
        *(_kept(alerts_topic(survey), settings.partitions, settings) for survey in surveys),
        TopicSpec(DEAD_LETTERS, 1, settings.replication, (("retention.ms", _FOREVER), _MAX_MESSAGE)),
        control,
        ledger,
        _kept(NOTICES, 1, settings),
        TopicSpec(ANNOTATIONS, settings.partitions, settings.replication, (("retention.ms", _FOREVER),)),
    ]


def archive_spec(settings: TopicSettings) -> TopicSpec:
    """The topic that the archive is written from."""
    return _kept(ARCHIVE, settings.partitions, settings)


def _kept(name: str, partitions: int, settings: TopicSettings) -> TopicSpec:
    retention = str(int(settings.retention_days * 86_400_000))
    return TopicSpec(name, partitions, settings.replication, (("retention.ms", retention), _MAX_MESSAGE))
