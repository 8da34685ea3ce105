"""Rows through the archive: what comes back is what the filters judged, once, whatever was killed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest
from made_archive import ABOUT, file_form, put, rows_of, write_archive

from broker.archive import folder as folders
from broker.archive import wire
from broker.archive.folder import FolderWriter, read_manifest
from broker.archive.parquet import ABOUT_NAMES, from_file_form, specs_of, write
from broker.archive.reader import Archive, columns_in, light_curves, rows_in
from broker.archive.status import status_of
from broker.archive.wire import IDENTITY
from broker.columns import filter_columns
from broker.errors import ArchiveError
from broker.features.catalog import FEATURE_SPECS
from broker.scores.catalog import SCORE_SPECS
from broker.table import Column, Table


def assert_same(found: Table, wanted: Table) -> None:
    """Bit for bit, strings by their text: the codes are each table's own."""
    assert list(found) == list(wanted)
    for name, column in wanted.items():
        assert found[name].spec == column.spec
        if column.spec.kind == "string":
            assert texts(found[name]) == texts(column)
        else:
            assert found[name].values.tobytes() == column.values.tobytes(), name
    assert found.light_curves is not None
    assert wanted.light_curves is not None
    assert found.light_curves.points.tobytes() == wanted.light_curves.points.tobytes()
    assert found.light_curves.starts.tolist() == wanted.light_curves.starts.tolist()


def texts(column: Column) -> list[str | None]:
    return [column.categories[code] if code >= 0 else None for code in column.values.tolist()]


def test_a_row_comes_back_bit_for_bit(tmp_path: Path) -> None:
    rows = rows_of(17)
    (table,) = file_form(rows)
    write(tmp_path / "a.parquet", table)
    back = pq.read_table(tmp_path / "a.parquet")
    specs = specs_of(back.schema, "ztf")
    found = from_file_form(back, "ztf", {name: specs[name] for name in rows.table})
    assert_same(found.table, rows.table)
    assert found.kind.tolist() == ["alert"] * 17
    assert found.epoch.tolist() == [12] * 17
    assert found.passed_starts.tolist() == rows.passed_starts.tolist()
    assert found.passed.tolist() == [rows.labels[number] for number in rows.passed.tolist()]
    assert back["source_topic"].to_pylist()[:3] == ["ztf_replay", "ztf_20240115_programid1", "ztf_replay"]
    assert back["record_sha256"].to_pylist() == [digest.decode() for digest in rows.record_sha256]


