"""A profile from a learned step model, on a coarse grid: what sizing, simulators and users take."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from dynamo_planner.core.values import FrozenMap
from dynamo_planner.profiles.points import DecodePoints, MixedPoints, PrefillPoints
from dynamo_planner.profiles.step_model import prompt_work
from dynamo_planner.profiles.steps import StepCosts

PROMPT_GRID = (16.0, 128.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16_384.0, 32_768.0, 131_072.0)
"""Prompt lengths of the grid, in tokens."""

CONTEXT_GRID = (64.0, 1024.0, 4096.0, 32_768.0)
"""Contexts of the grid, in tokens."""

BATCHES = 4
"""Batches of the grid, from 1 to the largest."""

CHUNK_GRID = (0.0, 64.0, 512.0, 2048.0, 8192.0)
"""Prompt tokens of mixed steps on the grid."""

LEAST_MS, MOST_MS = 1.0, 1e5
"""Times of a profile are kept between these, which are those that a profile takes for plausible."""


class LearnedEngine(NamedTuple):
    """What was learned of the engines of a pool.

    Args:
        costs: The costs of a step.
        batch: The largest batch that is known to do.
        kv_tokens: Tokens that the KV cache holds.
    """

    costs: StepCosts
    batch: float
    kv_tokens: float


def learned_fields(
    prefill: LearnedEngine, decode: LearnedEngine, *, aggregated: bool, name: str = "learned", gpus: int = 1
) -> dict[str, Any]:
    """The fields of a profile of engines that were learned: of those that prefill, and of those that decode.

    Args:
        prefill: The engines that prefill.
        decode: The engines that decode.
        aggregated: Whether they are the same, so that steps with both are known.
        name: The profile's name. Default ``learned``.
        gpus: GPUs of a worker. Default 1.

    >>> costs = StepCosts(base_ms=6, ms_per_prefill_token=0.02, ms_per_request=0.02, ms_per_kv_token=2e-5)
    >>> engine = LearnedEngine(costs, batch=64, kv_tokens=400_000)
    >>> from dynamo_planner import Profile
    >>> profile = Profile(**learned_fields(engine, engine, aggregated=True))
    >>> round(profile.prefill.ttft_ms(1024), 1), round(profile.step_ms(0, 32, 32 * 1024), 2)
    (26.8, 7.3)
    """
    prompts = np.asarray(PROMPT_GRID)
    ttft_ms = prefill.costs.step_ms(prompt_work(prompts), 0 * prompts, 0 * prompts)
    kv_tokens = max(decode.kv_tokens, 2 * CONTEXT_GRID[0])
    most = max(min(decode.batch, kv_tokens / CONTEXT_GRID[0]), 2.0)
    contexts = [context for context in CONTEXT_GRID if context < kv_tokens]
    batch = np.concatenate([np.geomspace(1.0, min(most, kv_tokens / context), BATCHES) for context in contexts])
    context = np.repeat(contexts, BATCHES)
    itl_ms = decode.costs.step_ms(0 * batch, batch, batch * context)
    decode_points = DecodePoints(
        max_kv_tokens=kv_tokens,
        kv_usage=tuple((batch * context / kv_tokens).tolist()),
        context=tuple(context.tolist()),
        itl_ms=_plausible(itl_ms),
        gpus=gpus,
    )
    return {
        "name": name,
        "prefill_points": PrefillPoints(isl=PROMPT_GRID, ttft_ms=_plausible(ttft_ms), gpus=gpus, ranks=1),
        "decode_points": decode_points,
        "mixed_points": _mixed(decode.costs, most) if aggregated else None,
        "about": FrozenMap({"origin": "learned from a running service"}),
    }


def _mixed(costs: StepCosts, most: float) -> MixedPoints:
    batches = (0.0, *np.geomspace(1.0, most, BATCHES).tolist())
    grid = [(p, n, x) for p in CHUNK_GRID for n in batches for x in CONTEXT_GRID[:2] if p or n]
    tokens, batch, context = np.array(grid).T
    return MixedPoints(
        prefill_tokens=tuple(tokens.tolist()),
        num_decode=tuple(batch.tolist()),
        context=tuple(context.tolist()),
        step_ms=_plausible(costs.step_ms(prompt_work(tokens), batch, batch * context)),
    )


def _plausible(times_ms: np.ndarray) -> tuple[float, ...]:
    return tuple(np.clip(times_ms, LEAST_MS, MOST_MS).tolist())
