"""Schemas from a registry: a real HTTP server that knows, denies, fails, hangs up or is down."""

from __future__ import annotations

import base64
import json
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from contextlib import suppress
from threading import Thread

import pytest

from broker.errors import RetryBatch
from broker.message import Message
from broker.schemas import lsst_schema
from broker.surveys import registry
from broker.surveys.avro import LocalSchemas
from broker.surveys.catalog import Decoded, decode
from broker.surveys.registry import RegistrySchemas, first_unreadable, schema_source
from tests.registry_server import Registry
from tests.unit.surveys.samples import few_lsst, messages

USUAL_ID = int.from_bytes(few_lsst()[0][1:5], "big")
LSST = json.dumps(lsst_schema(USUAL_ID))
KNOWN_ID, UNKNOWN_ID = 90_001, 90_002


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def start() -> Iterator[Callable[..., Registry]]:
    """Starts servers, and stops those that still run at the end."""
    started: list[Registry] = []

    def make(port: int = 0) -> Registry:
        started.append(Registry({KNOWN_ID: LSST}, port))
        return started[-1]

    yield make
    for one in started:
        one.stop()


def renamed(schema_id: int) -> list[bytes]:
    """Two alerts under another schema id between two of the usual id."""
    usual = few_lsst()
    others = [b"\x00" + schema_id.to_bytes(4, "big") + value[5:] for value in usual[1:3]]
    return [usual[0], *others, usual[3]]


def read(values: list[bytes], url: str) -> Decoded:
    return decode(messages(values), schema_source(url))


def until_answered(schemas: RegistrySchemas, schema_id: int) -> str | None:
    """The answer to a question that is under way or due."""
    for _ in range(3000):
        try:
            return schemas.get(schema_id)
        except RetryBatch:
            time.sleep(0.01)
    raise AssertionError("no answer")


def test_an_id_that_only_the_registry_knows_is_decoded(start: Callable[..., Registry]) -> None:
    server = start()
    decoded = read(renamed(KNOWN_ID), server.url)
    assert decoded.rejects == []
    (batch,) = decoded.batches
    ours = decode(messages(renamed(USUAL_ID)), LocalSchemas()).batches[0]
    assert batch.dia_source_id.tolist() == ours.dia_source_id.tolist()
    assert batch.psf_flux.tolist() == ours.psf_flux.tolist()
    assert [path for path, _ in server.asked] == [f"/schemas/ids/{KNOWN_ID}"], "once for both messages"


def test_what_the_package_holds_is_not_asked_for(start: Callable[..., Registry]) -> None:
    server = start()
    assert read(few_lsst(), server.url).rejects == []
    assert server.asked == []


def test_an_id_that_the_registry_denies_is_a_reject_and_harms_no_neighbour(
    start: Callable[..., Registry],
) -> None:
    decoded = read(renamed(UNKNOWN_ID), start().url)
    assert [(r.message, r.reason, r.schema_id) for r in decoded.rejects] == [
        (1, "unknown_schema", UNKNOWN_ID),
        (2, "unknown_schema", UNKNOWN_ID),
    ]
    assert [len(batch) for batch in decoded.batches] == [2]


def test_a_denied_id_is_asked_for_again_after_a_minute(start: Callable[..., Registry]) -> None:
    server, now = start(), [1000.0]
    schemas = RegistrySchemas(server.url, LocalSchemas(), clock=lambda: now[0])
    assert schemas.get(UNKNOWN_ID) is None
    server.say(UNKNOWN_ID, 200, json.dumps({"schema": LSST}).encode())
    now[0] += 59.0
    assert schemas.get(UNKNOWN_ID) is None
    assert len(server.asked) == 1
    now[0] += 2.0
    assert schemas.get(UNKNOWN_ID) == LSST


def test_random_ids_do_not_fill_the_memory(
    start: Callable[..., Registry], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "_MOST_DENIED", 3)
    server = start()
    schemas = RegistrySchemas(server.url, LocalSchemas(), clock=lambda: 0.0)
    for schema_id in [50_000, 50_001, 50_002, 50_003, 50_003, 50_000]:
        assert schemas.get(schema_id) is None
    assert len(server.asked) == 5


