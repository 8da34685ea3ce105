"""The API without any server behind it: it lives, says what is missing, and refuses in the right form."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from broker.api import create_app
from broker.api.guard import MAX_BODY_BYTES, MAX_FILE_BYTES
from broker.api.problems import explain
from broker.config import load
from broker.errors import FilterError

NOWHERE = {"kafka.bootstrap_servers": "127.0.0.1:1", "redis.url": "redis://127.0.0.1:1/0"}


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    """A client of an app that does not follow anything: its lifespan is not entered."""
    app = create_app(load(NOWHERE, env={}))
    yield TestClient(app, base_url="http://127.0.0.1")
    app.state.context.redis.close()


def test_alive_is_no_claim_about_servers(client: TestClient) -> None:
    assert client.get("/health").json() == {"status": "alive"}


def test_ready_names_all_that_is_missing(client: TestClient) -> None:
    answer = client.get("/ready")
    assert answer.status_code == 503
    assert answer.json()["missing"].keys() == {"kafka", "redis", "control"}


def test_metrics_work_without_servers_and_label_by_route(client: TestClient) -> None:
    client.get("/api/v1/filters/some/name")
    client.get("/no/such/path")
    text = client.get("/metrics").text
    assert 'route="/api/v1/filters/{owner}/{name}",status="503"' in text
    assert 'route="other",status="404"' in text
    assert "broker_live_workers" not in text


def test_what_needs_the_control_state_is_503_until_it_is_read(client: TestClient) -> None:
    answer = client.get("/api/v1/filters")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    registry = client.get("/schemas/ids/1")
    assert (registry.status_code, registry.json()["error_code"]) == (503, 50301)
    assert registry.headers["content-type"] == "application/vnd.schemaregistry.v1+json"


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"survey": "hst"}, "no survey 'hst'; choose one of ztf"),
        ({"owner": "broker"}, "reserved"),
        ({"owner": "No Name"}, "is not allowed"),
        ({"verdict": "odd"}, "'interesting' or 'boring'"),
        ({"alert": "one"}, "alert"),
        ({"more": 1}, "more"),
    ],
)
def test_a_mark_that_cannot_be_is_refused_before_any_server_is_asked(
    client: TestClient, wrong: dict[str, object], says: str
) -> None:
    mark = {"owner": "alice", "survey": "ztf", "alert": "7", "verdict": "boring"}
    answer = client.post("/api/v1/feedback", json=mark | wrong)
    assert (answer.status_code, says in answer.json()["error"]) == (422, True)


def test_columns_carry_unit_and_meaning(client: TestClient) -> None:
    columns = {item["name"]: item for item in client.get("/api/v1/columns").json()}
    assert columns["psf_flux"]["unit"] == "nJy"
    assert columns["prob_SNIa"]["doc"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/subjects/alerts.ztf-value/versions"),
        ("DELETE", "/subjects/alerts.ztf-value"),
        ("DELETE", "/subjects/alerts.ztf-value/versions/1"),
        ("PUT", "/config"),
        ("PUT", "/mode/alerts.ztf-value"),
    ],
)
def test_the_registry_refuses_writes(client: TestClient, method: str, path: str) -> None:
    answer = client.request(method, path, json={"schema": '"string"'})
    assert (answer.status_code, answer.json()["error_code"]) == (405, 42205)
    assert answer.headers["allow"] == "GET"


@pytest.mark.parametrize(
    ("path", "status"), [("/schemas/ids/one", 422), ("/schemas/nothing", 404), ("/subjects/a/b/c/d", 404)]
)
def test_wrong_requests_to_the_registry_are_answered_in_its_form(
    client: TestClient, path: str, status: int
) -> None:
    answer = client.get(path)
    assert answer.status_code == status
    assert answer.json().keys() == {"error_code", "message"}


def test_the_registry_tells_its_mode(client: TestClient) -> None:
    assert client.get("/mode").json() == {"mode": "READONLY"}
    assert client.get("/config/alerts.ztf-value").json() == {"compatibilityLevel": "NONE"}
    assert client.get("/schemas/types").json() == ["AVRO"]


NEW = {"name": "bright", "where": "mag < 18"}


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({"content": "{}", "headers": {"Content-Type": "text/plain"}}, 415),
        ({"data": NEW}, 415),
        ({"content": "{}"}, 415),
        ({"json": NEW, "headers": {"Host": "evil.example.org"}}, 421),
        ({"json": {"name": "x", "where": "y" * 2_000_000}}, 413),
        ({"content": "{", "headers": {"Content-Type": "application/json"}}, 422),
        ({"json": {"name": "x"}}, 422),
        ({"json": NEW | {"payload": "huge"}}, 422),
        ({"json": NEW | {"state": "paused"}}, 422),
        ({"json": NEW | {"where": 7}}, 422),
    ],
)
def test_posts_that_are_refused_before_any_server_is_asked(
    client: TestClient, options: dict[str, object], status: int
) -> None:
    answer = client.post("/api/v1/filters", **options)  # type: ignore[arg-type]
    assert answer.status_code == status
    assert answer.json()["error"]


def test_a_body_without_a_length_is_bounded_too(client: TestClient) -> None:
    body = iter([b"[" * 600_000] * 3)
    answer = client.post("/api/v1/filters", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in {400, 413}


@pytest.mark.parametrize(
    ("path", "content_type", "length", "status"),
    [
        ("/api/v1/watchlists", "text/csv; charset=utf-8", 2 * MAX_BODY_BYTES, 422),
        ("/api/v1/watchlists", "text/csv", MAX_FILE_BYTES + 1, 413),
        ("/api/v1/watchlists", "text/plain", 9, 415),
        ("/api/v1/watchlists", "application/x-www-form-urlencoded", 9, 415),
        ("/api/v1/watchlists", "", 9, 415),
        ("/api/v1/regions", "application/fits", 2 * MAX_BODY_BYTES, 422),
        ("/api/v1/regions", "application/json", 9, 422),
        ("/api/v1/regions", "text/csv", 9, 415),
        ("/api/v1/filters", "text/csv", 9, 415),
        ("/api/v1/watchlists/x", "text/csv", 9, 415),
    ],
)
def test_files_are_taken_where_they_belong_and_up_to_a_size(
    client: TestClient, path: str, content_type: str, length: int, status: int
) -> None:
    """None of a type that a page in somebody's browser can send without asking; 422 is past the guard."""
    headers = {"Content-Type": content_type, "Content-Length": str(length)}
    answer = client.post(path, params={"name": "x"}, content=b"not a list", headers=headers)
    assert (answer.status_code, bool(answer.json()["error"])) == (status, True)


