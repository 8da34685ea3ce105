"""One settings tree: defaults < `broker.toml` < `BROKER_*` environment < flags.

A setting `section.name` is `[section] name = ...` in the file and `BROKER_SECTION_NAME` in the environment.
Any librdkafka setting passes through as `kafka.<its.name>`: `[kafka] "security.protocol" = "SASL_SSL"`, or
`BROKER_KAFKA_SECURITY_PROTOCOL=SASL_SSL`.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from broker.errors import SettingsError

FILE_NAME = "broker.toml"
ENV_PREFIX = "BROKER_"
MAX_RADIUS_ARCSEC = 5.0
"""An object of another survey further than this is another one."""
_NOT_SETTINGS = {
    "BROKER_DATA_DIR",
    "BROKER_CONFIG",
    "BROKER_TEST_KAFKA",
    "BROKER_TEST_REDIS",
    "BROKER_TEST_DATA",
}
"""Environment variables that are read elsewhere and are no settings."""


def _setting(default: Any, doc: str) -> Any:
    return field(default=default, metadata={"doc": doc})


@dataclass(frozen=True)
class KafkaSettings:
    """Where our cluster is."""

    bootstrap_servers: str = _setting("", "host:port,... of our Kafka; empty = the embedded one")
    options: tuple[tuple[str, str], ...] = ()
    """librdkafka settings passed through, as (name, value)."""


@dataclass(frozen=True)
class RedisSettings:
    """Where the light-curve cache is."""

    url: str = _setting("", "redis://... of Redis or Valkey; empty = the embedded one")


@dataclass(frozen=True)
class RegistrySettings:
    """Where the schemas are that alerts name by an id we do not know."""

    url: str = _setting(
        "", "https://user:password@host of the survey's schema registry; empty = only the schemas we ship"
    )


@dataclass(frozen=True)
class RunSettings:
    """The pipeline."""

    group: str = _setting(
        "broker", "consumer group; its committed offsets are the pipeline's place in the input"
    )
    workers: int = _setting(1, "worker processes")
    topics: tuple[str, ...] = _setting(
        ("^ztf_[0-9]{8}_programid1$", "^lsst-alerts-v.*$", "^[a-z0-9]+_replay$"),
        "input topics; a name starting with ^ is a pattern (librdkafka: [0-9], never \\d)",
    )
    batch_min: int = _setting(500, "alerts a transaction takes when the backlog is small")
    batch_max: int = _setting(4000, "alerts a transaction takes at most")
    batch_max_mib: int = _setting(256, "message bytes a transaction takes at most [MiB]")
    poll_ms: int = _setting(100, "how long a worker waits for more messages before it works on what it has")
    model: str = _setting("", "folder of a model bundle; empty = the one shipped with the package")
    shadow_share: float = _setting(
        0.1, "share of the batches, 0 to 1, that a shadow model scores too, once they are committed"
    )
    stamps: str = _setting(
        "",
        "score ZTF's images (stamp_score): 'shipped', or the folder of a network; empty = not looked at",
    )
    gated_share: float = _setting(
        0.1, "share of a batch whose expensive features (period, fits) are computed anew; at least 20 alerts"
    )
    reevaluate_max: int = _setting(
        100_000, "objects that are judged again at most when another model is promoted"
    )
    batch_limit_s: float = _setting(
        60.0, "a worker that judges one batch for longer is ended and replaced [s]; 0 = no limit"
    )
    worker_memory_mib: int = _setting(
        0, "memory a worker may take [MiB]; 0 = its share of four fifths of the machine's"
    )
    publish_private: bool = _setting(False, "let proprietary data (ZTF programmes 2 and 3) out into topics")


@dataclass(frozen=True)
class HistorySettings:
    """Light curves and dedupe claims in Redis."""

    ttl_days: float = _setting(400.0, "light curves not touched for this long are dropped")
    max_points: int = _setting(20000, "points kept an object; the oldest are dropped beyond")
    claim_days: float = _setting(90.0, "an alert seen again within this time is a duplicate")
    other_survey_arcsec: float = _setting(
        1.5, "an object of another survey this near is taken for the same, up to 5; 0 = none is looked for"
    )


@dataclass(frozen=True)
class FilterSettings:
    """Budgets of filters that have none of their own; the built-in filters have no limit."""

    max_hits_per_hour: int = _setting(
        100_000, "hits that a filter may have in an hour before it is sampled or paused; 0 = any number"
    )
    max_us_per_alert: float = _setting(
        200.0, "time that a filter's functions may take before it is paused [us an alert]; 0 = any"
    )


@dataclass(frozen=True)
class TopicSettings:
    """Topics we create."""

    partitions: int = _setting(4, "partitions of new input and alert topics")
    replication: int = _setting(1, "replication factor of new topics")
    retention_days: float = _setting(7.0, "how long input, alert and filter topics keep their records")


@dataclass(frozen=True)
class MetricsSettings:
    """The pipeline's metrics endpoint."""

    host: str = _setting("127.0.0.1", "address the pipeline's /metrics listens on")
    port: int = _setting(9464, "its port; 0 = any free one")