@pytest.mark.parametrize("schema_id", [0, -1, -(2**31)])
def test_an_id_that_can_be_none_is_not_asked_for(start: Callable[..., Registry], schema_id: int) -> None:
    server = start()
    assert schema_source(server.url).get(schema_id) is None
    assert server.asked == []


def test_while_the_registry_is_down_the_batch_waits_and_then_nothing_is_missing(
    start: Callable[..., Registry],
) -> None:
    first, now = start(), [0.0]
    first.stop()
    schemas = RegistrySchemas(first.url, LocalSchemas(), clock=lambda: now[0])
    for _ in range(2):
        with pytest.raises(RetryBatch, match="cannot be reached"):
            decode(messages(renamed(KNOWN_ID)), schemas)
    second = start(first.port)
    now[0] += 1.0
    until_answered(schemas, KNOWN_ID)
    decoded = decode(messages(renamed(KNOWN_ID)), schemas)
    assert decoded.rejects == []
    assert len(decoded.batches[0]) == 4
    second.stop()
    assert decode(messages(renamed(KNOWN_ID)), schemas).rejects == [], "what was fetched needs no registry"


@pytest.mark.parametrize("code", [401, 403, 429, 500, 503])
def test_a_registry_that_fails_is_not_one_that_denies(start: Callable[..., Registry], code: int) -> None:
    server = start()
    server.say(KNOWN_ID, code, b"{}")
    with pytest.raises(RetryBatch, match=str(code)):
        read(renamed(KNOWN_ID), server.url)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'"schema"', b"\xff"])
def test_an_answer_that_is_no_schema_is_not_trusted(start: Callable[..., Registry], body: bytes) -> None:
    server = start()
    server.say(KNOWN_ID, 200, body)
    with pytest.raises(RetryBatch, match="does not answer as a schema registry does"):
        read(renamed(KNOWN_ID), server.url)


def test_a_registry_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_ANSWER_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(RetryBatch, match="timed out"):
        read(renamed(KNOWN_ID), f"http://127.0.0.1:{silent.getsockname()[1]}")


def test_a_registry_that_hangs_up_does_not_deny() -> None:
    def hang_up(server: socket.socket) -> None:
        server.accept()[0].close()

    with socket.create_server(("127.0.0.1", 0)) as rude:
        rude.settimeout(30.0)
        thread = Thread(target=hang_up, args=(rude,))
        thread.start()
        with pytest.raises(RetryBatch, match="cannot be reached"):
            read(renamed(KNOWN_ID), f"http://127.0.0.1:{rude.getsockname()[1]}")
        thread.join()


@pytest.mark.parametrize(
    "text",
    ['{"type": "record"', '{"type": "int"}', 'syntax = "proto3";'],
    ids=["cut", "no record", "protobuf"],
)
def test_a_schema_that_cannot_be_used_is_a_reject(start: Callable[..., Registry], text: str) -> None:
    server = start()
    server.say(KNOWN_ID, 200, json.dumps({"schema": text}).encode())
    decoded = read(renamed(KNOWN_ID), server.url)
    assert [reject.reason for reject in decoded.rejects] == ["unsupported_schema"] * 2
    assert len(decoded.batches[0]) == 2


def test_a_registry_that_is_down_is_asked_with_growing_pauses(start: Callable[..., Registry]) -> None:
    server, now = start(), [0.0]
    server.say(KNOWN_ID, 503, b"")
    schemas = RegistrySchemas(server.url, LocalSchemas(), clock=lambda: now[0])
    pauses, last = [], 0.0
    while len(server.asked) < 9:
        before = len(server.asked)
        with pytest.raises(RetryBatch):
            schemas.get(KNOWN_ID)
        settle(schemas)
        if len(server.asked) > before:
            pauses.append(now[0] - last)
            last = now[0]
        now[0] += 0.25
    assert pauses == [0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 15.0, 15.0]


