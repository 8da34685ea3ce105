"""From the topic `archive` to the folder: reads where the folder ends, and commits nothing to Kafka.

The folder's own manifest is the only account of how far it is, so a writer may be killed at any moment and
the next one goes on. Memory is bounded: files are closed when their rows reach a size or an age.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

from broker.archive import parquet, wire
from broker.archive.folder import (
    CELL_ORDER,
    FolderWriter,
    Manifest,
    place,
    read_manifest,
    sync_file,
    temporary,
)
from broker.astro.healpix import MAX_ORDER, cells_of
from broker.astro.times import night_name, night_of
from broker.config import Settings
from broker.errors import ArchiveError
from broker.kafka.clients import admin, cluster_id, end_offsets, reader, topic_partitions, watermarks
from broker.kafka.topics import ARCHIVE

log = logging.getLogger(__name__)

I64 = npt.NDArray[np.int64]

_MESSAGES = 20
_WAIT_S = 0.2
_LOCK_EVERY_S = 1.0
_PATIENCE_S = 30.0
"""How long the end of the topic may not come nearer before a writer that is to stop gives up."""
_MIB = 1024 * 1024


class ArchiveWriter:
    """Keeps a folder up with the topic until told to stop, then to the topic's end as it is then.

    on_rows : told how many rows were read, each time
    """

    def __init__(
        self,
        settings: Settings,
        stopping: Callable[[], bool],
        on_rows: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._settings = settings
        self._stopping = stopping
        self._on_rows = on_rows
        self._folder = Path(settings.archive.folder)
        self._held = FolderWriter(self._folder)
        self._tables: dict[tuple[str, Any], list[Any]] = {}
        self._rows = self._bytes = 0
        self._since = time.monotonic()
        self._at: dict[int, int] = {}
        self._kept: dict[int, int] = {}

    def run(self) -> None:
        """Work.  Raises ArchiveError, or BrokerError when Kafka does not answer."""
        client = admin(self._settings.kafka)
        cluster = cluster_id(client)
        while not self._held.take(cluster):
            if self._stopping() and not any(lag(self._settings).values()):
                return
            time.sleep(_LOCK_EVERY_S)
        consumer = reader(
            self._settings.kafka,
            **{"enable.partition.eof": True, "queued.max.messages.kbytes": 32 * 1024},
        )
        try:
            self._begin(consumer, topic_partitions(client).get(ARCHIVE, 0))
            while not self._stopping():
                self._read(consumer)
                if self._is_due():
                    self._flush()
            self._finish(consumer, client)
        finally:
            consumer.close()
            self._held.close()

    def _begin(self, consumer: Consumer, partitions: int) -> None:
        """Go to where the folder ends; what Kafka has dropped since is noted as lost."""
        if partitions == 0:
            raise ArchiveError(
                f"there is no topic {ARCHIVE}; `broker run` with archive.folder set creates it"
            )
        manifest = self._manifest()
        lost = []
        for number in range(partitions):
            low, high = watermarks(consumer, ARCHIVE, number)
            start = manifest.offsets.get(number, 0)
            if start > high:
                raise ArchiveError(
                    f"{self._folder} holds partition {number} of {ARCHIVE} up to {start}, but the topic ends "
                    f"at {high}: it was made anew; set archive.folder to an empty folder"
                )
            if low > start:
                log.error("%s[%d]: %d..%d expired before they were archived", ARCHIVE, number, start, low)
                lost.append((number, start, low))
            self._at[number] = max(start, low)
        if lost:
            self._held.commit([], dict(self._at), 0, lost)
        self._kept = dict(self._at)
        consumer.assign([TopicPartition(ARCHIVE, number, offset) for number, offset in self._at.items()])

    def _manifest(self) -> Manifest:
        assert self._held.manifest is not None
        return self._held.manifest

    def _read(self, consumer: Consumer) -> None:
        for message in consumer.consume(_MESSAGES, _WAIT_S):
            error = message.error()
            if error is None:
                self._take(message)
            elif error.code() == KafkaError._PARTITION_EOF:
                # the marks of transactions have offsets too, and are no messages
                self._at[message.partition()] = max(self._at[message.partition()], message.offset())
            elif not error.retriable():
                raise ArchiveError(f"cannot read {ARCHIVE}: {error.str()}")

    def _take(self, message: Message) -> None:
        about, specs, rows = wire.decode(message.value() or b"")
        healpix = cells_of(MAX_ORDER, rows["ra"].to_numpy(), rows["dec"].to_numpy())
        table = parquet.to_file_form(about, specs, rows, healpix)
        if self._rows == 0:
            self._since = time.monotonic()
        self._tables.setdefault((about.survey, table.schema.to_string(show_field_metadata=True)), []).append(
            table
        )
        self._rows += len(table)
        self._bytes += table.nbytes
        self._at[message.partition()] = message.offset() + 1
        self._on_rows(len(table))

    def _is_due(self) -> bool:
        old = time.monotonic() - self._since > self._settings.archive.flush_s
        return self._rows > 0 and (old or self._bytes > self._settings.archive.flush_mib * _MIB)

    def _flush(self) -> None:
        """Write what is in memory and say that it is there."""
        if self._at == self._kept:
            return
        number, names = self._manifest().sequence + 1, iter(range(1_000_000))
        written = [
            pair
            for (survey, _), tables in sorted(self._tables.items())
            for pair in self._write(survey, pa.concat_tables(tables), f"{number:08d}", names)
        ]
        self._held.commit(written, self._at, self._rows)
        self._kept = dict(self._at)
        self._tables.clear()
        self._rows = self._bytes = 0

    def _write(
        self, survey: str, table: Any, sequence: str, names: Iterator[int]
    ) -> Iterator[tuple[Path, Path]]:
        """The files of one survey, each (as it is called now, as it shall be)."""
        midpoint, healpix = table["midpoint_mjd_tai"].to_numpy(), table[parquet.HEALPIX].to_numpy()
        nights = night_of(midpoint)
        order = np.lexsort((midpoint, healpix, nights))
        table = table.take(pa.array(order))
        where = np.stack([nights, healpix >> (2 * (MAX_ORDER - CELL_ORDER))])[:, order]
        starts = np.flatnonzero(np.diff(where, prepend=-1).any(axis=0)).tolist()
        for low, high in pairwise([*starts, len(table)]):
            night, cell = where[:, low].tolist()
            path = place(self._folder, survey, night_name(night), cell) / f"{sequence}-{next(names)}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            parquet.write(temporary(path), table.slice(low, high - low))
            sync_file(temporary(path))
            yield temporary(path), path

    def _finish(self, consumer: Consumer, client: Any) -> None:
        """Read to the end as it is now, and leave everything in files."""
        ends = end_offsets(client, [(ARCHIVE, number) for number in self._at])
        moved, before = time.monotonic(), dict(self._at)
        while any(self._at[number] < end for (_, number), end in ends.items()):
            self._read(consumer)
            if self._is_due():
                self._flush()
            if self._at != before:
                moved, before = time.monotonic(), dict(self._at)
            elif time.monotonic() - moved > _PATIENCE_S:
                self._flush()
                raise ArchiveError(f"{ARCHIVE} could not be read to its end; its rows wait there")
        self._flush()


def lag(settings: Settings) -> dict[int, int]:
    """Offsets of each partition of the topic that are not in the folder yet.  Raises BrokerError."""
    client = admin(settings.kafka)
    parts = range(topic_partitions(client).get(ARCHIVE, 0))
    manifest = read_manifest(Path(settings.archive.folder))
    held = manifest.offsets if manifest else {}
    ends = end_offsets(client, [(ARCHIVE, number) for number in parts])
    return {number: max(0, ends[ARCHIVE, number] - held.get(number, 0)) for number in parts}
