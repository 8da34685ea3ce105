"""Every transition of a delivery: what was answered in, what is to be done next out."""

from __future__ import annotations

from itertools import product

import pytest

from broker.publish.protocol import Answer, Delivery, Step, following, settled, started

DONE, LOST, REFUSED, FATAL = Answer.DONE, Answer.LOST, Answer.REFUSED, Answer.FATAL
ENDS = (Step.PUBLISHED, Step.AGAIN, Step.WAIT, Step.LEAVE)
STEPS = [step for step in Step if step not in ENDS]
CALM = Delivery(Step.BEGIN, troubled=False)
FAILED = (LOST, REFUSED)


def at(step: Step, *, troubled: bool = False, settling: bool = False) -> Delivery:
    return Delivery(step, troubled, settling)


def test_a_calm_batch_goes_from_begin_to_published() -> None:
    steps, delivery = [], started(at(Step.PUBLISHED))
    while not delivery.ended:
        steps.append(delivery.step)
        delivery = following(delivery, DONE)
    assert steps == [Step.BEGIN, Step.FIRSTS, Step.REST, Step.OFFSETS, Step.COMMIT]
    assert delivery == at(Step.PUBLISHED)


@pytest.mark.parametrize("step", [Step.BEGIN, Step.FIRSTS, Step.REST, Step.OFFSETS])
@pytest.mark.parametrize("answer", FAILED)
@pytest.mark.parametrize("trouble", [False, True])
def test_what_fails_before_the_commit_is_aborted(step: Step, answer: Answer, trouble: bool) -> None:
    assert following(at(step), answer, troubled=trouble) == at(Step.ABORT, troubled=trouble)


@pytest.mark.parametrize("step", [Step.BEGIN, Step.FIRSTS, Step.REST, Step.OFFSETS, Step.COMMIT])
def test_trouble_does_not_stop_a_batch_but_is_remembered(step: Step) -> None:
    told_now = following(at(step), DONE, troubled=True)
    told_before = following(at(step, troubled=True), DONE)
    assert told_now == told_before
    assert told_now.troubled
    assert told_now.step is following(at(step), DONE).step


@pytest.mark.parametrize("answer", FAILED)
@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("trouble", [False, True])
def test_a_commit_of_unknown_outcome_is_settled_by_a_successor(
    answer: Answer, before: bool, trouble: bool
) -> None:
    next_ = following(at(Step.COMMIT, troubled=before), answer, troubled=trouble)
    assert next_ == at(Step.RENEW, troubled=True, settling=True)
    assert following(next_, DONE) == at(Step.AGAIN)


def test_a_calm_abort_leads_back_with_the_same_producer() -> None:
    assert following(at(Step.ABORT), DONE) == at(Step.AGAIN)


@pytest.mark.parametrize(
    ("answer", "before", "trouble"),
    [case for case in product((DONE, *FAILED), (False, True), (False, True)) if case != (DONE, False, False)],
)
def test_an_abort_with_trouble_or_without_an_answer_replaces_the_producer_first(
    answer: Answer, before: bool, trouble: bool
) -> None:
    next_ = following(at(Step.ABORT, troubled=before), answer, troubled=trouble)
    assert next_ == at(Step.RENEW, troubled=True, settling=True)


def test_a_successor_begins_the_batch_it_was_made_for() -> None:
    assert following(at(Step.RENEW, troubled=True), DONE) == at(Step.BEGIN)


def test_a_successor_made_to_settle_goes_back() -> None:
    assert following(at(Step.RENEW, troubled=True, settling=True), DONE) == at(Step.AGAIN)


@pytest.mark.parametrize("settling", [False, True])
def test_trouble_at_a_successors_start_is_its_own(settling: bool) -> None:
    """An identical trouble is not told again: the first batch could have it unseen."""
    next_ = following(at(Step.RENEW, troubled=True, settling=settling), DONE, troubled=True)
    assert next_ == at(Step.AGAIN if settling else Step.BEGIN, troubled=True)


@pytest.mark.parametrize("answer", FAILED)
@pytest.mark.parametrize("settling", [False, True])
def test_without_a_successor_nothing_is_settled(answer: Answer, settling: bool) -> None:
    next_ = following(at(Step.RENEW, troubled=True, settling=settling), answer)
    assert next_.step is Step.WAIT
    assert next_.troubled
    assert settled(next_) == started(next_) == at(Step.RENEW, troubled=True, settling=True)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("trouble", [False, True])
def test_a_fatal_client_ends_the_process(step: Step, before: bool, trouble: bool) -> None:
    next_ = following(at(step, troubled=before), FATAL, troubled=trouble)
    assert next_.step is Step.LEAVE
    assert settled(next_).step is started(next_).step is Step.LEAVE


@pytest.mark.parametrize("before", [Step.PUBLISHED, Step.AGAIN])
def test_a_batch_after_trouble_has_a_new_producer(before: Step) -> None:
    assert started(at(before)) == CALM
    renewed = at(Step.RENEW, troubled=True)
    assert started(at(before, troubled=True)) == renewed
    assert started(at(before), troubled=True) == renewed


@pytest.mark.parametrize("before", [Step.PUBLISHED, Step.AGAIN])
def test_positions_are_read_only_after_trouble_is_fenced_off(before: Step) -> None:
    assert settled(at(before)) == at(Step.AGAIN)
    assert settled(at(before, troubled=True)) == at(Step.RENEW, troubled=True, settling=True)


def test_a_process_settles_before_it_reads_a_position() -> None:
    first = settled(Delivery())
    assert first == started(Delivery()) == at(Step.RENEW, troubled=True, settling=True)


@pytest.mark.parametrize("step", Step)
def test_the_ends_are_ends(step: Step) -> None:
    assert at(step).ended is (step in ENDS)


@pytest.mark.parametrize(("step", "answer"), list(product(STEPS, Answer)))
@pytest.mark.parametrize("trouble", [False, True])
def test_trouble_is_forgotten_only_by_a_calm_renewal(step: Step, answer: Answer, trouble: bool) -> None:
    next_ = following(at(step, troubled=True), answer, troubled=trouble)
    assert next_.troubled is not (step is Step.RENEW and answer is DONE and not trouble)
