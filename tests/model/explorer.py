"""Many schedules, and the smallest that breaks the promise.

A schedule is a size of batch and a handful of faults, drawn from a number: the same number gives the same
schedule everywhere. It is not drawn by hypothesis, whose choices of such data cost more than running it; what
is given up with it, making a failing schedule small, is short here: faults can be left out one by one.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

from model.kafka import EndTxn, Produce
from model.worker import PARTITIONS, WHOLE, Mends, Worker, outputs
from model.world import PRODUCED, REQUESTS, WIRE, Fault, Kind, Violation, World

INPUT = 8
_MOMENTS = 90
_LONGEST = 30
_DRAWN = [*Kind, *(kind for kind in Kind if kind in WIRE), Kind.LATE, Kind.NOT_LEADER, Kind.FORGOTTEN]


@dataclass(frozen=True)
class Schedule:
    """How many inputs a batch has, and what goes wrong."""

    batch: int
    faults: tuple[Fault, ...]

    def __str__(self) -> str:
        return "\n".join([f"batches of {self.batch}", *map(str, self.faults)])


@dataclass(frozen=True)
class Run:
    """What came of a schedule: the broken promise if any, the faults that came to pass, what happened."""

    broken: str
    met: Counter[str]
    trace: tuple[str, ...] = ()


def drawn(number: int) -> Schedule:
    """The schedule of a number."""
    dice = random.Random(number)
    faults = [_fault(dice) for _ in range(dice.randint(1, 6))]
    return Schedule(dice.randint(2, 4), tuple(sorted(faults, key=lambda fault: fault.moment)))


def _fault(dice: random.Random) -> Fault:
    kind = dice.choice(_DRAWN)
    request = None
    if kind in WIRE:
        request = dice.choice((*REQUESTS, EndTxn))
    elif kind in PRODUCED:
        request = Produce
    extent = dice.choice((dice.randint(1, 5), dice.randint(1, _LONGEST)))
    return Fault(dice.randint(0, _MOMENTS), kind, extent, request)


def run(schedule: Schedule, mends: Mends = WHOLE, *, tell: bool = False) -> Run:
    """Live through a schedule."""
    world = World.fresh(PARTITIONS, schedule.faults)
    one, other = (Worker(world, slot, INPUT, schedule.batch, mends) for slot in ("one", "other"))
    world.take_over = other.run
    world.trace = [] if tell else None
    world.kafka.verifies = mends.verification
    world.kafka.ended = lambda: _check(world)
    broken = ""
    try:
        one.run()
        world.settle()
        one.run()
        world.settle()
        _check(world)
        if world.kafka.group.committed != INPUT:
            raise Violation(f"the end is at {world.kafka.group.committed} of {INPUT}")
    except Violation as violation:
        broken = str(violation)
        world.say(broken)
    return Run(broken, world.met, tuple(world.trace or ()))


def _check(world: World) -> None:
    """At each end: the committed records are the outputs of the inputs before the committed position.

    Raises Violation.
    """
    kafka = world.kafka
    if not kafka.decided:
        return
    expected: list[list[str]] = [[] for _ in kafka.partitions]
    for number in range(kafka.group.committed):
        for place, content in outputs(number):
            expected[place].append(content)
    for place, partition in enumerate(kafka.partitions):
        _compare(place, partition.committed(), expected[place])


def _compare(place: int, seen: list[str], expected: list[str]) -> None:
    if seen == expected:
        return
    missing, surplus = Counter(expected) - Counter(seen), Counter(seen) - Counter(expected)
    what = "; ".join(
        f"{word} {', '.join(sorted(records))}"
        for word, records in (("lost", missing), ("doubled or of no committed input", surplus))
        if records
    )
    raise Violation(f"partition {place}: {what or 'out of order'}")


def explore(numbers: Iterable[int], mends: Mends = WHOLE) -> tuple[Counter[str], Schedule | None]:
    """Run schedules until one breaks the promise.

    Returns how many schedules met each kind of fault, and the breaking schedule made small, or None.
    """
    met: Counter[str] = Counter()
    for number in numbers:
        schedule = drawn(number)
        outcome = run(schedule, mends)
        met.update(outcome.met.keys())
        met["schedules"] += 1
        if outcome.broken:
            return met, smallest(schedule, mends)
    return met, None


def smallest(schedule: Schedule, mends: Mends) -> Schedule:
    """Leave out every fault without which the promise is still broken."""
    for fault in schedule.faults:
        fewer = replace(schedule, faults=tuple(item for item in schedule.faults if item is not fault))
        if run(fewer, mends).broken:
            return smallest(fewer, mends)
    return schedule


def story(schedule: Schedule, mends: Mends = WHOLE) -> str:
    """A schedule and what happens in it, to be read."""
    return "\n".join([str(schedule), *run(schedule, mends, tell=True).trace])
