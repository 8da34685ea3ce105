"""What Kafka's servers hold and answer, as far as it matters to exactly once.

The rules, and where they are from (Apache Kafka 4.x; class names of its sources):

* A partition without state of a producer takes any first sequence; with state a gap is refused and one of the
  last five requests is answered as it was the first time.  ProducerAppendInfo.checkSequence,
  ProducerStateEntry.findDuplicateBatch.  A new epoch starts at 0.
* State is kept when the leader moves, and forgotten after `producer.id.expiration.ms` unless a transaction of
  the producer is open there.  ProducerStateManager.isProducerExpired.
* An append by a producer without an open transaction in the partition is checked with the coordinator: the
  partition must be part of the ongoing transaction of that very epoch.  KIP-890, part 1.
* The coordinator compares producer id and epoch of every request.  A new producer's init aborts what is open
  (the caller comes again until the marks are written) and raises the epoch; so does a transaction's time-out.
  TransactionCoordinator.prepareInitProducerIdTransit, TransactionMetadata.prepareFenceProducerEpoch.  When
  epochs run out, a new producer id is given.
* The epoch stays the same from one transaction to the next (EndTxn before version 5, which is what librdkafka
  sends): an EndTxn that comes late ends whatever transaction of the same epoch is open.  A repeat in the same
  direction after the end is answered as done.  TransactionCoordinator.endTransaction.
* An end is decided first, and its marks are written later, partition by partition; until then the next
  transaction is told CONCURRENT_TRANSACTIONS.
* Positions sent in a transaction wait for its end; who asks for stable ones waits with them (KIP-447), and a
  generation of the group that is over may send none.

Left out: replicas, and leaders that lose what they had answered for (acks=all and enough replicas exclude
it); the sequence that a partition notes while it verifies (KIP-890, it only refuses more); time in seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

RETAINED = 5
LAST_EPOCH = 6
OFFSETS = -1
"""The place of the group's positions among a transaction's partitions."""


class Error(Enum):
    """Why a request is refused."""

    NOT_LEADER = "not the leader"
    NOT_COORDINATOR = "not the coordinator"
    CONCURRENT = "the transaction before is still being ended"
    OUT_OF_ORDER = "out of order"
    FENCED = "fenced"
    INVALID_STATE = "no such transaction"
    ILLEGAL_GENERATION = "the group has moved on"


PASSING = frozenset((Error.NOT_LEADER, Error.NOT_COORDINATOR, Error.CONCURRENT))
"""Errors after which a client comes again by itself."""


@dataclass(frozen=True)
class Identity:
    """Producer id and epoch."""

    producer: int
    epoch: int


@dataclass(frozen=True)
class Reply:
    """An answer: an error, or a value where the request has one."""

    error: Error | None = None
    offset: int = -1
    who: Identity | None = None


@dataclass(frozen=True)
class Init:
    """Who am I?  `who` is given by a client that asks for its own next epoch."""

    slot: str
    who: Identity | None = None


@dataclass(frozen=True)
class AddPartitions:
    """These partitions (or OFFSETS) belong to my transaction."""

    slot: str
    who: Identity
    places: tuple[int, ...]


@dataclass(frozen=True)
class Produce:
    """One request to one partition; one record stands for a batch of them."""

    slot: str
    who: Identity
    partition: int
    sequence: int
    record: str


@dataclass(frozen=True)
class CommitOffsets:
    """The position of the input that holds if my transaction is committed."""

    slot: str
    who: Identity
    position: int
    generation: int


@dataclass(frozen=True)
class EndTxn:
    """Commit or abort my transaction."""

    slot: str
    who: Identity
    commit: bool


Request = Init | AddPartitions | Produce | CommitOffsets | EndTxn


@dataclass
class Entry:
    """A record in a log; `committed` is None while its transaction is open."""

    record: str
    producer: int
    committed: bool | None = None


@dataclass
class ProducerState:
    """What a partition remembers of a producer: the sequences and offsets of its last requests."""

    epoch: int
    stored: list[tuple[int, int]] = field(default_factory=list)
    open: bool = False

    def following(self, epoch: int) -> int:
        """The sequence that is in order."""
        return self.stored[-1][0] + 1 if self.stored and epoch == self.epoch else 0


@dataclass
class Partition:
    """A log, and what its leader remembers; refuses everything until `leader_from`."""

    leader_from: int = 0
    log: list[Entry] = field(default_factory=list)
    states: dict[int, ProducerState] = field(default_factory=dict)

    def append(self, request: Produce, verified: bool) -> Reply:
        """Take a record, or say why not."""
        who = request.who
        state = self.states.get(who.producer)
        if state and who.epoch < state.epoch:
            return Reply(Error.FENCED)
        if not (state and state.open and state.epoch == who.epoch) and not verified:
            return Reply(Error.INVALID_STATE)
        if state and state.epoch == who.epoch:
            for sequence, offset in state.stored:
                if sequence == request.sequence:
                    return Reply(offset=offset)
        if state and request.sequence != state.following(who.epoch):
            return Reply(Error.OUT_OF_ORDER)
        return self._store(request)

    def _store(self, request: Produce) -> Reply:
        who = request.who
        state = self.states.get(who.producer)
        if state is None or state.epoch != who.epoch:
            state = self.states[who.producer] = ProducerState(who.epoch)
        offset = len(self.log)
        self.log.append(Entry(request.record, who.producer))
        state.stored = [*state.stored, (request.sequence, offset)][-RETAINED:]
        state.open = True
        return Reply(offset=offset)

    def mark(self, who: Identity, commit: bool) -> None:
        """The end of a transaction: its records are seen by everybody, or by nobody."""
        for entry in self.log:
            if entry.producer == who.producer and entry.committed is None:
                entry.committed = commit
        state = self.states.get(who.producer)
        if state is None or state.epoch < who.epoch:
            self.states[who.producer] = ProducerState(who.epoch)
        else:
            state.open = False

    def forget(self) -> None:
        """Drop the states that have expired."""
        self.states = {producer: state for producer, state in self.states.items() if state.open}

    def committed(self) -> list[str]:
        """What a reader of committed records sees."""
        return [entry.record for entry in self.log if entry.committed]


@dataclass
class Group:
    """The positions of the consumer group, which has one input, held by one slot at a time."""

    committed: int = 0
    pending: dict[int, int] = field(default_factory=dict)
    epochs: dict[int, int] = field(default_factory=dict)
    holder: str = ""
    generation: int = 0

    def join(self, slot: str) -> int:
        """The generation in which a slot holds the input; a static member finds its old one."""
        if slot != self.holder:
            self.holder, self.generation = slot, self.generation + 1
        return self.generation

    def take(self, request: CommitOffsets, verified: bool) -> Reply:
        """Keep a position until its transaction ends."""
        who = request.who
        if request.generation != self.generation:
            return Reply(Error.ILLEGAL_GENERATION)
        if who.epoch < self.epochs.get(who.producer, 0):
            return Reply(Error.FENCED)
        if who.producer not in self.pending and not verified:
            return Reply(Error.INVALID_STATE)
        self.pending[who.producer] = request.position
        self.epochs[who.producer] = who.epoch
        return Reply()

    def mark(self, who: Identity, commit: bool) -> None:
        """The end of a transaction: its position holds, or never was."""
        position = self.pending.pop(who.producer, None)
        self.epochs[who.producer] = who.epoch
        if commit and position is not None:
            self.committed = position

    @property
    def stable(self) -> int | None:
        """The committed position; None while a transaction may still move it."""
        return None if self.pending else self.committed


class Stage(Enum):
    """Where a transaction stands."""

    EMPTY = "none"
    ONGOING = "ongoing"
    PREPARED = "decided, marks to be written"
    COMPLETE = "ended"


@dataclass
class Coordinator:
    """The transactions of one slot; `marks_from` is the moment from which it writes marks."""

    new_producer: Callable[[], int]
    who: Identity | None = None
    before: Identity | None = None
    stage: Stage = Stage.EMPTY
    commit: bool = False
    places: set[int] = field(default_factory=set)
    marks_from: int = 0

    def init(self, given: Identity | None) -> Reply:
        """A producer's start, or its wish for a new epoch."""
        if self.stage is Stage.PREPARED:
            return Reply(Error.CONCURRENT)
        if given is not None and (self.who is None or given.producer != self.who.producer):
            return Reply(Error.FENCED)
        if self.stage is Stage.ONGOING:  # before the epoch is looked at: a late wish fences who is there now
            self.fence()
            return Reply(Error.CONCURRENT)
        if given is not None and given != self.who:
            return Reply(who=self.who) if given == self.before else Reply(Error.FENCED)
        self.before, self.who = given, self._next()
        self.stage = Stage.EMPTY
        return Reply(who=self.who)

    def _next(self) -> Identity:
        if self.who is None or self.who.epoch >= LAST_EPOCH:
            return Identity(self.new_producer(), 0)
        return Identity(self.who.producer, self.who.epoch + 1)

    def fence(self) -> None:
        """Abort what is ongoing under a new epoch, which shuts its producer out."""
        assert self.who is not None
        self.who, self.before = Identity(self.who.producer, self.who.epoch + 1), None
        self.stage, self.commit = Stage.PREPARED, False

    def add(self, who: Identity, places: tuple[int, ...]) -> Reply:
        """More partitions to the ongoing transaction; the first of them starts it."""
        if who != self.who:
            return Reply(Error.FENCED)
        if self.stage is Stage.PREPARED:
            return Reply(Error.CONCURRENT)
        if self.stage is not Stage.ONGOING:
            self.stage, self.places = Stage.ONGOING, set()
        self.places.update(places)
        return Reply()

    def holds(self, who: Identity, place: int) -> bool:
        """Whether a partition is part of the ongoing transaction of this very producer."""
        return self.stage is Stage.ONGOING and who == self.who and place in self.places

    def end(self, who: Identity, commit: bool) -> Reply:
        """Decide the ongoing transaction, whichever it is."""
        if who != self.who:
            return Reply(Error.FENCED)
        if self.stage is Stage.ONGOING:
            self.stage, self.commit = Stage.PREPARED, commit
            return Reply()
        if self.stage is Stage.EMPTY or self.commit != commit:
            return Reply(Error.INVALID_STATE)
        return Reply(Error.CONCURRENT) if self.stage is Stage.PREPARED else Reply()


