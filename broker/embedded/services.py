"""Servers in the background: they outlive the command that starts them and end only by `down`."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import redis

from broker.embedded import folders
from broker.embedded.child import STOP_TIMEOUT_S, Child, Fate
from broker.embedded.folders import locked, private_folder
from broker.embedded.jars import kafka_jars
from broker.embedded.kafka import KafkaPlace, answering_cluster_id, start_kafka
from broker.embedded.owned import START_TIMEOUT_S, Addresses, places
from broker.embedded.record import Ports, Process, Record, read_record, usable_ports, write_record
from broker.embedded.valkey import ValkeyPlace, answering_pid, start_valkey
from broker.errors import EmbeddedServerError

_LOCK_SLACK_S = 15.0

State = Literal["running", "silent", "stale", "absent"]


@dataclass(frozen=True)
class ServerStatus:
    """One server as found now.

    state : running = ours, and answers; silent = ours, but does not answer (starting, or stuck);
            stale = recorded, but that process is gone; absent = not meant to run
    """

    state: State
    pid: int | None
    address: str
    data_folder: Path


@dataclass(frozen=True)
class ServicesStatus:
    """Both servers of a data folder as found now; `addresses` only when both run."""

    kafka: ServerStatus
    valkey: ServerStatus
    data_dir: Path
    ephemeral: bool
    addresses: Addresses | None

    @property
    def running(self) -> bool:
        """Whether both run and answer."""
        return self.addresses is not None


@dataclass(frozen=True)
class Services:
    """Background servers that run, and which of them this call has started."""

    addresses: Addresses
    data_dir: Path
    ephemeral: bool
    kafka_pid: int
    valkey_pid: int
    started: tuple[str, ...]


def up(
    data_dir: Path | None = None,
    *,
    ephemeral: bool = False,
    quiet: bool = False,
    start_timeout_s: float = START_TIMEOUT_S,
    kafka_settings: Mapping[str, str] | None = None,
) -> Services:
    """Have both servers run in the background; finds those that do, starts those that do not.

    data_dir : their folder; `broker.embedded.data_dir()` when None
    ephemeral : start on empty data that `down` deletes; data kept by other runs is not touched. Servers that
                run already stay as they are
    Raises EmbeddedServerError when a server does not start, or runs but does not answer.
    """
    folder = _folder(data_dir)
    kafka_jars(quiet=quiet)  # before the lock: a slow network must not keep `status` or `down` waiting
    with _exclusive(folder, "services up", start_timeout_s):
        found = status(folder)
        for name, server in (("Kafka", found.kafka), ("Valkey", found.valkey)):
            _require_answer(name, server)
        record = read_record(folder) or Record(Ports.new())
        if not found.running:
            record = _start_missing(
                folder, record, found, ephemeral, start_timeout_s, kafka_settings or {}, quiet
            )
        started = _names(found.kafka.state != "running", found.valkey.state != "running")
        return _services(folder, record, started)


def down(data_dir: Path | None = None, *, timeout_s: float = STOP_TIMEOUT_S) -> bool:
    """End both background servers in peace, by force after `timeout_s`; delete ephemeral data.

    Returns whether any of them ran. Their ports stay recorded for the next `up`.
    """
    folder = _folder(data_dir)
    if read_record(folder) is None:
        return False
    with _exclusive(folder, "services down", START_TIMEOUT_S):
        record = read_record(folder)
        if record is None:
            return False
        kafka, valkey = _places(folder, record, {})
        ended = [
            _end(process, str(place.settings_file), timeout_s)
            for process, place in ((record.kafka, kafka), (record.valkey, valkey))
            if process is not None
        ]
        write_record(folder, replace(record, kafka=None, valkey=None))
        if record.ephemeral:
            shutil.rmtree(_data_folder(folder, ephemeral=True), ignore_errors=True)
        return any(ended)


def status(data_dir: Path | None = None) -> ServicesStatus:
    """What runs of a data folder's servers, proved by asking them; changes nothing and takes no lock."""
    folder = _folder(data_dir)
    record = read_record(folder)
    if record is None:
        return _never_started(folder)
    kafka_place, valkey_place = _places(folder, record, {})
    kafka = ServerStatus(
        _kafka_state(record.kafka, kafka_place),
        record.kafka.pid if record.kafka else None,
        kafka_place.bootstrap_servers,
        kafka_place.folder,
    )
    valkey = ServerStatus(
        _valkey_state(record.valkey, valkey_place),
        record.valkey.pid if record.valkey else None,
        valkey_place.url,
        valkey_place.folder,
    )
    both = kafka.state == valkey.state == "running"
    addresses = Addresses(kafka.address, valkey.address, kafka_place.cluster_id) if both else None
    return ServicesStatus(kafka, valkey, folder, record.ephemeral, addresses)


