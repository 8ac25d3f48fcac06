"""Whether a profile predicts its engine: the same requests on the engine, and in the simulator with the profile.

Two experiments tell where a difference comes from. Requests *alone*, one after the other, know the curves of single
prompts and of a batch of one. The same engine under *load*, with requests that arrive at random or as in a trace, knows
the rest: the batch, mixed steps, the limits, and the order in which requests are served.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dynamo_planner.profiles import Profile
from dynamo_planner.profiling.engine import Answer, Answers, Burst, Engine, Limits, ProfilingError, Prompt
from dynamo_planner.profiling.simulated import SimulatedEngine
from dynamo_planner.simulator.engine.engine import EngineLimits
from dynamo_planner.simulator.engine.step_time import GridTiming

UTILIZATION = 0.5
"""The share of the throughput of the simulated engine that a drawn load has."""

FEWEST, ALONE = 16, 8
"""Requests of a drawn load at least, and requests that are sent one after the other."""

APART_S = 0.2
"""Seconds between two of these: an engine that schedules ahead (vLLM) computes one more step after the last token."""

LONGEST_ISL, OSLS = 0.5, (16, 96)
"""Drawn prompts take at most this share of the context, and outputs are between these lengths, in tokens."""

KV_CELLS, PREFILL_CELL_TOKENS = 64, 16
"""Into how many pieces the KV cache is cut, and the width of the pieces of a prompt, between which step times of the
profile are straight lines."""

MOST_FAILED = 0.1
"""Of the requests of an experiment at most this share may fail: those that are left have another load to bear."""

QUANTILES = (0.5, 0.9)


class Comparison(NamedTuple):
    """A quantile of a time, as the profile predicts it and as it was measured.

    Args:
        what: the time, such as ``TTFT under load``.
        quantile: which quantile of it.
        predicted_ms: by the simulator with the profile.
        measured_ms: on the engine.
    """

    what: str
    quantile: float
    predicted_ms: float
    measured_ms: float

    @property
    def ratio(self) -> float:
        """Predicted over measured."""
        return self.predicted_ms / self.measured_ms


def drawn_load(profile: Profile, limits: Limits, seconds: float, seed: int = 0) -> Burst:
    """A load that no curve was measured with: random lengths at random times, for about so many seconds.

    Its rate is :data:`UTILIZATION` of the throughput that the simulated engine has when all requests wait at once.
    """
    rng = np.random.default_rng(seed)
    context = limits.max_context or max(profile.prefill_points.isl)
    shortest, longest = math.log(min(profile.prefill_points.isl)), math.log(max(LONGEST_ISL * context, 2))

    def requests(count: int) -> tuple[Prompt, ...]:
        isl, osl = np.exp(rng.uniform(shortest, longest, count)).astype(int), rng.integers(OSLS[0], OSLS[1], count)
        return tuple(Prompt(int(prompt), int(output)) for prompt, output in zip(isl, osl, strict=True))

    sample = requests(4 * (limits.max_num_seqs or 64))
    busy_s = max(answer.last_s for answer in simulated(profile, limits).run(Burst(sample)).together)
    count = max(round(UTILIZATION * seconds * len(sample) / busy_s), FEWEST)
    gaps = rng.exponential(busy_s / len(sample) / UTILIZATION, count)
    return Burst(requests(count), at_s=tuple(np.cumsum(gaps).tolist()))


def alone(load: Burst) -> Burst:
    """Some requests of a load, one after the other: those whose prompts are spread evenly over the lengths."""
    by_isl = sorted(load.together)
    places = np.linspace(0, len(by_isl) - 1, min(ALONE, len(by_isl))).round().astype(int)
    return Burst(chain=tuple(by_isl[place] for place in places), pause_s=APART_S)


def simulated(profile: Profile, limits: Limits) -> SimulatedEngine:
    """The engine that a profile describes, with the offset that it notes."""
    kv_tokens = limits.kv_tokens or int(profile.decode.max_kv_tokens)
    unchunked = max(kv_tokens, int(max(profile.prefill_points.isl)))
    sequences = limits.max_num_seqs or EngineLimits().max_num_seqs
    return SimulatedEngine(
        GridTiming(profile.step_ms, max(kv_tokens // KV_CELLS, 1), PREFILL_CELL_TOKENS),
        EngineLimits(
            max_num_seqs=sequences,
            max_num_batched_tokens=max(limits.max_num_batched_tokens or unchunked, sequences),
            kv_tokens=kv_tokens,
        ),
        offset_s=float(profile.about.get("offset_ms") or 0.0) / 1000,
    )


def verify(engine: Engine, profile: Profile, limits: Limits, load: Burst) -> list[Comparison]:
    """Run requests alone and a load on the engine and in the simulator, and compare.

    Raises :class:`~dynamo_planner.profiling.engine.ProfilingError` where the engine does not answer, or not nearly all
    of the requests.
    """
    found = []
    for name, burst in (("alone", alone(load)), ("under load", load)):
        measured = _answered(engine.run(burst), name)
        sent = _as_sent(measured, one_by_one=not burst.together)
        predicted = _answered(simulated(profile, limits).run(sent), f"simulated {name}")
        found += _compared(name, predicted, measured)
    return found


def _answered(answers: Answers, name: str) -> list[Answer]:
    """The answered requests of an experiment."""
    every = (*answers.together, *answers.chain)
    failed = [answer.failure for answer in every if answer.failure]
    if len(failed) > MOST_FAILED * len(every):
        raise ProfilingError(f"{len(failed)} of {len(every)} requests {name} failed; the first: {failed[0]}")
    return [answer for answer in every if not answer.failure]


def _as_sent(measured: Sequence[Answer], *, one_by_one: bool) -> Burst:
    """The same requests again, as long and at the times that they were in the end."""
    prompts = tuple(Prompt(answer.isl, answer.tokens) for answer in measured)
    if one_by_one:
        return Burst(chain=prompts, pause_s=APART_S)
    return Burst(prompts, at_s=tuple(answer.sent_s - measured[0].sent_s for answer in measured))


def _compared(name: str, predicted: Sequence[Answer], measured: Sequence[Answer]) -> list[Comparison]:
    rows = []
    for what, values in (("TTFT", _ttfts), ("ITL", _itls)):
        times = values(predicted), values(measured)
        if all(times):
            rows += [
                Comparison(f"{what} {name}", q, *(float(np.quantile(each, q)) for each in times)) for q in QUANTILES
            ]
    return rows


def _ttfts(answers: Sequence[Answer]) -> list[float]:
    return [answer.ttft_ms for answer in answers if math.isfinite(answer.ttft_ms)]


def _itls(answers: Sequence[Answer]) -> list[float]:
    return [1000 * (answer.last_s - answer.first_s) / (answer.tokens - 1) for answer in answers if answer.tokens > 1]
