"""The whole path by the command line: files in, scored and filtered topics out, every record accounted for.

The inputs are the real alerts where there are some, a simulated sky with the same faults elsewhere. What is
expected is worked out from the input topics by fastavro and astropy, with no code of the pipeline.
"""

from __future__ import annotations

import io
import json
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fastavro
import pytest
import redis
from astropy.time import Time, TimeDelta
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext
from data import shared_data
from harness import Shell, decoded, headers, read_all, records_of, repeated, sha256, wait_until

from broker.embedded import owned
from broker.simulate import write_folder

INPUTS = ("ztf_replay", "lsst_replay", "elasticc_replay")
SECONDS = 1e9
"""No day of any alert has such a number."""
RUN = ("run", "--workers", "2", "--until-idle", "2")


@dataclass
class Night:
    """One Kafka and Valkey after `broker replay` and `broker run`, and the shell that did it."""

    shell: Shell
    folders: list[str]
    real: bool

    @property
    def bootstrap(self) -> str:
        assert self.shell.addresses is not None
        return self.shell.addresses.bootstrap_servers

    def inputs(self) -> list[Any]:
        """Every input record."""
        return [record for topic in INPUTS for record in read_all(self.bootstrap, topic)]

    def alerts(self) -> list[dict[str, Any]]:
        """Every published alert, of all surveys."""
        return [
            alert
            for survey in ("ztf", "lsst", "elasticc")
            for alert in decoded(self.bootstrap, f"alerts.{survey}")
        ]

    def curves(self) -> dict[bytes, bytes]:
        """Every light curve in Redis, byte for byte."""
        assert self.shell.addresses is not None
        client = redis.Redis.from_url(self.shell.addresses.redis_url)
        return {key: bytes(client.get(key) or b"") for key in sorted(client.scan_iter("lc:*", count=1000))}

    def ledger(self) -> dict[str, Any]:
        """What `broker ledger --json` says."""
        return dict(json.loads(self.shell("ledger", "--json")))


