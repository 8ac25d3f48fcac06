"""A measuring session: experiments one after the other, until the curves are sure enough or the time is over."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from dynamo_planner.core.values import Frozen
from dynamo_planner.profiling.answer_checks import check_answers
from dynamo_planner.profiling.engine import Engine, ProfilingError
from dynamo_planner.profiling.experiments import Domain, prompts
from dynamo_planner.profiling.fit import CurveError
from dynamo_planner.profiling.measured import Measured
from dynamo_planner.profiling.plan import Experiment, first_experiments, fullest_experiment, next_experiment
from dynamo_planner.profiling.readings import Readings, readings

WARM_UP_ISLS = (32, 512)
"""Prompts that are sent before anything is measured: the first ones compile kernels and fill caches."""

OVERRUN = 3.0
"""An experiment that takes this many times as long as expected is ended."""

OVERRUN_S = 10.0
"""The least seconds that an experiment is given."""

FIRST_SHARE = 0.33
"""The share of a session that each of the first experiments may take: how long they last is not known yet."""

MIN_STAIRCASES = 8
"""Staircases before the curves may be called sure: an engine whose step depends on more than its batch, such as on
which slots of llama.cpp are neighbours, can show one face in the first few. Three chances of 1/2 fall alike in 25 % of
sessions, eight in 1 %."""

FULL_S = 15.0
"""Seconds of each minute that a staircase of the full KV cache may take: the cache is seldom filled for less, and the
steps that sizing asks for most are those of a full one."""


class Goal(Frozen):
    """When a session ends.

    Args:
        minutes: of the engine's time at most; 5 by default.
        error: the 95th percentile of the cross-validated errors of each curve under which it is sure enough; 0.05 by
            default.
    """

    minutes: float = 5.0
    error: float = 0.05


class Progress(NamedTuple):
    """How far a session has come, after each experiment.

    Args:
        measured: what there is so far.
        errors: of the curves so far.
        next: the experiment that comes next; None where the session is over.
        why: why it is over; empty while it goes on.
    """

    measured: Measured
    errors: dict[str, CurveError]
    next: Experiment | None
    why: str = ""


class _BrokenError(Exception):
    """An experiment that failed midway, with what was measured until then."""

    def __init__(self, measured: Measured, error: ProfilingError) -> None:
        super().__init__(str(error))
        self.measured, self.error = measured, error


def measure(
    engine: Engine, domain: Domain, goal: Goal, measured: Measured, watch: Callable[[], str] = lambda: ""
) -> Iterator[Progress]:
    """Measure, and say how far it has come before each experiment and at the end; stop by not asking for more.

    ``measured`` is what an earlier session left. ``watch`` says why the session cannot go on, or nothing.
    Raises :class:`~dynamo_planner.profiling.engine.ProfilingError` where the engine does not answer, after it has
    yielded what came until then.
    """
    try:
        yield from _experiments(engine, domain, goal, measured, watch)
    except _BrokenError as broken:
        yield Progress(broken.measured, {}, None, "the experiment failed")
        raise broken.error from None


def _experiments(
    engine: Engine, domain: Domain, goal: Goal, measured: Measured, watch: Callable[[], str]
) -> Iterator[Progress]:
    engine.run(prompts([min(isl, domain.max_isl) for isl in WARM_UP_ISLS]))
    longest_s = max(FIRST_SHARE * 60 * goal.minutes, OVERRUN_S)
    for experiment in first_experiments(domain, measured):
        yield Progress(measured, {}, experiment)
        measured = perform(engine, domain, experiment, measured, longest_s)
    if domain.role != "prefill" and not measured.decode:
        raise ProfilingError(
            f"no decode step could be read, though the first requests were given {longest_s:.0f} s: the engine is "
            f"too slow for {goal.minutes:g} minutes, or others use the machine: give more --minutes"
        )
    if domain.role != "prefill" and (fullest := fullest_experiment(measured, domain, FULL_S * goal.minutes)):
        yield Progress(measured, {}, fullest)
        measured = perform(engine, domain, fullest, measured)
    made: set[str] = set()
    while True:
        errors = measured.errors
        left_s = 60 * goal.minutes - measured.spent_s
        if why := watch():
            break
        enough = domain.role == "prefill" or len(measured.decode) >= MIN_STAIRCASES
        if enough and all(error.p95 <= goal.error for error in errors.values()):
            why = f"every curve is within {100 * goal.error:g} %"
            break
        found = next_experiment(measured, domain, errors, left_s, made)
        if found is None:
            why = f"the {goal.minutes:g} minutes are over"
            break
        made.add(found.purpose)
        yield Progress(measured, errors, found)
        measured = perform(engine, domain, found, measured)
    yield Progress(measured, errors, None, why)


def perform(
    engine: Engine, domain: Domain, experiment: Experiment, measured: Measured, least_s: float = OVERRUN_S
) -> Measured:
    """What was measured, with one experiment more, which is given ``least_s`` seconds at least."""
    began_s = engine.now_s()
    due_s = began_s + max(OVERRUN * experiment.seconds, least_s)

    def overdue(now_s: float, _: object) -> bool:
        return now_s > due_s

    try:
        answers = engine.run(experiment.burst, overdue)
    except ProfilingError as error:
        came = Readings() if error.answers is None else readings(error.answers, domain.step_tokens)
        raise _BrokenError(measured.plus(came, engine.now_s() - began_s), error) from error
    check_answers(experiment, answers, domain)
    return measured.plus(readings(answers, domain.step_tokens), engine.now_s() - began_s)