def test_rows_that_are_too_many_for_a_message_are_split(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MAX_MESSAGE_BYTES", 3000)
    rows = rows_of(40)
    messages = wire.encode(rows)
    tables = [wire.decode(message)[2] for message in messages]
    assert len(messages) > 3
    assert sum(map(len, tables)) == 40
    assert [it for table in tables for it in table["history_key"].to_pylist()] == [
        k.decode() for k in rows.keys
    ]


def test_a_batch_of_no_rows_is_no_message() -> None:
    assert wire.encode(rows_of(0)) == []


def test_no_column_of_the_table_has_the_name_of_one_of_the_archive() -> None:
    columns = filter_columns(FEATURE_SPECS, SCORE_SPECS)
    assert not {*IDENTITY.names, *ABOUT_NAMES, "night", "healpix"} & set(columns)


def test_other_tools_see_nulls_and_the_night_of_the_path(tmp_path: Path) -> None:
    write_archive(tmp_path, rows_of(12))
    found = duckdb.sql(
        f"select count(*), count(mag), sum(is_negative::int), min(night), count(distinct survey) "
        f"from read_parquet('{tmp_path}/**/*.parquet', hive_partitioning = true)"
    ).fetchall()[0]
    rows = rows_of(12).table
    known = int((~np.isnan(rows["mag"].values)).sum())
    assert found == (12, known, int(np.nansum(rows["is_negative"].values)), 20240115, 1)


def test_what_a_killed_writer_left_is_not_read_and_is_removed(tmp_path: Path) -> None:
    write_archive(tmp_path, rows_of(5))
    (table,) = file_form(rows_of(3, seed=2))
    for now, then in put(tmp_path, 2, table):  # killed after the files, before the manifest
        now.rename(then)
    put(tmp_path, 2, table)  # and one in the middle of a file
    assert [rows_in(item) for item in Archive(tmp_path).files] == [5]
    held = FolderWriter(tmp_path)
    assert held.take("c")
    left = sorted(item.name for item in tmp_path.rglob("*0000*"))
    assert left == ["00000001-0.parquet"]
    held.commit(put(tmp_path, 2, table), {0: 2}, 3)
    assert [rows_in(item) for item in Archive(tmp_path).files] == [5, 3]
    held.close()


def test_only_one_process_writes_a_folder(tmp_path: Path) -> None:
    first, second = FolderWriter(tmp_path), FolderWriter(tmp_path)
    assert first.take("c")
    assert not second.take("c")
    first.close()
    assert second.take("c")
    second.close()


def test_another_cluster_s_folder_is_refused(tmp_path: Path) -> None:
    write_archive(tmp_path, rows_of(2))
    with pytest.raises(ArchiveError, match="another Kafka cluster"):
        FolderWriter(tmp_path).take("d")


def test_files_without_a_manifest_are_never_removed(tmp_path: Path) -> None:
    write_archive(tmp_path, rows_of(2))
    (tmp_path / folders.MANIFEST).unlink()
    with pytest.raises(ArchiveError, match=r"no _archive\.json"):
        FolderWriter(tmp_path).take("c")
    assert len(list(tmp_path.rglob("*.parquet"))) == 1


def test_a_manifest_that_lags_its_files_by_more_than_one_is_refused(tmp_path: Path) -> None:
    write_archive(tmp_path, rows_of(2), rows_of(2))
    said = json.loads((tmp_path / folders.MANIFEST).read_text())
    (tmp_path / folders.MANIFEST).write_text(json.dumps(said | {"sequence": 0}))
    with pytest.raises(ArchiveError, match="knows of"):
        FolderWriter(tmp_path).take("c")


def test_a_manifest_of_another_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / folders.MANIFEST).write_text('{"format": 99}')
    with pytest.raises(ArchiveError, match="format 99"):
        read_manifest(tmp_path)


def test_an_empty_folder_is_no_archive(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match=r"archive\.folder"):
        Archive(tmp_path)


def test_the_reader_gives_the_columns_asked_for_and_names_those_that_are_not_there(tmp_path: Path) -> None:
    write_archive(tmp_path, rows_of(6), rows_of(4, replace(ABOUT, epoch=20)))
    archive = Archive(tmp_path)
    chunks = list(archive.chunks(archive.of(["20240115"]), ["mag", "survey", "gone"]))
    assert [list(chunk.rows.table) for chunk in chunks] == [["survey", "mag"]] * 2
    assert [chunk.missing for chunk in chunks] == [("gone",)] * 2
    assert [set(chunk.rows.epoch.tolist()) for chunk in chunks] == [{12}, {20}]
    assert archive.nights() == ["20240115"]
    assert archive.of(["20240116"]) == []
    assert archive.of(["20240115"], cells=[4]) == []
    assert "mag" in columns_in(archive.files[0])


def test_light_curves_of_single_rows(tmp_path: Path) -> None:
    rows = rows_of(9)
    write_archive(tmp_path, rows)
    found = light_curves(Archive(tmp_path).files[0], [2, 7])
    assert rows.table.light_curves is not None
    wanted = rows.table.light_curves.take(np.array([2, 7]))
    assert found.points.tobytes() == wanted.points.tobytes()
    assert found.starts.tolist() == wanted.starts.tolist()


def test_status_counts_what_is_there(tmp_path: Path) -> None:
    write_archive(tmp_path, rows_of(6), rows_of(4))
    said = status_of(Archive(tmp_path), {0: 3}).to_json()
    assert (said["rows"], said["lag"], said["offsets"]) == (10, {"0": 3}, {"0": 2})
    (night,) = said["nights"]
    assert (night["survey"], night["night"], night["files"], night["rows"]) == ("ztf", "20240115", 2, 10)
    assert night["bytes"] == said["bytes"] > 0
