"""One /metrics port for all workers of a run."""

from __future__ import annotations

import errno
import logging
import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.samples import Sample

from broker.config import MetricsSettings
from broker.errors import BrokerError

log = logging.getLogger(__name__)

_THE_DEAD = 0
"""No process of ours has this number: the files of those that ended are kept under it."""


class _LagCollector:
    """The consumer lag, which only the parent looks up."""

    def __init__(self, lag: Callable[[], Mapping[tuple[str, int], int]]) -> None:
        self._lag = lag

    def collect(self) -> Iterator[Metric]:
        family = GaugeMetricFamily(
            "broker_consumer_lag", "Input records not committed yet", labels=["topic", "partition"]
        )
        for (topic, partition), records in self._lag().items():
            family.add_metric([topic, str(partition)], records)
        yield family


@dataclass(frozen=True)
class DriftGauge:
    """How far a column of a survey's night is from a reference.

    psi : population stability index, NaN where it is not known;  more_nulls : growth of the share of nulls
    """

    survey: str
    column: str
    reference: str
    psi: float
    more_nulls: float


class _DriftCollector:
    """The stream's drift, which only the parent looks up; what is not known is left out."""

    def __init__(self, drift: Callable[[], Sequence[DriftGauge]]) -> None:
        self._drift = drift

    def collect(self) -> Iterator[Metric]:
        labels = ["survey", "column", "reference"]
        psi = GaugeMetricFamily(
            "broker_drift_psi", "Population stability index of the newest night", labels=labels
        )
        nulls = GaugeMetricFamily(
            "broker_drift_nulls", "Growth of the share of nulls in the newest night", labels=labels
        )
        for item in self._drift():
            for family, value in ((psi, item.psi), (nulls, item.more_nulls)):
                if not math.isnan(value):
                    family.add_metric([item.survey, item.column, item.reference], value)
        yield psi
        yield nulls


@dataclass(frozen=True)
class FleetFigures:
    """The workers of a run as its parent sees them.

    restarts : how many were started again, by why the one before ended
    stalled : input partitions with records whose position does not move
    """

    wanted: int = 0
    alive: int = 0
    ready: int = 0
    restarts: Mapping[str, int] = field(default_factory=dict)
    stalled: int = 0


class _FleetCollector:
    """The workers, which only the parent can count."""

    def __init__(self, fleet: Callable[[], FleetFigures]) -> None:
        self._fleet = fleet

    def collect(self) -> Iterator[Metric]:
        now = self._fleet()
        for name, what, value in (
            ("broker_workers_wanted", "Workers of this run that there should be", now.wanted),
            ("broker_workers", "Workers of this run that live", now.alive),
            ("broker_workers_ready", "Workers of this run that have joined and get on", now.ready),
            (
                "broker_stalled_partitions",
                "Input partitions that stand still, with records",
                now.stalled,
            ),
        ):
            yield GaugeMetricFamily(name, what, value)
        restarts = CounterMetricFamily(
            "broker_worker_restarts", "Workers started again, by why the one before ended", labels=["cause"]
        )
        for cause, count in sorted(now.restarts.items()):
            restarts.add_metric([cause], count)
        yield restarts


class _WorkersCollector(MultiProcessCollector):
    """The sum of the workers' files; those of the dead are kept as one, or each restart would add two."""

    def __init__(self, registry: CollectorRegistry, folder: str) -> None:
        self._alone = threading.Lock()
        self._folder = Path(folder)
        super().__init__(registry, path=folder)  # type: ignore[no-untyped-call]

    def collect(self) -> Iterator[Metric]:
        with self._alone:
            yield from super().collect()  # type: ignore[no-untyped-call]

    def forget(self, pid: int) -> None:
        """A process is gone: what it counted stays, what it said of the moment does not."""
        with self._alone:
            mark_process_dead(pid, str(self._folder))  # type: ignore[no-untyped-call]
            for kind in ("counter", "histogram"):
                _add(self._folder / f"{kind}_{pid}.db", self._folder / f"{kind}_{_THE_DEAD}.db")


def _add(part: Path, total: Path) -> None:
    """Add the values of one metrics file to another's, and remove it."""
    if not part.exists():
        return
    sums = MmapedDict(str(total))  # type: ignore[no-untyped-call]
    try:
        for key, value, at, _ in MmapedDict.read_all_values_from_file(str(part)):  # type: ignore[no-untyped-call]
            before, _ = sums.read_value(key)  # type: ignore[no-untyped-call]
            sums.write_value(key, before + value, at)  # type: ignore[no-untyped-call]
    finally:
        sums.close()  # type: ignore[no-untyped-call]
    part.unlink()


class MetricsServer:
    """Serves the sum of the workers' metric files, the lag, the drift and the state of the fleet."""

    def __init__(
        self,
        settings: MetricsSettings,
        folder: str,
        lag: Callable[[], Mapping[tuple[str, int], int]],
        drift: Callable[[], Sequence[DriftGauge]] = tuple,
        fleet: Callable[[], FleetFigures] = FleetFigures,
    ) -> None:
        registry = CollectorRegistry()
        self._workers = _WorkersCollector(registry, folder)
        registry.register(_LagCollector(lag))
        registry.register(_DriftCollector(drift))
        registry.register(_FleetCollector(fleet))
        self._registry = registry
        self._server, self._thread = _listen(settings, registry)
        self.address = f"http://{settings.host}:{self._server.server_port}/metrics"

    def samples(self) -> list[Sample]:
        """Every figure as /metrics shows it now."""
        return [sample for family in self._registry.collect() for sample in family.samples]

    def forget(self, pid: int) -> None:
        """A worker is gone: its counters stay, what it said of the moment does not."""
        try:
            self._workers.forget(pid)
        except (OSError, ValueError) as error:  # a file that is gone, or half written: not worth a run
            log.warning("the metrics of worker %d are not whole: %s", pid, error)

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _listen(settings: MetricsSettings, registry: CollectorRegistry) -> tuple[Any, Any]:
    """Listen on the port asked for; when another run has it, on a free one, and say so."""
    try:
        return start_http_server(settings.port, settings.host, registry)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise BrokerError(f"cannot serve metrics on {settings.host}:{settings.port}: {error}") from error
        log.warning("metrics.port %d is taken (another run?); using a free one", settings.port)
        return start_http_server(0, settings.host, registry)
