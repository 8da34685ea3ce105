"""The demo from its first server to its last line."""

from __future__ import annotations

import multiprocessing
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from broker.assemble import prepare, private_servers
from broker.client import Stream
from broker.config import Settings
from broker.demo.feeder import Plan, feed
from broker.demo.figures import Figures, figures_of
from broker.demo.view import View, say, summary
from broker.ledger import Balance, balance
from broker.metrics_server import MetricsServer
from broker.supervisor import Supervisor

_ALERTS = r"^alerts\."


@dataclass
class Demo:
    """One demo: servers of its own, a telescope, the pipeline, a view; nothing is left behind."""

    settings: Settings
    plan: Plan
    seconds: float | None

    def run(self) -> Balance:
        """Play until the time is over or somebody presses Ctrl-C; the account at the end."""
        say("starting Kafka and Valkey ...")
        with (
            tempfile.TemporaryDirectory(prefix="broker-demo-") as folder,
            private_servers(self.settings) as on,
        ):
            settings = replace(on, metrics=replace(on.metrics, port=0))
            prepare(settings)
            say("starting the pipeline (the first time, its kernels are compiled: about half a minute) ...")
            self._supervisor = Supervisor(settings, Path(folder), on_start=self._started, on_tick=self._tick)
            self._server: MetricsServer | None = None
            self._view: View | None = None
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, lambda *_: self._supervisor.stop())
            with _feeding(settings, self.plan), self._watching(settings):
                self._supervisor.run()
            result = balance(settings, verify=True)
            print(summary(self._last, 0.0))
            return result

    def _started(self, server: MetricsServer) -> None:
        self._server = server
        self._deadline: float | None = None
        self._last = Figures()

    def _tick(self) -> None:
        if self._view is not None:
            self._view.show(self._look)
        if self.seconds is None:
            return
        if self._deadline is None and self._look().outcomes.get("published"):
            self._deadline = time.monotonic() + self.seconds
        if self._deadline is not None and time.monotonic() > self._deadline:
            self._supervisor.stop()

    def _look(self) -> Figures:
        if self._server is not None:
            self._last = figures_of(self._server.samples())
        return self._last

    @contextmanager
    def _watching(self, settings: Settings) -> Iterator[None]:
        """Follow the alert topics as any user would, in a thread, and show what comes."""
        done = threading.Event()

        def follow(view: View) -> None:
            with Stream(_ALERTS, settings.kafka.bootstrap_servers, start="beginning") as stream:
                while not done.is_set():
                    for received in stream.poll(0.2):
                        view.take(received.value)

        with View(where_to_listen(settings)) as view:
            self._view = view
            thread = threading.Thread(target=follow, args=(view,), daemon=True)
            thread.start()
            try:
                yield
            finally:
                done.set()
                thread.join(5)
                self._view = None


def where_to_listen(settings: Settings) -> list[str]:
    """How another shell reaches this demo."""
    kafka, redis = settings.kafka.bootstrap_servers, settings.redis.url
    return [
        f"Kafka {kafka}, Valkey {redis}. In another shell:",
        f"  broker listen alerts.ztf --from beginning --kafka {kafka}",
        f"  broker listen filters.broker.probable-supernovae --kafka {kafka}",
        f"  broker filters add my-filter --where \"mag < 19 and band = 'g'\" --kafka {kafka} --redis {redis}",
        "Ctrl-C stops everything.",
    ]


@contextmanager
def _feeding(settings: Settings, plan: Plan) -> Iterator[None]:
    process = multiprocessing.get_context("spawn").Process(target=feed, args=(settings, plan), daemon=True)
    process.start()
    try:
        yield
    finally:
        process.terminate()
        process.join(10)
