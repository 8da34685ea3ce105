"""`broker run`: the pipeline."""

from __future__ import annotations

import logging
import signal
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from broker.cli.options import KafkaOption, RedisOption, settings_from
from broker.errors import BrokerError

if TYPE_CHECKING:
    from broker.metrics_server import MetricsServer


def run(
    workers: Annotated[int | None, typer.Option(min=1, help="Worker processes.")] = None,
    until_idle: Annotated[
        float | None, typer.Option(min=0, help="Stop once the input has been used up for this many seconds.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Folder of a model bundle.")] = None,
    metrics_port: Annotated[int | None, typer.Option(help="Port of /metrics; 0 = any free one.")] = None,
    kafka: KafkaOption = None,
    redis: RedisOption = None,
) -> None:
    """Run the pipeline: input topics to scored, filtered topics, exactly once.

    Starts the embedded Kafka and Valkey unless kafka.bootstrap_servers and redis.url are set. Exit code 0
    after SIGTERM, Ctrl-C or --until-idle; 1, with the reason on stderr, when it ends for a fault.
    """
    from broker.assemble import connected, prepare  # noqa: PLC0415
    from broker.embedded import data_dir  # noqa: PLC0415
    from broker.supervisor import Supervisor  # noqa: PLC0415

    flags = {"run.workers": workers, "run.model": model, "metrics.port": metrics_port}
    settings = connected(settings_from(kafka, redis, **flags))

    def prepared() -> None:
        for line in prepare(settings):
            print(line, file=sys.stderr)

    def started(server: MetricsServer) -> None:
        where = settings.kafka.bootstrap_servers
        print(f"{settings.run.workers} worker(s) on {where}; metrics: {server.address}", file=sys.stderr)

    supervisor = Supervisor(settings, data_dir() / "slots", until_idle, prepare=prepared, on_start=started)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: supervisor.stop())
    try:
        supervisor.run()
    except BrokerError:
        raise
    except Exception as error:
        logging.getLogger(__name__).exception("the run ends")
        raise BrokerError(f"the run ended for a fault that nothing here expects: {error!r}") from error
