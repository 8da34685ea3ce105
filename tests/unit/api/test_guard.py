"""Who may talk to the API, and in which form."""

from __future__ import annotations

import pytest

from broker.api.guard import allowed_hosts, host_name, is_json
from broker.config import ApiSettings


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("localhost:8642", "localhost"),
        ("127.0.0.1", "127.0.0.1"),
        ("[::1]:8642", "::1"),
        ("::1", "::1"),
        ("Broker.Example.ORG:80", "broker.example.org"),
        ("", ""),
        ("[", ""),
    ],
)
def test_the_name_in_a_host_header(header: str, name: str) -> None:
    assert host_name(header) == name


@pytest.mark.parametrize(
    ("content_type", "json"),
    [
        ("application/json", True),
        ("Application/JSON; charset=utf-8", True),
        ("application/vnd.schemaregistry.v1+json", True),
        ("text/plain", False),
        ("text/plain+json", False),
        ("application/x-www-form-urlencoded", False),
        ("multipart/form-data; boundary=application/json", False),
        ("", False),
    ],
)
def test_only_types_that_a_page_cannot_send_unasked_are_json(content_type: str, json: bool) -> None:
    assert is_json(content_type) is json


def test_on_loopback_only_its_names_and_the_configured_one_are_ours() -> None:
    assert allowed_hosts(ApiSettings()) == {"localhost", "127.0.0.1", "::1"}
    assert "alerts.example.org" in allowed_hosts(ApiSettings(url="https://alerts.example.org/broker"))


def test_on_another_address_any_name_will_do() -> None:
    assert allowed_hosts(ApiSettings(host="0.0.0.0")) == frozenset()


def test_named_hosts_are_enforced_on_any_address() -> None:
    named = allowed_hosts(ApiSettings(host="0.0.0.0", hosts=("api",), url="http://alerts.example.org:8642"))
    assert named == {"localhost", "127.0.0.1", "::1", "api", "alerts.example.org"}
