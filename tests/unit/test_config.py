from __future__ import annotations

from pathlib import Path

import pytest

from broker import config
from broker.errors import SettingsError


def write(folder: Path, text: str) -> Path:
    path = folder / "broker.toml"
    path.write_text(text)
    return path


def test_later_layers_win_and_are_named(tmp_path: Path) -> None:
    path = write(tmp_path, '[run]\nworkers = 2\nbatch_min = 10\ngroup = "file"\n')
    env = {"BROKER_RUN_WORKERS": "3", "BROKER_RUN_GROUP": "env"}
    settings = config.load({"run.workers": 4, "run.model": None}, env=env, path=path)
    assert (settings.run.workers, settings.run.group, settings.run.batch_min) == (4, "env", 10)
    origins = dict(settings.origins)
    assert origins["run.workers"] == "flag"
    assert origins["run.group"] == "environment"
    assert origins["run.batch_min"] == str(path)
    assert "run.model" not in origins


def test_librdkafka_settings_pass_through_from_file_and_environment(tmp_path: Path) -> None:
    path = write(tmp_path, '[kafka]\nsecurity.protocol = "SASL_SSL"\n"socket.nagle.disable" = true\n')
    settings = config.load(env={"BROKER_KAFKA_SASL_PASSWORD": "hush"}, path=path)
    assert dict(settings.kafka.options) == {
        "security.protocol": "SASL_SSL",
        "socket.nagle.disable": "true",
        "sasl.password": "hush",
    }
    shown = {name: value for name, value, _, _ in config.describe(settings)}
    assert shown["kafka.sasl.password"] == "***"
    assert shown["kafka.security.protocol"] == "SASL_SSL"


@pytest.mark.parametrize(
    "url", ["ftp://host", "host:8081", "http://", "http://host:port", "http://u:hush@/x"]
)
def test_a_registry_that_is_no_address_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(SettingsError, match=r"registry.url is no address") as refused:
        config.load({"registry.url": url}, env={})
    assert "hush" not in str(refused.value)


def test_a_registrys_address_may_have_a_user_a_port_and_a_path() -> None:
    for url in ("", "http://host:8081", "https://user:password@host/registry", "http://[::1]:8081"):
        assert config.load({"registry.url": url}, env={}).registry.url == url
    assert config.mask("registry.url", "https://me:hush@host:1/x") == "https://me:***@host:1/x"


def test_passwords_in_addresses_are_masked() -> None:
    assert config.mask("redis.url", "redis://user:hush@host:6379/0") == "redis://user:***@host:6379/0"


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("[run]\nworker = 2", "did you mean 'run.workers'"),
        ("[run]\nworkers = 'many'", "is not of type int"),
        ("workers = 2", "must be a section"),
        ("[run", "not a TOML file"),
        ("[run]\ntopics = ['^ztf_\\\\d+$']", "[0-9]"),
    ],
)
def test_a_wrong_file_is_refused_with_what_and_where(tmp_path: Path, text: str, hint: str) -> None:
    with pytest.raises(SettingsError) as refused:
        config.load(env={}, path=write(tmp_path, text))
    assert hint in str(refused.value)


def test_a_wrong_variable_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="BROKER_RUN_WORKERS"):
        config.load(env={"BROKER_RUN_WORKER": "2"})
    with pytest.raises(SettingsError, match="does not exist"):
        config.load(env={}, path=tmp_path / "absent.toml")


def test_every_setting_has_a_line_of_documentation() -> None:
    assert all(item.metadata["doc"] for item in config.known_settings().values())
