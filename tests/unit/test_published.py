"""How an alert is found among millions without decoding them."""

from __future__ import annotations

import io
import json

import fastavro
import pytest

from broker.errors import BrokerError
from broker.publish.records import alert_start, frame
from broker.published import RecordDecoder, _backwards

SCHEMA = (
    '{"type":"record","name":"Alert","fields":[{"name":"kind","type":"string"},'
    '{"name":"cause","type":["null","string"],"default":null},{"name":"diaSourceId","type":"long"},'
    '{"name":"objectName","type":"string"}]}'
)


def encoded(number: int, kind: str = "alert", cause: str | None = None) -> bytes:
    out = io.BytesIO()
    record = {"kind": kind, "cause": cause, "diaSourceId": number, "objectName": "x"}
    fastavro.schemaless_writer(out, fastavro.parse_schema(json.loads(SCHEMA)), record)
    return out.getvalue()


@pytest.mark.parametrize("number", [0, 1, -1, 63, 64, -64, -65, 2**31, 2**53 + 1, 2**63 - 1, -(2**63)])
def test_the_beginning_of_an_alert_tells_its_id(number: int) -> None:
    assert encoded(number).startswith(alert_start(number))
    assert not encoded(number, "retraction", "gone").startswith(alert_start(number))
    assert not encoded(number // 2 + 7).startswith(alert_start(number))


def test_only_the_wanted_fields_are_decoded() -> None:
    decoder = RecordDecoder({5: SCHEMA}, ("diaSourceId",))
    assert decoder.record(frame(5) + encoded(12)) == {"diaSourceId": 12}
    with pytest.raises(BrokerError, match="schema 6 was never announced"):
        decoder.record(frame(6) + encoded(12))
    for foreign in (b"", b"bare"):
        with pytest.raises(BrokerError, match="not framed as our records are"):
            decoder.record(foreign)


def test_a_search_goes_backwards_over_everything_once() -> None:
    held = {("alerts.ztf", 0): (1_000, 900_000), ("alerts.ztf", 1): (0, 10), ("alerts.ztf", 2): (5, 5)}
    spans = list(_backwards(held))
    for key, (low, high) in held.items():
        own = [span[key] for span in spans if span[key][0] < span[key][1]]
        assert sum(end - start for start, end in own) == high - low
        assert [end for _, end in own[1:]] == [start for start, _ in own[:-1]]
    assert len(spans) < 6