def simulated_inputs(folder: Path) -> list[str]:
    """A simulated sky of both surveys, a folder of damaged files, and an alert under a second file name."""
    write_folder(folder / "ztf", 400, 5)
    write_folder(folder / "lsst", 150, 5, survey="lsst")
    files = sorted((folder / "ztf").glob("*.avro"))
    bad = folder / "unreadable"
    bad.mkdir()
    whole = files[0].read_bytes()
    (bad / "cut.avro").write_bytes(whole[: len(whole) // 2])
    (bad / "empty.avro").write_bytes(b"")
    (bad / "text.avro").write_bytes(b"no alert")
    (bad / "again.avro").write_bytes(whole)
    return [str(folder / name) for name in ("ztf", "lsst", "unreadable")]


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Night]:
    folder = tmp_path_factory.mktemp("night")
    data = shared_data()
    folders = simulated_inputs(folder) if data is None else [str(data / "ztf"), str(data / "lsst")]
    with owned(quiet=True) as servers:
        made = Night(Shell(servers.addresses, folder), folders, data is not None)
        made.shell("replay", *folders)
        made.shell(*RUN)
        yield made


def source_of(message: Any) -> tuple[str, int, int]:
    return message.topic(), message.partition(), message.offset()


def test_every_input_record_is_out_once_or_a_dead_letter_or_a_counted_duplicate(night: Night) -> None:
    alerts, letters = night.alerts(), read_all(night.bootstrap, "dead-letters")
    by_source = Counter(
        (alert["source"]["topic"], alert["source"]["partition"], alert["source"]["offset"])
        for alert in alerts
    )
    out = {(alert["diaSourceId"], alert["provenance"]["recordSha256"]) for alert in alerts}
    dead = {}
    for letter in letters:
        source = json.loads(headers(letter)["source"])
        dead[(source["topic"], source["partition"], source["offset"])] = letter
    duplicates = 0
    for message in night.inputs():
        place, value = source_of(message), message.value() or b""
        if place in dead:
            assert (dead[place].value() or b"") == value, "a dead letter holds the input's bytes"
            assert headers(dead[place])["reason"]
            continue
        ((record, data),) = records_of(value)
        if by_source[place]:
            assert by_source[place] == 1
            assert (id_of(record), sha256(data)) in out
        else:
            duplicates += 1
            assert (id_of(record), sha256(data)) in out, "a duplicate's first copy is out"
    assert len(alerts) == sum(by_source.values())
    assert repeated([(alert["survey"], alert["diaSourceId"]) for alert in alerts]) == []
    ledger = night.ledger()
    assert ledger["balanced"]
    assert ledger["published"] == len(alerts)
    assert ledger["rejected"] == len(letters)
    assert ledger["duplicates"] == duplicates
    assert ledger["waiting"] == 0


def test_every_unreadable_file_is_a_dead_letter(night: Night) -> None:
    files = [path for folder in night.folders for path in Path(folder).rglob("unreadable/*")]
    files += [
        path for folder in night.folders if folder.endswith("unreadable") for path in Path(folder).glob("*")
    ]
    expected = {sha256(path.read_bytes()) for path in files if path.name != "again.avro"}
    assert len(expected) == (13 if night.real else 3)
    letters = {sha256(letter.value() or b"") for letter in read_all(night.bootstrap, "dead-letters")}
    assert expected <= letters


def id_of(record: dict[str, Any]) -> int:
    """The detection's id, by the names the surveys have used."""
    if "candid" in record:
        return int(record["candid"])
    return int(record["diaSource"]["diaSourceId"])


def expected_ztf(record: dict[str, Any]) -> tuple[float, float, str]:
    """(time, flux, band) of a ZTF alert by astropy and the field's definitions."""
    candidate = record["candidate"]
    sign = 1 if candidate["isdiffpos"] in ("t", "1") else -1
    flux = sign * 10 ** ((31.4 - candidate["magpsf"]) / 2.5)
    exposure = candidate.get("exptime") or 30.0
    start = Time(candidate["jd"], format="jd", scale="utc")
    middle = start.tai + TimeDelta(exposure / 2, format="sec", scale="tai")
    return float(middle.mjd), flux, "_gri"[candidate["fid"]]


def expected_lsst(record: dict[str, Any]) -> tuple[float, float, str | None]:
    """(time, flux, band) of a Rubin alert: its own fields."""
    source = record["diaSource"]
    time = source.get("midpointMjdTai", source.get("midPointTai"))
    if time > SECONDS:  # as the oldest official samples have it
        time = Time(time, format="unix").tai.mjd
    flux = source.get("psfFlux", source.get("psFlux"))
    band = source.get("band", source.get("filterName"))
    return time, math.nan if flux is None else flux, band


def test_time_flux_sign_and_band_agree_with_an_independent_computation(night: Night) -> None:
    inputs = {source_of(message): message.value() for message in night.inputs()}
    checked = 0
    for alert in night.alerts():
        if alert["survey"] == "elasticc":
            continue
        source = alert["source"]
        value = inputs[(source["topic"], source["partition"], source["offset"])]
        first = (
            next(iter(fastavro.reader(io.BytesIO(value))))
            if value[:4] == b"Obj\x01"
            else records_of(value)[0][0]
        )
        time, flux, band = expected_ztf(first) if alert["survey"] == "ztf" else expected_lsst(first)
        assert alert["midpointMjdTai"] == pytest.approx(time, abs=1e-3 / 86400)
        assert alert["psfFlux"] == (None if math.isnan(flux) else pytest.approx(flux, rel=1e-6))
        assert alert["band"] == (band.lower() if band else None)
        checked += 1
    assert checked > 400


def test_a_second_replay_publishes_nothing_and_adds_no_point(night: Night) -> None:
    alerts, curves, before = len(night.alerts()), night.curves(), night.ledger()
    night.shell("replay", *night.folders)
    night.shell(*RUN)
    after = night.ledger()
    assert len(night.alerts()) == alerts
    assert night.curves() == curves
    assert after["balanced"]
    assert after["published"] == before["published"]
    assert after["rejected"] == 2 * before["rejected"]
    assert after["duplicates"] == before["published"] + 2 * before["duplicates"]


def test_json_lines_have_what_a_user_needs(night: Night) -> None:
    lines = night.shell(
        "listen", "alerts.ztf", "--from", "beginning", "--until-idle", "1", "--format", "jsonl"
    )
    alerts = [json.loads(line) for line in lines.splitlines()]
    assert len(alerts) == len(decoded(night.bootstrap, "alerts.ztf"))
    for alert in alerts:
        assert isinstance(alert["diaSourceId"], str)
        assert isinstance(alert["diaObjectId"], str)
        for name in ("objectName", "survey", "midpointMjdTai", "band", "psfFlux", "psfFluxErr", "ra", "dec"):
            assert name in alert
        assert len(alert["features"]) >= 30
        assert any(value is not None for value in alert["scores"].values())
        assert alert["provenance"]["modelVersion"]
    letters = night.shell(
        "listen", "dead-letters", "--from", "beginning", "--until-idle", "1", "--format", "jsonl"
    )
    for line in letters.splitlines():
        assert {"reason", "source"} <= json.loads(line).keys()


def test_the_built_in_filters_have_their_topics_and_hits(night: Night) -> None:
    passed: Counter[str] = Counter()
    for alert in night.alerts():
        passed.update(name.split("@")[0] for name in alert["filtersPassed"])
    listed = json.loads(night.shell("filters", "list", "--json"))
    builtin = [item for item in listed if item["owner"] == "broker"]
    assert len(builtin) >= 6
    for item in builtin:
        name = f"broker.{item['name']}"
        hits = decoded(night.bootstrap, f"filters.{name}")
        assert len(hits) == passed[name], name
        own = {"name": name, "version": item["version"], "sampling": 1.0, "selected": []}
        assert all(hit["filter"] == own for hit in hits)
    assert sum(passed.values()) > 0


def test_a_standard_deserialiser_reads_us_through_our_registry(night: Night) -> None:
    night.shell.extra["BROKER_API_PORT"] = "0"
    with night.shell.running("serve"):
        log = night.shell.folder / "serve.log"
        wait_until(lambda: "http://" in log.read_text(), "the API says where it is", 60)
        url = next(word for word in log.read_text().split() if word.startswith("http://")).rstrip(",;.")
        with SchemaRegistryClient({"url": url}) as client:
            wait_until(lambda: _answers(client), "the registry answers", 30)
            deserialize = AvroDeserializer(client)
            context = SerializationContext("alerts.ztf", MessageField.VALUE)
            records = read_all(night.bootstrap, "alerts.ztf")
            assert records
            for record in records[:50]:
                alert = deserialize(record.value(), context)
                assert alert["survey"] == "ztf"
                assert alert["provenance"]["brokerVersion"]


def _answers(client: SchemaRegistryClient) -> bool:
    try:
        return bool(client.get_subjects())
    except Exception:
        return False


def test_filters_choose_their_payload_and_go_live_without_a_restart(night: Night) -> None:
    with night.shell.running("run", "--workers", "2"):
        for payload in ("light", "standard", "full"):
            said = night.shell(
                "filters", "add", f"all-{payload}", "--where", "psf_flux_err > 0", "--payload", payload
            )
            assert "0/0" not in said
        night.shell("simulate", "--alerts", "120", "--seed", "77", "--topic", "ztf_replay")
        topic = "filters.local.all-full"
        wait_until(lambda: len(read_all(night.bootstrap, topic)) >= 120, "the hits are out", 90)
    light, standard, full = (
        decoded(night.bootstrap, f"filters.local.all-{name}") for name in ("light", "standard", "full")
    )
    assert len(light) == len(standard) == len(full) == 120
    originals = {id_of(r): r for m in read_all(night.bootstrap, "ztf_replay") for r, _ in safe_records(m)}
    for hit in full:
        assert hit["original"] == originals[hit["diaSourceId"]]
        assert hit["lightCurve"][-1]["midpointMjdTai"] <= hit["midpointMjdTai"]
    assert all("lightCurve" not in hit for hit in light)
    assert all(hit["lightCurve"] and "original" not in hit for hit in standard)


def safe_records(message: Any) -> list[tuple[dict[str, Any], bytes]]:
    try:
        return records_of(message.value() or b"")
    except Exception:
        return []
