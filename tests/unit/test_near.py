"""What near() and its columns are worth: value, absent, or failed and why."""

from __future__ import annotations

import csv
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from broker import control
from broker.catalog import StoredCatalog
from broker.catalog_store import users_of
from broker.context.catalog_build import build, choose
from broker.context.catalog_files import open_table
from broker.control import ControlState
from broker.errors import CatalogError, FilterError
from broker.filter import Filter
from broker.filters.compile import bind, compile_filter
from broker.filters.evaluate import evaluate
from broker.filters.expression import Evaluator
from broker.filters.live import FilterSet, compile_set
from broker.filters.tree import Call, walk
from broker.near import CatalogSet, catalog_set
from broker.table import Column, ColumnSpec, Table

SPECS = {name: ColumnSpec(name, "", "") for name in ("ra", "dec", "mag")}
SOURCES = [
    ("ra", "dec", "z", "warn", "class", "seen"),
    (10.0, 20.0, 0.5, 0, "QSO", "true"),
    (10.0, 20.002, 0.1, 4, "STAR", "false"),
    (359.9999, -5.0, "", "", "", ""),
]


def stored(folder: Path, name: str = "sdss", revision: int = 1, rows: list[tuple[object, ...]] = SOURCES,
           footprint: np.ndarray | None = None) -> StoredCatalog:  # fmt: skip
    """A catalogue on disk, and its record."""
    file = folder / f"{name}.csv"
    with file.open("w", newline="") as opened:
        csv.writer(opened).writerows(rows)
    built = folder / "built"
    built.mkdir()
    manifest, sha256 = build(choose([open_table(file)]), built, footprint)
    item = StoredCatalog(name, revision, sha256, manifest.rows, manifest.specs, "active", "", "", "me")
    (folder / name).mkdir(exist_ok=True)
    built.rename(folder / item.folder)
    return item


def state_of(*items: StoredCatalog) -> ControlState:
    state = ControlState()
    for offset, item in enumerate(items):
        state = control.apply(state, offset, *control.catalog_record(item))
    assert state.unreadable == ()
    return state


def table(*positions: tuple[float, float]) -> Table:
    ra, dec = np.array(positions).T.copy()
    columns = [
        Column(SPECS["ra"], ra),
        Column(SPECS["dec"], dec),
        Column(SPECS["mag"], np.full(len(ra), 18.0)),
    ]
    return Table(columns, len(ra))


ALERTS = table((10.0, 20.0001), (10.0, 20.0019), (0.0001, -5.0), (10.0, 40.0), (np.nan, 20.0))
"""Near the first source, near the second, across right ascension 0 near the third, near none, nowhere."""


@pytest.fixture
def live(tmp_path: Path) -> tuple[ControlState, CatalogSet]:
    state = state_of(stored(tmp_path))
    return state, catalog_set(CatalogSet(), state, lambda: tmp_path)


def answers(text: str, live: tuple[ControlState, CatalogSet], alerts: Table = ALERTS) -> str:
    """t, f or - for NULL, alert by alert."""
    state, catalogs = live
    forms = [f"{text}", f"not ({text})", f"({text}) is null"]
    compiled = [bind(compile_filter(form, SPECS, state.members()), catalogs.named) for form in forms]
    found = evaluate(compiled, alerts)
    assert found.failures == {}
    return "".join("tf-"[row.index(True)] for row in found.masks.T.tolist())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("near('sdss', 1*arcsec)", "tttf-"),
        ("near('sdss', 1*arcsec).class = 'QSO'", "tf---"),
        ("near('sdss', 1*arcsec).class in ('QSO', 'GALAXY')", "tf---"),
        ("near('sdss', 1*arcsec).CLASS <> near('sdss', 1*arcsec).class", "ff---"),
        ("near('sdss', 1*arcsec).z > 0.3", "tf---"),
        ("near('sdss', 1*arcsec).warn = 0", "tf---"),
        ("near('sdss', 1*arcsec).seen", "tf---"),
        ("near('sdss', 1*arcsec).sep_arcsec < 0.37", "ttf--"),
        ("near('sdss', 1*arcsec).ra = 10", "ttf--"),
        ("near('sdss', 1*arcsec) and near('sdss', 1*arcsec).z is null", "fftf-"),
        ("near('sdss', mag*arcsec/18)", "tttf-"),
        ("near('sdss', (mag - 18)*arcsec)", "ffff-"),
    ],
)  # fmt: skip
def test_it_is_a_value_or_absent(text: str, expected: str, live: tuple[ControlState, CatalogSet]) -> None:
    assert answers(text, live) == expected


