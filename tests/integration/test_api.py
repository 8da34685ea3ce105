"""The API on a real server, Kafka and Valkey; the registry as Confluent's own client uses it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.schema_registry.error import SchemaRegistryError
from confluent_kafka.serialization import MessageField, SerializationContext

from broker import control
from broker.api import serving
from broker.config import Settings, load
from broker.control.topic import ControlWriter
from broker.data.schema_ids import canonical, schema_id
from broker.embedded import Addresses
from broker.kafka.clients import admin, create_topics, reader, writer
from broker.kafka.topics import TopicSpec
from broker.publish.packets import encode_record
from broker.publish.records import LEDGER_SCHEMA

LEDGER_TEXT = canonical(LEDGER_SCHEMA)
LEDGER_ID = schema_id(LEDGER_TEXT)
RECORD: dict[str, Any] = {
    "slot": "g.host.0",
    "worker": "host:1",
    "epoch": 7,
    "committedAt": 1_700_000_000_000,
    "partitions": [{"topic": "ztf_replay", "partition": 0, "before": 0, "after": 5, "expired": 0}],
    "counts": [{"survey": "ztf", "outcome": "in", "reason": "", "count": 5}],
    "hits": [{"filter": "ann.bright@1", "alerts": 2, "updates": 1, "retractions": 0}],
    "outputs": [{"topic": "alerts.ztf", "kind": "alert", "records": 5}],
}


@pytest.fixture(scope="module")
def own(servers: Addresses) -> Settings:
    """Settings on the session's servers, any free port and a group of their own."""
    flags = {"kafka.bootstrap_servers": servers.bootstrap_servers, "redis.url": servers.redis_url}
    flags |= {"api.port": "0", "run.group": f"g-{uuid.uuid4().hex}"}
    return load(flags, env={})


@pytest.fixture(scope="module")
def url(own: Settings) -> Iterator[str]:
    """Address of a running API that is ready, the ledger's schema announced."""
    with serving(own) as address:
        deadline = time.monotonic() + 30
        while httpx.get(f"{address}/ready").status_code != 200:
            assert time.monotonic() < deadline, httpx.get(f"{address}/ready").text
            time.sleep(0.05)
        ControlWriter(own.kafka).write(*control.schema_record(LEDGER_ID, LEDGER_TEXT))
        yield address


@pytest.fixture
def registry(url: str) -> Iterator[SchemaRegistryClient]:
    with SchemaRegistryClient({"url": url}) as client:
        yield client


@pytest.fixture
def owner(url: str) -> Iterator[str]:
    """An owner that no other test has; removed at the end, so that no worker judges by its filters."""
    owner = f"t-{uuid.uuid4().hex[:10]}"
    yield owner
    for item in httpx.get(f"{url}/api/v1/filters").json():
        if item["owner"] == owner:
            httpx.delete(f"{url}/api/v1/filters/{owner}/{item['name']}").raise_for_status()


def test_the_confluent_deserializer_reads_our_messages(own: Settings, registry: SchemaRegistryClient) -> None:
    topic = f"framed-{uuid.uuid4().hex}"
    create_topics(admin(own.kafka), [TopicSpec(topic, 1, 1, ())])
    producer = writer(own.kafka)
    producer.produce(topic, encode_record(LEDGER_SCHEMA, RECORD))
    assert producer.flush(20) == 0
    consumer = reader(own.kafka)
    consumer.assign([TopicPartition(topic, 0, 0)])
    message = consumer.poll(20)
    consumer.close()
    assert message is not None
    assert message.error() is None
    read = AvroDeserializer(registry)(message.value(), SerializationContext(topic, MessageField.VALUE))
    assert read == RECORD


def test_the_confluent_client_finds_subjects_versions_and_schemas(registry: SchemaRegistryClient) -> None:
    assert "ledger-value" in registry.get_subjects()
    latest = registry.get_latest_version("ledger-value")
    assert latest.version == registry.get_versions("ledger-value")[-1]
    text = registry.get_schema(LEDGER_ID).schema_str
    assert text == LEDGER_TEXT
    found = registry.lookup_schema("ledger-value", Schema(json.dumps(LEDGER_SCHEMA, indent=1), "AVRO"))
    assert found.schema_id == LEDGER_ID
    same = registry.get_version("ledger-value", found.version)
    assert same.schema_id == LEDGER_ID


def test_what_the_confluent_client_is_refused(registry: SchemaRegistryClient) -> None:
    def code(call: Any, *arguments: Any) -> tuple[int, int]:
        with pytest.raises(SchemaRegistryError) as refused:
            call(*arguments)
        return refused.value.http_status_code, refused.value.error_code

    assert code(registry.get_schema, 1) == (404, 40403)
    assert code(registry.get_latest_version, "nothing-value") == (404, 40401)
    assert code(registry.get_version, "ledger-value", 9999) == (404, 40402)
    assert code(registry.lookup_schema, "ledger-value", Schema('"string"', "AVRO")) == (404, 40403)
    assert code(registry.register_schema, "ledger-value", Schema('"string"', "AVRO")) == (405, 42205)
    assert code(registry.delete_subject, "ledger-value") == (405, 42205)


def test_a_schema_that_is_announced_while_it_is_asked_for_is_found(own: Settings, url: str) -> None:
    text = canonical({"type": "record", "name": f"Late{uuid.uuid4().hex}", "fields": []})
    identifier = schema_id(text)
    announcer = ControlWriter(own.kafka)
    announcer.write(*control.schema_record(LEDGER_ID, LEDGER_TEXT))  # a producer's first record is slow
    later = threading.Timer(0.1, announcer.write, control.schema_record(identifier, text))
    later.start()
    answer = httpx.get(f"{url}/schemas/ids/{identifier}")
    later.join()
    assert (answer.status_code, answer.json()) == (200, {"schema": text})


