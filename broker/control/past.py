"""What filters could name at control epochs of the past: `control` read again, in order of offsets."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

from confluent_kafka import KafkaException, TopicPartition

from broker import control
from broker.config import KafkaSettings, Settings
from broker.context.lists import ListSet, list_set
from broker.context.stored import BLOB
from broker.context_files import catalogs_folder
from broker.control import ControlState
from broker.errors import BrokerError
from broker.filters.functions import PLUGIN, Members, Named
from broker.kafka.clients import reader, watermarks
from broker.kafka.topics import CONTROL
from broker.near import CatalogSet, catalog_set
from broker.personal import ForestSet, forest_set
from broker.plugin import named_plugins

Record = tuple[int, bytes | None, bytes | None]
"""Offset, key and value of a control record."""

_WAIT_S = 0.2


@dataclass(frozen=True)
class Names:
    """Everything that filters may name at one epoch.  members : the columns of what has some"""

    forests: ForestSet = field(default_factory=ForestSet)
    catalogs: CatalogSet = field(default_factory=CatalogSet)
    lists: ListSet = field(default_factory=ListSet)
    members: Members = field(default_factory=dict)

    @cached_property
    def named(self) -> Named:
        """What each name stands for."""
        plugins = {PLUGIN: named_plugins()}
        return {**self.forests.named, **self.catalogs.named, **self.lists.named, **plugins}


def names_of(before: Names, state: ControlState, settings: Settings) -> Names:
    """What filters may name in a control state; what stayed the same is taken over from before."""
    return Names(
        forest_set(before.forests, state),
        catalog_set(before.catalogs, state, lambda: catalogs_folder(settings)),
        list_set(before.lists, state),
        state.members(),
    )


def names_at(records: Iterable[Record], epochs: Iterable[int], settings: Settings) -> dict[int, Names]:
    """What filters could name at each epoch.

    records : of `control`, in order. A record that compaction has dropped since was replaced by a later one
    of the same key: so nothing may be named whose revisions do not have keys of their own. Contents, which
    are known by their SHA-256, may have been written anew later: they are taken from wherever they are.
    """
    found: dict[int, Names] = {}
    held = list(records)
    contents = [record for record in held if is_contents(record[1])]
    state = ControlState()
    for offset, key, value in contents:
        state = control.apply(state, offset, key, value)
    names, left = Names(), sorted(set(epochs), reverse=True)
    for offset, key, value in held:
        while left and left[-1] < offset:
            names = found[left.pop()] = names_of(names, state, settings)
        if not left:
            break
        state = control.apply(state, offset, key, value)
    for epoch in reversed(left):
        names = found[epoch] = names_of(names, state, settings)
    return found


def is_contents(key: bytes | None) -> bool:
    """Whether a control record of this key is part of the contents of a list."""
    return key is not None and key.startswith(f"{BLOB}/".encode())


def control_records(kafka: KafkaSettings, patience_s: float = 30.0) -> Iterator[Record]:
    """Every record of `control` up to its end now.  Raises BrokerError if nothing comes for so long."""
    consumer = reader(kafka, **{"fetch.wait.max.ms": 50})
    try:
        _, high = watermarks(consumer, CONTROL, 0)
        consumer.assign([TopicPartition(CONTROL, 0, 0)])
        offset, deadline = -1, time.monotonic() + patience_s
        while offset + 1 < high:
            for message in consumer.consume(500, _WAIT_S):
                if message.error() is None:
                    offset, deadline = message.offset(), time.monotonic() + patience_s
                    yield offset, message.key(), message.value()
            if time.monotonic() > deadline:
                raise BrokerError(f"the control topic cannot be read beyond {offset} of {high}")
    except KafkaException as error:
        raise BrokerError(f"cannot read the control topic: {error.args[0].str()}") from error
    finally:
        consumer.close()
