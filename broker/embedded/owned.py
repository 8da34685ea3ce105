"""Servers that live as long as a `with` block of this process, and no longer whatever happens to it."""

from __future__ import annotations

import shutil
import signal
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from broker.embedded.child import Child, Fate
from broker.embedded.folders import locked, private_folder
from broker.embedded.kafka import KafkaPlace, start_kafka
from broker.embedded.ports import becomes_free
from broker.embedded.record import Ports, Record, read_record, usable_ports, write_record
from broker.embedded.valkey import ValkeyPlace, start_valkey
from broker.errors import EmbeddedServerError

START_TIMEOUT_S = 60.0
_ENDING = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True)
class Addresses:
    """Where the servers are; an empty text for a server that was not asked for."""

    bootstrap_servers: str
    redis_url: str
    cluster_id: str


class OwnedServers:
    """A Kafka and a Valkey of this process; either can be killed and started again on its port and data."""

    def __init__(
        self, kafka: KafkaPlace | None, valkey: ValkeyPlace | None, fate: Fate, timeout_s: float, quiet: bool
    ) -> None:
        """Start what has a place; nothing is left running if one of them does not start."""
        self._kafka_place, self._valkey_place = kafka, valkey
        self._fate, self._timeout_s, self._quiet = fate, timeout_s, quiet
        self._kafka: Child | None = None
        self._valkey: Child | None = None
        with ExitStack() as undo:
            undo.callback(self.kill)
            if valkey is not None:
                self._valkey = start_valkey(valkey, fate, timeout_s)
            if kafka is not None:
                self._kafka = start_kafka(kafka, fate, timeout_s, quiet=quiet)
            undo.pop_all()

    @property
    def addresses(self) -> Addresses:
        """Where the servers are; the same after a restart."""
        kafka, valkey = self._kafka_place, self._valkey_place
        return Addresses(
            kafka.bootstrap_servers if kafka else "",
            valkey.url if valkey else "",
            kafka.cluster_id if kafka else "",
        )

    @property
    def kafka_pid(self) -> int:
        """Process id of Kafka."""
        return _started(self._kafka, "Kafka").pid

    @property
    def valkey_pid(self) -> int:
        """Process id of Valkey."""
        return _started(self._valkey, "Valkey").pid

    def kill_kafka(self, sig: signal.Signals = signal.SIGKILL) -> None:
        """Send Kafka a signal; returns after its end if the signal is one that ends it."""
        _send(_started(self._kafka, "Kafka"), sig)

    def kill_valkey(self, sig: signal.Signals = signal.SIGKILL) -> None:
        """Send Valkey a signal; returns after its end if the signal is one that ends it."""
        _send(_started(self._valkey, "Valkey"), sig)

    def restart_kafka(self) -> None:
        """Start Kafka again on the same port and data; ended first if it runs."""
        _started(self._kafka, "Kafka").stop()
        assert self._kafka_place is not None
        _require_free(self._kafka_place.port, self._kafka_place.controller_port)
        self._kafka = start_kafka(self._kafka_place, self._fate, self._timeout_s, quiet=self._quiet)

    def restart_valkey(self) -> None:
        """Start Valkey again on the same port and data; ended first if it runs."""
        _started(self._valkey, "Valkey").stop()
        assert self._valkey_place is not None
        _require_free(self._valkey_place.port)
        self._valkey = start_valkey(self._valkey_place, self._fate, self._timeout_s)

    def stop(self) -> None:
        """End both in peace, Kafka first."""
        for child in (self._kafka, self._valkey):
            if child is not None:
                child.stop()

    def kill(self) -> None:
        """End both at once."""
        for child in (self._kafka, self._valkey):
            if child is not None:
                child.kill()


@contextmanager
def owned(
    data_dir: Path | None = None,
    *,
    quiet: bool = False,
    kafka: bool = True,
    valkey: bool = True,
    start_timeout_s: float = START_TIMEOUT_S,
    kafka_settings: Mapping[str, str] | None = None,
) -> Iterator[OwnedServers]:
    """A real Kafka and a real Valkey for the length of a `with` block.

    data_dir : folder whose data and ports are kept from one run to the next; None: a private temporary
               folder, deleted at the end
    quiet : no word and no progress bar about fetching Kafka
    kafka, valkey : which of the two to start
    kafka_settings : entries of server.properties that add to ours or replace them
    Raises EmbeddedServerError when a server does not start or the folder's servers run already.
    """
    settings = dict(kafka_settings or {})
    wanted = {"kafka": kafka, "valkey": valkey}
    if data_dir is None:
        with _private(wanted, settings, start_timeout_s, quiet) as servers:
            yield servers
    else:
        with _kept(data_dir.absolute(), wanted, settings, start_timeout_s, quiet) as servers:
            yield servers


def places(
    folder: Path, ports: Ports, wanted: Mapping[str, bool], settings: Mapping[str, str]
) -> tuple[KafkaPlace | None, ValkeyPlace | None]:
    """Where the wanted servers of a data folder live."""
    kafka = KafkaPlace(folder / "kafka", ports.kafka, ports.controller, settings) if wanted["kafka"] else None
    valkey = ValkeyPlace(folder / "valkey", ports.valkey) if wanted["valkey"] else None
    return kafka, valkey


@contextmanager
def _private(
    wanted: Mapping[str, bool], settings: Mapping[str, str], timeout_s: float, quiet: bool
) -> Iterator[OwnedServers]:
    folder = Path(tempfile.mkdtemp(prefix="transient-broker-"))
    try:
        # Nobody will read this data again: the end need not be gentle, neither ours nor the guard's.
        servers = OwnedServers(
            *places(folder, Ports.new(), wanted, settings), Fate(grace_s=0, remove=folder), timeout_s, quiet
        )
        try:
            yield servers
        finally:
            servers.kill()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _kept(
    folder: Path, wanted: Mapping[str, bool], settings: Mapping[str, str], timeout_s: float, quiet: bool
) -> Iterator[OwnedServers]:
    with locked(private_folder(folder) / "services.lock", "servers of a running command", wait_s=0):
        record = read_record(folder) or Record(Ports.new())
        _require_none_running(folder, record)
        ports = usable_ports(record.ports, **wanted)
        servers = OwnedServers(*places(folder, ports, wanted, settings), Fate(), timeout_s, quiet)
        try:
            cluster = servers.addresses.cluster_id or record.cluster_id
            write_record(folder, Record(ports, cluster))
            yield servers
        finally:
            servers.stop()


def _require_none_running(folder: Path, record: Record) -> None:
    kafka, valkey = places(folder, record.ports, {"kafka": True, "valkey": True}, {})
    for process, place in ((record.kafka, kafka), (record.valkey, valkey)):
        if process is not None and place is not None and process.runs(str(place.settings_file)):
            raise EmbeddedServerError(
                f"the servers of {folder} run in the background (process {process.pid}): "
                "use those, or end them with `broker services down`"
            )


def _require_free(*ports: int) -> None:
    for port in ports:
        if not becomes_free(port):
            raise EmbeddedServerError(f"cannot start again: another program listens on port {port} now")


def _started(child: Child | None, name: str) -> Child:
    if child is None:
        raise EmbeddedServerError(f"{name} was not asked for when these servers were started")
    return child


def _send(child: Child, sig: signal.Signals) -> None:
    if sig == signal.SIGKILL:
        child.kill()
    elif sig in _ENDING:
        child.stop()
    else:
        child.send(sig)
