"""What is to be learnt: one task a module in `tasks/`, one stage of a bundle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from broker.training.questions import Extra
from broker.training.sample import Sample


@dataclass(frozen=True)
class Task:
    """One stage to train.

    parent     : the family whose leaves it tells apart; '' for the families themselves
    classes    : those it may learn; a class with too few objects is left out
    inputs     : features and context columns it looks at
    parametric : inputs of the baseline that only knows a fitted model's parameters
    sources    : of the labelled folder, that it can judge
    least_detections : with fewer it is not asked
    caveats    : what the card must say beyond the figures, a sentence each
    extras   : further questions that the report answers
    dated    : sources whose times are of one calendar, so that a later time can be held out
    samples, last_states, early_states : rows of a labelled folder: to learn from; of every object as it is
                 last seen; of every object after its first detections
    """

    name: str
    parent: str
    classes: tuple[str, ...]
    inputs: tuple[str, ...]
    parametric: tuple[str, ...]
    sources: tuple[str, ...]
    least_detections: int
    samples: Callable[[Path], Sample]
    last_states: Callable[[Path], Sample]
    early_states: Callable[[Path], Sample]
    caveats: tuple[str, ...] = ()
    extras: tuple[Extra, ...] = ()
    dated: tuple[str, ...] = ()
