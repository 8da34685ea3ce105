"""A `broker run` under a schedule of faults, from the first alert to the last, and what happened in it."""

from __future__ import annotations

import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
from cluster import Cluster
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from harness import Shell, wait_until
from kafka_proxy import Fault, KafkaProxy

from broker.embedded import OwnedServers
from broker.errors import EmbeddedServerError
from chaos.feed import Feed
from chaos.log import Partition, consumer, partitions_of, settled_ends, topic_names
from chaos.schedule import Step
from chaos.subscriber import Subscriber

TOPIC = "ztf_replay"
GROUP = "broker"
INPUTS = ((GROUP, TOPIC), (GROUP + ".annotations", "annotations"))
"""Each group of a run, and the topic that it reads."""
WORKERS = 2
ALL_HITS = "everything"
"""A filter that every alert passes, there from the start to the end."""
_SOME = ("mag < {}", "psf_flux > {}", "n_detections >= {} and not is_negative")
_CALM_S = 20.0
_AHEAD = 3
"""Shares of the input that are there before the first step: faults find a run at work."""
_KAFKA_TRIES = 4
_DRAIN_S = 240.0


@dataclass(frozen=True)
class Event:
    """Something that the run had to recover from: at [Unix s], of a worker its process id."""

    what: str
    at: float
    pid: int = 0


@dataclass(frozen=True)
class Verdict:
    """What `broker ledger` said when it was asked: exit code, standard output and error."""

    at: float
    code: int
    said: str
    errors: str


