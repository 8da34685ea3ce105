"""What Kafka is started from: its jars, its class archive and its settings file."""

from __future__ import annotations

import base64
import re
import zipfile
from pathlib import Path

import pytest

from broker.embedded.classes import Archive, keep_noted, plain_classes
from broker.embedded.jars import KAFKA_VERSION, _discard_broken, kafka_jars
from broker.embedded.kafka import KafkaPlace, new_cluster_id, properties_text
from broker.errors import EmbeddedServerError


def test_jars_that_are_there_need_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _cut_off(monkeypatch, tmp_path)
    folder = tmp_path / f"kafka-{KAFKA_VERSION}"
    folder.mkdir()
    for name in ("b.jar", "a.jar"):
        (folder / name).touch()
    assert [jar.name for jar in kafka_jars(tmp_path, quiet=True)] == ["a.jar", "b.jar"]


def test_a_failed_fetch_says_what_to_do_and_leaves_no_half_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _cut_off(monkeypatch, tmp_path)
    with pytest.raises(EmbeddedServerError, match=r"cannot fetch Apache Kafka.*kafka\.bootstrap_servers"):
        kafka_jars(tmp_path)
    assert not (tmp_path / f"kafka-{KAFKA_VERSION}").exists()
    assert re.fullmatch(r"Fetching Apache Kafka .* \.\.\.\n", capsys.readouterr().err)


def test_half_written_files_are_fetched_again(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "whole.jar", "w") as jar:
        jar.writestr("A.class", b"code" * 1000)
    whole = (tmp_path / "whole.jar").read_bytes()
    (tmp_path / "short.jar").write_bytes(whole[:-30])
    (tmp_path / "flipped.jar").write_bytes(whole[:100] + b"X" + whole[101:])
    (tmp_path / "whole.pom").write_text("<project/>")
    (tmp_path / "short.pom").write_text("<project><name>")
    _discard_broken(tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["whole.jar", "whole.pom"]


def test_settings_survive_java_reading_them_as_latin_1() -> None:
    text = properties_text({"log.dirs": "/home/Véra \\n", "empty": ""})
    assert text == "log.dirs=/home/V\\u00e9ra\\u0020\\u005cn\nempty=\n"
    assert text.isascii()


def test_cluster_ids_are_16_bytes_and_never_look_like_an_option() -> None:
    ids = {new_cluster_id() for _ in range(2000)}
    assert len(ids) == 2000
    assert not any(one.startswith("-") for one in ids)
    assert all(len(base64.urlsafe_b64decode(one + "==")) == 16 for one in ids)


def test_the_cluster_id_is_read_from_the_data(tmp_path: Path) -> None:
    place = KafkaPlace(tmp_path, 16001, 16002)
    assert place.cluster_id == ""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "meta.properties").write_text("#\nversion=1\ncluster.id=abc=\nnode.id=1\n")
    assert place.cluster_id == "abc="


def test_noted_classes_lose_what_ties_them_to_one_run() -> None:
    noted = ["# a comment", "java/lang/Object id: 0", "kafka/Kafka id: 717", "kafka/Kafka id: 9"]
    loaded_elsewhere = "X id: 5 super: 0 source: /tmp/x.jar"
    assert plain_classes("\n".join([*noted, loaded_elsewhere])) == "java/lang/Object\nkafka/Kafka\n"


def test_a_list_still_being_written_is_cut_at_its_last_whole_line(tmp_path: Path) -> None:
    archive = Archive(tmp_path / "a.jsa", tmp_path / "a.lst")
    note = tmp_path / "note"
    assert archive.noting(note) == [f"-XX:DumpLoadedClassList={note}"]
    keep_noted(archive, note)
    note.write_text("kafka/Kafka id: 1\nkafka/Ka")
    keep_noted(archive, note)
    assert archive.classes.read_text() == "kafka/Kafka\n"
    assert archive.noting(note) == []
    assert archive.options() == []


def _cut_off(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Send all of this process's requests to a port where nobody is."""
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("JGO_CONFIG_FILE", str(folder / "none.conf"))
