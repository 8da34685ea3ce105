"""Dead letters and notices can be made of anything, and Kafka takes them."""

from __future__ import annotations

import io
from typing import Any

import fastavro
from hypothesis import given
from hypothesis import strategies as st

from broker.kafka.clients import MAX_OUTPUT_BYTES
from broker.message import MAX_INPUT_BYTES, Message, Reject
from broker.publish.packets import MAX_DETAIL, MAX_KEPT_BYTES, dead_letter, notice
from broker.publish.records import FRAME_BYTES, NOTICE_SCHEMA

TEXT = st.text(st.characters(), max_size=40) | st.sampled_from(["\ud83d", "\x00", "\ud83d" * 3000])
BYTES = st.binary(max_size=60)


def size_of(packet: Any) -> int:
    headers = sum(len(name.encode()) + len(value) + 8 for name, value in packet.headers)
    return len(packet.value) + len(packet.key or b"") + headers


@given(
    value=BYTES, key=st.none() | BYTES, headers=st.lists(st.tuples(TEXT, BYTES), max_size=5), detail=TEXT,
    reason=TEXT, at=st.integers(-(2**63), 2**63 - 1),
)  # fmt: skip
def test_a_dead_letter_can_be_made_of_any_message(
    value: bytes, key: bytes | None, headers: list[tuple[str, bytes]], detail: str, reason: str, at: int
) -> None:
    message = Message("t", 0, 5, at, value, key, tuple(headers))
    letter = dead_letter(message, Reject(0, 0, reason, "stage", detail))
    assert (letter.value, letter.key) == (value, key)
    for name, content in letter.headers:
        assert name.encode()
        assert isinstance(content, bytes)
    originals = [item for item in letter.headers if item[0].startswith("original-")]
    assert [content for _, content in originals] == [content for _, content in headers]


def test_a_letter_fits_into_kafka_whatever_its_message_brings() -> None:
    huge = (("x" * 10_000, bytes(MAX_INPUT_BYTES)), ("y", b""))
    message = Message("t", 0, 5, 0, bytes(MAX_INPUT_BYTES), bytes(MAX_INPUT_BYTES), huge)
    letter = dead_letter(message, Reject(0, 0, "empty", "stage", "\U0001f52d" * 10_000))
    assert size_of(letter) < MAX_OUTPUT_BYTES
    said = dict(letter.headers)
    assert said["original-key-size"] == b"%d" % MAX_INPUT_BYTES
    assert int(said["original-headers-size"]) > MAX_INPUT_BYTES
    assert len(said["detail"].decode()) == MAX_DETAIL
    many = Message("t", 0, 5, 0, b"", None, (("", b""),) * MAX_KEPT_BYTES)
    assert len(dead_letter(many, Reject(0, 0, "empty", "stage", "")).headers) < 20


@given(owner=TEXT, subject=TEXT, text=TEXT)
def test_a_notice_can_be_made_of_any_text(owner: str, subject: str, text: str) -> None:
    packet = notice(owner, subject, "kind", text)
    record: Any = fastavro.schemaless_reader(
        io.BytesIO(packet.value[FRAME_BYTES:]), fastavro.parse_schema(NOTICE_SCHEMA), None
    )
    assert record["text"] == text.encode("utf-8", "backslashreplace").decode()
