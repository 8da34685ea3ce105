"""Text that nobody after us could hold is refused at the door, on every route."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient

from broker.api import create_app
from broker.api.app import ROUTERS
from broker.config import load
from tests.unit.api.test_app import NOWHERE

JSON = {"Content-Type": "application/json"}
ROUTES = sorted(
    {
        (method, route.path)
        for router in ROUTERS
        for route in router.routes
        if isinstance(route, APIRoute)
        for method in route.methods or ()
    }
)


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    app = create_app(load(NOWHERE, env={}))
    yield TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False)
    app.state.context.redis.close()


BAD = {
    "half a pair": rb'{"name": "a", "where": "x", "description": "\ud83d"}',
    "the other half": rb'{"name": "\udc80", "where": "x"}',
    "as a key": rb'{"name": "a", "\udc80": 1}',
    "in a list": rb'{"name": ["\ud800"]}',
    "raw half a pair": b'{"name": "\xed\xa0\x80"}',
    "not UTF-8": b'{"name": "\xff"}',
    "Latin-1": b'{"name": "\xd6pik"}',
    "NUL": rb'{"name": "a\u0000b"}',
    "escape": rb'{"name": "\u001b[2J"}',
    "not a number": b'{"name": NaN}',
    "without end": b'{"name": 1e999}',
    "many digits": b'{"name": ' + b"9" * 5000 + b"}",
    "above 64 bits": b'{"name": 1' + b"0" * 30 + b"}",
    "brackets": b"[" * 100_000,
    "braces": b'{"a":' * 100_000,
    "deep": b"[" * 500 + b"]" * 500,
    "no JSON": b"{",
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize(("method", "path"), [it for it in ROUTES if it[0] in ("POST", "PUT", "PATCH")])
def test_a_body_that_cannot_be_held_is_422(client: TestClient, method: str, path: str, name: str) -> None:
    answer = client.request(method, path.replace("{", "").replace("}", ""), content=BAD[name], headers=JSON)
    assert answer.status_code == 422
    said: dict[str, Any] = answer.json()
    assert "body" in said.get("error", said.get("message", ""))


@pytest.mark.parametrize("text", ["%ED%A0%80", "%FF", "a%00b", "%1b", "%C0%80", "%F5%80%80%80"])
@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_so_is_a_path_or_a_query(client: TestClient, method: str, path: str, text: str) -> None:
    plain = path.replace("{", "").replace("}", "")
    addresses = [f"{plain}?q={text}", f"{plain}?{text}=1"]
    if "{" in path:
        addresses.append(path[: path.index("{")] + text)
    for address in addresses:
        answer = client.request(method, address, content=b"{}", headers=JSON)
        assert answer.status_code == 422, address
        json.dumps(answer.json())


def test_letters_of_every_kind_pass(client: TestClient) -> None:
    body = {"name": "Öpik 天 \U0001f52d", "where": "mag < 19\n\tand snr > 5", "description": "e\u0301"}
    answer = client.post("/api/v1/filters?x=%C3%96+%F0%9F%94%AD", json=body)
    assert answer.status_code == 422
    assert "Öpik" in answer.json()["error"], "for the name, by the route"


def test_a_body_larger_than_its_length_says_is_cut_off(client: TestClient) -> None:
    def parts() -> Iterator[bytes]:
        yield b'{"name": "'
        for _ in range(40):
            yield b"a" * 100_000

    answer = client.post("/api/v1/filters", content=parts(), headers=JSON)
    assert answer.status_code == 413