@dataclass(frozen=True)
class ApiSettings:
    """The HTTP API of `broker serve`."""

    host: str = _setting("127.0.0.1", "address the API listens on")
    port: int = _setting(8642, "its port; 0 = any free one")
    hosts: tuple[str, ...] = _setting(
        (), "Host names the API answers to besides loopback's; empty = any, if it listens on another address"
    )
    url: str = _setting("", "address others reach the API by, where it is not http://host:port")
    similar_objects: int = _setting(
        1_000_000, "objects kept for the search for similar ones, 0.6 kB each; 0 = no such search"
    )


@dataclass(frozen=True)
class ContextSettings:
    """What alerts are matched with."""

    folder: str = _setting(
        "", "folder of catalogues, the same on every machine; empty = beside the embedded servers' data"
    )


@dataclass(frozen=True)
class ArchiveSettings:
    """The archive: every published row as the filters judged it, in Parquet files."""

    folder: str = _setting("", "folder of the archive, which `broker run` writes; empty = none is kept")
    write: bool = _setting(True, "let `broker run` write the folder; else `broker archive write` does")
    flush_s: float = _setting(300.0, "how old the rows may become that are not in a file yet [s]")
    flush_mib: int = _setting(128, "how many bytes of such rows are kept in memory [MiB]")


@dataclass(frozen=True)
class Settings:
    """The whole tree, and where each value came from."""

    kafka: KafkaSettings = field(default_factory=KafkaSettings)
    redis: RedisSettings = field(default_factory=RedisSettings)
    registry: RegistrySettings = field(default_factory=RegistrySettings)
    run: RunSettings = field(default_factory=RunSettings)
    history: HistorySettings = field(default_factory=HistorySettings)
    filters: FilterSettings = field(default_factory=FilterSettings)
    topics: TopicSettings = field(default_factory=TopicSettings)
    metrics: MetricsSettings = field(default_factory=MetricsSettings)
    api: ApiSettings = field(default_factory=ApiSettings)
    context: ContextSettings = field(default_factory=ContextSettings)
    archive: ArchiveSettings = field(default_factory=ArchiveSettings)
    origins: tuple[tuple[str, str], ...] = ()
    """(setting, where it came from) of every setting that is not at its default."""


_SECTIONS: dict[str, type] = {
    "kafka": KafkaSettings,
    "redis": RedisSettings,
    "registry": RegistrySettings,
    "run": RunSettings,
    "history": HistorySettings,
    "filters": FilterSettings,
    "topics": TopicSettings,
    "metrics": MetricsSettings,
    "api": ApiSettings,
    "context": ContextSettings,
    "archive": ArchiveSettings,
}


def known_settings() -> dict[str, Field[Any]]:
    """Every setting by its dotted name."""
    return {
        f"{section}.{item.name}": item
        for section, kind in _SECTIONS.items()
        for item in fields(kind)
        if item.name != "options"
    }


def load(
    flags: Mapping[str, Any] | None = None,
    *,
    env: Mapping[str, str] | None = None,
    path: Path | None = None,
) -> Settings:
    """Effective settings. A flag that is None was not given.

    path : the settings file; None = BROKER_CONFIG, else broker.toml in the working directory, if there.
    Raises SettingsError for an unknown setting, a wrong type or an unreadable file.
    """
    environment = os.environ if env is None else env
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    given = {name: value for name, value in (flags or {}).items() if value is not None}
    layers = [*_file_layer(path, environment), ("environment", _env_layer(environment)), ("flag", given)]
    for origin, layer in layers:
        for name, value in layer.items():
            values[name] = _checked(name, value, origin)
            origins[name] = origin
    settings = _build(values, tuple(sorted(origins.items())))
    _check_patterns(settings.run.topics)
    _check_radius(settings.history.other_survey_arcsec)
    _check_address("registry.url", settings.registry.url)
    return settings


def describe(settings: Settings) -> list[tuple[str, str, str, str]]:
    """(name, value, where it came from, what it is) of every setting, secrets masked."""
    origins = dict(settings.origins)
    rows = [
        (
            name,
            mask(name, getattr(getattr(settings, section), item)),
            origins.get(name, "default"),
            meta.metadata["doc"],
        )
        for name, meta in known_settings().items()
        for section, item in [name.split(".")]
    ]
    return rows + [
        (f"kafka.{name}", mask(name, value), origins.get(f"kafka.{name}", "default"), "passed to librdkafka")
        for name, value in settings.kafka.options
    ]


