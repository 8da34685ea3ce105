"""`broker catalogs add` refuses what it cannot read before any server is asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from broker.cli.catalogs import catalogs


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["stars", "nothing.csv"], "nothing.csv does not exist"),
        (["Stars!", "t.csv"], "'Stars!' is no name of a catalogue"),
        (["stars", "t.csv", "--columns", "z"], "has no column 'z'; it has ra, dec, mag"),
        (["stars", "t.csv", "--ra", "ra"], "--ra and --dec go together"),
    ],
)
def test_what_cannot_be_added_is_wrong_usage(
    args: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("t.csv").write_text("ra,dec,mag\n1,2,3\n")
    done = CliRunner().invoke(
        catalogs, ["add", *args, "--kafka", "127.0.0.1:1", "--redis", "redis://127.0.0.1:1"]
    )
    assert done.exit_code == 2
    assert message in done.output
