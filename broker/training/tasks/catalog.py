"""Every task, in the order of the report."""

from __future__ import annotations

from broker.training.task import Task
from broker.training.tasks import family, periodic, transient

TASKS: list[Task] = [
    family.TASK,
    Task(
        transient.NAME, "transient", transient.CLASSES, transient.INPUTS, transient.PARAMETRIC,
        transient.SOURCES, transient.LEAST_DETECTIONS,
        transient.samples, transient.last_states, transient.early_states, transient.CAVEATS,
    ),
    Task(
        periodic.NAME, periodic.PARENT, periodic.CLASSES, periodic.INPUTS,
        periodic.PARAMETRIC, periodic.SOURCES, periodic.LEAST_DETECTIONS,
        periodic.samples, periodic.last_states, periodic.early_states, periodic.CAVEATS,
    ),
]  # fmt: skip
