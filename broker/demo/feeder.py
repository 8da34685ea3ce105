"""The demo's telescope: a process of its own that puts packets into the input topic at a steady rate."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from broker.astro.times import unix_s_to_mjd_tai
from broker.client.send import Pace, Sender
from broker.config import Settings
from broker.errors import BrokerError
from broker.ingest.files import FilePacket, find_files, read_packets, with_surveys
from broker.kafka.topics import replay_topic
from broker.message import Packet
from broker.simulate import simulate_lsst, simulate_ztf

_ENDLESS = 1_000_000
_SEED = 1
_NIGHTS = 730
"""How far back the simulated sky begins [day]: a million alerts take fewer nights, and none may lie ahead."""


@dataclass(frozen=True)
class Plan:
    """What the demo plays: the files of `paths`, or a simulated sky of `survey` without end."""

    survey: str | None
    paths: tuple[Path, ...]
    rate: float


def feed(settings: Settings, plan: Plan) -> None:
    """Send until there is no more, or the parent is gone."""
    parent = os.getppid()
    sender = Sender(settings, Pace(1, 1 / plan.rate))
    try:
        for packet in packets_of(plan):
            sender.send(packet)
            if os.getppid() != parent:
                return
        sender.finish()
    except (BrokerError, KeyboardInterrupt) as error:
        logging.getLogger(__name__).info("the feeder stops: %s", error)


def packets_of(plan: Plan) -> Iterator[Packet]:
    """The plan as packets for the input topics."""
    if plan.paths:
        for survey, item in with_surveys(read_packets(find_files(plan.paths))):
            if isinstance(item, FilePacket):
                yield Packet(replay_topic(plan.survey or survey), None, item.value)
        return
    make = simulate_lsst if plan.survey == "lsst" else simulate_ztf
    for alert in make(_ENDLESS, _SEED, first_night(time.time())):
        yield Packet(replay_topic(plan.survey or "ztf"), None, alert.value)


def first_night(unix_s: float) -> float:
    """Where the simulated sky begins so that it never reaches a time that is yet to come [MJD, TAI].

    >>> first_night(1_790_000_000.0)
    60574.0
    """
    return float(unix_s_to_mjd_tai(unix_s)) // 1.0 - _NIGHTS
