"""From a record's bytes to what it says, whichever of our topics it is from."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from broker.config import KafkaSettings
from broker.control.topic import ControlTail
from broker.errors import BrokerError
from broker.kafka.topics import ANNOTATIONS, CONTROL, DEAD_LETTERS
from broker.message import Message
from broker.publish.records import NAMESPACE, NOTICE_SCHEMA
from broker.surveys.avro import LocalSchemas, SchemaSource, open_message

_ASK_AGAIN_S = 5.0
_ANSWER_S = 10.0
_NOTICE_FIELDS = {field["name"] for field in NOTICE_SCHEMA["fields"]}
_LETTER_TEXTS = ("reason", "stage", "detail", "sha256")


@dataclass(frozen=True, slots=True)
class Received:
    """A record as it came and what it says.

    value : of our own topics the Avro record (or the dead letter, or the control record); of an input topic
            {"records": [...]}, one entry an alert;  bytes are bytes, and a number that is missing is None
    """

    message: Message
    value: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Undecodable:
    """A record that could not be read, and why; its bytes are in `message`."""

    message: Message
    why: str


class ControlSchemas:
    """Schemas by id: those announced in the control topic, and Rubin's that are part of this package.

    An id that nobody knows is looked up anew, at most every few seconds: a schema is announced before its
    first use.
    """

    def __init__(self, kafka: KafkaSettings) -> None:
        self._kafka = kafka
        self._tail: ControlTail | None = None
        self._local = LocalSchemas()
        self._asked: dict[int, float] = {}

    def get(self, schema_id: int) -> str | None:
        """The schema's JSON text, None when nobody knows the id."""
        return self._announced(schema_id) or self._local.get(schema_id) or self._look_again(schema_id)

    def close(self) -> None:
        """Stop following the control topic."""
        if self._tail is not None:
            self._tail.close()

    def _announced(self, schema_id: int) -> str | None:
        return None if self._tail is None else self._tail.state.schemas.get(schema_id)

    def _look_again(self, schema_id: int) -> str | None:
        now = time.monotonic()
        if now - self._asked.get(schema_id, -_ASK_AGAIN_S) < _ASK_AGAIN_S:
            return None
        self._asked[schema_id] = now
        try:
            self._tail = self._tail or ControlTail(self._kafka)
            self._tail.catch_up(_ANSWER_S)
        except BrokerError:
            return (
                None  # without a control topic nothing is announced: the record is undecodable, and said so
            )
        return self._announced(schema_id)


def decode(message: Message, schemas: SchemaSource) -> Received | Undecodable:
    """What a record says; never raises for bad data."""
    try:
        if message.topic == DEAD_LETTERS:
            return Received(message, _dead_letter(message))
        if message.topic == ANNOTATIONS:
            return Received(message, _annotation(message))
        if message.topic == CONTROL:
            return Received(message, _control(message))
    except (ValueError, KeyError) as error:
        return Undecodable(message, f"not a record of {message.topic}: {type(error).__name__}: {error}")
    opened = open_message(message.value, schemas)
    if opened.fault is not None:
        return Undecodable(message, f"{opened.fault.reason}: {opened.fault.detail}")
    first = opened.records[0]
    if first.schema.name.startswith(NAMESPACE + "."):
        return Received(message, first.values)
    return Received(message, {"records": [record.values for record in opened.records]})


def is_notice(value: Mapping[str, Any]) -> bool:
    """Whether a decoded record of ours is a notice: it has no alert, but a text."""
    return value.keys() == _NOTICE_FIELDS


def _control(message: Message) -> dict[str, Any]:
    return {"record": (message.key or b"").decode(), "content": json.loads(message.value)}


def _annotation(message: Message) -> dict[str, Any]:
    content = json.loads(message.value)
    if not isinstance(content, dict):
        raise ValueError("an annotation is a JSON object")
    return content


def _dead_letter(message: Message) -> dict[str, Any]:
    """The headers as fields, and the letter's bytes as `value` (empty if they were too many to keep)."""
    headers = dict(message.headers)
    letter: dict[str, Any] = {name: headers.pop(name).decode() for name in _LETTER_TEXTS}
    return letter | {
        "schemaId": int(headers.pop("schema-id")),
        "source": json.loads(headers.pop("source")),
        "sourceTimestamp": int(headers.pop("source-timestamp")),
        "size": int(headers.pop("size")),
        "key": as_text(message.key),
        "headers": {name: as_text(value) for name, value in headers.items()},
        "value": message.value,
    }


def as_text(data: bytes | None) -> str | None:
    """Bytes that are usually text (keys, headers); what is no UTF-8 shows as escapes."""
    return None if data is None else data.decode(errors="backslashreplace")
