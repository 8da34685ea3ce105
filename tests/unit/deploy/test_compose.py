"""docker-compose.yml is legal, sealed, and says what the code and the embedded servers say."""

from __future__ import annotations

import json
import re
import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import typer.main

from broker.cli import app
from broker.config import ENV_PREFIX, Settings, known_settings, load
from broker.embedded import kafka, valkey

BROKER_SERVICES = ("pipeline-1", "pipeline-2", "api")
PIPELINES = ("pipeline-1", "pipeline-2")
KAFKA_PLACE = {"log.dirs", "listener.security.protocol.map"}
"""Kafka settings that say where a server is, not how it behaves."""
KAFKA_RECOVERY = {"broker.session.timeout.ms", "broker.heartbeat.interval.ms"}
"""Kafka settings that go with the embedded server's way of starting after a crash, which the image lacks."""
READ_ELSEWHERE = {"BROKER_DATA_DIR"}
"""Environment variables that are no settings: broker.embedded.data_dir reads this one."""


def environment(services: dict[str, Any], name: str) -> dict[str, str]:
    """Variables of one service that are the broker's."""
    return {key: value for key, value in services[name]["environment"].items() if key.startswith(ENV_PREFIX)}


def settings_of(services: dict[str, Any], name: str) -> Settings:
    """The settings a service's container comes to."""
    return load(env=environment(services, name))


def source_of(volume: str) -> str:
    """What is mounted: a named volume, or a path that starts with a dot."""
    return volume.partition(":")[0]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a developer's broker.toml is not part of the deployment


def test_it_follows_the_compose_specification(compose: dict[str, Any]) -> None:
    folder = files("check_jsonschema") / "builtin_schemas" / "vendor"
    schema = json.loads((folder / "compose-spec.json").read_text(encoding="utf-8"))
    jsonschema.validators.validator_for(schema)(schema).validate(compose)


def test_the_schema_is_the_one_that_refuses(compose: dict[str, Any]) -> None:
    folder = files("check_jsonschema") / "builtin_schemas" / "vendor"
    schema = json.loads((folder / "compose-spec.json").read_text(encoding="utf-8"))
    with pytest.raises(jsonschema.ValidationError, match="helthcheck"):
        jsonschema.validate({"services": {"kafka": {"helthcheck": {}}}}, schema)


def test_every_image_is_pinned_to_a_full_version(services: dict[str, Any]) -> None:
    for name, service in services.items():
        assert re.search(r":v?[0-9]+\.[0-9]+\.[0-9]+$", service["image"]), name


def test_our_image_carries_our_version(services: dict[str, Any], root: Path) -> None:
    version = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    for name in BROKER_SERVICES:
        assert services[name]["image"] == f"transient-broker:{version}"
        assert (root / services[name]["build"]["dockerfile"]).is_file()


def test_every_service_is_sealed_checked_and_restarted(services: dict[str, Any]) -> None:
    for name, service in services.items():
        assert service["user"].split(":")[0] not in ("", "0", "root"), name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["restart"] == "unless-stopped", name
        assert not service.get("privileged"), name
        check = service["healthcheck"]
        assert check["test"][0] in ("CMD", "CMD-SHELL"), name
        assert {"interval", "timeout", "retries", "start_period"} <= check.keys(), name


def test_ports_are_published_on_loopback_only(services: dict[str, Any]) -> None:
    published = [port for service in services.values() for port in service.get("ports", [])]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_volumes_are_declared_and_paths_exist(
    compose: dict[str, Any], services: dict[str, Any], root: Path
) -> None:
    mounted = {source_of(volume) for service in services.values() for volume in service.get("volumes", [])}
    paths = {source for source in mounted if source.startswith(".")}
    assert mounted - paths == compose["volumes"].keys()
    assert all((root / path).exists() for path in paths)


def test_workers_wait_for_servers_that_are_healthy(services: dict[str, Any]) -> None:
    for name in BROKER_SERVICES:
        wanted = {server: how["condition"] for server, how in services[name]["depends_on"].items()}
        assert wanted == {"kafka": "service_healthy", "valkey": "service_healthy"}