@dataclass
class Kafka:
    """All of it.

    ended : called whenever a transaction has all its marks
    verifies : whether an append is checked with the coordinator (transaction.partition.verification.enable)
    moment : the time
    """

    partitions: list[Partition]
    ended: Callable[[], None] = lambda: None
    verifies: bool = True
    moment: int = 0
    coordinator_from: int = 0
    group: Group = field(default_factory=Group)
    coordinators: dict[str, Coordinator] = field(default_factory=dict)
    producers: int = 0

    def coordinator(self, slot: str) -> Coordinator:
        """The coordinator of a slot's transactions."""
        return self.coordinators.setdefault(slot, Coordinator(self._new_producer))

    def _new_producer(self) -> int:
        self.producers += 1
        return self.producers

    def handle(self, request: Request) -> Reply:
        """Answer a request that has arrived, however late."""
        coordinator = self.coordinator(request.slot)
        if isinstance(request, Produce):
            partition = self.partitions[request.partition]
            if self.moment < partition.leader_from:
                return Reply(Error.NOT_LEADER)
            return partition.append(request, self._verified(coordinator, request.who, request.partition))
        if isinstance(request, CommitOffsets):
            return self.group.take(request, self._verified(coordinator, request.who, OFFSETS))
        if self.moment < self.coordinator_from:
            return Reply(Error.NOT_COORDINATOR)
        if isinstance(request, Init):
            return coordinator.init(request.who)
        if isinstance(request, AddPartitions):
            return coordinator.add(request.who, request.places)
        return coordinator.end(request.who, request.commit)

    def _verified(self, coordinator: Coordinator, who: Identity, place: int) -> bool:
        return not self.verifies or coordinator.holds(who, place)

    def write_marks(self) -> None:
        """Go on with what is decided: each partition whose leader is there gets its mark."""
        for coordinator in self.coordinators.values():
            if coordinator.stage is Stage.PREPARED and self.moment >= coordinator.marks_from:
                self._write_marks(coordinator)

    def _write_marks(self, coordinator: Coordinator) -> None:
        assert coordinator.who is not None
        for place in sorted(coordinator.places):
            if place == OFFSETS:
                self.group.mark(coordinator.who, coordinator.commit)
            elif self.moment >= self.partitions[place].leader_from:
                self.partitions[place].mark(coordinator.who, coordinator.commit)
            else:
                continue
            coordinator.places.discard(place)
        if not coordinator.places:
            coordinator.stage = Stage.COMPLETE
            self.ended()

    @property
    def decided(self) -> bool:
        """Whether no transaction is between its decision and its marks."""
        return all(item.stage is not Stage.PREPARED for item in self.coordinators.values())

    def time_out(self) -> bool:
        """Abort the ongoing transactions whose time is over; whether there were any."""
        ongoing = [item for item in self.coordinators.values() if item.stage is Stage.ONGOING]
        for coordinator in ongoing:
            coordinator.fence()
        return bool(ongoing)
