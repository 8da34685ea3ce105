"""What befalls a run, drawn from a seed: processes killed or stopped, faults on the wire, filters changed."""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import cycle, islice

from kafka_proxy import Act


@dataclass(frozen=True)
class Step:
    """One thing that is done.

    what : a method of the run under chaos;  seconds : how long it lasts, or how late it comes
    number : which worker, or which of what there is to choose from
    request, act : of a fault on the wire, which requests and what becomes of them
    """

    what: str
    seconds: float = 0.0
    number: int = 0
    request: str = ""
    act: Act | None = None

    def __str__(self) -> str:
        """As it is printed when something was wrong."""
        said = [self.what, self.request, self.act.value if self.act else "", f"{self.seconds:.1f} s"]
        return " ".join(item for item in said if item) + f" #{self.number}"


# Beyond the session (6 s) and the transaction timeout (10 s) of a worker.
_LONG_STOP_S = 13.0
_KILLS = (
    ("kill_worker", 0.0),
    ("kill_kafka", 2.0),
    ("kill_worker", 0.0),
    ("kill_valkey", 1.0),
    ("stop_worker", _LONG_STOP_S),
    ("kill_parent", 0.0),
    ("kill_worker", 0.0),
    ("stop_kafka", 8.0),
    ("kill_worker", 0.0),
    ("stop_valkey", 6.0),
    ("kill_valkey", 0.2),
    ("stop_parent", 8.0),
)
_WIRE = (
    ("EndTxn", Act.LATE),
    ("EndTxn", Act.CUT_AFTER),
    ("Produce", Act.LATE),
    ("AddPartitionsToTxn", Act.LATE),
    ("TxnOffsetCommit", Act.CUT_AFTER),
    ("EndTxn", Act.DROP),
    ("Produce", Act.CUT_AFTER),
    ("freeze", None),
    ("AddOffsetsToTxn", Act.LATE),
    ("EndTxn", Act.LATE),
    ("cut_all", None),
    ("TxnOffsetCommit", Act.LATE),
    ("EndTxn", Act.HOLD),
    ("Produce", Act.DROP),
    ("AddPartitionsToTxn", Act.CUT_AFTER),
    ("EndTxn", Act.CUT_BEFORE),
    ("Heartbeat", Act.DROP),
    ("Produce", Act.CUT_BEFORE),
    ("AddOffsetsToTxn", Act.CUT_AFTER),
    ("Fetch", Act.DROP),
    ("InitProducerId", Act.CUT_AFTER),
)
_FILTERS = ("change_filter", "pause_filter", "enable_filter", "add_filter", "remove_filter")


def draw(seed: int, kills: int, wire: int, filters: int, verdicts: int) -> list[Step]:
    """The steps of a run in their order: the same seed gives the same ones."""
    dice = random.Random(seed)
    steps = [Step(what, seconds, dice.randrange(2)) for what, seconds in islice(cycle(_KILLS), kills)]
    steps += [_wire_step(dice, request, act) for request, act in islice(cycle(_WIRE), wire)]
    steps += [Step(what, 0.0, dice.randrange(1000)) for what in islice(cycle(_FILTERS), filters)]
    dice.shuffle(steps)
    for number in range(verdicts):
        steps.insert((number + 1) * len(steps) // (verdicts + 1), Step("ask_ledger"))
    return steps


def _wire_step(dice: random.Random, request: str, act: Act | None) -> Step:
    if act is None:
        return Step(request, dice.uniform(8.0, 12.0) if request == "freeze" else 0.0)
    return Step("wire", dice.choice([0.5, 1.0, 2.0, 4.0, 7.0]), 0, request, act)
