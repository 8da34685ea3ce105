"""One /metrics port for all workers of a run."""

from __future__ import annotations

import errno
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.samples import Sample

from broker.config import MetricsSettings
from broker.errors import BrokerError

log = logging.getLogger(__name__)


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


class MetricsServer:
    """Serves the sum of the workers' metric files, the lag and the drift."""

    def __init__(
        self,
        settings: MetricsSettings,
        folder: str,
        lag: Callable[[], Mapping[tuple[str, int], int]],
        drift: Callable[[], Sequence[DriftGauge]] = tuple,
    ) -> None:
        registry = CollectorRegistry()
        MultiProcessCollector(registry, path=folder)  # type: ignore[no-untyped-call]
        registry.register(_LagCollector(lag))
        registry.register(_DriftCollector(drift))
        self._folder = folder
        self._registry = registry
        self._server, self._thread = _listen(settings, registry)
        self.address = f"http://{settings.host}:{self._server.server_port}/metrics"

    def samples(self) -> list[Sample]:
        """Every figure as /metrics shows it now."""
        return [sample for family in self._registry.collect() for sample in family.samples]

    def forget(self, pid: int | None) -> None:
        """A worker is gone: its counters stay, what it said of the moment does not."""
        if pid is not None:
            mark_process_dead(pid, self._folder)  # type: ignore[no-untyped-call]

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
