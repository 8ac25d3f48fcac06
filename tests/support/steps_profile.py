"""The profile that a profiler would measure, without noise, of an engine of :mod:`tests.support.steps`."""

from __future__ import annotations

import numpy as np

from dynamo_planner import Profile
from dynamo_planner.profiles import MixedPoints
from tests.support.steps import Engine


def profile_of(engine: Engine, most_batch: float, context: float) -> Profile:
    """Up to a batch and eight times a context, where the KV cache has room; mixed steps where prompts share them."""
    contexts = np.geomspace(64, 8 * context, 5)
    batch, held = (axis.ravel() for axis in np.meshgrid(np.geomspace(1, most_batch, 8).round(), contexts))
    fits = batch * held <= engine.kv_tokens
    batch, held = batch[fits], held[fits]
    profile = Profile.from_points(
        isl=[100, 1000],
        ttft_ms=[10, 100],
        max_kv_tokens=engine.kv_tokens,
        batch=batch,
        context=held,
        itl_ms=engine.base_ms + engine.request_ms * batch + engine.kv_ms * batch * held,
    )
    if not engine.chunk:
        return profile
    axes = (np.geomspace(16, engine.chunk, 5).round(), np.geomspace(1, most_batch, 5).round(), contexts[::2])
    prompts, batch, held = (axis.ravel() for axis in np.meshgrid(*axes))
    step_ms = engine.base_ms + engine.request_ms * batch + engine.kv_ms * batch * held + engine.prompt_ms * prompts
    return profile.replace(
        mixed_points=MixedPoints(prefill_tokens=prompts, num_decode=batch, context=held, step_ms=step_ms)
    )
