"""Input partitions that stand still: records wait in them, and the group's position does not move."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from broker.heartbeats import Heartbeat
from broker.kafka.clients import PartitionKey

STALLED_S = 30.0
"""A partition that stands still for so long is told of."""
END_S = 120.0
"""After so long the worker that has it is ended, and replaced."""


@dataclass
class Stalls:
    """Since when each partition stands still, while Kafka answers.

    A partition that waits for a schema does not: that is told, counted and watched by itself.
    """

    _still: dict[PartitionKey, tuple[int, float]] = field(default_factory=dict)

    def look(
        self,
        positions: Mapping[PartitionKey, int],
        lag: Mapping[PartitionKey, int],
        waiting: Collection[PartitionKey],
        now: float,
    ) -> None:
        """What the group has committed, what is left, and which partitions wait for a schema."""
        still = {}
        for key, records in lag.items():
            if records and key not in waiting:
                position = positions.get(key, -1)
                before, since = self._still.get(key, (position, now))
                still[key] = (position, since if before == position else now)
        self._still = still

    def forget(self) -> None:
        """Kafka did not answer: all begin anew."""
        self._still = {}

    def longer_than(self, seconds: float, now: float) -> list[PartitionKey]:
        """The partitions that stand still for so long, or longer."""
        return sorted(key for key, (_, since) in self._still.items() if now - since >= seconds)


def culprit(
    stalled: Sequence[PartitionKey], ours: Sequence[Heartbeat], others: Sequence[Heartbeat]
) -> Heartbeat | None:
    """Which of our workers to end so that partitions that stand still get another.

    ours : those that have joined, the one that runs longest first;  others : of other runs of the group
    Returns the worker that was given one of them; where nobody was, the first of ours, for a member that goes
    makes the group share out again; None where only another run can do something.
    """
    names = {f"{topic}[{number}]" for topic, number in stalled}
    owners = [beat for beat in ours if names & set(beat.owns)]
    if owners:
        return owners[0]
    if not names or any(names & set(beat.owns) for beat in others):
        return None
    return ours[0] if ours else None
