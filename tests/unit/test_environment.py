from __future__ import annotations

import os
from contextlib import suppress

import pytest

from broker.environment import variable


@pytest.mark.parametrize("before", [None, "old"])
def test_a_variable_is_what_it_was_afterwards(monkeypatch: pytest.MonkeyPatch, before: str | None) -> None:
    monkeypatch.delenv("BROKER_SOME_TEST", raising=False)
    if before is not None:
        monkeypatch.setenv("BROKER_SOME_TEST", before)
    with suppress(KeyError), variable("BROKER_SOME_TEST", "new"):
        assert os.environ["BROKER_SOME_TEST"] == "new"
        raise KeyError
    assert os.environ.get("BROKER_SOME_TEST") == before
