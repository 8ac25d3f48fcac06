"""What the answers of a burst say of trouble: failures, an engine that hangs, buffered streams, wrong limits."""

from __future__ import annotations

import math
from collections.abc import Iterator

from dynamo_planner.profiling.engine import Answer, Answers, ProfilingError, Prompt
from dynamo_planner.profiling.experiments import Domain
from dynamo_planner.profiling.plan import Experiment
from dynamo_planner.profiling.readings import MIN_GAPS, MIN_ITL_MS

MAX_WAITED = 0.1
"""The share of the requests of a staircase that may wait until others end, which they should not."""

CUT = 0.9
"""An answer with less than this share of the tokens that were asked for ended early."""

MAX_FAILED = 0.25
"""The share of a burst that may fail, and is left out of the figures; a refusal by 429 always ends the session."""


def check_failures(answers: Answers, url: str) -> list[str]:
    """Why requests of a burst failed that are left out of the figures.

    Raises :class:`ProfilingError` where so many failed that the others say nothing, or some were refused.
    """
    every = [*answers.together, *answers.chain]
    failed = [answer.failure for answer in every if answer.failure]
    what = f"{url}: {len(failed)} of {len(every)} requests"
    if refused := next((failure for failure in failed if failure.startswith("answered 429")), None):
        how, remedy = "at once", f"give --max-concurrency {max(len(every) - len(failed), 1)}"
        if not answers.together:
            how, remedy = "sent one by one", "wait, raise the rate limit, or give the URL of the engine itself"
        raise ProfilingError(f"{what} {how} were refused ({refused}): {remedy}", answers)
    if len(failed) > MAX_FAILED * len(every):
        raise ProfilingError(f"{what} failed: {failed[0]}", answers)
    return failed


def check_answers(experiment: Experiment, answers: Answers, domain: Domain) -> None:
    """Raise :class:`ProfilingError` where the answers of an experiment are no measurement, with what to do about it."""
    doing = experiment.purpose
    if answers.stopped:
        if not any(math.isfinite(answer.first_s) for answer in (*answers.together, *answers.chain)):
            raise ProfilingError(f"{doing}: no token came in the time given: the engine hangs, or is overloaded")
        return
    long = [answer for answer in answers.together if answer.tokens > MIN_GAPS]
    if long and all(1000 * (answer.last_s - answer.first_s) < MIN_ITL_MS * answer.tokens for answer in long):
        raise ProfilingError(
            f"{doing}: the {long[0].tokens} tokens of an answer came at once: something on the way, such as a proxy, "
            "buffers the stream: give the URL of the engine itself, or switch the buffering off"
        )
    short = [(answer, prompt) for answer, prompt in _pairs(answers, experiment) if answer.tokens < CUT * prompt.osl]
    if len(short) > MAX_WAITED * len(answers.together):
        answer, prompt = short[0]
        raise ProfilingError(
            f"{doing}: {len(short)} of {len(answers.together)} answers ended early, the first after "
            f"{answer.tokens} of {prompt.osl} tokens: the connection is cut, or the engine does not take ignore_eos"
        )
    waited = _waited(answers)
    if waited > MAX_WAITED * len(answers.together):
        running = len(answers.together) - waited
        raise ProfilingError(
            f"{doing}: only {running} of {len(answers.together)} ran at once, the others waited for them: "
            f"the engine holds less than its {domain.kv_tokens} KV tokens or {domain.max_batch} requests; "
            f"give --kv-tokens or --max-concurrency {max(running, 1)}"
        )


def _pairs(answers: Answers, experiment: Experiment) -> Iterator[tuple[Answer, Prompt]]:
    """The answers that came, with their prompts."""
    pairs = zip(answers.together, experiment.burst.together, strict=True)
    return ((answer, prompt) for answer, prompt in pairs if not answer.failure)


def _waited(answers: Answers) -> int:
    """How many requests had their first token only after another one had ended."""
    ends = [answer.last_s for answer in answers.together if math.isfinite(answer.last_s)]
    return sum(not answer.first_s <= min(ends) for answer in answers.together) if ends else 0
