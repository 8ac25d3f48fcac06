"""A stage of simulated engines, which are made to fit the requests."""

from __future__ import annotations

from collections.abc import Sequence

from dynamo_planner.cli.demo.fit import PEAK_WORKERS, fit
from dynamo_planner.cli.demo.load import MODEL, Request
from dynamo_planner.cli.demo.stage import AGGREGATED, DISAGGREGATED, Stage, pool
from dynamo_planner.simulation.worker import WorkerOptions

STARTUP_S = 1.0
"""How long a simulated engine takes to be ready, beside the start of its process."""


def simulated_stage(requests: Sequence[Request], max_workers: int, *, disaggregated: bool) -> Stage:
    """Simulated workers such that these requests need a few of them at their peak."""
    fitted = fit(requests, disaggregated=disaggregated)
    pools = {}
    for name, role in (DISAGGREGATED if disaggregated else AGGREGATED).items():
        options = WorkerOptions(
            port=0, model=MODEL, role=role, startup_s=STARTUP_S, limits=fitted.limits, timing=fitted.timing
        )
        pools[name] = pool(options.command(), role, max_workers, startup_s=3 * STARTUP_S)
    timing = fitted.timing
    return Stage(
        pools=pools,
        requests=fitted.requests,
        cut=fitted.cut,
        sla=fitted.sla,
        engines=(
            f"simulated, and sized so that this replay needs about {PEAK_WORKERS:g} of them at its peak:\n"
            f"steps of {timing.base_ms:.1f} ms, {1000 * timing.prefill_ms_per_token:.0f} ms more per 1000 prompt"
            f" tokens, KV cache of {fitted.limits.kv_tokens} tokens"
        ),
    )
