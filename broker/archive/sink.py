"""The worker's side: the rows of a judged batch as packets for the topic `archive`, in its transaction.

What the archive holds is so what was committed, by construction, whichever host the worker runs on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from broker.archive.wire import About, Rows, encode
from broker.batch import AlertBatch
from broker.filter import Filter
from broker.kafka.topics import ARCHIVE
from broker.message import Packet
from broker.table import Table

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class JudgedRows:
    """n rows after the filters.

    table : exactly what the filters saw, light curves with it;  keys : (n,) history keys
    hits : (filters, n);  model : id and version;  kind : alert or update
    causes : (n,) why rows of another kind than alert came to be, or empty
    """

    batch: AlertBatch
    table: Table
    keys: Sequence[bytes]
    record_sha256: Sequence[bytes]
    hits: Bools
    filters: Sequence[Filter]
    epoch: int
    model: tuple[str, str]
    kind: str = "alert"
    causes: Sequence[str] = ()

    def take(self, rows: npt.NDArray[np.int64]) -> JudgedRows:
        """Some of them.  rows : indices"""
        index = rows.tolist()
        return replace(
            self,
            batch=self.batch.take(rows),
            table=self.table.take(rows),
            keys=[self.keys[row] for row in index],
            record_sha256=[self.record_sha256[row] for row in index],
            hits=self.hits[:, rows],
            causes=[self.causes[row] for row in index] if self.causes else (),
        )


def archive_packets(rows: JudgedRows) -> list[Packet]:
    """The packets that archive a batch: one, or as many as its size asks for."""
    batch, count = rows.batch, len(rows.batch)
    if count == 0:
        return []
    topics = sorted({message.topic for message in batch.messages})
    number = {topic: place for place, topic in enumerate(topics)}
    messages = [(number[m.topic], m.partition, m.offset, m.timestamp_ms) for m in batch.messages]
    where = np.array(messages, dtype=np.int64).reshape(-1, 4)[batch.message]
    row, passed = np.nonzero(rows.hits.T)
    encoded = encode(
        Rows(
            About(batch.survey, rows.kind, rows.epoch, *rows.model),
            rows.table,
            rows.keys,
            rows.record_sha256,
            rows.causes or [""] * count,
            topics,
            np.column_stack([where[:, :3], batch.index]),
            where[:, 3],
            [item.label for item in rows.filters],
            passed.astype(np.int64),
            np.concatenate([[0], np.cumsum(np.bincount(row, minlength=count))]).astype(np.int64),
        )
    )
    return [Packet(ARCHIVE, None, value) for value in encoded]
