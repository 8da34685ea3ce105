"""Backtests on small archives: as things were known then, counted right, cut off where told."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_archive import ABOUT, rows_of, write_archive
from scipy.stats import binomtest

from broker.archive.folder import FolderWriter
from broker.archive.reader import Archive
from broker.backtest import judge as backtests
from broker.backtest.ask import Asked, ask
from broker.backtest.judge import Backtest, Limits, backtest, wilson
from broker.backtest.labels import read_labels
from broker.cli.backtest_plot import save
from broker.cli.sparkline import sparkline
from broker.config import load
from broker.control.past import Names
from broker.errors import FilterError, LabelsError
from broker.filters.functions import FOREST
from broker.lightcurves import LIMIT, LightCurves, empty_points

SPECS = {column.spec.name: column.spec for column in rows_of(3).table.values()}


class Half:
    """Stands for a name: the same share for every alert."""

    reads = ("mag",)

    def __init__(self, share: float) -> None:
        self._share = share

    def __call__(self, memo: dict[Any, Any], /, *columns: Any) -> Any:
        return np.full(len(columns[0]), self._share)


class Then(Names):
    """What could be named, made up."""

    @property
    def named(self) -> Any:  # type: ignore[override]
        return self.made


def then(made: Any) -> Names:
    names = Then()
    object.__setattr__(names, "made", made)
    return names


def never(epochs: Collection[int]) -> Mapping[int, Names]:
    raise AssertionError("this filter names nothing")


def run(path: Path, where: str, names_at: Any = never, **options: Any) -> Backtest:
    archive = Archive(path)
    return backtest(archive, archive.files, where, SPECS, names_at, **options)


def test_it_counts_alerts_and_objects_and_nights(tmp_path: Path) -> None:
    write_archive(tmp_path, rows_of(12), rows_of(12, seed=2))
    table = rows_of(12).table
    result = run(tmp_path, "dia_object_id = 2 or dia_object_id is null")
    assert (result.rows, result.hits) == (24, 8)
    assert result.objects == 2 + 1, "two objects: one by its id, and two alerts without one"
    said = result.to_json()
    assert said["nights"] == [{"night": "20240115", "alerts": 24, "hits": 8, "objects": 3}]
    assert said["hitsANight"] == 8
    assert table["dia_object_id"].values.tolist().count(2) == 2


def test_overlap_is_with_what_the_others_passed_then(tmp_path: Path) -> None:
    write_archive(tmp_path, rows_of(12))
    said = run(tmp_path, "dia_object_id < 3").to_json()  # rows 2 to 5, which passed 2, 0, 1 and 2 filters
    assert said["overlap"] == [
        {"filter": "alice.bright", "hits": 8, "both": 3},
        {"filter": "bob.faint", "hits": 4, "both": 2},
    ]


def test_updates_and_retractions_are_no_alerts(tmp_path: Path) -> None:
    write_archive(tmp_path, rows_of(4), rows_of(4, replace(ABOUT, kind="update")))
    result = run(tmp_path, "ra >= 0")
    assert (result.rows, result.hits) == (4, 4)


def test_a_name_stands_for_what_it_stood_for_at_each_row_s_epoch(tmp_path: Path) -> None:
    batches = [rows_of(6, replace(ABOUT, epoch=epoch), seed=epoch) for epoch in (3, 7, 9)]
    write_archive(tmp_path, *batches)
    past = {3: then({}), 7: then({FOREST: {"alice": Half(0.2)}}), 9: then({FOREST: {"alice": Half(0.9)}})}
    asked: list[int] = []

    def names_at(epochs: Collection[int]) -> Mapping[int, Names]:
        asked.extend(sorted(epochs))
        return past

    result = run(tmp_path, "personal_anomaly('alice') > 0.5", names_at)
    assert asked == [3, 7, 9]
    assert result.hits == 6
    assert dict(result.not_known) == {"forest alice": 6}


def test_epochs_are_looked_for_no_longer_than_allowed(tmp_path: Path) -> None:
    write_archive(tmp_path, *[rows_of(5, replace(ABOUT, epoch=epoch), seed=epoch) for epoch in (3, 7, 9)])
    asked: list[int] = []

    def names_at(epochs: Collection[int]) -> Mapping[int, Names]:
        asked.extend(epochs)
        return {epoch: then({}) for epoch in epochs}

    result = run(tmp_path, "personal_anomaly('alice') is null", names_at, limits=Limits(seconds=0))
    assert asked == [3]
    assert result.rows == 5
    assert result.cut


def test_rows_that_lack_a_column_are_told_of(tmp_path: Path) -> None:
    write_archive(tmp_path, rows_of(5))
    archive = Archive(tmp_path)
    specs = SPECS | {"newer": replace(SPECS["mag"], name="newer")}
    result = backtest(archive, archive.files, "newer > 1", specs, never)
    assert result.hits == 0
    ((why, count),) = result.not_judged.items()
    assert "newer" in why
    assert count == 5


def test_it_is_cut_where_told_and_says_so(tmp_path: Path) -> None:
    write_archive(tmp_path, *[rows_of(5, seed=seed) for seed in range(4)])
    result = run(tmp_path, "ra >= 0", limits=Limits(rows=7))
    assert result.rows == 10
    assert "7 alerts" in result.cut
    assert run(tmp_path, "ra >= 0", limits=Limits(seconds=0)).rows == 5


def test_rows_that_expired_unwritten_are_told_of(tmp_path: Path) -> None:
    write_archive(tmp_path, rows_of(5))
    held = FolderWriter(tmp_path)
    assert held.take("c")
    held.commit([], {0: 9}, 0, [(0, 1, 9)])
    held.close()
    assert run(tmp_path, "ra >= 0").to_json()["lost"] == 8


def test_the_sample_is_some_of_the_hits_with_their_light_curves_and_the_same_each_time(
    tmp_path: Path,
) -> None:
    write_archive(tmp_path, rows_of(30), rows_of(30, seed=2))
    first, again = (run(tmp_path, "dia_object_id >= 5", sample=4) for _ in range(2))
    assert first.to_json()["sample"] == again.to_json()["sample"]
    assert len(first.sample) == 4
    known = {}
    for rows in (rows_of(30), rows_of(30, seed=2)):
        assert rows.table.light_curves is not None
        for row, ra in enumerate(rows.table["ra"].values.tolist()):
            known[ra] = rows.table.light_curves.row(row).tobytes()
    for hit in first.sample:
        assert int(hit.about["diaObjectId"]) >= 5
        assert hit.curve.points.tobytes() == known[hit.about["ra"]]


def test_a_refused_text_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    write_archive(tmp_path, rows_of(2))
    with pytest.raises(FilterError, match="magg"):
        run(tmp_path, "magg < 19")


def labelled(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_purity_is_counted_by_objects_with_an_interval(tmp_path: Path) -> None:
    write_archive(tmp_path / "a", rows_of(12))
    file = labelled(tmp_path / "l.csv", "diaObjectId,class\n1,SNIa\n2,SNIa\n3,AGN\n4,\n5,CV\n")
    result = run(tmp_path / "a", "dia_object_id in (1, 2, 3, 4)", labels=read_labels(file))
    said = result.to_json()["purity"]
    assert (said["labelledObjects"], said["unlabelledObjects"]) == (3, 1)
    assert [(it["class"], it["passed"], it["seen"]) for it in said["classes"]] == [
        ("SNIa", 2, 2), ("AGN", 1, 1), ("CV", 0, 1),
    ]  # fmt: skip
    assert (said["classes"][0]["low"], said["classes"][0]["high"]) == wilson(2, 3)


def test_labels_by_alert_name_and_place(tmp_path: Path) -> None:
    table = rows_of(6).table
    ra, dec = table["ra"].values[4], table["dec"].values[4]
    by_alert = read_labels(labelled(tmp_path / "a.csv", f"candid,type\n{2**62 + 3},CV\n"))
    assert by_alert.of(table) == ["", "", "", "CV", "", ""]
    by_name = read_labels(labelled(tmp_path / "n.csv", "objectId,label\nZTF2,TDE\n"))
    assert by_name.of(table) == ["", "", "TDE", "", "", ""]
    by_place = read_labels(labelled(tmp_path / "p.csv", f"ra,dec,class\n{ra},{dec + 1 / 3600},AGN\n0,0,X\n"))
    assert by_place.of(table) == ["", "", "", "", "AGN", ""]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a,b\n1,2\n", "needs a column `class`"),
        ("class,ra\nSN,3\n", "needs a column `class`"),
        ("class,ra,dec\nSN,x,3\n", "line 2"),
        ("class,ra,dec\nSN,1,93\n", "no place on the sky"),
    ],
)
def test_faulty_labels_are_refused(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(LabelsError, match=why):
        read_labels(labelled(tmp_path / "x.csv", text))


def test_wilson_s_interval_is_scipy_s() -> None:
    for count, total in ((0, 5), (3, 7), (50, 50), (1, 1000)):
        exact = binomtest(count, total).proportion_ci(method="wilson")
        assert wilson(count, total) == pytest.approx((exact.low, exact.high), abs=1e-6)
    assert wilson(0, 0) == (None, None)


def test_a_sparkline_goes_from_the_faintest_to_the_brightest() -> None:
    points = empty_points(6)
    points["midpoint_mjd_tai"] = [0, 1, 2, 3, 3, 1]
    points["psf_flux"] = [1, 2, 3, 8, np.nan, 9]
    points["band"] = [1, 1, 1, 1, 1, 2]
    points["kind"][4] = LIMIT
    curve = LightCurves(points, np.array([0, 6]))
    lines = sparkline(curve).split("\n")
    assert [line[:2] for line in lines] == ["g ", "r ", "  "]
    drawn = lines[0][2:].replace(" ", "")
    assert drawn[0] == "▁"
    assert drawn[-1] == "█"
    assert lines[2] == "  3.0 days"
    assert sparkline(LightCurves(empty_points(0), np.array([0, 0]))) == ""


def test_pictures_are_made(tmp_path: Path) -> None:
    write_archive(tmp_path / "a", rows_of(12))
    result = run(tmp_path / "a", "ra >= 0", sample=2)
    assert [path.name for path in save(result, tmp_path / "one.png")] == ["one.png"]
    made = list(save(result, tmp_path / "folder"))
    assert len(made) == 3
    assert all(path.stat().st_size > 1000 for path in made)


def test_the_cost_is_of_the_evaluation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_archive(tmp_path, rows_of(10))
    ticks = iter(range(1000))
    monkeypatch.setattr(backtests.time, "perf_counter", lambda: next(ticks))
    assert run(tmp_path, "ra >= 0").us_an_alert == pytest.approx(1e5)


def test_a_whole_statement_is_judged_by_its_condition(tmp_path: Path) -> None:
    write_archive(tmp_path, rows_of(12))
    settings = load({"archive.folder": str(tmp_path)}, env={})
    plain, whole = (
        ask(settings, Asked(text)).hits
        for text in ("dia_object_id = 2", "select dia_object_id where dia_object_id = 2")
    )
    assert whole == plain > 0
    with pytest.raises(FilterError, match="magg"):
        ask(settings, Asked("select magg where dia_object_id = 2"))
