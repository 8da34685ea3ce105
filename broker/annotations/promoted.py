"""A new model, and the objects that the one before scored a short while ago: they are judged again."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from broker.annotations.record import BROKER, Annotation
from broker.annotations.send import send
from broker.assemble import survey_names
from broker.config import Settings
from broker.model_store import SHIPPED, Promoted, read
from broker.promotion import ALL
from broker.published import alert_keys

_S_PER_DAY = 86400.0


@dataclass(frozen=True)
class Asked:
    """How many objects are judged again, of how many that had alerts."""

    asked: int
    objects: int


def ask_again(
    settings: Settings, done: Promoted, days: float, advance: Callable[[int], None] = lambda _: None
) -> Asked:
    """Ask the workers to score again the objects of which alerts were published in the last days.

    done : what was promoted or rolled back;  advance : told how many alerts were read or objects asked for
    Of more objects than run.reevaluate_max those with the newest alerts are taken. Raises BrokerError.
    """
    since_ms = int((time.time() - days * _S_PER_DAY) * 1000)
    seen: dict[tuple[str, bytes], int] = {}
    for survey in _surveys(settings, done.promotion.group):
        for key, at_ms in alert_keys(settings.kafka, survey, since_ms):
            seen[survey, key] = max(at_ms, seen.get((survey, key), 0))
            advance(1)
    newest = sorted(seen, key=lambda name: (-seen[name], name))[: settings.run.reevaluate_max]
    return Asked(send(settings, _requests(newest, done), advance), len(seen))


def _requests(objects: list[tuple[str, bytes]], done: Promoted) -> Iterator[Annotation]:
    cause = f"model {done.promotion.bundle or SHIPPED}"
    for survey, key in objects:
        name = hashlib.sha256(b"%b/%b/%d" % (key, cause.encode(), done.epoch)).hexdigest()[:16]
        yield Annotation(name, survey, key.decode(), "reevaluate", BROKER, text=cause, scores_only=True)


def _surveys(settings: Settings, group: str) -> list[str]:
    """The surveys that a change for a group concerns: of all, those that have no promotion of their own."""
    if group != ALL:
        return [group]
    live = read(settings).live_promotions()
    own = {name for name, item in live.items() if item.bundle is not None}
    return [survey for survey in survey_names() if survey not in own]