def test_a_wrong_filter_is_answered_with_what_and_where(client: TestClient) -> None:
    answer = client.post("/api/v1/filters", json={"name": "bright", "where": "psf_flx > 3"})
    assert answer.status_code == 422
    assert answer.json() == {
        "error": "unknown column 'psf_flx' at 0",
        "position": 0,
        "where": "psf_flx > 3",
        "hint": "did you mean 'psf_flux'?",
    }


def test_names_are_checked_and_the_owner_broker_is_reserved(client: TestClient) -> None:
    bad = client.post("/api/v1/filters", json={"name": "No Spaces", "where": "mag < 18"})
    assert (bad.status_code, bad.json()["position"]) == (422, None)
    reserved = client.post("/api/v1/filters", json=NEW | {"owner": "broker"})
    assert reserved.status_code == 409
    assert "reserved" in reserved.json()["error"]


def test_a_store_that_is_away_is_503_and_not_500(client: TestClient) -> None:
    answer = client.post("/api/v1/filters", json=NEW)
    assert answer.status_code == 503
    assert "Redis does not answer" in answer.json()["error"]


def test_unknown_paths_are_named(client: TestClient) -> None:
    answer = client.get("/api/v1/nothing")
    assert (answer.status_code, answer.json()) == (404, {"error": "Not Found: GET /api/v1/nothing"})


def test_a_quoted_semicolon_is_no_hint() -> None:
    error = FilterError("unknown text 'a; b' at 4; write c", 4)
    assert explain(error, "x = 'a; b'") == {
        "error": "unknown text 'a; b' at 4",
        "position": 4,
        "where": "x = 'a; b'",
        "hint": "write c",
    }
