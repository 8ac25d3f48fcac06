"""A stage of simulated engines, which are made to fit the requests."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dynamo_planner.demo.fit import PEAK_WORKERS, EngineFit, fit
from dynamo_planner.demo.load import MODEL, TraceRequest
from dynamo_planner.demo.stage import AGGREGATED, DISAGGREGATED, DemoStage, pool
from dynamo_planner.mock_workers.main import WorkerOptions
from dynamo_planner.profiles import Profile
from dynamo_planner.profiles.points import DecodePoints, MixedPoints, PrefillPoints
from dynamo_planner.simulator.setup import ClusterSetup, MetricsSetup, PoolSetup

STARTUP_S = 0.5
"""How long a simulated engine takes to be ready, beside the start of its process."""

PROCESS_S = 1.5
"""How long the start of its process takes, more or less."""

WINDOW_S = 3.0
"""Over which rates and means of the workers' metrics are taken."""


def simulated_stage(requests: Sequence[TraceRequest], max_workers: int, *, disaggregated: bool) -> DemoStage:
    """Simulated workers such that these requests need a few of them at their peak."""
    fitted = fit(requests, disaggregated=disaggregated)
    pools, simulated = {}, {}
    for name, role in (DISAGGREGATED if disaggregated else AGGREGATED).items():
        options = WorkerOptions(
            port=0, model=MODEL, role=role, startup_s=STARTUP_S, limits=fitted.limits, timing=fitted.timing
        )
        pools[name] = pool(options.command(), role, max_workers, startup_s=STARTUP_S + PROCESS_S)
        simulated[name] = PoolSetup(
            spec=pools[name].spec.replace(gpus=1), replicas=1, timing=fitted.timing, limits=fitted.limits
        )
    timing = fitted.timing
    return DemoStage(
        pools=pools,
        requests=fitted.requests,
        cut=fitted.cut,
        sla=fitted.sla,
        engines=(
            f"simulated, and of a speed at which this replay needs about {PEAK_WORKERS:g} of them at its peak:\n"
            f"steps of {timing.base_ms:.1f} ms, {1000 * timing.prefill_ms_per_token:.0f} ms more per 1000 prompt"
            f" tokens, KV cache of {fitted.limits.kv_tokens} tokens"
        ),
        profile=profile_of(fitted),
        cluster=ClusterSetup(pools=simulated, metrics=MetricsSetup(window_s=WINDOW_S, sla=fitted.sla)),
        chunk_tokens=fitted.limits.max_num_batched_tokens,
    )


def profile_of(fitted: EngineFit) -> Profile:
    """What a profiler would measure of these engines, at points that the requests come near."""
    timing, limits = fitted.timing, fitted.limits
    longest = max(request.isl + request.osl for request in fitted.requests)

    def step_ms(prefill_tokens: float, num_decode: float, context: float) -> float:
        line = timing.line(int(prefill_tokens), int(num_decode), int(num_decode * context))
        return line.ms

    isl = np.unique(np.geomspace(16, 2 * longest, 12).round())
    chunks = np.ceil(isl / limits.max_num_batched_tokens)
    contexts = np.unique(np.geomspace(16, longest, 4).round())
    batches = (1, 2, 4, 8, 16, 32, 64)
    decode = [(batch, context) for batch in batches for context in contexts if batch * context <= limits.kv_tokens]
    chunk = limits.max_num_batched_tokens
    mixed = [(p, n, c) for p in (0, chunk // 16, chunk // 4, chunk) for n in (0, 4, 16, 64) for c in contexts if p or n]
    return Profile(
        name="demo",
        prefill_points=PrefillPoints(
            isl=isl.tolist(), ttft_ms=(chunks * timing.base_ms + isl * timing.prefill_ms_per_token).tolist(), gpus=1
        ),
        decode_points=DecodePoints(
            max_kv_tokens=limits.kv_tokens,
            kv_usage=[batch * context / limits.kv_tokens for batch, context in decode],
            context=[context for _, context in decode],
            itl_ms=[step_ms(0, batch, context) for batch, context in decode],
            gpus=1,
        ),
        mixed_points=MixedPoints(
            prefill_tokens=[p for p, _, _ in mixed],
            num_decode=[n for _, n, _ in mixed],
            context=[c for _, _, c in mixed],
            step_ms=[step_ms(*point) for point in mixed],
        ),
    )
