"""The ledger added up, and records of its first version read by the schema they were written with."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import fastavro
import pytest

from broker.config import KafkaSettings
from broker.data.schema_ids import canonical, schema_id
from broker.errors import BrokerError
from broker.monitoring.account import FIRST_LEDGER_SCHEMA, NOWHERE, Account, LedgerDecoder, Ranges
from broker.publish.packets import encode_record
from broker.publish.records import LEDGER_SCHEMA, frame

FIRST = (Path(__file__).parent / "first_ledger_schema.json").read_text().strip()
"""The text that was announced in `control` for the ledger's first records."""
KAFKA = KafkaSettings(bootstrap_servers="127.0.0.1:1")


def old_record(**fields: Any) -> dict[str, Any]:
    record = {"slot": "s", "worker": "w", "epoch": 3, "committedAt": 1000, "partitions": [], "counts": []}
    return record | fields


def counts(**numbers: int) -> list[dict[str, Any]]:
    return [{"survey": "ztf", "outcome": name, "reason": "", "count": n} for name, n in numbers.items()]


def part(before: int, after: int) -> dict[str, Any]:
    return {"topic": "in", "partition": 0, "before": before, "after": after, "expired": 0}


def hits(label: str, alerts: int) -> dict[str, Any]:
    return {"filter": label, "alerts": alerts, "updates": 1, "retractions": 0}


def test_the_first_schema_is_known_by_the_text_that_was_announced() -> None:
    assert canonical(FIRST_LEDGER_SCHEMA) == FIRST
    assert schema_id(FIRST) == 1056829534


def test_an_old_record_is_read_by_its_own_schema_and_has_no_hits() -> None:
    out = io.BytesIO(frame(schema_id(FIRST)))
    out.seek(0, io.SEEK_END)
    fastavro.schemaless_writer(out, fastavro.parse_schema(json.loads(FIRST)), old_record())
    read = LedgerDecoder(KAFKA).record(out.getvalue())
    assert read == old_record(hits=None, outputs=[])


def test_an_old_reader_reads_new_records() -> None:
    new = encode_record(LEDGER_SCHEMA, old_record(hits=[hits("a.b@1", 3)], outputs=[]))
    read: Any = fastavro.schemaless_reader(
        io.BytesIO(new[5:]), fastavro.parse_schema(LEDGER_SCHEMA), fastavro.parse_schema(json.loads(FIRST))
    )
    assert read == old_record()


@pytest.mark.parametrize("value", [b"", b"{}", frame(schema_id(FIRST)) + b"\xff\xff", b"\x00\x00"])
def test_bytes_that_are_no_record_are_told(value: bytes) -> None:
    with pytest.raises(BrokerError):
        LedgerDecoder(KAFKA).record(value)


def test_hits_and_records_add_up_and_old_records_count_their_letters_by_rejections() -> None:
    account = Account(KAFKA, 1, lambda _: 0.0)
    account.add(old_record(hits=None, outputs=[], counts=counts(**{"in": 5, "published": 3, "rejected": 2})))
    output = {"topic": "dead-letters", "kind": "", "records": 1}
    for _ in range(2):
        account.add(old_record(hits=[hits("a.b@1", 3)], outputs=[output], counts=counts(published=4)))
    total = account.totals
    assert (total.transactions, total.unrecorded) == (3, 1)
    assert total.hits == {("a.b@1", "alert"): 6, ("a.b@1", "update"): 2}
    assert total.outputs[("dead-letters", "")] == 4
    assert total.published == {"ztf": 11}
    assert [account.recorded(number) for number in range(3)] == [False, True, True]


def test_what_a_topic_holds_no_more_is_not_added_up() -> None:
    since = {"filters.a.b": 2000.0, "alerts.ztf": 1500.0}
    account = Account(KAFKA, 1, lambda topic: since.get(topic, 0.0))
    for at_ms in (1000, 1700, 2000):
        record = old_record(hits=[hits("a.b@1", 3), hits("a.c@2", 1)], outputs=[], counts=counts(published=4))
        account.add(record | {"committedAt": at_ms})
    assert account.totals.hits[("a.b@1", "alert")] == 3
    assert account.totals.hits[("a.c@2", "alert")] == 3
    assert account.totals.published == {"ztf": 8}
    assert account.totals.of("published") == 12


def test_an_offset_belongs_to_the_record_that_covers_it() -> None:
    account = Account(KAFKA, 1, lambda _: 0.0)
    for before, after in ((10, 20), (0, 10), (25, 30)):
        account.add(old_record(hits=[], outputs=[], partitions=[part(before, after)]))
    found = [account.number("in", 0, offset) for offset in (0, 9, 10, 19, 20, 24, 25, 29, 30)]
    assert found == [1, 1, 0, 0, NOWHERE, NOWHERE, 2, 2, NOWHERE]
    assert account.number("in", 1, 0) == account.number("other", 0, 0) == NOWHERE


def test_ranges_are_by_offset_whenever_they_are_asked() -> None:
    ranges = Ranges()
    ranges.add(5, 9, 0)
    assert ranges.number(6) == 0
    ranges.add(0, 5, 1)
    assert ranges.spans() == [(0, 5), (5, 9)]
    assert (ranges.number(4), ranges.number(5)) == (1, 0)
