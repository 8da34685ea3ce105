"""What `broker catalogs` says of watchlists and regions, and how it ends when used wrongly."""

from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from broker.cli.catalogs import catalogs
from broker.cli.context_lists import is_region, kind_of, read_contents, show, summary
from broker.context.stored import StoredList
from broker.control import ControlState
from broker.errors import ListError
from broker.list_store import Changed

EXAMPLE = Path(__file__).parents[3] / "docs" / "examples" / "skymap.fits"
LIST = StoredList("watchlist", "targets", 2, "alice", "positions", "", 0, 0, 1234, radius_arcsec=2.0)
MAP = StoredList(
    "region", "gw", 1, "bob", "sky map", "", 0, 0, 699, "an event", area_deg2={"0.5": 698.3, "0.9": 2014.3}
)
CHANGED = Changed(LIST, True, 7, 2, 2, 0.31)


def test_a_change_is_told_with_how_many_have_it() -> None:
    assert summary(CHANGED) == "watchlist targets revision 2, 1,234 positions: live on 2/2 workers in 0.3 s"
    assert summary(replace(CHANGED, item=MAP)).startswith(
        "region gw revision 1, a sky map of 699 cells: live on"
    )
    removed = replace(CHANGED, item=replace(LIST, state="removed"))
    assert summary(removed) == "watchlist targets revision 2: removed on 2/2 workers in 0.3 s"
    same = replace(CHANGED, written=False, live=0, reached=0)
    assert "was so already, nothing changed: no worker is running" in summary(same)


def test_lists_are_shown_with_their_size(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "150")
    show([LIST.to_json(), MAP.to_json(), replace(MAP, form="moc", area_deg2={"all": 12.5}).to_json()])
    shown = capsys.readouterr().out
    for words in (
        "1,234 positions",
        "sky map: 698.3 deg² at 0.5, 2,014 deg² at 0.9",
        "moc: 12.5 deg²",
        "an event",
    ):
        assert words in shown


def test_a_name_says_what_it_is_where_only_one_thing_has_it() -> None:
    lists = {("watchlist", "a"): {1: LIST}, ("region", "b"): {1: MAP}, ("watchlist", "b"): {1: LIST}}
    lists[("region", "c")] = {1: MAP, 2: replace(MAP, revision=2, state="removed")}
    state = ControlState(lists=lists)  # type: ignore[arg-type]
    assert [kind_of(state, name) for name in ("a", "c", "d")] == ["watchlist", "region", "catalog"]
    with pytest.raises(typer.BadParameter, match="'b' names region and watchlist; say which with --kind"):
        kind_of(state, "b")


def test_files_are_read_before_any_server_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "list.csv.gz").write_bytes(gzip.compress(b"ra,dec\n1,2\n"))
    assert read_contents("watchlist", [tmp_path / "list.csv.gz"], 5.0).radius_arcsec == 5
    assert read_contents("region", [EXAMPLE], None).area_deg2 == pytest.approx(
        {"0.5": 698.3, "0.9": 2014.3}, rel=1e-4
    )
    assert [is_region(path) for path in (EXAMPLE, tmp_path / "list.csv.gz", tmp_path)] == [True, False, False]
    (tmp_path / "latin.csv").write_bytes(b"ra,dec,name\n1,2,\xd6pik\n")
    with pytest.raises(ListError, match="must be UTF-8 text; byte 16 of this is 0xd6"):
        read_contents("watchlist", [tmp_path / "latin.csv"], None)
    with pytest.raises(ListError, match=r"nothing\.csv cannot be read: No such file"):
        read_contents("watchlist", [tmp_path / "nothing.csv"], None)
    with pytest.raises(ListError, match="a radius of 4000 arcsec"):
        read_contents("watchlist", [tmp_path / "list.csv.gz"], 4000.0)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["x", "one.csv", "two.csv", "--kind", "watchlist"], "is one file, 2 are given"),
        (["x", "one.csv", "--kind", "galaxy"], "'galaxy' is not one of"),
        (["x", "one.csv", "--kind", "watchlist", "--radius", "big"], "--radius"),
    ],
)
def test_wrong_usage_ends_with_two(arguments: list[str], says: str) -> None:
    done = CliRunner().invoke(catalogs, ["add", *arguments], env={"COLUMNS": "200"})
    assert done.exit_code == 2
    assert says in done.output