@pytest.mark.parametrize("name", BROKER_SERVICES)
def test_the_command_line_parses_it(services: dict[str, Any], name: str) -> None:
    group: Any = typer.main.get_command(app)
    context = group.make_context("broker", list(services[name]["command"]))
    verb, command, rest = group.resolve_command(context, [*context._protected_args, *context.args])
    assert verb == ("serve" if name == "api" else "run")
    command.make_context(verb, rest, parent=context)


@pytest.mark.parametrize("name", BROKER_SERVICES)
def test_every_variable_is_a_setting(services: dict[str, Any], name: str) -> None:
    known = {ENV_PREFIX + setting.replace(".", "_").upper() for setting in known_settings()}
    assert environment(services, name).keys() <= known | READ_ELSEWHERE
    assert settings_of(services, name).kafka.options == ()


@pytest.mark.parametrize("name", BROKER_SERVICES)
def test_addresses_are_those_of_the_servers(services: dict[str, Any], name: str) -> None:
    settings = settings_of(services, name)
    advertised = services["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"].split(",")
    assert f"PLAINTEXT://{settings.kafka.bootstrap_servers}" in advertised
    assert settings.redis.url == f"redis://valkey:{services['valkey']['expose'][0]}/0"


def test_kafka_advertises_the_port_it_publishes(services: dict[str, Any]) -> None:
    listeners = services["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"].split(",")
    host_side = services["kafka"]["ports"][0].split(":")[1]
    assert f"HOST://localhost:{host_side}" in listeners


def test_each_pipeline_has_its_own_fixed_host_and_volume(services: dict[str, Any]) -> None:
    assert [services[name]["hostname"] for name in PIPELINES] == list(PIPELINES)
    sources = [source_of(services[name]["volumes"][0]) for name in PIPELINES]
    assert len(set(sources)) == len(PIPELINES)
    for name in PIPELINES:
        folder = services[name]["environment"]["BROKER_DATA_DIR"]
        assert services[name]["volumes"][0].endswith(":" + folder)


def test_health_checks_ask_the_ports_that_listen(services: dict[str, Any]) -> None:
    for name in PIPELINES:
        settings = settings_of(services, name).metrics
        assert settings.host == "0.0.0.0"
        assert f"127.0.0.1:{settings.port}/metrics" in services[name]["healthcheck"]["test"][-1]
    api = settings_of(services, "api").api
    assert api.host == "0.0.0.0"
    assert f"127.0.0.1:{api.port}/ready" in services["api"]["healthcheck"]["test"][-1]
    assert services["api"]["ports"] == [f"127.0.0.1:{api.port}:{api.port}"]
    assert api.url == f"http://localhost:{api.port}"


def variable_of(setting: str) -> str:
    """The variable by which Kafka's image is given a setting."""
    return "KAFKA_" + setting.upper().replace(".", "_")


@pytest.mark.parametrize("name", sorted(kafka._SETTINGS.keys() - KAFKA_PLACE - KAFKA_RECOVERY))
def test_kafka_behaves_as_the_embedded_one(services: dict[str, Any], name: str) -> None:
    assert services["kafka"]["environment"][variable_of(name)] == kafka._SETTINGS[name]


def test_kafka_comes_back_by_itself_after_a_crash(services: dict[str, Any]) -> None:
    # With the embedded server's ten-minute session it exits instead: its old self still counts as alive.
    assert not {variable_of(name) for name in KAFKA_RECOVERY} & services["kafka"]["environment"].keys()


@pytest.mark.parametrize("name", ["save", "appendonly", "appendfsync", "maxmemory-policy"])
def test_valkey_behaves_as_the_embedded_one(services: dict[str, Any], name: str) -> None:
    lines = [line.partition(" ") for line in valkey._SETTINGS.splitlines()]
    embedded = {option: value.strip('"') for option, _, value in lines}
    command = services["valkey"]["command"]
    assert command[command.index(f"--{name}") + 1] == embedded[name]
