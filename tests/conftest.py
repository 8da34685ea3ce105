"""One Kafka and one Valkey for the whole session, real ones; and where the real alerts are."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from data import shared_data

from broker.config import Settings, load
from broker.embedded import Addresses, owned


def pytest_report_header() -> str:
    """Say which alerts the tests run on."""
    return f"alerts: {'real and simulated' if shared_data() else 'simulated only (no shared data here)'}"


@pytest.fixture(scope="session")
def servers() -> Iterator[Addresses]:
    """Addresses of the session's servers: given by BROKER_TEST_KAFKA and BROKER_TEST_REDIS, else embedded."""
    kafka, redis = os.environ.get("BROKER_TEST_KAFKA"), os.environ.get("BROKER_TEST_REDIS")
    if kafka and redis:
        yield Addresses(kafka, redis, "")
        return
    with owned(quiet=True) as running:
        yield running.addresses


@pytest.fixture
def settings(servers: Addresses) -> Settings:
    """Settings on the session's servers, nothing else taken from this machine."""
    flags = {"kafka.bootstrap_servers": servers.bootstrap_servers, "redis.url": servers.redis_url}
    return load(flags, env={}, path=None)


@pytest.fixture
def real_alerts() -> Path | None:
    """Folder of real alerts, or None where there are none."""
    return shared_data()
