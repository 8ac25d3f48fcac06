"""What a demo sets up: pools of simulated workers that the engines fit, and a policy that is quick to act."""

from __future__ import annotations

from dynamo_planner.cli.demo.fit import Fit
from dynamo_planner.cli.demo.load import MODEL
from dynamo_planner.executors.circus import CircusPool
from dynamo_planner.policies.load import LoadPolicy
from dynamo_planner.simulation.worker import WorkerOptions
from dynamo_planner.snapshot import PoolSpec, Role

AGGREGATED: dict[str, Role] = {"workers": "aggregated"}
DISAGGREGATED: dict[str, Role] = {"prefill": "prefill", "decode": "decode"}
"""Pools by name, in the order in which a request passes them."""

STARTUP_S = 1.0
"""How long a simulated engine takes to be ready, beside the start of its process."""

GRACEFUL_TIMEOUT_S = 30.0


def circus_pools(fit: Fit, roles: dict[str, Role], max_workers: int) -> dict[str, CircusPool]:
    """The pools, each of up to ``max_workers`` workers with the engine that was fitted."""
    return {name: _pool(fit, role, max_workers) for name, role in roles.items()}


def _pool(fit: Fit, role: Role, max_workers: int) -> CircusPool:
    options = WorkerOptions(port=0, model=MODEL, role=role, startup_s=STARTUP_S, limits=fit.limits, timing=fit.timing)
    return CircusPool(
        spec=PoolSpec(role=role, gpus=0, max_replicas=max_workers, startup_s=3 * STARTUP_S),
        command=[argument.replace("--port=0", "--port={port}") for argument in options.command()],
        startup_timeout_s=30.0,
        graceful_timeout_s=GRACEFUL_TIMEOUT_S,
        restart_backoff_s=1.0,
    )


def load_policy(interval_s: float) -> LoadPolicy:
    """The load-based policy with intervals as short as a demo needs them."""
    return LoadPolicy(adjustment_interval_s=interval_s, prefill_queue_up=1.0, decode_grace_intervals=1)


POLICIES = {"load": load_policy}
"""Who can scale a demo, by name: a policy for a number of seconds between two adjustments."""
