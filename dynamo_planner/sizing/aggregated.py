"""Aggregated sizing: chunked prefill and decode share each step, so one replica count serves TTFT and ITL.

In a steady state a replica computes ``p`` prompt tokens for each token that it makes, so that a step takes::

    S(b) = T(b) + b p d(b)                     ms, on average
    P(late) = (1 - w) P1 + w Pn                w = b**2 / (1 + b**2)

======  ==================================================================================================
symbol  meaning
======  ==================================================================================================
b       requests in flight on a replica
p       prompt tokens computed for each token made, ``isl (1 - hit rate) / osl``
T(b)    ms of a step that only decodes
d(b)    ms that a prompt token lengthens a step by
P1      share of late prompts in one queue for all replicas: hardly any has a request, and those are not chosen
Pn      share of late prompts in a queue of their own for each replica: all have as many requests, some with prompts
======  ==================================================================================================

Both queues have the chunks of a prompt in steps beside ``b`` requests as service, one prompt at a time and with
batching (:mod:`dynamo_planner.sizing.waiting`). ITL is sized as for decode (:mod:`dynamo_planner.sizing.decode`) with
the steps ``S(b)``; that prompts come in bursts is a variance of its own.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from dynamo_planner.core.snapshot import Sla
from dynamo_planner.sizing.arrays import Floats
from dynamo_planner.sizing.arrivals import Arrivals
from dynamo_planner.sizing.batching import Batching, PromptService, in_chunks_s
from dynamo_planner.sizing.decode import DecodeStage, context_in_flight
from dynamo_planner.sizing.load import Lengths, Load
from dynamo_planner.sizing.stage import BatchStage
from dynamo_planner.sizing.step_curves import MIN_PROMPT_TOKENS, DecodeCurves, MixedCurves
from dynamo_planner.sizing.waiting import Service, late_shares

AGGREGATED_MISS_FACTOR = 1.1
"""The share of late requests over what the formula says; fitted once to simulations."""

IDLE_BATCH = 0.5
"""With at most as many requests in flight on a replica on average, a prompt finds an idle one."""

BATCH_LEVELS = 5
"""Requests in flight on a replica for which the queue of prompts is worked out; between them it is interpolated."""

STEP_NODES = 16
"""Nodes of the curve of step times over their prompt tokens."""

MAX_HIT_RATE = 0.99
"""Prompts with a larger share in the prefix cache attend to as many tokens as ones with this."""

PROMPT_LENGTHS = 128
"""Prompt lengths in the sample."""


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
        tokens, within_s = np.maximum(prompts.finer(PROMPT_LENGTHS), 1.0), (sla.ttft_ms - load.kv_transfer_ms) / 1000
        step_tokens = np.geomspace(MIN_PROMPT_TOKENS, _most_tokens(chunk_tokens, IDLE_BATCH), STEP_NODES)
        idle_s, light_s = [
            mixed.step_ms(step_tokens, np.array([IDLE_BATCH]), each)[:, 0] * (factor / 1000) for each in (context, 0.0)
        ]
        # The steps are those of the mean context, and a prompt attends to its own tokens, half of them on average.
        attended = np.minimum(tokens / (1 - min(load.prefix_hit_rate, MAX_HIT_RATE)) - tokens / 2, context)
        longer_s = in_chunks_s(tokens, step_tokens, idle_s) - in_chunks_s(tokens, step_tokens, light_s)
        spared_s = np.maximum(longer_s, 0.0) * (1 - attended / context)
        attainable = in_chunks_s(tokens, step_tokens, idle_s) - spared_s <= within_s
        # Where no prompt is in time, all are late, and replicas have to keep up, whatever the ITL.
        itl_ms = sla.itl_ms if attainable.any() else math.inf
        steps = curves.at(context, factor)
        per_token = prompts.mean / max(osl.mean, 1.0)  # prompt tokens for each token made
        typical = prompts.mean * (1 + prompts.cv2) if prompts.mean else 1.0
        burst = min(max(typical, MIN_PROMPT_TOKENS), max(chunk_tokens - 1.0, MIN_PROMPT_TOKENS))
        with_prompts = mixed.step_ms(burst, steps.batches, context) * factor
        each_ms = np.maximum(with_prompts - steps.step_ms, 0.0) / burst
        # A request waits for the prompts of the others; the replica has to compute all of them.
        request_ms = steps.step_ms + (steps.batches - 1) * per_token * each_ms
        full_ms = steps.step_ms + np.maximum(chunk_tokens - steps.batches, 0.0) * each_ms
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
        self.decode = DecodeStage(
            steps, curves.max_kv_tokens, isl, osl, itl_ms, burst_ms, immediate, max_batch, full_ms=full_ms
        )
        self.osl = osl

        # The queue of prompts, beside few or many requests that decode.
        self._levels = np.append(IDLE_BATCH, np.geomspace(1.0, max(self.decode.batch, 1.01), BATCH_LEVELS - 1))
        most = _most_tokens(chunk_tokens, self._levels)
        step_s = mixed.step_ms(step_tokens, self._levels, context) * (factor / 1000)
        self._services = []
        for level, most_tokens in enumerate(most):
            reachable = np.append(step_tokens[step_tokens < most_tokens], most_tokens)
            of_level_s = np.interp(reachable, step_tokens, step_s[:, level])
            alone_s = in_chunks_s(tokens, reachable, of_level_s) - spared_s
            batching = Batching(tokens, alone_s, reachable, of_level_s, within_s)
            slack_s = (within_s - alone_s)[attainable] if attainable.any() else within_s - alone_s
            under_way_s = float(of_level_s[0]) if level else 0.0
            self._services.append(PromptService(alone_s, slack_s, batching, under_way_s))
        self.unattainable = 1 - (1 - self.decode.unattainable) * float(attainable.mean())
        self.residence_s = self.decode.residence_s + self._services[-1].mean_s
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
        if not self.load(arrivals):
            return np.zeros(len(counts))
        rates = arrivals.requests_per_s / np.maximum(counts, 1e-9)
        batch = self.decode.batch_at(rates)
        level = np.interp(batch, self._levels, np.arange(BATCH_LEVELS))
        low = np.tile(np.minimum(level.astype(np.intp), BATCH_LEVELS - 2), 2)
        share, place = np.tile(level, 2) - low, np.arange(2 * len(counts))
        used = np.unique(np.append(low, low + 1))
        of_levels = zip(*[self._services[each].at(rates) for each in used], strict=True)
        row = np.searchsorted(used, low)
        fields = [np.stack(values) for values in of_levels]
        service = Service(
            *[(field[row, place].T * (1 - share) + field[row + 1, place].T * share).T for field in fields]
        )
        both = late_shares(
            arrivals, np.tile(counts, 2), service, ("least_loaded", "fewest_requests"), beside=np.tile(batch, 2)
        )
        late = both.reshape(2, 2, -1).min(axis=1)
        beside = batch**2 / (1 + batch**2)
        late = (1 - beside) * late[0] + beside * late[1]
        # Whatever a prompt finds on a replica, it is in time where one is idle.
        none_idle = self.decode.none_idle(arrivals, counts, rates * self._services[0].mean_s)
        return np.asarray(np.minimum(late, none_idle))


def _most_tokens(chunk_tokens: float, batch: npt.ArrayLike) -> Floats:
    """The most prompt tokens of a step beside so many requests that decode."""
    return np.maximum(chunk_tokens - np.maximum(batch, 1.0), 2 * MIN_PROMPT_TOKENS)
