"""Time, the network, and the faults of a schedule.

Time is counted in moments: one passes before each request, and at each step of a worker. A fault waits for
its moment and then, if it is about a request, for the next request of its kind.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

from model.kafka import (
    AddPartitions,
    CommitOffsets,
    EndTxn,
    Init,
    Kafka,
    Partition,
    Produce,
    Reply,
    Request,
    Stage,
)

LONGEST = 5000
"""Moments after which a run with a handful of faults stands still."""
REQUESTS = (Produce, EndTxn, AddPartitions, CommitOffsets, Init)


class Kind(Enum):
    """What can go wrong."""

    LOST = "the connection breaks, the request never arrives"
    UNANSWERED = "the connection breaks, the request has arrived"
    LATE = "the connection breaks, the request arrives later"
    TIMED_OUT = "the call ends without an answer; the request is lost, has arrived or arrives later"
    NOT_LEADER = "the partition's leader is not there for a while"
    REFUSED = "the partition refuses a record for good"
    FORGOTTEN = "the partitions forget producers without an open transaction"
    NO_COORDINATOR = "the coordinator is not there for a while"
    SLOW_MARKS = "the marks of the next end take a while"
    OVERDUE = "the transaction takes too long and is aborted"
    FENCED = "another producer takes the transactional id"
    KILLED = "the worker is killed and another starts in its slot"
    PAUSED = "the worker stands still while another takes its input over"


WIRE = frozenset((Kind.LOST, Kind.UNANSWERED, Kind.LATE, Kind.TIMED_OUT))
_SILENCES = (Kind.LOST, Kind.UNANSWERED, Kind.LATE)
PRODUCED = frozenset((Kind.NOT_LEADER, Kind.REFUSED))


@dataclass(frozen=True)
class Fault:
    """What goes wrong, from which moment on, with which kind of request, and how long or how."""

    moment: int
    kind: Kind
    extent: int
    request: type | None = None

    def __str__(self) -> str:
        what = f" ({self.request.__name__})" if self.request else ""
        return f"from moment {self.moment}, for {self.extent}: {self.kind.value}{what}"


class Broken(Enum):
    """What a client has instead of an answer."""

    CONNECTION = "the connection broke"
    TIME_OUT = "no answer in time"
    RECORD = "the record is refused for good"


class Killed(Exception):
    """The process ends here."""


class Violation(AssertionError):
    """The promise is broken."""


@dataclass
class World:
    """A Kafka, the faults still to come, and the requests still on their way.

    take_over : runs another worker for some batches
    met : how many faults of each kind came to pass, and what followed from them
    trace : what happened, line by line, if it is to be told
    """

    kafka: Kafka
    faults: list[Fault]
    take_over: Callable[[int], None] = lambda _: None
    met: Counter[str] = field(default_factory=Counter)
    trace: list[str] | None = None
    _late: list[tuple[int, int, Request]] = field(default_factory=list)
    _number: int = 0
    _fault: Fault | None = None
    _visiting: bool = False

    @classmethod
    def fresh(cls, partitions: int, faults: tuple[Fault, ...]) -> World:
        """A Kafka without records, before its first moment."""
        return cls(Kafka([Partition() for _ in range(partitions)]), list(faults))

    def say(self, text: str) -> None:
        """Put a line into the trace."""
        if self.trace is not None:
            self.trace.append(f"{self.kafka.moment:4d}  {text}")

    def tick(self) -> None:
        """A moment passes.  Raises Killed, or Violation when nothing comes to an end."""
        self.kafka.moment += 1
        if self.kafka.moment > LONGEST:
            raise Violation(f"not done after {LONGEST} moments: it stands still")
        while self._late and self._late[0][0] <= self.kafka.moment:
            self._arrive_late(heapq.heappop(self._late)[2])
        self.kafka.write_marks()
        for fault in [item for item in self.faults if item.request is None]:
            if fault.moment <= self.kafka.moment and fault in self.faults and self._possible(fault):
                self._come_to_pass(fault)
                self._strike(fault)

    def carry(self, request: Request) -> Reply | Broken:
        """Bring a request to Kafka and its answer back, or what the network makes of it."""
        self.tick()
        fault = self._fault_of(request)
        if fault is None or fault.kind is Kind.NOT_LEADER:
            reply = self.kafka.handle(request)
            self._say_answered("", request, reply)
            return reply
        if fault.kind is Kind.REFUSED:
            return Broken.RECORD
        self._fault = fault
        self._mishandle(request, fault)
        return Broken.TIME_OUT if fault.kind is Kind.TIMED_OUT else Broken.CONNECTION

    def carry_behind(self, request: Request) -> None:
        """Bring a request that is in flight behind the one whose connection has just broken."""
        if self._fault is not None and self._fault.kind is Kind.LATE:
            self._put_off(request, self._fault.extent)

    @property
    def answers_lost(self) -> bool:
        """Whether the answers to the requests before the broken one are lost with it."""
        return self._fault is not None and self._fault.extent % 2 == 1

    def settle(self) -> None:
        """Let all time pass: what is late arrives, what is open is aborted, what is decided is marked."""
        while self._late:
            self._arrive_late(heapq.heappop(self._late)[2])
        self.kafka.moment += LONGEST // 10
        self.kafka.time_out()
        self.kafka.write_marks()

    def _possible(self, fault: Fault) -> bool:
        if fault.kind is Kind.PAUSED:
            return not self._visiting
        if fault.kind is Kind.OVERDUE:
            return any(item.stage is Stage.ONGOING for item in self.kafka.coordinators.values())
        return True

    def _come_to_pass(self, fault: Fault) -> None:
        self.faults.remove(fault)
        self.met[f"{fault.kind.name} {fault.request.__name__}" if fault.request else fault.kind.name] += 1
        self.say(f"! {fault.kind.value}")

    def _strike(self, fault: Fault) -> None:
        kafka = self.kafka
        if fault.kind is Kind.FORGOTTEN:
            for partition in kafka.partitions:
                partition.forget()
        elif fault.kind is Kind.NO_COORDINATOR:
            kafka.coordinator_from = kafka.moment + fault.extent
        elif fault.kind is Kind.SLOW_MARKS:
            for coordinator in kafka.coordinators.values():
                coordinator.marks_from = kafka.moment + fault.extent
        elif fault.kind is Kind.OVERDUE:
            kafka.time_out()
        elif fault.kind is Kind.FENCED:
            for coordinator in kafka.coordinators.values():
                coordinator.init(None)
        elif fault.kind is Kind.KILLED:
            raise Killed
        elif fault.kind is Kind.PAUSED:
            self._visiting = True
            self.take_over(1 + fault.extent % 3)
            self._visiting = False
            self.say("! the worker that stood still goes on")

    def _fault_of(self, request: Request) -> Fault | None:
        for fault in self.faults:
            if fault.request is type(request) and fault.moment <= self.kafka.moment:
                self._come_to_pass(fault)
                if fault.kind is Kind.NOT_LEADER and isinstance(request, Produce):
                    self.kafka.partitions[request.partition].leader_from = self.kafka.moment + fault.extent
                return fault
        return None

    def _mishandle(self, request: Request, fault: Fault) -> None:
        how = _SILENCES[fault.extent % 3] if fault.kind is Kind.TIMED_OUT else fault.kind
        self.say(f"{_told(request)} -> no answer: {how.value}")
        if how is Kind.UNANSWERED:
            self.kafka.handle(request)
        elif how is Kind.LATE:
            self._put_off(request, fault.extent)

    def _put_off(self, request: Request, moments: int) -> None:
        self._number += 1
        heapq.heappush(self._late, (self.kafka.moment + moments, self._number, request))

    def _arrive_late(self, request: Request) -> None:
        reply = self.kafka.handle(request)
        self.met[f"late {type(request).__name__} {'refused' if reply.error else 'taken'}"] += 1
        self._say_answered("late: ", request, reply)

    def _say_answered(self, prefix: str, request: Request, reply: Reply) -> None:
        if self.trace is not None:
            self.say(f"{prefix}{_told(request)} -> {reply.error.value if reply.error else 'done'}")


def _told(request: Request) -> str:
    who = f" {request.who.producer}/{request.who.epoch}" if request.who else ""
    if isinstance(request, Produce):
        what = f" {request.record!r} as {request.sequence} to {request.partition}"
    elif isinstance(request, AddPartitions):
        what = f" {request.places}"
    elif isinstance(request, CommitOffsets):
        what = f" {request.position}"
    else:
        what = (" commit" if request.commit else " abort") if isinstance(request, EndTxn) else ""
    return f"{request.slot}: {type(request).__name__}{who}{what}"