def test_the_normal_form_reads_back_as_itself(live: tuple[ControlState, CatalogSet]) -> None:
    members = live[0].members()
    text = "19 > mag and not (near('sdss', 2*arcsec).Class = 'QSO')"
    found = compile_filter(text, SPECS, members)
    assert found.normalised == "mag < 19 and near('sdss', 0.0005555555555555556).class <> 'QSO'"
    assert compile_filter(found.normalised, SPECS, members).normalised == found.normalised


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("near('sds', 1*arcsec)", "no catalogue is named 'sds' at 5; did you mean 'sdss'?"),
        ("near('gaia', 1*arcsec)", "no catalogue is named 'gaia' at 5; `broker catalogs list`"),
        ("near('sdss', 1*arcsec).zz > 1", "catalogue 'sdss' has no column 'zz' at 23; did you mean 'z'?"),
        ("near('sdss', 1*arcsec).class > 1", "number '1' does not fit a string"),
        ("near('sdss', 1*arcsec).z", "a filter must be true or false"),
        ("near('sdss', 1.1)", "radius must be in 0..1"),
        ("near(mag, 1)", "near takes a name in single quotes"),
        ("abs(mag).z > 1", "abs with the column 'z' at 9; only what near(...) found has columns"),
    ],
)
def test_what_does_not_fit_is_refused(text: str, message: str, live: tuple[ControlState, CatalogSet]) -> None:
    with pytest.raises(FilterError) as caught:
        compile_filter(text, SPECS, live[0].members())
    assert message in str(caught.value)


def reasons(text: str, live: tuple[ControlState, CatalogSet]) -> list[str]:
    """Why the first call of a text has no answer, alert by alert."""
    state, catalogs = live
    compiled = bind(compile_filter(text, SPECS, state.members()), catalogs.named)
    call = next(node for node in walk(compiled.expression) if isinstance(node, Call))
    found = Evaluator(ALERTS, compiled.bound).failures(call)
    assert found is not None
    return ["" if code < 0 else found.categories[code] for code in found.codes.tolist()]


def test_a_row_without_a_position_is_failed_and_not_absent(live: tuple[ControlState, CatalogSet]) -> None:
    assert reasons("near('sdss', 1*arcsec)", live) == [
        "",
        "",
        "",
        "",
        "the position or the radius is not known",
    ]


def test_outside_the_footprint_nothing_is_known_unless_something_is_near(tmp_path: Path) -> None:
    cells = stored(tmp_path)  # only for its files
    index = catalog_set(CatalogSet(), state_of(cells), lambda: tmp_path).bound["sdss"].catalog.index  # type: ignore[union-attr]
    first = int(index.cells[index.nearest(np.array([10.0]), np.array([20.0]), 0.001)[0][0]])
    inside = np.array([[first >> 38 << 38, (first >> 38 << 38) + (1 << 38)]])  # 3.4 arcmin wide
    shutil.rmtree(tmp_path / "sdss")
    state = state_of(stored(tmp_path, footprint=inside))
    live = state, catalog_set(CatalogSet(), state, lambda: tmp_path)
    found = reasons("near('sdss', 1*arcsec)", live)
    assert found[3] == "outside the footprint of 'sdss'"
    assert found[2] == "", "a source is near, whatever the map says"
    assert answers("near('sdss', 1*arcsec)", live)[2:4] == "t-"
    assert answers("near('sdss', 0.001*arcsec)", live) == "ff---"


@pytest.mark.parametrize("damage", ["missing", "other", "shorter"])
def test_files_that_are_not_there_fail_every_answer(damage: str, tmp_path: Path) -> None:
    item = stored(tmp_path)
    folder = tmp_path / item.folder
    if damage == "missing":
        shutil.rmtree(folder)
    elif damage == "other":
        (folder / "manifest.json").write_text("{}")
    else:
        (folder / "ra.npy").write_bytes((folder / "ra.npy").read_bytes()[:-8])
    state = state_of(item)
    catalogs = catalog_set(CatalogSet(), state, lambda: tmp_path)
    assert list(catalogs.refused) == ["sdss/1"]
    assert answers("near('sdss', 1*arcsec)", (state, catalogs)) == "-----"
    for column in ("class = 'QSO'", "z > 0", "seen", "warn = 0", "sep_arcsec < 9"):
        assert answers(f"near('sdss', 1*arcsec).{column}", (state, catalogs)) == "-----"
    assert all(str(tmp_path) in why for why in reasons("near('sdss', 1*arcsec)", (state, catalogs)))