def test_a_filter_from_its_making_to_its_end(url: str, owner: str) -> None:
    filters = f"{url}/api/v1/filters"
    new = {"name": "bright", "owner": owner, "where": "mag < 18", "payload": "standard"}
    made = httpx.post(filters, json=new)
    assert made.status_code == 201
    assert made.headers["location"] == f"/api/v1/filters/{owner}/bright"
    assert made.json()["filter"]["topic"] == f"filters.{owner}.bright"
    assert httpx.post(filters, json=new).status_code == 200
    assert httpx.post(filters, json=new | {"where": "mag < 17"}).json()["filter"]["version"] == 2

    one = httpx.get(f"{filters}/{owner}/bright").json()
    assert (one["version"], one["where"], one["versions"]) == (2, "mag < 17", [1, 2])
    assert httpx.get(f"{filters}/{owner}/bright?version=1").json()["where"] == "mag < 18"
    assert httpx.get(f"{filters}/{owner}/bright?version=9").status_code == 404

    draft = httpx.post(
        filters, json={"name": "bright", "owner": owner, "where": "mag < 16", "state": "draft"}
    )
    assert (draft.status_code, draft.json()["filter"]["version"]) == (201, 3)
    assert httpx.get(f"{filters}/{owner}/bright").json()["version"] == 2
    assert (
        httpx.patch(f"{filters}/{owner}/bright@2", json={"state": "paused"}).json()["filter"]["state"]
        == "paused"
    )
    assert httpx.patch(f"{filters}/{owner}/bright", json={"state": "active"}).status_code == 422
    assert (
        httpx.patch(f"{filters}/{owner}/bright@3", json={"state": "active"}).json()["filter"]["state"]
        == "active"
    )
    budget = {"maxHitsPerHour": 7, "onExcess": "sample", "select": "mag, plugin('none') as p"}
    back = httpx.post(filters, json={"name": "bright", "owner": owner, "from": "bright@1"} | budget).json()
    assert back["warnings"] == ["the plug-in 'none' is not installed where the API runs"]
    back = back["filter"]
    assert (back["maxHitsPerHour"], back["onExcess"], back["sample"]) == (7, "sample", 1.0)
    assert (back["version"], back["where"], back["changedBy"]) == (4, "mag < 18", "api")
    known = httpx.get(f"{filters}/{owner}/bright/versions").json()
    assert [item["inForce"] for item in known] == [False, False, False, True]
    assert httpx.get(f"{filters}/{owner}/bright@1").json()["where"] == "mag < 18"

    assert httpx.delete(f"{filters}/{owner}/bright").json()["filter"]["state"] == "removed"
    assert httpx.delete(f"{filters}/{owner}/bright").status_code == 404
    assert owner not in {item["owner"] for item in httpx.get(filters).json()}
    assert owner in {item["owner"] for item in httpx.get(f"{filters}?removed=true").json()}


def test_a_wrong_filter_says_what_and_where_and_leaves_nothing(url: str, owner: str) -> None:
    where = "mag < 19 and psf_flx > 3"
    answer = httpx.post(f"{url}/api/v1/filters", json={"name": "wrong", "owner": owner, "where": where})
    assert answer.status_code == 422
    assert (answer.json()["position"], answer.json()["where"]) == (13, where)
    assert httpx.get(f"{url}/api/v1/filters/{owner}/wrong").status_code == 404


def test_metrics_count_requests_filters_and_workers(url: str, owner: str) -> None:
    httpx.post(f"{url}/api/v1/filters", json={"name": "counted", "owner": owner, "where": "mag < 18"})
    text = httpx.get(f"{url}/metrics").text
    assert 'broker_api_requests_total{method="POST",route="/api/v1/filters",status="201"}' in text
    assert 'broker_filters{state="active"}' in text
    assert "broker_live_workers 0.0" in text


def test_ready_tells_that_redis_is_gone(own: Settings) -> None:
    away = replace(own, redis=replace(own.redis, url="redis://127.0.0.1:1/0"))
    with serving(away) as address:
        deadline = time.monotonic() + 30
        while set(missing := httpx.get(f"{address}/ready").json()["missing"]) != {"redis"}:
            assert time.monotonic() < deadline, missing
            time.sleep(0.05)
        assert httpx.get(f"{address}/health").status_code == 200


def test_the_verb_serves_until_it_is_told_to_stop(own: Settings) -> None:
    addresses = ["--kafka", own.kafka.bootstrap_servers, "--redis", own.redis.url]
    command = [sys.executable, "-m", "broker", "serve", "--port", "0", *addresses]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ}) as process:
        try:
            assert process.stderr is not None
            line = process.stderr.readline()
            assert line.startswith("API on http://127.0.0.1:"), line
            address = line.split()[2].rstrip(";")
            assert httpx.get(f"{address}/health", timeout=20).status_code == 200
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
        finally:
            process.kill()


def test_models_are_listed_and_an_unknown_one_is_not_found(url: str) -> None:
    assert httpx.get(f"{url}/api/v1/models").json().keys() == {
        "live", "shadows", "known", "workers", "note",
    }  # fmt: skip
    answer = httpx.get(f"{url}/api/v1/models/no/such")
    assert (answer.status_code, "no:such" in answer.json()["error"]) == (404, True)
