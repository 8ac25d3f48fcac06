"""Aggregated sizing: chunked prefill and decode share each step, so one replica count serves TTFT and ITL.

In a steady state a replica computes ``p`` prompt tokens for each token that it makes, so that a step takes::

    S(b) = T(b) + b p d(b)                                     ms, on average
    P(wait > t) = rho exp(-2 (1 - rho) t / (s (I + c**2)))     Allen & Cunneen with one server

======  ==================================================================================================
symbol  meaning
======  ==================================================================================================
b       requests in flight on a replica
p       prompt tokens computed for each token made, ``isl (1 - hit rate) / osl``
T(b)    ms of a step that only decodes
d(b)    ms that a prompt token lengthens a step by
s       seconds that a prompt's chunks take, one after the other; ``c**2`` is their squared variation
rho     share of the time that a replica works on chunks, at the rates of the arrivals' path over a TTFT
I       dispersion of the arrivals beyond their path; of one replica of n, ``1 + (I - 1) / n``
======  ==================================================================================================

ITL is sized as for decode (:mod:`dynamo_planner.sizing.decode`) with the steps ``S(b)``; that prompts come in bursts is
a variance of its own.
"""

from __future__ import annotations

import numpy as np

from dynamo_planner.core.snapshot import Sla
from dynamo_planner.sizing.arrays import Floats
from dynamo_planner.sizing.arrivals import MIN_DISPERSION, Arrivals
from dynamo_planner.sizing.concurrency import CLASSES, ResidenceTimes
from dynamo_planner.sizing.decode import DecodeStage, context_in_flight
from dynamo_planner.sizing.load import Lengths, Load
from dynamo_planner.sizing.queueing import MAX_EXPONENT
from dynamo_planner.sizing.stage import BatchStage
from dynamo_planner.sizing.step_curves import MIN_PROMPT_TOKENS, DecodeCurves, MixedCurves

AGGREGATED_MISS_FACTOR = 1.1
"""The share of late requests over what the formula says; fitted once to simulations."""

MIN_CHUNK_MS = 0.1
"""A chunk takes at least this long beside what its tokens take."""

WAIT_BUDGETS = 12
"""Size of the sample of times that prompts may wait, about."""


class AggregatedStage(BatchStage):
    """Requests on replicas whose steps compute first decoding requests and then prompts, up to a token budget.

    Args:
        curves: steps that only decode.
        mixed: steps with prompts.
        load: lengths, prefix hit rate and KV transfer.
        sla: the targets.
        chunk_tokens: the token budget of a step (``max_num_batched_tokens``).
        factor: how much longer steps take than the profile says. Default 1.
    """

    miss_factor = AGGREGATED_MISS_FACTOR

    def __init__(
        self,
        curves: DecodeCurves,
        mixed: MixedCurves,
        load: Load,
        sla: Sla,
        chunk_tokens: int,
        factor: float = 1.0,
    ) -> None:
        isl, osl, prompts = load.isl, load.osl, load.computed
        context = context_in_flight(isl, osl)[0]
        steps = curves.at(context, factor)
        per_token = prompts.mean / max(osl.mean, 1.0)  # prompt tokens for each token made
        typical = prompts.mean * (1 + prompts.cv2) if prompts.mean else 1.0
        burst = min(max(typical, MIN_PROMPT_TOKENS), max(chunk_tokens - 1.0, MIN_PROMPT_TOKENS))
        with_prompts = mixed.step_ms(burst, steps.batches, context) * factor
        each_ms = np.maximum(with_prompts - steps.step_ms, 0.0) / burst
        # A request waits for the prompts of the others; the replica has to compute all of them.
        request_ms = steps.step_ms + (steps.batches - 1) * per_token * each_ms
        steps = steps._replace(
            step_ms=request_ms,
            pace_ms=steps.step_ms + steps.batches * per_token * each_ms,
            per_context=steps.per_context * steps.step_ms / request_ms,
        )
        at_limit = int(np.argmin(np.abs(steps.step_ms - sla.itl_ms)))
        burst_ms = Lengths(prompts.mean * float(each_ms[at_limit]), prompts.cv2, prompts.values)
        prompts_ms = per_token * steps.batches[at_limit] * float(each_ms[at_limit])
        immediate = prompts_ms / max(float(steps.step_ms[at_limit] - steps.step_ms[0]), prompts_ms, 1e-9)
        max_batch = max(chunk_tokens / (1 + per_token), 1.0)
        self.decode = DecodeStage(steps, curves.max_kv_tokens, isl, osl, sla.itl_ms, burst_ms, immediate, max_batch)
        self.osl = osl

        # A prompt alone in the queue: its chunks, after the step that is under way.
        batch = self.decode.batch
        left = max(chunk_tokens - batch, 1.0)
        full_ms = float(mixed.step_ms(max(left, MIN_PROMPT_TOKENS), np.array([batch]), context)[0]) * factor
        own_ms = float(np.interp(batch, steps.batches, each_ms))
        pure_ms = max(full_ms - own_ms * left, MIN_CHUNK_MS)
        chunks = np.ceil(np.maximum(prompts.values, 1.0) / left)
        self._service_ms = prompts.values / left * full_ms
        alone_ms = chunks * pure_ms + own_ms * prompts.values
        slack_ms = sla.ttft_ms - load.kv_transfer_ms - alone_ms
        attainable = slack_ms > 0
        self.unattainable = 1 - (1 - self.decode.unattainable) * float(attainable.mean())
        under_way_ms = float(np.interp(batch, steps.batches, steps.step_ms)) / 2
        budgets_s = np.maximum(slack_ms[attainable] - under_way_ms, 0.0) / 1000
        self._budgets_s = budgets_s[:: max(1, len(budgets_s) // WAIT_BUDGETS)]
        over_s = max(float(self._budgets_s.mean()), 1e-3) if attainable.any() else 1.0
        self._recent = ResidenceTimes(np.full(CLASSES, over_s), 1.0)
        self.extrapolated = self.decode.extrapolated or chunk_tokens > mixed.most_prompt_tokens

    @property
    def limit_names(self) -> tuple[str, ...]:
        return (*self.decode.limit_names, "waiting")

    def load(self, arrivals: Arrivals) -> float:
        return self.decode.load(arrivals)

    def missed(self, arrivals: Arrivals, counts: Floats) -> Floats:
        return np.vstack([self.decode.missed(arrivals, counts), self._late(arrivals, counts)])

    def _late(self, arrivals: Arrivals, counts: Floats) -> Floats:
        """Shape (counts,): the share of prompts that wait for longer than they may."""
        rate = arrivals.requests_per_s / np.maximum(counts, 1e-9)
        if not self.load(arrivals) or not self._budgets_s.size:
            return np.full(len(counts), float(not self._budgets_s.size))
        flight = self._recent.in_flight(arrivals)
        mean_s = max(float(self._service_ms.mean()) / 1000, 1e-9)
        variation = float(self._service_ms.var()) / 1e6 / mean_s**2
        busy = rate[:, None] * flight.now * mean_s  # (counts, levels)
        fresh = max(arrivals.dispersion, MIN_DISPERSION) * (1 - flight.captured)
        dispersion = 1 + (fresh - 1) / np.maximum(counts, 1.0)
        pace = 2 * np.maximum(1 - busy, 0.0) / (mean_s * (dispersion + variation))[:, None]
        tail = np.minimum(busy, 1.0)[..., None] * np.exp(-np.minimum(pace[..., None] * self._budgets_s, MAX_EXPONENT))
        return np.asarray((tail.mean(axis=2) * flight.now_shares).sum(axis=1))
