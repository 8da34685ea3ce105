"""What comes in, what goes out, and what could not be read."""

from __future__ import annotations

from dataclasses import dataclass, field

Headers = tuple[tuple[str, bytes], ...]

MAX_INPUT_BYTES = 16 * 1024 * 1024
"""The largest message that is read as alerts; a larger one is a dead letter without its body."""
MAX_RECORDS = 2_000
"""Records of one message, and blocks of its container: surveys send one."""


@dataclass(frozen=True, slots=True)
class Message:
    """One Kafka record (or one file) as it was delivered; `value` is never changed.

    timestamp_ms is the record's Kafka timestamp: the moment at which we can first have known its content.
    """

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    value: bytes
    key: bytes | None = None
    headers: Headers = ()


@dataclass(frozen=True, slots=True)
class Reject:
    """A message, or one record in it, that could not be turned into an alert, and why.

    message : index of the message in its batch
    index   : which record of that message (0 for a message that could not be opened at all)
    reason  : one word from REASONS, what metrics and the ledger count by
    detail  : what was wrong, for a person
    """

    message: int
    index: int
    reason: str
    stage: str
    detail: str
    schema_id: int = 0
    record: bytes | None = None
    """The record's own bytes where a message holds several; None when the whole message is the letter."""


REASONS = (
    "empty",
    "bad_container",
    "bad_wire_format",
    "unknown_schema",
    "undecodable",
    "unsupported_schema",
    "invalid_alert",
    "too_large",
    "duplicate_changed",
    "private_programme",
    "invalid_annotation",
    "internal_error",
    "quarantined",
    "unreadable_claim",
)
"""Every reason for which a dead letter can be written.

internal_error   : judging it failed in a way that nobody foresaw; the detail has the traceback
quarantined      : judging it, alone, ended or held up the process each time
unreadable_claim : the store's note of who was first with this id is damaged, so it may be out already
"""


@dataclass(frozen=True, slots=True)
class Packet:
    """One Kafka record to be produced."""

    topic: str
    key: bytes | None
    value: bytes
    headers: Headers = field(default=())
