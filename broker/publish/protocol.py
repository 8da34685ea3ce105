"""How a batch is delivered exactly once, as a pure state machine: what was answered in, what to do next out.

    begin -> firsts -> rest -> offsets -> commit -> (published)
                 any of them refused -> abort -> (do the batch again)
                 trouble on the way  -> renew before anything else

It knows no client. `publish/kafka.py` carries its steps out on librdkafka; a test carries them out on a model
of Kafka in which requests are lost, repeated and late. Three rules make it exact where the protocol of
librdkafka's transactions alone is not:

* The first record to a partition that holds no state of this producer is sent alone and awaited (FIRSTS).
  Such a partition takes any sequence number: of two requests in flight the first may be refused, because the
  partition is still being made, and the second taken, and the client then counts both as stored.
* A record counts as delivered only if its report names an offset, and offsets are committed only once every
  record of the batch has such a report. What the client merely concluded names none.
* After trouble (a timeout, a broken connection, a slow end of a transaction) an earlier request may still be
  on its way, and the same producer's next transaction would be ended by it. The producer is replaced (RENEW):
  its successor's epoch fences off whatever comes late. Where the outcome of a commit is not known, this also
  settles it; the committed positions are read only afterwards. A successor whose own start had trouble works,
  but is itself replaced before the next batch: librdkafka does not tell of an identical trouble twice.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum


class Step(Enum):
    """What is to be done next; the last four leave the batch."""

    RENEW = "replace the producer and initialise its transactions"
    BEGIN = "begin a transaction"
    FIRSTS = "send one record to each partition without state of this producer, and await the reports"
    REST = "send all other records, and await the reports"
    OFFSETS = "add the positions of the input"
    COMMIT = "commit"
    ABORT = "abort"
    PUBLISHED = "the batch is out, its positions are committed"
    AGAIN = "nothing is out: go back to the committed positions and do the batch again"
    WAIT = "the producer could not be replaced: try later; the committed positions are not settled until then"
    LEAVE = "this process can do no more: end it"


class Answer(Enum):
    """How a step went."""

    DONE = "done; of records: each has a report that names its offset"
    LOST = "a record was reported as delivered without an offset, or not reported at all"
    REFUSED = "refused, or its outcome is not known"
    FATAL = "the client is of no more use, for another has its place"


@dataclass(frozen=True)
class Delivery:
    """Where the delivery of a batch stands; as it is made, with a producer still to be made.

    step : what is being done
    troubled : a request of this producer may still be on its way, or its last transaction may be open
    settling : the producer is being replaced in order to go back to the committed positions
    """

    step: Step = Step.WAIT
    troubled: bool = True
    settling: bool = False

    @property
    def ended(self) -> bool:
        """Whether this batch, or this attempt at it, is left."""
        return self.step in _ENDS


_ENDS = (Step.PUBLISHED, Step.AGAIN, Step.WAIT, Step.LEAVE)
_ONWARD = {
    Step.BEGIN: Step.FIRSTS,
    Step.FIRSTS: Step.REST,
    Step.REST: Step.OFFSETS,
    Step.OFFSETS: Step.COMMIT,
    Step.COMMIT: Step.PUBLISHED,
    Step.ABORT: Step.AGAIN,
}


def started(before: Delivery, *, troubled: bool = False) -> Delivery:
    """A new batch, polled after the one before it was left.

    After WAIT it is not begun but settled: it was polled from positions that may have been open.
    troubled : since the last step there was trouble, or it was told only now

    >>> started(Delivery(Step.PUBLISHED, troubled=False)).step.name
    'BEGIN'
    >>> started(Delivery(Step.PUBLISHED, troubled=True)).step.name
    'RENEW'
    """
    if before.step in (Step.WAIT, Step.LEAVE):
        return settled(before)
    mixed = before.troubled or troubled
    return Delivery(Step.RENEW if mixed else Step.BEGIN, mixed)


def settled(before: Delivery) -> Delivery:
    """What to do before the committed positions are read: fence off what is left of an earlier attempt."""
    if before.step is Step.LEAVE:
        return before
    return Delivery(Step.RENEW if before.troubled else Step.AGAIN, before.troubled, before.troubled)


def following(now: Delivery, answer: Answer, *, troubled: bool = False) -> Delivery:
    """What comes after a step.

    troubled : during it a call timed out or had to be repeated, a connection broke, an end was slow; what the
        client tells of it must be asked for after each step, and once more before the next batch (`started`)

    >>> following(Delivery(Step.REST, troubled=False), Answer.LOST).step.name
    'ABORT'
    >>> done = following(Delivery(Step.COMMIT, troubled=False), Answer.DONE, troubled=True)
    >>> done.step.name, done.troubled
    ('PUBLISHED', True)
    """
    if answer is Answer.FATAL:
        return Delivery(Step.LEAVE)
    if now.step is Step.RENEW:
        return _renewed(now, answer, troubled)
    mixed = now.troubled or troubled
    if answer is not Answer.DONE and now.step not in (Step.COMMIT, Step.ABORT):
        return Delivery(Step.ABORT, mixed)
    if answer is not Answer.DONE or (now.step is Step.ABORT and mixed):
        return Delivery(Step.RENEW, troubled=True, settling=True)  # only a successor can tell the outcome
    return Delivery(_ONWARD[now.step], mixed)


def _renewed(now: Delivery, answer: Answer, troubled: bool) -> Delivery:
    if answer is not Answer.DONE:
        return replace(now, step=Step.WAIT, troubled=True)
    return Delivery(Step.AGAIN if now.settling else Step.BEGIN, troubled)
