"""Files, folders and tarballs as messages: nothing judged, nothing lost without a word."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
from pathlib import Path
from typing import Any

import fastavro
import pytest
from data import shared_data

from broker.errors import BrokerError
from broker.ingest import files
from broker.ingest.files import FilePacket, Unsent, find_files, read_packets, survey_name, with_surveys
from broker.message import MAX_INPUT_BYTES
from broker.simulate import simulate_lsst, simulate_ztf

ZTF = [alert.value for alert in simulate_ztf(5, seed=1)]
LSST = [alert.value for alert in simulate_lsst(3, seed=1)]
BROKEN = b"Obj\x01 this is no alert"


def container(values: list[bytes], codec: str = "null", per_block: int = 1 << 30) -> bytes:
    """The records of single-record ZTF containers as one container."""
    readers = [fastavro.reader(io.BytesIO(value)) for value in values]
    out = io.BytesIO()
    writer = fastavro.write.Writer(
        out, readers[0].writer_schema, codec, sync_interval=1 << 30, sync_marker=b"s" * 16
    )
    for number, reader in enumerate(readers, start=1):
        writer.write(next(reader))
        if number % per_block == 0:
            writer.flush()
    writer.flush()
    return out.getvalue()


def records(value: bytes) -> list[dict[str, Any]]:
    return [record for record in fastavro.reader(io.BytesIO(value)) if isinstance(record, dict)]


def tarball(path: Path, content: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, value in content.items():
            member = tarfile.TarInfo(name)
            member.size = len(value)
            tar.addfile(member, io.BytesIO(value))
    return path


def read(*paths: Path) -> list[FilePacket | Unsent]:
    return list(read_packets(find_files(paths)))


def values(packets: list[FilePacket | Unsent]) -> list[bytes]:
    return [packet.value for packet in packets if isinstance(packet, FilePacket)]


def write(folder: Path, content: dict[str, bytes]) -> Path:
    for name, value in content.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(value)
    return folder


def test_a_folder_is_read_in_order_with_its_subfolders_and_alerts_only(tmp_path: Path) -> None:
    write(tmp_path, {"b.avro": ZTF[1], "a/z.avro": ZTF[0], "truth.csv": b"no alert", "c.avro": ZTF[2]})
    packets = read(tmp_path)
    assert values(packets) == ZTF[:3]
    assert [packet.name for packet in packets] == ["z.avro", "b.avro", "c.avro"]
    assert sum(packet.taken for packet in packets) == sum(map(len, ZTF[:3]))


def test_damaged_and_empty_files_are_messages_like_any_other(tmp_path: Path) -> None:
    cut = ZTF[0][:-20]
    write(tmp_path, {"a.avro": b"", "b.avro": BROKEN, "c.avro": cut, "d.avro": ZTF[0], "e.avro": LSST[0]})
    packets = read(tmp_path)
    assert values(packets) == [b"", BROKEN, cut, ZTF[0], LSST[0]]
    assert [packet.alerts for packet in packets if isinstance(packet, FilePacket)] == [0, 0, 0, 1, 1]


@pytest.mark.parametrize("codec", ["null", "deflate"])
@pytest.mark.parametrize("per_block", [1, 2, 5])
def test_several_records_become_one_message_each(tmp_path: Path, codec: str, per_block: int) -> None:
    write(tmp_path, {"night.avro": container(ZTF, codec, per_block)})
    packets = read(tmp_path)
    assert [records(value) for value in values(packets)] == [records(value) for value in ZTF]
    assert {packet.name for packet in packets} == {"night.avro"}


def test_a_part_keeps_header_and_sync_marker_and_the_bytes_of_its_record(tmp_path: Path) -> None:
    whole = container(ZTF)
    header = whole[: whole.index(b"s" * 16) + 16]
    datum = {value[len(value) - 16 - size : -16] for value in ZTF for size in [_datum_size(value)]}
    write(tmp_path, {"night.avro": whole})
    parts = values(read(tmp_path))
    assert all(part.startswith(header) and part.endswith(b"s" * 16) for part in parts)
    assert {part[-16 - _datum_size(part) : -16] for part in parts} == datum


def _datum_size(value: bytes) -> int:
    """Bytes of the only record of a container, by an independent reader."""
    block = next(iter(fastavro.block_reader(io.BytesIO(value))))
    return len(block.bytes_.getvalue())


def test_a_container_that_breaks_part_way_is_sent_whole(tmp_path: Path) -> None:
    whole = container(ZTF)
    cut, lying = whole[:-40], whole.replace(b"s" * 16 + b"\x0a", b"s" * 16 + b"\x0c")
    write(tmp_path, {"cut.avro": cut, "lying.avro": lying})
    assert lying != whole
    packets = read(tmp_path)
    assert values(packets) == [cut, lying]
    assert [packet.alerts for packet in packets if isinstance(packet, FilePacket)] == [0, 0]


def test_a_tarball_is_the_same_as_its_files(tmp_path: Path) -> None:
    content = {"ztf/1.avro": ZTF[0], "ztf/empty.avro": b"", "README": b"x", "ztf/many.avro": container(ZTF)}
    packets = read(tarball(tmp_path / "night.tar.gz", content))
    assert values(packets)[:2] == [ZTF[0], b""]
    assert len(packets) == 7
    assert sum(packet.taken for packet in packets) <= (tmp_path / "night.tar.gz").stat().st_size
    assert packets[0].name == "1.avro"


@pytest.mark.parametrize("keep", [0, 10, 0.5, -1, -8])
def test_a_tarball_cut_short_gives_what_it_holds_and_says_so(tmp_path: Path, keep: float) -> None:
    path = tarball(tmp_path / "night.tgz", {f"{i}.avro": os.urandom(50_000) for i in range(4)})
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole)) if 0 < keep < 1 else int(keep)])
    *good, last = read(path)
    assert all(isinstance(packet, FilePacket) for packet in good)
    assert isinstance(last, Unsent)
    assert "night.tgz" in last.name


def test_a_tarball_cut_between_two_members_is_noticed(tmp_path: Path) -> None:
    plain = gzip.decompress(tarball(tmp_path / "a.tgz", {"1.avro": b"x" * 512, "2.avro": b"y"}).read_bytes())
    squeezed = gzip.compress(plain)
    (tmp_path / "b.tgz").write_bytes(gzip.compress(plain[:1024])[:-8] + squeezed[-8:])
    assert isinstance(read(tmp_path / "b.tgz")[-1], Unsent)


def test_a_file_called_tarball_that_is_none_is_named(tmp_path: Path) -> None:
    write(tmp_path, {"a.tar.gz": b"nothing of the kind", "b.avro": ZTF[0]})
    bad, good = read(tmp_path)
    assert isinstance(bad, Unsent)
    assert isinstance(good, FilePacket)


def test_too_large_is_refused_and_the_others_are_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_MAX_FILE_BYTES", MAX_INPUT_BYTES + 10)
    write(
        tmp_path,
        {"a.avro": bytes(MAX_INPUT_BYTES + 1), "b.avro": bytes(MAX_INPUT_BYTES + 11), "c.avro": b"x"},
    )
    refused_late, refused_early, sent = read(tmp_path)
    assert isinstance(refused_late, Unsent)
    assert isinstance(refused_early, Unsent)
    assert "16.0 MiB; a message may have at most 16 MiB" in refused_late.reason
    assert isinstance(sent, FilePacket)


def test_the_largest_message_is_sent(tmp_path: Path) -> None:
    write(tmp_path, {"a.avro": bytes(MAX_INPUT_BYTES)})
    assert isinstance(read(tmp_path)[0], FilePacket)


def test_a_large_file_of_small_alerts_is_sent(tmp_path: Path) -> None:
    many = 1 + MAX_INPUT_BYTES // len(ZTF[0])
    write(tmp_path, {"a.avro": container(ZTF * (1 + many // len(ZTF)))})
    packets = read(tmp_path)
    assert len(packets) > many
    assert all(isinstance(packet, FilePacket) for packet in packets)


def test_paths_are_checked_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(BrokerError, match="does not exist"):
        find_files([tmp_path / "no"])
    with pytest.raises(BrokerError, match=r"holds no \.avro file"):
        find_files([tmp_path])
    os.mkfifo(tmp_path / "pipe.avro")
    with pytest.raises(BrokerError, match="neither a file nor a folder"):
        find_files([tmp_path / "pipe.avro"])
    with pytest.raises(BrokerError, match=r"holds no \.avro file"):
        find_files([tmp_path])


def test_the_survey_is_told_from_the_content() -> None:
    assert survey_name(ZTF[0]) == survey_name(container(ZTF)) == "ztf"
    assert survey_name(LSST[0]) == "lsst"
    assert survey_name(BROKEN) is survey_name(b"") is survey_name(b"\x00\x00") is None


def test_what_tells_no_survey_goes_with_its_neighbour() -> None:
    content = [BROKEN, LSST[0], b"", ZTF[0], BROKEN]
    surveys = [survey for survey, _ in with_surveys(FilePacket("", value) for value in content)]
    assert surveys == ["lsst", "lsst", "lsst", "ztf", "ztf"]


def test_files_that_all_tell_nothing_go_to_the_default_survey() -> None:
    packets = [FilePacket(str(number), BROKEN) for number in range(2500)]
    assert list(with_surveys(packets)) == [("ztf", packet) for packet in packets]


def test_every_real_file_is_sent_as_it_is() -> None:
    root = shared_data()
    if root is None:
        assert all(survey_name(value) == "ztf" for value in ZTF)
        return
    found = find_files([root / "ztf"])
    packets = list(with_surveys(read_packets(found)))
    assert {survey for survey, _ in packets} == {"ztf"}
    singles = {packet.value for _, packet in packets if isinstance(packet, FilePacket)}
    assert len(packets) >= len(found)
    assert sum(path.read_bytes() in singles for path in found) > 0.95 * len(found)
