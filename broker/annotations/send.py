"""Saying something of an object: checked, named, and written to the `annotations` topic.

What is said again while it is the newest of its kind is not written. Otherwise an annotation without an id
gets one made of what it says and of the one before it, so that a call that is repeated, because its answer
was lost, counts once, and a class that is given, changed and given again counts each time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import redis
from confluent_kafka import KafkaError, KafkaException

from broker.annotations.kept import Kept, kept
from broker.annotations.record import Annotation, from_json, history_key
from broker.assemble import survey_names
from broker.config import KafkaSettings, Settings
from broker.control.lock import redis_client
from broker.errors import AnnotationError, BrokerError
from broker.history.pack import annotation_key
from broker.kafka.delivery import RecordProducer
from broker.kafka.topics import ANNOTATIONS
from broker.message import Packet
from broker.text import fault_of_text, parts_of

_ANSWER_S = 25.0
_QUEUE = 10_000


@dataclass(frozen=True)
class Told:
    """What saying something came to.  written : False if it was the newest of its kind already."""

    annotation: Annotation
    written: bool

    def to_json(self) -> dict[str, Any]:
        """As the API and `--json` show it."""
        return {"annotation": self.annotation.to_json(), "written": self.written}


def checked(content: Mapping[str, Any]) -> Annotation:
    """An annotation as a person gives it.  Raises AnnotationError."""
    for part, _ in parts_of(dict(content)):
        if isinstance(part, str) and (fault := fault_of_text(part)):
            raise AnnotationError(f"the text has {fault}")
    made = from_json(content)
    if made.survey not in survey_names():
        raise AnnotationError(f"no survey {made.survey!r}; choose one of {', '.join(survey_names())}")
    if made.kind == "reevaluate":
        raise AnnotationError("re-evaluations are asked for by the broker; say something of the object")
    return made


def tell(settings: Settings, content: Mapping[str, Any]) -> Told:
    """Write an annotation, given as JSON; returns when Kafka has it.

    Raises AnnotationError, or BrokerError if a server does not answer.
    """
    made = checked(content)
    if not content.get("id"):
        before = known_of(settings, made.survey, made.object).of(made.kind)
        if before.get("digest") == made.digest:
            return Told(replace(made, id=str(before["id"])), written=False)
        made = replace(made, id=_following(made.digest, str(before.get("id", ""))))
    made = replace(made, at=made.at or datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"))
    send(settings, [made])
    return Told(made, written=True)


def known_of(settings: Settings, survey: str, name: str) -> Kept:
    """What is kept of an object's annotations.  Raises AnnotationError, or BrokerError."""
    with redis_client(settings) as client:
        try:
            held: Any = client.get(annotation_key(history_key(survey, name)))
        except redis.RedisError as error:
            raise BrokerError(f"Redis does not answer: {error}; is it running?") from error
    return kept(held or b"")


def send(
    settings: Settings, said: Iterable[Annotation], advance: Callable[[int], None] = lambda _: None
) -> int:
    """Write annotations as they are; returns how many, once Kafka has them all.

    advance : told how many more were handed over.  Raises BrokerError if one is refused.
    """
    producer, refused, sent = _producer(settings.kafka), list[str](), 0

    def note(error: KafkaError | None, _: int) -> None:
        if error is not None:
            refused.append(error.str())

    try:
        for item in said:
            while len(producer) > _QUEUE:
                producer.poll(0.1)
            producer.send(Packet(ANNOTATIONS, item.key, item.encode()), note)
            producer.poll(0)
            sent += 1
            advance(1)
        left = producer.flush(_ANSWER_S)
    except KafkaException as error:
        raise BrokerError(f"topic {ANNOTATIONS!r} cannot be written: {error.args[0].str()}") from error
    if left or refused:
        why = refused[0] if refused else f"no acknowledgement within {_ANSWER_S:g} s"
        raise BrokerError(f"topic {ANNOTATIONS!r} did not take all of {sent} records: {why}")
    return sent


@lru_cache(maxsize=4)
def _producer(kafka: KafkaSettings) -> RecordProducer:
    """One producer a process: a new one takes half a second to be ready."""
    return RecordProducer(kafka, **{"linger.ms": 0, "message.timeout.ms": 20000})


def _following(digest: str, before: str) -> str:
    return f"{digest}-{hashlib.sha256(before.encode()).hexdigest()[:8]}"
