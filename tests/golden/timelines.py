"""The scenarios: by name, what makes their results. Deterministic, and in need of nothing beside the repository."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from dynamo_planner import (
    Bounds,
    GpuBudget,
    Guard,
    HpaLaw,
    KedaSloLaw,
    KnobPolicy,
    KpaLaw,
    LoadPolicy,
    Override,
    Pending,
    Policy,
    Profile,
    RayServeLaw,
    Schedule,
    Sla,
    SlaPolicy,
    Snapshot,
    Stabilization,
    Staleness,
    StaticLaw,
    StepLimit,
    WvaLaw,
    highest,
    load_policy,
    together,
)
from dynamo_planner.core.policy import as_policy
from dynamo_planner.engines import Knob, catalogue
from dynamo_planner.policies.sla import Classic, LearnedCapacity
from tests.golden import closed_loop, parts
from tests.golden.service import START_S, rates, timeline, told

Scenario = Callable[[], Iterator[Any]]

SLA = Sla(ttft_ms=500, itl_ms=25)
PROFILE = Profile.bundled("llama31-8b_h100_vllm_tp1")
LIVE = tuple(Knob(**{**dict(knob), "applied": "live"}) for knob in catalogue("vllm").values())
BUSY_KNOBS = {"max_num_seqs": 32, "max_num_batched_tokens": 2048}


def jumpy(snapshot: Snapshot) -> dict[str, int | None]:
    """A plain function with an opinion that jumps with the rate; without one, a hold."""
    rate = snapshot.traffic.requests_per_s
    return {
        name: None if rate is None else math.ceil(rate / (6 if pool.spec.role == "prefill" else 4))
        for name, pool in snapshot.pools.items()
    }


def _schedule() -> Schedule:
    names = ("workers", "prefill", "decode")
    plan = {name: ((30.0 * place, 3), (150.0, 7), (300.0, 1)) for place, name in enumerate(names)}
    return Schedule(plan=plan, start_s=START_S, every_s=420.0)


POLICIES: dict[str, Policy] = {
    "load": LoadPolicy(adjustment_interval_s=30, decode_grace_intervals=1),
    "schedule": _schedule(),
    "static": StaticLaw(replicas={"workers": 5, "decode": 4}),
    "hpa": HpaLaw(aggregated=({"name": "kv_usage", "target": 0.5}, {"name": "requests_per_s", "target": 6})),
    "kpa": KpaLaw(),
    "keda_slo": KedaSloLaw(sla=SLA),
    "wva": WvaLaw(idle_s=30),
    "ray_serve": RayServeLaw(downscale_delay_s=60),
    "highest": highest(LoadPolicy(adjustment_interval_s=30), HpaLaw(), lambda snapshot: {"workers": 3}),
    "function": as_policy(jumpy),
}

GUARDS: dict[str, tuple[Guard, ...]] = {
    "bounds": (Bounds(pools={"prefill": {"min_replicas": 2, "max_replicas": 6}, "decode": {"max_replicas": 9}}),),
    "gpu_budget": (GpuBudget(max_gpus=18),),
    "step_limit": (StepLimit(up_replicas=2, up_factor=1.5, down_replicas=1, period_s=30),),
    "stabilization": (Stabilization(up_window_s=30, down_window_s=90),),
    "pending": (Pending(),),
    "staleness": (Staleness(max_age_s=60),),
    "override": (
        Override(
            pins=[{"pool": "prefill", "replicas": 5, "until_s": START_S + 100, "reason": "a pin"}],
            floors=[{"pool": "decode", "replicas": 6, "until_s": START_S + 400, "reason": "a floor"}],
            pauses=[{"pools": ["decode"], "until_s": START_S + 60, "reason": "a pause"}],
        ),
    ),
    "chain": (
        Staleness(),
        Pending(),
        Stabilization(down_window_s=60),
        StepLimit(period_s=30),
        Bounds(pools={"decode": {"min_replicas": 1, "max_replicas": 8}}),
        GpuBudget(max_gpus=14),
    ),
}


def _sla(**options: Any) -> SlaPolicy:
    return SlaPolicy(sla=SLA, profile=PROFILE, **options)


def _run(policy: Policy, kind: str, **options: Any) -> Iterator[Any]:
    return map(told, timeline(policy, kind, **options))


def _sla_run(kind: str, level: float, **options: Any) -> Iterator[Any]:
    return _run(_sla(**options), kind, load=rates(level))


def _guarded(guards: tuple[Guard, ...]) -> Iterator[Any]:
    policy: Policy = as_policy(jumpy)
    for guard in guards:
        policy = policy | guard
    return _run(policy, "disaggregated")


def _live_knobs() -> Iterator[Any]:
    policy = KnobPolicy(sla=Sla(ttft_ms=300, itl_ms=25), engine=None, more=LIVE)
    return _run(policy, "aggregated", load=[18.0] * 40, tick_s=30, faults=False, knobs=BUSY_KNOBS)


def _restarting_knobs() -> Iterator[Any]:
    policy = KnobPolicy(sla=Sla(ttft_ms=300, itl_ms=25), profile=PROFILE)
    return _run(policy, "aggregated", load=[18.0] * 30, tick_s=30, faults=False, knobs={"max_num_seqs": 16})


def _together() -> Iterator[Any]:
    knobs = KnobPolicy(sla=Sla(ttft_ms=300, itl_ms=25), engine=None, more=LIVE)
    load = [18.0] * 24 + [40.0] * 10
    return _run(
        together(knobs, LoadPolicy(adjustment_interval_s=60)), "aggregated", load=load, tick_s=30, knobs=BUSY_KNOBS
    )


def _from_data() -> Iterator[Any]:
    data = [
        {"kind": "load", "adjustment_interval_s": 45},
        {"kind": "stabilization"},
        {"kind": "gpu_budget", "max_gpus": 9},
    ]
    return _run(load_policy(data), "aggregated")


SCENARIOS: dict[str, Scenario] = {
    **{
        f"{name} {kind}": partial(_run, policy, kind)
        for name, policy in POLICIES.items()
        for kind in ("aggregated", "disaggregated")
    },
    "sla aggregated": partial(_sla_run, "aggregated", 12.0),
    "sla disaggregated": partial(_sla_run, "disaggregated", 25.0, capacity=LearnedCapacity(offset_ms=10)),
    "sla classic": partial(_sla_run, "disaggregated", 25.0, sizing=Classic()),
    "knobs live": _live_knobs,
    "knobs restarting": _restarting_knobs,
    "together": _together,
    "loaded from data": _from_data,
    **{f"guard {name}": partial(_guarded, guards) for name, guards in GUARDS.items()},
    **closed_loop.SCENARIOS,
    **parts.SCENARIOS,
}