def mask(name: str, value: object) -> str:
    """A setting's value as shown to people: no password, key or secret."""
    if re.search(r"password|secret|\bkey\b|token|jaas", name):
        return "***"
    text = ", ".join(value) if isinstance(value, tuple) else str(value)
    parts = urlsplit(text) if "://" in text else None
    if parts is not None and parts.password:
        return urlunsplit(parts._replace(netloc=parts.netloc.replace(f":{parts.password}@", ":***@")))
    return text


def _file_layer(path: Path | None, env: Mapping[str, str]) -> list[tuple[str, dict[str, Any]]]:
    chosen = path or Path(env.get("BROKER_CONFIG", FILE_NAME))
    if not chosen.exists():
        if path is None and "BROKER_CONFIG" not in env:
            return []
        raise SettingsError(f"settings file {str(chosen)!r} does not exist")
    try:
        tree = tomllib.loads(chosen.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{chosen}: not a TOML file: {error}") from error
    return [(str(chosen), _flatten(tree, str(chosen)))]


def _flatten(tree: Mapping[str, Any], where: str) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for section, values in tree.items():
        if not isinstance(values, dict):
            raise SettingsError(f"{where}: {section!r} must be a section, as in [{section}]")
        flat.update({f"{section}.{name}": value for name, value in _leaves(values)})
    return flat


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Dotted leaves: TOML reads an unquoted security.protocol as a nested table."""
    leaves: list[tuple[str, Any]] = []
    for name, value in tree.items():
        leaves += _leaves(value, f"{prefix}{name}.") if isinstance(value, dict) else [(prefix + name, value)]
    return leaves


def _env_layer(env: Mapping[str, str]) -> dict[str, str]:
    by_env = {ENV_PREFIX + name.replace(".", "_").upper(): name for name in known_settings()}
    layer: dict[str, str] = {}
    for variable, value in env.items():
        if not variable.startswith(ENV_PREFIX) or variable in _NOT_SETTINGS:
            continue
        passed = variable.removeprefix(ENV_PREFIX + "KAFKA_")
        if variable in by_env:
            layer[by_env[variable]] = value
        elif passed != variable:
            layer["kafka." + passed.lower().replace("_", ".")] = value
        else:
            raise SettingsError(_unknown(variable, list(by_env), "the environment"))
    return layer


def _checked(name: str, value: Any, origin: str) -> Any:
    known = known_settings()
    if name in known:
        return _converted(name, value, known[name].default, origin)
    section, _, option = name.partition(".")
    if section == "kafka" and "." in option:
        return str(value).lower() if isinstance(value, bool) else str(value)
    raise SettingsError(_unknown(name, list(known), origin))


def _converted(name: str, value: Any, default: Any, origin: str) -> Any:
    try:
        if isinstance(default, bool):
            return _as_bool(value)
        if isinstance(default, tuple):
            return (
                tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else tuple(value)
            )
        if isinstance(default, (int, float)):
            return type(default)(value)
        return str(value)
    except (TypeError, ValueError):
        wanted = type(default).__name__
        raise SettingsError(f"{name} = {value!r} (from {origin}) is not of type {wanted}") from None


def _as_bool(value: Any) -> bool:
    words = {
        "true": True,
        "1": True,
        "yes": True,
        "on": True,
        "false": False,
        "0": False,
        "no": False,
        "off": False,
    }
    if str(value).lower() not in words:
        raise ValueError(value)
    return words[str(value).lower()]


def _unknown(name: str, known: list[str], origin: str) -> str:
    close = difflib.get_close_matches(name, known, 1)
    hint = f"; did you mean {close[0]!r}?" if close else "; `broker config` lists them all"
    return f"unknown setting {name!r} in {origin}{hint}"


def _build(values: Mapping[str, Any], origins: tuple[tuple[str, str], ...]) -> Settings:
    sections: dict[str, Any] = {}
    for section, kind in _SECTIONS.items():
        names = {item.name for item in fields(kind)}
        own = {
            name.partition(".")[2]: value for name, value in values.items() if name.startswith(section + ".")
        }
        known = {name: value for name, value in own.items() if name in names}
        if section == "kafka":
            known["options"] = tuple(
                sorted((name, value) for name, value in own.items() if name not in names)
            )
        sections[section] = kind(**known)
    return Settings(origins=origins, **sections)


def _check_patterns(topics: tuple[str, ...]) -> None:
    for topic in topics:
        if topic.startswith("^") and "\\d" in topic:
            raise SettingsError(
                f"run.topics: {topic!r} uses \\d, which librdkafka never matches; write [0-9]"
            )


def _check_radius(arcsec: float) -> None:
    if not 0.0 <= arcsec <= MAX_RADIUS_ARCSEC:
        raise SettingsError(
            f"history.other_survey_arcsec = {arcsec:g} is not in 0..{MAX_RADIUS_ARCSEC:g}; 0 looks for none"
        )


def _check_address(name: str, url: str) -> None:
    """Refuse an HTTP address that could never answer; its text may hold a password and is not shown."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if url and not good:
        raise SettingsError(f"{name} is no address such as http://host:8081 or https://user:password@host")
