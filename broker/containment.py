"""One record must not stop the stream: what fails while a batch is judged is traced to the records at fault.

Any `Exception` is contained but RetryBatch and its kinds, and WorkerFenced: those say that a server is away
or a slot taken, which no record causes. MemoryError, RecursionError, and SystemError, which C code raises for
anything, are contained: a batch that does not fit into memory is judged in parts.

The search halves the batch. What is at fault is left out and everything else is judged once more at once, so
that it comes out as if the batch had come without: in parts, an alert would not see a point of its object
that another part brings. A part that was judged may be judged again, as the batch of an aborted transaction.

A fault of ours that hits everything must not turn a night into dead letters. So if of the last WINDOW records
WIDESPREAD or more were at fault, and these are more than half, a record that was judged before is judged once
more, beside the stream (or an alert that is made up, if there was none so far). If that works, the fault is
the data's and the stream goes on; if not, the fault is ours: WidespreadFault, the batch is done again after a
pause, and nothing is lost. A few bad records so always get through, whatever the size of the batch.
"""

from __future__ import annotations

import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from broker.errors import PacketTooLarge, RetryBatch, WidespreadFault, WorkerFenced

I64 = npt.NDArray[np.int64]
Result = TypeVar("Result")

SYSTEM_FAULTS = (RetryBatch, WorkerFenced)
WINDOW = 100
WIDESPREAD = 20
_FRAMES = 6
"""Innermost calls of a traceback that a dead letter carries."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Why something could not be judged.

    kind : the exception and where it came from, which tells one kind of fault from another
    reason : of a dead letter;  detail : the exception and a short traceback
    """

    kind: str
    reason: str
    detail: str

    @classmethod
    def of(cls, error: Exception) -> Fault:
        """What an exception says; it is not kept itself, for it holds on to all that it went through."""
        frames = traceback.extract_tb(error.__traceback__)[-_FRAMES:]
        where = f"{frames[-1].filename.rpartition('/')[2]}:{frames[-1].lineno}" if frames else "?"
        lines = [f"{item.filename}:{item.lineno} in {item.name}" for item in frames]
        name = type(error).__name__
        reason = "too_large" if isinstance(error, PacketTooLarge) else "internal_error"
        return cls(f"{name} at {where}", reason, "\n".join([f"{name}: {_said_by(error)}", *lines]))


@dataclass(frozen=True)
class Contained(Generic[Result]):
    """n things judged.

    results : of one call for all that could be judged; of several if they fail only together
    faults : by number, of those that are left out
    """

    results: list[Result]
    faults: dict[int, Fault]


class FaultAccount:
    """How often things were at fault lately, over batches.

    works : judges something beside the stream, and tells whether that can be done at all
    """

    def __init__(self, works: Callable[[], bool]) -> None:
        self._works = works
        self._recent: deque[bool] = deque(maxlen=WINDOW)

    def judged(self, count: int) -> None:
        """So many were judged."""
        self._recent.extend([False] * min(count, WINDOW))

    def at_fault(self, fault: Fault) -> None:
        """One could not be judged.  Raises WidespreadFault when it is not the data's fault."""
        self._recent.append(True)
        found = sum(self._recent)
        if found < WIDESPREAD or 2 * found <= len(self._recent):
            return
        if not self._works():
            text = f"{found} of the last {len(self._recent)} records could not be judged, nor can any other"
            raise WidespreadFault(f"{text}: {fault.detail}")
        self._recent.clear()


def contain(count: int, judge: Callable[[I64], Result], account: FaultAccount) -> Contained[Result]:
    """Judge n things at once, without those that cannot be judged.

    judge : called with the numbers of some, ascending; perhaps several times with the same ones
    Raises RetryBatch, its kind WidespreadFault, or WorkerFenced.
    """
    rows, faults = np.arange(count), dict[int, Fault]()
    while len(rows):
        try:
            results = [judge(rows)]
            account.judged(len(rows))
            return Contained(results, faults)
        except SYSTEM_FAULTS:
            raise
        except Exception as error:
            fault = Fault.of(error)
        results, found = _apart(rows, judge, fault, account)
        faults |= found
        if not found:
            return Contained(results, faults)
        rows = np.setdiff1d(rows, list(found))
    return Contained([], faults)


def _apart(
    rows: I64, judge: Callable[[I64], Result], fault: Fault, account: FaultAccount
) -> tuple[list[Result], dict[int, Fault]]:
    """The halves of what fails as a whole: the results of what can be judged, and what is at fault."""
    if len(rows) == 1:
        account.at_fault(fault)
        return [], {int(rows[0]): fault}
    results: list[Result] = []
    faults: dict[int, Fault] = {}
    for half in np.array_split(rows, 2):
        try:
            results.append(judge(half))
            account.judged(len(half))
            continue
        except SYSTEM_FAULTS:
            raise
        except Exception as error:
            smaller = Fault.of(error)
        more, found = _apart(half, judge, smaller, account)
        results += more
        faults |= found
    return results, faults


def _said_by(error: Exception) -> str:
    """The text of an exception, which may fail to have one."""
    try:
        return str(error)[:500]
    except Exception:
        return "(it cannot say why)"
