"""Every task, in the order of the report."""

from __future__ import annotations

from broker.training.task import Task

TASKS: list[Task] = []
