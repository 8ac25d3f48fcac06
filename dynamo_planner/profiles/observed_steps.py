"""Step times in what a live pool reports: its stage times, TTFT and ITL beside the work that the requests made."""

from __future__ import annotations

import math
from typing import NamedTuple

from dynamo_planner.core.metrics import Dist, Traffic
from dynamo_planner.core.snapshot import PoolStatus
from dynamo_planner.profiles.step_model import StepSample, prompt_work

QUEUE_SHARE = 0.7
"""A prompt that waits shares its step with those that waited beside it, which lengthens its step by this share of its
wait: in exact step simulations 0.6 to 0.8, for loads of 0.3 to 0.7 on 2 and on 6 workers."""

MAX_QUEUE_SHARE = 0.5
"""Prompts that wait for longer than this share of their prefill are a backlog, and are not learned from."""


def prompts_alone_ms(prefill_ms: float, queue_ms: float) -> float | None:
    """The mean time in milliseconds that a prompt takes on an idle worker, from the times in prefill and in the queue;
    ``None`` where prompts wait for so long that it does not show.

    Prompts of 44 ms in their steps after 5 ms in the queue would take ``44 - 0.7 * 5 = 40.5`` ms alone.
    """
    return None if queue_ms > MAX_QUEUE_SHARE * prefill_ms else prefill_ms - QUEUE_SHARE * queue_ms


class MeanRequest(NamedTuple):
    """What requests are like on average.

    Args:
        prompt_tokens: Prompt tokens that are computed, without those in a prefix cache.
        prompt_cv2: Their squared coefficient of variation.
        output_tokens: Tokens of an answer.
        context: Tokens that a request in flight attends to.
    """

    prompt_tokens: float
    prompt_cv2: float
    output_tokens: float
    context: float

    @classmethod
    def of(cls, traffic: Traffic) -> MeanRequest | None:
        """The requests of a window; ``None`` where a length is unknown. A spread that is unknown counts as 1.

        >>> MeanRequest.of(Traffic(isl=1000, osl=Dist(mean=200, cv2=0.5), prefix_hit_rate=0.2))
        MeanRequest(prompt_tokens=800.0, prompt_cv2=1.0, output_tokens=200.0, context=1150.0)
        """
        isl, osl = traffic.isl, traffic.osl
        if isl is None or osl is None:
            return None
        computed = isl.mean * (1 - (traffic.prefix_hit_rate or 0.0))
        return cls(computed, _cv2(isl), osl.mean, max(isl.mean + osl.mean * (1 + _cv2(osl)) / 2, 1.0))

    @property
    def work(self) -> float:
        """Prompt tokens of linear cost."""
        return float(prompt_work(self.prompt_tokens, self.prompt_cv2))


def _cv2(dist: Dist) -> float:
    return 1.0 if dist.cv2 is None else dist.cv2


def batch_of(pool: PoolStatus) -> float:
    """Requests in flight on a replica; 0 where that is unknown or none is ready."""
    ready = pool.replicas.ready if pool.replicas else 0
    return (pool.running or 0.0) / (ready * (pool.coverage or 1.0)) if ready else 0.0


def observed_steps(
    pool: PoolStatus, traffic: Traffic, request: MeanRequest, requests_per_s: float, chunk_tokens: float
) -> tuple[StepSample, ...]:
    """The step times that a calm pool shows.

    =============  ==================================================================================================
    role           samples
    =============  ==================================================================================================
    ``prefill``    a prompt alone, by the stage times
    ``decode``     the ITL, a step of the requests in flight
    ``aggregated`` the ITL, a step of those with the prompts that the other requests bring; and the prefill stage, of
                   as many steps as the prompt has chunks
    =============  ==================================================================================================

    Args:
        pool: The pool.
        traffic: The requests that it served.
        request: What they are like.
        requests_per_s: Arrivals at one replica.
        chunk_tokens: The budget of tokens per step.
    """
    batch, stages, itl = batch_of(pool), pool.stages, traffic.itl_ms
    samples = []
    if pool.spec.role != "prefill" and itl is not None and itl.mean > 0 and batch:
        prompts = 0.0
        if pool.spec.role == "aggregated":
            prompts = max(batch - 1, 0.0) * request.work / max(request.output_tokens, 1.0)
        kv_tokens = batch * request.context
        samples.append(StepSample(itl.mean, 1.0, prompts, batch, kv_tokens, itl.count or 1.0))
    if pool.spec.role == "decode" or stages.prefill_ms is None or not stages.prefill_ms.mean:
        return tuple(samples)
    prefill_ms, count = stages.prefill_ms.mean, stages.prefill_ms.count or 1.0
    queue_ms = stages.queue_ms.mean if stages.queue_ms is not None else 0.0
    alone_ms = prompts_alone_ms(prefill_ms, queue_ms)
    if pool.spec.role == "prefill" and alone_ms is not None:
        samples.append(StepSample(alone_ms, 1.0, request.work, sampled=count))
    elif pool.spec.role == "aggregated" and queue_ms <= MAX_QUEUE_SHARE * prefill_ms:
        room = max(chunk_tokens - batch, 1.0)
        steps = max(math.ceil(request.prompt_tokens / room), 1)
        beside = requests_per_s * prefill_ms / 1000  # prompts that come meanwhile, and share what room there is
        prompts = max(min((1 + beside) * request.work, steps * room), request.work)
        batches = steps * batch
        samples.append(StepSample(prefill_ms, steps, prompts, batches, batches * request.context, count))
    return tuple(samples)