class Chaos:
    """The servers, the proxy before Kafka, the run, its input and its subscriber.

    troubles : what was wrong already while it ran, and would have needed a person
    diary : when each step began, and how many alerts were out by then
    """

    def __init__(
        self,
        servers: OwnedServers | Cluster,
        proxy: KafkaProxy | None,
        folder: Path,
        *,
        seed: int,
        alerts: int,
        batches: tuple[int, int] = (40, 120),
        extra: Mapping[str, str] | None = None,
    ) -> None:
        """`proxy` stands before Kafka, if there is one; `extra` is the environment of the run and users."""
        self.servers, self.proxy, self.folder, self.seed, self.alerts = servers, proxy, folder, seed, alerts
        self.direct = servers.addresses.bootstrap_servers
        sizes = {"BROKER_RUN_BATCH_MIN": str(batches[0]), "BROKER_RUN_BATCH_MAX": str(batches[1])}
        through = servers.addresses
        if proxy is not None:
            through = replace(through, bootstrap_servers=proxy.bootstrap_servers)
        self.user = Shell(servers.addresses, folder, dict(extra or {}))
        self._env = Shell(through, folder, {**(extra or {}), **sizes, "BROKER_RUN_POLL_MS": "50"}).env
        self.dice = random.Random(seed + 1)
        self.troubles: list[str] = []
        self.events: list[Event] = []
        self.diary: list[str] = []
        self.verdicts: list[Verdict] = []
        self.done: Counter[str] = Counter()
        self._timers: list[tuple[str, threading.Timer]] = []
        self._errand: subprocess.Popen[bytes] | None = None
        self._extras = 0

    def __enter__(self) -> Chaos:
        """The run, its filters and the subscriber; nothing is sent yet."""
        self.run = self._start()
        try:
            self._prepare()
        except BaseException:
            self._kill()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Leave nothing running."""
        for _, timer in self._timers:
            timer.join()
        self._kill()
        self.subscriber.stop()

    def _prepare(self) -> None:
        wait_until(lambda: {TOPIC, "control", "ledger"} <= set(topic_names(self.direct)), "there are topics")
        free = ("--max-hits-per-hour", "0", "--max-us-per-alert", "0")
        self.user("filters", "add", ALL_HITS, "--where", "psf_flux_err > 0", "--payload", "standard", *free)
        self.user("filters", "add", "changing", "--where", "mag < 20", *free)
        self.subscriber = Subscriber(self.direct)
        self.feed = Feed(self.direct, TOPIC, self.alerts, self.seed)

    def _kill(self) -> None:
        for process in (self._errand, self.run):
            if process is not None and process.poll() is None:
                process.kill()
                process.wait()

    def go(self, steps: Sequence[Step]) -> None:
        """Send everything, spread over the steps, and do them one after the other."""
        start, share = time.monotonic(), -(-self.alerts // (len(steps) + _AHEAD))
        self.feed.send(_AHEAD * share)
        wait_until(lambda: self.subscriber.alerts > 0, "the first alerts come out", 120)
        for step in steps:
            self.feed.send(share)
            self._look_after_run()
            self.diary.append(f"{time.monotonic() - start:.0f} s, {self.subscriber.alerts} out: {step}")
            getattr(self, step.what)(step)
            self.done[step.what] += step.what != "wire"
            self._pause()
        self._wait_for_timers("")
        self._end_errand()
        if self.proxy is not None:
            self.proxy.clear()

    def finish(self) -> None:
        """Let the run work off everything, ask for the account, and end it in peace."""
        self.feed.finish()
        try:
            wait_until(self.drained, "the input is used up", _DRAIN_S + self.alerts / 200)
        except AssertionError as error:
            self.troubles.append(f"{error}; the run's last words:\n{self.last_words()}")
        self._look_after_run()
        wait_until(lambda: len(self.workers()) == WORKERS, "both workers live at the end", 60)
        self.ask_ledger(Step("ask_ledger"))
        self.run.send_signal(signal.SIGTERM)
        code = self.run.wait(90)
        if code != 0:
            self.troubles.append(f"the run, told to stop, ended with {code}:\n{self.last_words()}")

    def workers(self) -> list[psutil.Process]:
        """The workers of the run, as they are now."""
        with suppress(psutil.NoSuchProcess):
            children = psutil.Process(self.run.pid).children(recursive=True)
            return [child for child in children if _is_worker(child)]
        return []

    def last_words(self) -> str:
        """The end of what the run wrote."""
        return (self.folder / "run.log").read_text(errors="replace")[-3000:]

    # --- the steps ---

    def kill_worker(self, step: Step) -> None:
        """SIGKILL one of the workers."""
        victim = self._a_worker(step)
        if victim is not None:
            self.events.append(Event("worker killed", time.time(), victim.pid))
            _send(victim.pid, signal.SIGKILL)

    def stop_worker(self, step: Step) -> None:
        """SIGSTOP one of the workers for longer than its session and its transaction last."""
        victim = self._a_worker(step)
        if victim is not None:
            self._stop_for("worker", victim.pid, step.seconds)

    def kill_parent(self, _: Step) -> None:
        """SIGKILL the run itself; somebody starts another at once."""
        self._wait_for_timers("parent")
        _send(self.run.pid, signal.SIGKILL)
        self.run.wait()
        self.run = self._start()

    def stop_parent(self, step: Step) -> None:
        """SIGSTOP the run's own process."""
        self._wait_for_timers("parent")
        self._stop_for("parent", self.run.pid, step.seconds)

    def kill_kafka(self, step: Step) -> None:
        """SIGKILL Kafka and start it again; it must come back at the first try."""
        self._wait_for_timers("kafka")
        self._wait_for_errand()
        self.servers.kill_kafka()
        time.sleep(step.seconds)
        for left in reversed(range(_KAFKA_TRIES)):
            try:
                self.servers.restart_kafka()
                break
            except EmbeddedServerError as error:
                self.troubles.append(f"Kafka did not come back: {error}")
                assert left, "Kafka cannot be started any more"
        self.events.append(Event("kafka back", time.time()))

    def stop_kafka(self, step: Step) -> None:
        """SIGSTOP Kafka."""
        self._wait_for_timers("kafka")
        self._stop_for("kafka", self.servers.kafka_pid, step.seconds)

    def kill_valkey(self, step: Step) -> None:
        """SIGKILL Valkey and start it again on its data."""
        self._wait_for_timers("valkey")
        self.servers.kill_valkey()
        time.sleep(step.seconds)
        self.servers.restart_valkey()
        self.events.append(Event("valkey back", time.time()))

    def stop_valkey(self, step: Step) -> None:
        """SIGSTOP Valkey."""
        self._wait_for_timers("valkey")
        self._stop_for("valkey", self.servers.valkey_pid, step.seconds)

    def wire(self, step: Step) -> None:
        """A fault befalls the next request of a kind."""
        assert step.act is not None
        assert self.proxy is not None
        fault = self.proxy.plan(Fault(step.act, step.request, 1, step.seconds))
        with suppress(AssertionError):  # none came: it stays planned
            wait_until(lambda: fault.count == 0 or self._all_out(), "such a request comes", _CALM_S)

    def cut_all(self, _: Step) -> None:
        """Every connection breaks."""
        assert self.proxy is not None
        self.proxy.cut_all()

    def freeze(self, step: Step) -> None:
        """Nothing passes on the wire for a while."""
        assert self.proxy is not None
        self.proxy.freeze(step.seconds)
        time.sleep(step.seconds)

    def fence_producers(self, _: Step) -> None:
        """A foreign producer takes the transactional id of every slot, and lets it go again."""
        for slot in self.slots():
            producer = Producer({"bootstrap.servers": self.direct, "transactional.id": slot, "log_level": 2})
            producer.init_transactions(60)

    def fence_members(self, _: Step) -> None:
        """A foreign member takes the place of every slot in the group, and dies there."""
        foreign = [self._foreign_member(slot) for slot in self.slots()]
        end = time.monotonic() + _CALM_S
        while time.monotonic() < end and not all(client.assignment() for client in foreign):
            for client in foreign:
                client.poll(0.1)
        for client in foreign:
            client.close()  # a static member: its partitions stay its own until its session ends

    def slots(self) -> list[str]:
        """The slots of the run's workers, as the ids of their clients are made."""
        host = re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname())
        return [f"{GROUP}.{host}.{number}" for number in range(WORKERS)]

    def change_filter(self, step: Step) -> None:
        """Another version of a filter, while alerts flow."""
        where = _SOME[step.number % len(_SOME)].format(15 + step.number % 6)
        self._send_out("filters", "add", "changing", "--where", where)

    def pause_filter(self, _: Step) -> None:
        """The owner takes a filter out of force."""
        self._send_out("filters", "disable", "changing")

    def enable_filter(self, _: Step) -> None:
        """The owner puts it back into force."""
        self._send_out("filters", "enable", "changing")

    def add_filter(self, step: Step) -> None:
        """A filter, and a topic, that was not there before."""
        self._extras += 1
        where = _SOME[step.number % len(_SOME)].format(step.number % 20)
        self._send_out("filters", "add", f"extra-{self._extras}", "--where", where)

    def remove_filter(self, _: Step) -> None:
        """The newest of those goes; its topic stays."""
        self._send_out("filters", "remove", f"extra-{max(1, self._extras)}")

    def ask_ledger(self, _: Step) -> None:
        """Ask for the account while everything that it needs is there."""
        self._wait_for_timers("kafka")
        self._wait_for_timers("valkey")
        command = [sys.executable, "-m", "broker", "ledger", "--json"]
        asked = subprocess.run(
            command,
            env=self.user.env,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        self.verdicts.append(Verdict(time.time(), asked.returncode, asked.stdout, asked.stderr))

    # --- what they need ---

    def _start(self) -> subprocess.Popen[bytes]:
        with (self.folder / "run.log").open("ab") as log:
            command = [sys.executable, "-m", "broker", "run", "--workers", str(WORKERS)]
            return subprocess.Popen(
                command, env=self._env, cwd=self.folder, stdout=log, stderr=subprocess.STDOUT
            )

    def _look_after_run(self) -> None:
        """A run that ended by itself is a trouble; another is started so that the rest can be seen."""
        if self.run.poll() is not None:
            self.troubles.append(f"the run ended by itself with {self.run.returncode}:\n{self.last_words()}")
            self.run = self._start()

    def _foreign_member(self, slot: str) -> Consumer:
        client = Consumer(
            {
                "bootstrap.servers": self.direct,
                "group.id": GROUP,
                "group.instance.id": slot,
                "partition.assignment.strategy": "cooperative-sticky",
                "session.timeout.ms": 6000,
                "enable.auto.commit": False,
                "log_level": 2,
            }
        )
        client.subscribe([TOPIC])
        return client

    def _a_worker(self, step: Step) -> psutil.Process | None:
        with suppress(AssertionError):
            wait_until(lambda: bool(self.workers()), "a worker lives", _CALM_S)
        there = self.workers()
        return there[step.number % len(there)] if there else None

    def _stop_for(self, what: str, pid: int, seconds: float) -> None:
        _send(pid, signal.SIGSTOP)

        def go_on() -> None:
            _send(pid, signal.SIGCONT)
            self.events.append(Event(f"{what} goes on", time.time(), pid))

        timer = threading.Timer(seconds, go_on)
        self._timers.append((what, timer))
        timer.start()

    def _wait_for_timers(self, what: str) -> None:
        """Wait until what is stopped (all of it, if no name is given) goes on."""
        for name, timer in self._timers:
            if what in ("", name):
                timer.join()
        self._timers = [(name, timer) for name, timer in self._timers if timer.is_alive()]

    def _pause(self) -> None:
        """A moment, or until alerts come out again: faults meet a run at work, and one that recovers."""
        if self.dice.random() < 0.4:
            time.sleep(self.dice.uniform(0.1, 1.5))
            return
        before = self.subscriber.alerts
        with suppress(AssertionError):
            wait_until(lambda: self.subscriber.alerts > before or self._all_out(), "alerts come out", _CALM_S)

    def _all_out(self) -> bool:
        return self.subscriber.alerts >= self.feed.sent

    def _send_out(self, *args: str) -> None:
        """What a user types, while the faults go on; it may fail, but not crash, nor hang."""
        self._end_errand()
        with (self.folder / "errands.log").open("ab") as log:
            self._errand = subprocess.Popen(
                [sys.executable, "-m", "broker", *args],
                env=self.user.env, cwd=self.folder, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip

    def _wait_for_errand(self) -> None:
        if self._errand is not None:
            with suppress(subprocess.TimeoutExpired):
                self._errand.wait(_CALM_S)

    def _end_errand(self) -> None:
        if self._errand is None:
            return
        said = " ".join(map(str, list(self._errand.args)[3:]))  # type: ignore[call-overload]
        try:
            code = self._errand.wait(120)
        except subprocess.TimeoutExpired:
            self._errand.kill()
            self._errand.wait()
            self.troubles.append(f"`broker {said}` does not end")
        else:
            if code < 0:
                self.troubles.append(f"`broker {said}` was ended by signal {-code}")
        self._errand = None

    def drained(self) -> bool:
        """Whether the groups have committed all of the input; asked as any consumer may."""
        self._look_after_run()
        return all(self._used_up(*read) for read in INPUTS)

    def _used_up(self, group: str, topic: str) -> bool:
        try:
            committed = positions(self.direct, group, topic)
            return committed == settled_ends(self.direct, committed)
        except (KafkaException, AssertionError):
            return False


def positions(bootstrap: str, group: str, topic: str) -> dict[Partition, int]:
    """What a group has committed of a topic's partitions; 0 where nothing."""
    client = consumer(bootstrap, **{"group.id": group})
    try:
        wanted = [TopicPartition(*key) for key in partitions_of(client, [topic])]
        found = client.committed(wanted, timeout=15)
        return {(part.topic, part.partition): max(0, part.offset) for part in found}
    finally:
        client.close()


def _send(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _is_worker(process: psutil.Process) -> bool:
    try:
        return "spawn_main" in " ".join(process.cmdline())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return False
