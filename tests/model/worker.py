"""A worker on the model: its loop, and how it carries out what `broker.publish.protocol` says.

It is `broker/service.py` and `broker/publish/kafka.py` without astronomy: settle, go to the committed
position, take a batch, deliver it, go on; after a fault settle and go back; when it can do no more, end and
be replaced.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from broker.publish import protocol
from broker.publish.protocol import Answer, Delivery, Step
from model.client import NOWHERE, Client, Fatal, Record, Refused
from model.world import Killed, World

_PATIENCE = 25
"""Moments for which a transaction may be open while somebody waits for it."""


@dataclass(frozen=True)
class Mends:
    """What keeps the delivery exact, each of which can be taken out.

    firsts : the first record to a partition that has not answered this producer goes alone
    guard : a report without an offset is no delivery
    trouble : the protocol is told of trouble
    late : how many steps (the start of a batch is one) trouble is told late
    stable : the committed position is read once no transaction can move it any more (read_committed)
    verification : Kafka asks the coordinator before it takes what a producer new to a partition sends
    """

    firsts: bool = True
    guard: bool = True
    trouble: bool = True
    late: int = 0
    verification: bool = True
    stable: bool = True


WHOLE = Mends()
"""Nothing taken out."""


def outputs(number: int) -> list[Record]:
    """What an input record gives: two records to one partition, others elsewhere, later to a new one."""
    records = [(0, f"{number}a"), (0, f"{number}b"), (1, f"{number}")]
    return [*records, (2 + (number >= 4), f"{number}")] if number % 4 != 3 else records


PARTITIONS = 4


@dataclass
class Executor:
    """Carries steps out on the model's client."""

    world: World
    slot: str
    mends: Mends
    generation: int = 0
    _client: Client | None = None
    _answered: set[int] = field(default_factory=set)
    _kept_back: deque[bool] = field(default_factory=deque)

    def carry_out(self, delivery: Delivery, records: Sequence[Record], position: int) -> Delivery:
        """From step to step until the batch, or this attempt at it, is left."""
        while not delivery.ended:
            self.world.tick()
            answer = self._answer(delivery.step, records, position)
            told = self.troubled()
            self.world.say(f"{self.slot}: {delivery.step.name} {answer.name}{' troubled' if told else ''}")
            self.world.met[f"{delivery.step.name} {answer.name}"] += 1
            delivery = protocol.following(delivery, answer, troubled=told)
        return delivery

    def troubled(self) -> bool:
        """Whether the client told of trouble since this was last asked."""
        self._kept_back.append(self._client is not None and self._client.news())
        told = len(self._kept_back) > self.mends.late and self._kept_back.popleft()
        return told and self.mends.trouble

    def _answer(self, step: Step, records: Sequence[Record], position: int) -> Answer:
        try:
            return self._step(step, records, position)
        except Refused:
            return Answer.REFUSED
        except Fatal:
            return Answer.FATAL

    def _step(self, step: Step, records: Sequence[Record], position: int) -> Answer:
        if step is Step.RENEW:
            self._client, self._answered = Client(self.world, self.slot), set()
            self._client.init()
            return Answer.DONE
        client = self._client
        assert client is not None
        if step is Step.BEGIN:
            client.begin()
        elif step is Step.FIRSTS:
            return self._send(client, self._firsts(records))
        elif step is Step.REST:
            firsts = self._sent
            return self._send(client, [record for record in records if record not in firsts])
        elif step is Step.OFFSETS:
            client.send_offsets(position, self.generation)
        else:
            client.end(commit=step is Step.COMMIT)
        return Answer.DONE

    def _firsts(self, records: Sequence[Record]) -> list[Record]:
        first: dict[int, Record] = {}
        for record in records:
            if self.mends.firsts and record[0] not in self._answered:
                first.setdefault(record[0], record)
        self._sent = set(first.values())
        return list(first.values())

    def _send(self, client: Client, records: Sequence[Record]) -> Answer:
        reports = client.send(records)
        self._answered |= {place for (place, _), offset in reports.items() if offset != NOWHERE}
        return Answer.LOST if self.mends.guard and NOWHERE in reports.values() else Answer.DONE


@dataclass
class Worker:
    """One slot: a process, and the next one when it ends."""

    world: World
    slot: str
    end: int
    batch: int
    mends: Mends

    def run(self, batches: int = 1 << 30) -> None:
        """Work until the input is done, or for some batches."""
        done = False
        while not done:
            try:
                done = self._live(batches)
            except Killed:
                self.world.say(f"{self.slot}: killed")

    def _live(self, batches: int) -> bool:
        """A process; whether it ended because it was done."""
        executor = Executor(self.world, self.slot, self.mends)
        delivery, position = executor.carry_out(protocol.settled(Delivery()), (), 0), 0
        while delivery.step is not Step.LEAVE:
            if delivery.step is Step.WAIT:
                delivery = executor.carry_out(protocol.settled(delivery), (), 0)
                continue
            if delivery.step is Step.AGAIN:
                position = self._committed(executor)
            if position >= self.end or batches <= 0:
                return True
            after = min(position + self.batch, self.end)
            records = [record for number in range(position, after) for record in outputs(number)]
            self.world.say(f"{self.slot}: batch [{position}, {after})")
            delivery = executor.carry_out(
                protocol.started(delivery, troubled=executor.troubled()), records, after
            )
            if delivery.step is Step.PUBLISHED:
                position, batches = after, batches - 1
        self.world.say(f"{self.slot}: leaves")
        return False

    def _committed(self, executor: Executor) -> int:
        """Go to the committed position, once it is stable."""
        group = self.world.kafka.group
        executor.generation = group.join(self.slot)
        waited = 0
        while True:
            self.world.tick()
            position = group.stable if self.mends.stable else group.committed
            if position is not None:
                self.world.say(f"{self.slot}: goes to {position}")
                return position
            waited += 1
            if waited % _PATIENCE == 0:
                self.world.kafka.time_out()