def attach_or_start(data_dir: Path | None = None, *, quiet: bool = False) -> tuple[Addresses, bool]:
    """Addresses of the background servers, started if need be; the second value tells whether any was."""
    found = status(data_dir)
    if found.addresses is not None:
        return found.addresses, False
    services = up(data_dir, quiet=quiet)
    return services.addresses, bool(services.started)


def _start_missing(
    folder: Path,
    record: Record,
    found: ServicesStatus,
    ephemeral: bool,
    timeout_s: float,
    settings: Mapping[str, str],
    quiet: bool,
) -> Record:
    """Start what does not run, and write the record before the servers are let go.

    Until then their guards watch this process: interrupted at any moment, it leaves either servers that the
    record names or none.
    """
    need_kafka, need_valkey = found.kafka.state != "running", found.valkey.state != "running"
    if need_kafka and need_valkey:
        record = replace(record, ephemeral=ephemeral)
        if ephemeral:
            shutil.rmtree(_data_folder(folder, ephemeral=True), ignore_errors=True)
    record = replace(record, ports=usable_ports(record.ports, kafka=need_kafka, valkey=need_valkey))
    kafka_place, valkey_place = _places(folder, record, settings)
    children: list[Child] = []
    with ExitStack() as undo:
        if need_valkey:
            children.append(start_valkey(valkey_place, Fate(), timeout_s))
            undo.callback(children[-1].kill)
            record = replace(record, valkey=Process.of(children[-1].pid))
        if need_kafka:
            children.append(start_kafka(kafka_place, Fate(), timeout_s, quiet=quiet))
            undo.callback(children[-1].kill)
            record = replace(record, kafka=Process.of(children[-1].pid), cluster_id=kafka_place.cluster_id)
        write_record(folder, record)
        undo.pop_all()
    for child in children:
        child.let_go()
    return record


def _services(folder: Path, record: Record, started: tuple[str, ...]) -> Services:
    kafka, valkey = _places(folder, record, {})
    assert record.kafka is not None
    assert record.valkey is not None
    return Services(
        Addresses(kafka.bootstrap_servers, valkey.url, kafka.cluster_id),
        folder,
        record.ephemeral,
        record.kafka.pid,
        record.valkey.pid,
        started,
    )


def _kafka_state(process: Process | None, place: KafkaPlace) -> State:
    if process is None:
        return "absent"
    if not process.runs(str(place.settings_file)):
        return "stale"
    return "running" if answering_cluster_id(place) == place.cluster_id else "silent"


def _valkey_state(process: Process | None, place: ValkeyPlace) -> State:
    if process is None:
        return "absent"
    if not process.runs(str(place.settings_file)):
        return "stale"
    with suppress(redis.BusyLoadingError):
        return "running" if answering_pid(place) == process.pid else "silent"
    return "silent"


def _require_answer(name: str, server: ServerStatus) -> None:
    if server.state == "silent":
        raise EmbeddedServerError(
            f"{name} (process {server.pid}) runs but does not answer at {server.address}: "
            f"see its log in {server.data_folder}, or end it with `broker services down`"
        )


def _end(process: Process, mark: str, timeout_s: float) -> bool:
    """End a process that is no child of ours; returns whether it still ran."""
    if not process.runs(mark):
        return False
    end = time.monotonic() + timeout_s
    with suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGTERM)
        while process.runs(mark):
            if time.monotonic() > end:
                os.killpg(process.pid, signal.SIGKILL)
            time.sleep(0.05)
    return True


def _places(folder: Path, record: Record, settings: Mapping[str, str]) -> tuple[KafkaPlace, ValkeyPlace]:
    home = _data_folder(folder, record.ephemeral)
    kafka, valkey = places(home, record.ports, {"kafka": True, "valkey": True}, settings)
    assert kafka is not None
    assert valkey is not None
    return kafka, valkey


def _data_folder(folder: Path, ephemeral: bool) -> Path:
    return folder / "ephemeral" if ephemeral else folder


def _never_started(folder: Path) -> ServicesStatus:
    kafka = ServerStatus("absent", None, "", folder / "kafka")
    valkey = ServerStatus("absent", None, "", folder / "valkey")
    return ServicesStatus(kafka, valkey, folder, False, None)


def _folder(data_dir: Path | None) -> Path:
    return folders.data_dir() if data_dir is None else data_dir.absolute()


def _exclusive(folder: Path, purpose: str, timeout_s: float) -> AbstractContextManager[None]:
    return locked(private_folder(folder) / "services.lock", purpose, timeout_s + _LOCK_SLACK_S)


def _names(kafka: bool, valkey: bool) -> tuple[str, ...]:
    return tuple(name for name, chosen in (("kafka", kafka), ("valkey", valkey)) if chosen)
