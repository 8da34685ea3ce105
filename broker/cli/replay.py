"""`broker replay`: alert files into an input topic."""

from __future__ import annotations

import json
import math
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from broker.cli.options import JsonOption, KafkaOption, kafka_connected, settings_from

if TYPE_CHECKING:
    from broker.client.send import Pace, Sender, Sent
    from broker.ingest.files import FilePacket, Unsent

SOURCE_FILE = "source-file"
"""Header of a replayed message: the base name of the file it came from."""
_INTERRUPTED = 130


@dataclass
class _Account:
    """What was handed to the sender and what could not be."""

    alerts: Counter[str] = field(default_factory=Counter)
    unsent: list[Unsent] = field(default_factory=list)
    interrupted: bool = False


def replay(
    paths: Annotated[
        list[Path],
        typer.Argument(help=".avro files, folders of them, nightly .tar.gz tarballs.", show_default=False),
    ],
    survey: Annotated[
        str | None, typer.Option(help="Send all to this survey's topic; else each file's content decides.")
    ] = None,
    rate: Annotated[float | None, typer.Option(help="Messages a second; else as fast as it goes.")] = None,
    burst: Annotated[
        str | None,
        typer.Option(metavar="N/SECONDS", help="N messages at once every SECONDS; Rubin's visits: 10000/39."),
    ] = None,
    topic: Annotated[str | None, typer.Option(help="Send all to this topic; else <survey>_replay.")] = None,
    as_json: JsonOption = False,
    kafka: KafkaOption = None,
) -> None:
    """Send alert files to an input topic, which is created if it is missing.

    A file of several alerts becomes one message an alert. Damaged and empty files are sent too: the pipeline
    turns them into dead letters. What exceeds 16 MiB is not sent but named at the end, with exit code 1.
    """
    from broker.client.send import Sender  # noqa: PLC0415
    from broker.ingest.files import find_files  # noqa: PLC0415

    pace, target = pace_of(rate, burst), _target(survey, topic)
    files = find_files(paths)
    sender = Sender(kafka_connected(settings_from(kafka)), pace)
    account = _send(sender, files, target)
    sent = sender.finish()
    _report(sent, account, as_json)
    sent.check()
    sys.exit(_INTERRUPTED if account.interrupted else int(bool(account.unsent)))


def pace_of(rate: float | None, burst: str | None = None) -> Pace | None:
    """The pace that `--rate` or `--burst` asks for.  Raises typer.BadParameter."""
    from broker.client.send import Pace  # noqa: PLC0415

    if rate is not None and burst is not None:
        raise typer.BadParameter("--rate and --burst exclude each other; give one")
    if rate is not None:
        if not 0 < rate < math.inf:
            raise typer.BadParameter(f"--rate {rate:g} is not a number of messages a second above 0")
        return Pace(1, 1 / rate)
    return None if burst is None else Pace(*_burst(burst))


def _burst(text: str) -> tuple[int, float]:
    count, _, seconds = text.partition("/")
    try:
        parsed = int(count), float(seconds)
    except ValueError:
        parsed = 0, 0.0
    if parsed[0] < 1 or not 0 < parsed[1] < math.inf:
        raise typer.BadParameter(f"--burst {text!r} is not N/SECONDS, such as 10000/39")
    return parsed


def _target(survey: str | None, topic: str | None) -> str | None:
    """The one topic for all; None if each file's content decides."""
    from broker.kafka.topics import replay_topic  # noqa: PLC0415
    from broker.surveys.catalog import SURVEYS  # noqa: PLC0415

    names = [item.name for item in SURVEYS]
    if survey is not None and survey not in names:
        raise typer.BadParameter(f"unknown survey {survey!r}; choose one of {', '.join(names)}")
    return topic or (replay_topic(survey) if survey else None)


def _send(sender: Sender, files: Sequence[Path], target: str | None) -> _Account:
    """Hand every packet to the sender; Ctrl-C ends it early."""
    from broker.cli.progress import Meter  # noqa: PLC0415
    from broker.ingest.files import FilePacket  # noqa: PLC0415
    from broker.message import Packet  # noqa: PLC0415

    account = _Account()
    with Meter("messages", sum(path.stat().st_size for path in files)) as meter:
        try:
            for topic, packet in _addressed(files, target):
                if isinstance(packet, FilePacket):
                    sender.send(Packet(topic, None, packet.value, ((SOURCE_FILE, packet.name.encode()),)))
                    account.alerts[topic] += packet.alerts
                    meter.advance(1, packet.taken)
                else:
                    account.unsent.append(packet)
                    meter.advance(0, packet.taken)
        except KeyboardInterrupt:
            account.interrupted = True
    return account


def _addressed(files: Sequence[Path], target: str | None) -> Iterator[tuple[str, FilePacket | Unsent]]:
    """Every packet of the files and the topic it goes to."""
    from broker.ingest.files import read_packets, with_surveys  # noqa: PLC0415
    from broker.kafka.topics import replay_topic  # noqa: PLC0415

    packets = read_packets(files)
    if target is not None:
        return ((target, packet) for packet in packets)
    return ((replay_topic(survey), packet) for survey, packet in with_surveys(packets))


def _report(sent: Sent, account: _Account, as_json: bool) -> None:
    if as_json:
        topics = {
            topic: {"messages": count, "alerts": account.alerts[topic]}
            for topic, count in sorted(sent.messages.items())
        }
        unsent = [{"file": item.name, "reason": item.reason} for item in account.unsent]
        again = {"resent": sent.resent} if sent.resent else {}
        print(json.dumps({"topics": topics, "unsent": unsent, "failures": dict(sent.failures)} | again))
        return
    for topic, count in sorted(sent.messages.items()):
        print(f"sent {count:,} messages to {topic} ({account.alerts[topic]:,} alerts)")
    if sent.resent:
        print(f"{sent.resent:,} of them were sent again: Kafka had acknowledged them without storing them")
    for item in account.unsent:
        print(f"not sent: {item.name}: {item.reason}", file=sys.stderr)
