"""What librdkafka makes of Kafka's answers, as far as it matters to exactly once.

The rules, and where they are from (librdkafka 2.16, file and function):

* Up to five requests to a partition are in flight.  One that is refused for a passing reason, or has no
  answer, goes back to the head of the queue, with its sequence.  rdkafka_request.c,
  rd_kafka_handle_Produce_error.
* When a later one is stored, earlier ones in the queue count as stored: their reports say so, without an
  offset.  rd_kafka_handle_idempotent_Produce_success, rd_kafka_dr_implicit_ack.
* "Out of order" is fatal for the head of those in flight; for another it fails the transaction, as does
  every error that does not pass, and the abort then asks for a new epoch.
  rd_kafka_handle_idempotent_Produce_error.
* EndTxn and its like are sent again after a broken connection, by the client itself and without a limit.  A
  refusal that fences is fatal, and so is an unknown transaction.  rdkafka_txnmgr.c,
  rd_kafka_txn_handle_EndTxn.
* An abort without a registered partition sends nothing.  rd_kafka_txn_op_abort_transaction.
* A broken connection is told once; an identical one within 30 s is not.  rdkafka_broker.c,
  rd_kafka_broker_set_error (from 2.12 on a closed connection is told in the log only, not to error_cb).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from model.kafka import (
    OFFSETS,
    PASSING,
    AddPartitions,
    CommitOffsets,
    EndTxn,
    Error,
    Identity,
    Init,
    Produce,
    Reply,
    Request,
)
from model.world import LONGEST, Broken, Violation, World

IN_FLIGHT = 5
NOWHERE = -1
"""The offset of a report that names none."""

Record = tuple[int, str]
"""Partition and content."""


class Fatal(Exception):
    """The client is of no more use."""


class Refused(Exception):
    """The transaction can only be aborted, or the outcome is not known."""


@dataclass
class Client:
    """A transactional producer."""

    world: World
    slot: str
    _who: Identity | None = None
    _registered: set[int] = field(default_factory=set)
    _sequences: dict[int, int] = field(default_factory=dict)
    _needs_epoch: bool = False
    _told: int = 0
    _news: bool = False

    def news(self) -> bool:
        """Whether trouble was told since this was last asked."""
        news, self._news = self._news, False
        return news

    def init(self) -> None:
        """Take the transactional id.  Raises Fatal or Refused, as all that follow."""
        self._who = self._call(Init(self.slot)).who

    def begin(self) -> None:
        """Begin a transaction; nothing is sent."""
        self._registered = set()

    def send(self, records: Sequence[Record]) -> dict[Record, int]:
        """Send records and await their reports: the offset of each, or NOWHERE."""
        self._register({place for place, _ in records})
        reports: dict[Record, int] = {}
        for place in dict.fromkeys(place for place, _ in records):
            queue = [self._request(*record) for record in records if record[0] == place]
            while queue:
                queue = self._send_some(queue, reports)
        return reports

    def send_offsets(self, position: int, generation: int) -> None:
        """Add the position of the input to the transaction."""
        self._register({OFFSETS})
        self._call(CommitOffsets(self.slot, self._identity, position, generation))

    def end(self, commit: bool) -> None:
        """Commit or abort."""
        if self._registered:
            self._call(EndTxn(self.slot, self._identity, commit))
        if self._needs_epoch:
            self._who = self._call(Init(self.slot, self._identity)).who
            self._sequences, self._needs_epoch = {}, False

    @property
    def _identity(self) -> Identity:
        assert self._who is not None
        return self._who

    def _request(self, place: int, content: str) -> Produce:
        sequence = self._sequences.get(place, 0)
        self._sequences[place] = sequence + 1
        return Produce(self.slot, self._identity, place, sequence, content)

    def _register(self, places: set[int]) -> None:
        new = places - self._registered
        if new:
            self._registered |= new  # as soon as they are sent: from then on there is something to end
            self._call(AddPartitions(self.slot, self._identity, tuple(sorted(new))))

    def _call(self, request: Request) -> Reply:
        """Ask until there is an answer that does not pass."""
        for _ in range(LONGEST):
            reply = self.world.carry(request)
            if isinstance(reply, Broken):
                self._hear(reply)
                if reply is not Broken.CONNECTION:
                    raise Refused(reply.value)
            elif reply.error is None:
                return reply
            elif reply.error not in PASSING:
                raise _raised(request, reply.error)
        raise Violation("a call never ends")

    def _send_some(self, queue: list[Produce], reports: dict[Record, int]) -> list[Produce]:
        """Send what may be in flight, note what is reported; what is left of the queue."""
        flight = queue[:IN_FLIGHT]
        replies: list[Reply] = []
        for number, request in enumerate(flight):
            reply = self.world.carry(request)
            if isinstance(reply, Reply):
                replies.append(reply)
                continue
            self._hear(reply)
            if reply is not Broken.CONNECTION:
                self._needs_epoch = True
                raise Refused(reply.value)
            for behind in flight[number + 1 :]:
                self.world.carry_behind(behind)
            if self.world.answers_lost:
                replies = []
            break
        return self._noted(queue, replies, reports)

    def _noted(self, queue: list[Produce], replies: list[Reply], reports: dict[Record, int]) -> list[Produce]:
        done = 0
        for number, reply in enumerate(replies):
            request = queue[number]
            if reply.error is None:
                for earlier in queue[done:number]:
                    reports[earlier.partition, earlier.record] = NOWHERE
                    self.world.met["report without an offset"] += 1
                reports[request.partition, request.record] = reply.offset
                done = number + 1
            elif reply.error is Error.OUT_OF_ORDER and number == done:
                raise Fatal("sequences do not agree")
            elif reply.error not in PASSING:
                self._needs_epoch = True
                raise _raised(request, reply.error)
        return queue[done:]

    def _hear(self, broken: Broken) -> None:
        if broken is Broken.RECORD:
            return
        self._told += 1
        self._news = self._news or self._told == 1 or broken is Broken.TIME_OUT


def _raised(request: Request, error: Error) -> Exception:
    unknown = error is Error.INVALID_STATE and not isinstance(request, Produce | CommitOffsets)
    return (Fatal if error is Error.FENCED or unknown else Refused)(error.value)
