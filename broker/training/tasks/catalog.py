"""Every task, in the order of the report."""

from __future__ import annotations

from broker.training.questions import Extra, one_against_rest
from broker.training.task import Task
from broker.training.tasks import family, periodic, transient

TASKS: list[Task] = [
    family.TASK,
    Task(
        transient.NAME, "transient", transient.CLASSES, transient.INPUTS, transient.PARAMETRIC,
        transient.SOURCES, transient.LEAST_DETECTIONS,
        transient.samples, transient.last_states, transient.early_states, transient.CAVEATS,
        extras=(
            Extra(
                "SN Ia against the rest",
                lambda data: one_against_rest(transient.samples(data), "SNIa"), transient.INPUTS,
            ),
            Extra(
                "types, redshift known",
                transient.with_redshift, (*transient.INPUTS, transient.REDSHIFT),
            ),
            Extra(
                "SN Ia against the rest, redshift known",
                lambda data: one_against_rest(transient.with_redshift(data), "SNIa"),
                (*transient.INPUTS, transient.REDSHIFT),
            ),
        ),
        dated=transient.TAUGHT_BY,
    ),
    Task(
        periodic.NAME, periodic.PARENT, periodic.CLASSES, periodic.INPUTS,
        periodic.PARAMETRIC, periodic.SOURCES, periodic.LEAST_DETECTIONS,
        periodic.samples, periodic.last_states, periodic.early_states, periodic.CAVEATS,
        extras=(
            Extra(
                "YSO against all other stars",
                periodic.young_or_not, periodic.INPUTS, ("svm", "forest"),
            ),
        ),
    ),
]  # fmt: skip