def test_a_catalogue_is_opened_once_and_one_that_failed_is_tried_again(tmp_path: Path) -> None:
    item = stored(tmp_path)
    away = tmp_path / "away"
    (tmp_path / item.folder).rename(away)
    state = state_of(item)
    without = catalog_set(CatalogSet(), state, lambda: tmp_path)
    assert without.refused
    away.rename(tmp_path / item.folder)
    found = catalog_set(without, state, lambda: tmp_path)
    assert found.refused == {}
    again = catalog_set(found, state, lambda: pytest.fail("nothing has to be opened"))
    assert again.bound["sdss"] is found.bound["sdss"]


def test_all_calls_of_a_radius_share_one_search(live: tuple[ControlState, CatalogSet]) -> None:
    near = live[1].bound["sdss"]
    memo: dict[object, object] = {}
    columns = [ALERTS["ra"].values, ALERTS["dec"].values]
    first = near._found(memo, *columns, np.asarray(0.001))
    assert near._found(memo, *columns, np.asarray(0.001)) is first
    assert near._found(memo, *columns, np.asarray(0.002)) is not first


def test_filters_follow_the_columns_of_a_catalogue(tmp_path: Path) -> None:
    """A column that becomes a text, a catalogue that is removed: who relied on it is refused by name."""
    rules = [
        Filter("me", "z", 1, "near('sdss', 1*arcsec).z > 0.3"),
        Filter("me", "any", 1, "near('sdss', 1*arcsec)"),
        Filter("me", "bright", 1, "mag < 19"),
    ]
    one = stored(tmp_path)
    texts = [SOURCES[0], *((ra, dec, "high", *rest) for ra, dec, _, *rest in SOURCES[1:])]
    two = stored(tmp_path, revision=2, rows=texts)
    gone = replace(one, revision=3, state="removed")

    def compiled(state: ControlState, before: tuple[CatalogSet, FilterSet]) -> tuple[CatalogSet, FilterSet]:
        catalogs = catalog_set(before[0], state, lambda: tmp_path)
        return catalogs, compile_set(
            state.epoch, rules, {}, SPECS, catalogs.named, before[1], state.members()
        )  # fmt: skip

    first = compiled(state_of(one), (CatalogSet(), FilterSet(-1)))
    assert [item.name for item in first[1].filters] == ["z", "any", "bright"]
    same = compiled(replace(state_of(one), epoch=9), first)
    assert same[1].program is first[1].program
    second = compiled(state_of(one, two), same)
    assert [name for name, _ in second[1].refused] == ["me.z"]
    third = compiled(state_of(one, two, gone), second)
    assert [name for name, _ in third[1].refused] == ["me.z", "me.any"]
    assert "no catalogue is named 'sdss'" in third[1].refused[1][1]
    fourth = compiled(state_of(one, two, gone, replace(one, revision=4)), third)
    assert fourth[1].refused == ()


def test_records_fold_and_revisions_stay(tmp_path: Path) -> None:
    one = stored(tmp_path)
    state = state_of(one, replace(one, revision=2, state="removed"))
    assert state.live_catalogs() == {}
    assert sorted(state.catalogs["sdss"]) == [1, 2]
    assert state.catalogs["sdss"][1].epoch == 0
    assert StoredCatalog.from_json(one.to_json()) == one
    with pytest.raises(CatalogError, match="is no name"):
        replace(one, name="../etc")


def test_who_names_a_catalogue() -> None:
    texts = {"a": "NEAR('sdss', 1).z > 1", "b": "near('gaia', 1)", "c": "personal_anomaly('sdss') > 1"}
    state = ControlState()
    for offset, (name, text) in enumerate(texts.items()):
        state = control.apply(state, offset, *control.filter_record(Filter("me", name, 1, text)))
    assert [item.name for item in users_of(state, "sdss")] == ["a"]


def test_the_filters_of_the_documentation_compile_on_the_example_files(tmp_path: Path) -> None:
    docs = Path(__file__).parents[2] / "docs"
    items = []
    for number, (name, file) in enumerate(
        {"sdss": "sdss.csv", "desi": "desi.fits", "racs": "racs.parquet"}.items()
    ):
        folder = tmp_path / name
        folder.mkdir()
        manifest, sha256 = build(choose([open_table(docs / "examples" / file)]), folder)
        assert manifest.rows >= 10
        items.append(
            StoredCatalog(name, number + 1, sha256, manifest.rows, manifest.specs, "active", "", "", "")
        )
    text = (docs / "context.md").read_text()
    filters = re.findall(r'--where "(.*?)"', text) + re.findall(r"\| `(near\(.*)` \|", text)
    filters = [it for it in filters if "near(" in it and "'name'" not in it]
    assert len(filters) == 5
    specs = {**SPECS, "trail_length_arcsec": ColumnSpec("trail_length_arcsec", "arcsec", "")}
    members = state_of(*items).members()
    for where in filters:
        assert compile_filter(where, specs, members)
