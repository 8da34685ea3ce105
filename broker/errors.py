"""Every exception this package raises on purpose.

BrokerError
├── SettingsError          a setting is unknown, malformed or missing
├── SchemaError            an Avro schema cannot be used
├── FilterError            a filter's text is refused (carries the position)
├── PluginError            a filter's plug-in cannot be used, or failed on a batch
├── FeedbackError          what was said of an alert cannot be stored
├── CatalogError           a catalogue cannot be added, found or read
├── AnnotationError        what was said of an object cannot be read
├── ListError              a watchlist or region cannot be stored or read
├── BundleError            a model bundle does not fit this version of the code
├── ArchiveError           the archive's folder cannot be read or written
├── LabelsError            a file of labels cannot be used
├── EmbeddedServerError    an embedded Kafka or Valkey did not start, or is not ours
├── HangingTransaction     a transaction stays open, and hides what follows it in its partitions
├── RetryBatch             this batch must be aborted and done again (nothing is lost)
│   ├── HistoryLost        ... once Redis holds again what Kafka remembers
│   └── WidespreadFault    ... once this program can judge alerts again: no record is at fault
├── PacketTooLarge         what follows from an alert is larger than Kafka takes
└── WorkerFenced           another worker has this slot: exit and be restarted

Faults in data are rows (`broker.message.Reject`), never exceptions.
"""

from __future__ import annotations

from collections.abc import Mapping


class BrokerError(Exception):
    """Base of all errors raised by this package; its text says what, where and what to do."""


class SettingsError(BrokerError):
    """A setting is unknown, malformed or missing."""


class SchemaError(BrokerError):
    """An Avro schema cannot be used."""


class FilterError(BrokerError):
    """A filter's text is refused.

    position : 0-based index of the offending character in the text, or None when it is the whole text.
    text : the text it is about, '' where that is the condition
    """

    def __init__(self, message: str, position: int | None = None, text: str = "") -> None:
        super().__init__(message)
        self.position = position
        self.text = text


class PluginError(BrokerError):
    """A filter's plug-in cannot be used, or failed on a batch."""


class FeedbackError(BrokerError):
    """What was said of an alert cannot be stored."""


class CatalogError(BrokerError):
    """A catalogue cannot be added, found or read."""


class AnnotationError(BrokerError):
    """What was said of an object cannot be read, or says too little."""


class ListError(BrokerError):
    """A watchlist or region cannot be stored or read."""


class HangingTransaction(BrokerError):
    """A transaction stays open, and hides all that follows it in some partitions.

    open_at : the first offset of each partition that cannot be read
    """

    def __init__(self, open_at: Mapping[tuple[str, int], int], waited_s: float) -> None:
        where = ", ".join(f"{topic}[{number}] from offset {at} on" for (topic, number), at in open_at.items())
        super().__init__(
            f"records cannot be read, because a transaction is open there for {waited_s:.0f} s (hanging "
            f"transaction): {where}; end it: kafka-transactions.sh find-hanging, then abort"
        )
        self.open_at = dict(open_at)


class BundleError(BrokerError):
    """A model bundle does not fit this version of the code."""


class EmbeddedServerError(BrokerError):
    """An embedded Kafka or Valkey did not start, or the server that answers is not ours."""


class ArchiveError(BrokerError):
    """The archive's folder cannot be read or written."""


class LabelsError(BrokerError):
    """A file of labels cannot be used."""


class RetryBatch(BrokerError):
    """The batch in flight must be aborted and done again; its input offsets were not committed."""


class HistoryLost(RetryBatch):
    """Redis does not hold what Kafka remembers: rebuild it, then do the batch again."""


class WidespreadFault(RetryBatch):
    """Alerts cannot be judged at all, whatever they are: a fault of ours, or of this machine."""


class PacketTooLarge(BrokerError):
    """What would be published of an alert is larger than Kafka takes."""


class WorkerFenced(BrokerError):
    """Another worker holds this slot's transactional id: this process must exit."""
