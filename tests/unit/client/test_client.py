"""The public face of the client."""

from __future__ import annotations

import subprocess
import sys

import pytest

from broker import client
from broker.client import Stream
from broker.errors import BrokerError


def test_the_public_names() -> None:
    assert sorted(client.__all__) == ["Received", "Stream", "Undecodable", "as_json", "selected"]


def test_importing_the_client_is_light() -> None:
    code = (
        "import sys, broker.client; "
        "print([m for m in ('numba', 'lightgbm', 'sklearn', 'astropy', 'redis') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_pattern_that_is_none_is_refused() -> None:
    with pytest.raises(BrokerError, match="is not a pattern"):
        Stream("^alerts(", "127.0.0.1:1")