def settle(schemas: RegistrySchemas) -> None:
    """Wait for what is being asked, and take note of the answer."""
    for schema_id, question in list(schemas._questions.items()):
        if question.answer is not None:
            wait([question.answer])
            with suppress(RetryBatch):
                schemas.get(schema_id)


def test_a_registry_that_is_slow_with_one_id_keeps_nobody(
    start: Callable[..., Registry], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "_PATIENCE_S", 0.01)
    server = start()
    server.patience.clear()
    schemas = RegistrySchemas(server.url, LocalSchemas())
    for schema_id in (KNOWN_ID, UNKNOWN_ID):
        with pytest.raises(RetryBatch, match=f"not yet answered for id {schema_id}"):
            schemas.get(schema_id)
    assert first_unreadable(messages(few_lsst()), schemas) == {}
    server.patience.set()
    assert until_answered(schemas, KNOWN_ID) == LSST
    assert until_answered(schemas, UNKNOWN_ID) is None
    assert len(server.asked) == 2


def test_an_id_that_nobody_asks_for_any_more_makes_no_other_wait(start: Callable[..., Registry]) -> None:
    server, now = start(), [0.0]
    server.say(KNOWN_ID, 503, b"")
    schemas = RegistrySchemas(server.url, LocalSchemas(), clock=lambda: now[0])
    with pytest.raises(RetryBatch, match="503"):
        schemas.get(KNOWN_ID)
    server.patience.clear()
    with pytest.raises(RetryBatch, match="not yet answered"):
        schemas.get(UNKNOWN_ID)
    server.patience.set()
    now[0] += 60.0
    settle(schemas)
    assert schemas.get(UNKNOWN_ID + 1) is None, "its answer is waited for"


def test_the_first_unreadable_message_of_each_partition_is_found(start: Callable[..., Registry]) -> None:
    server = start()
    server.stop()
    usual = few_lsst()[0]
    other, another = (b"\x00" + number.to_bytes(4, "big") + usual[5:] for number in (KNOWN_ID, UNKNOWN_ID))
    strange = [
        b"",
        b"\x00\x00",
        b"Obj\x01",
        b"\x00" + bytes(4),
        b"\x00\xff\xff\xff\xff",
        other + bytes(1 << 24),
    ]
    values = {0: [usual, *strange, other, usual, another], 1: [another, other], 2: [usual, *strange]}
    found = first_unreadable(
        [
            Message("t", part, offset, 0, value)
            for part, them in values.items()
            for offset, value in enumerate(them)
        ],
        schema_source(server.url),
    )
    assert {key: (item.offset, item.schema_id) for key, item in found.items()} == {
        ("t", 0): (7, KNOWN_ID),
        ("t", 1): (0, UNKNOWN_ID),
    }
    assert "cannot be reached" in found["t", 0].why


def test_user_and_password_go_to_the_registry_and_nowhere_else(start: Callable[..., Registry]) -> None:
    server, elsewhere = start(), start()
    address = server.url.replace("//", "//me:p%40ss@") + "/"
    assert schema_source(address).get(KNOWN_ID) == LSST
    expected = "Basic " + base64.b64encode(b"me:p@ss").decode()
    assert server.asked == [(f"/schemas/ids/{KNOWN_ID}", expected)]
    server.redirect = elsewhere.url
    assert schema_source(address).get(KNOWN_ID) == LSST
    assert elsewhere.asked == [(f"/schemas/ids/{KNOWN_ID}", None)]


def test_no_complaint_shows_the_password(start: Callable[..., Registry]) -> None:
    server = start()
    server.stop()
    with pytest.raises(RetryBatch) as raised:
        schema_source(server.url.replace("//", "//me:hush@")).get(KNOWN_ID)
    assert "hush" not in str(raised.value)


def test_without_a_registry_only_the_package_is_asked() -> None:
    assert isinstance(schema_source(""), LocalSchemas)
