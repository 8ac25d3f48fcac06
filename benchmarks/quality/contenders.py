"""The policies that are compared, and what each is tuned over: as much for ours as for the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import product
from typing import Any

import numpy as np

from benchmarks.quality.cells import Cell, Stage
from dynamo_planner import (
    HpaLaw,
    KedaSloLaw,
    KpaLaw,
    LoadPolicy,
    Policy,
    RayServeLaw,
    SlaPolicy,
    Stabilization,
    StaticLaw,
    StepLimit,
    WvaLaw,
)
from dynamo_planner.forecasting import Forecaster
from dynamo_planner.forecasting.experts.constant import Constant
from dynamo_planner.policies.laws.hpa import HpaMetric
from dynamo_planner.policies.sla import Classic, LearnedCapacity, SkiRental

Configurations = list[tuple[str, Policy]]
"""Policies, each with the words for its configuration, from the boldest to the most careful."""


def spread(choices: Configurations, most: int) -> Configurations:
    """At most so many of the choices, evenly spread."""
    picked = np.unique(np.linspace(0, len(choices) - 1, min(most, len(choices))).round().astype(int))
    return [choices[k] for k in picked]


def contenders(cell: Cell, stage: Stage, ablations: bool) -> Mapping[str, Configurations]:
    """Every policy that is compared on a cell, by name."""
    makers: dict[str, Callable[[], Configurations]] = {
        "static": lambda: _static(stage),
        "load (Dynamo 0.3)": lambda: _load(cell),
        "HPA": lambda: _hpa(cell),
        "KPA (Knative)": lambda: _kpa(cell),
        "KEDA SLO (llm-d)": lambda: _keda(cell),
        "WVA V2 (llm-d)": lambda: _wva(cell),
        "Ray Serve": lambda: _ray(cell),
        "SlaPolicy": lambda: _sla(cell),
    }
    if not cell.aggregated:
        makers["SlaPolicy classic"] = lambda: _sla(cell, sizing=Classic())
    if ablations:
        makers["SlaPolicy, no hold"] = lambda: _sla(cell, holds=(0.0,))
        makers["SlaPolicy, no correction"] = lambda: _sla(cell, capacity=LearnedCapacity(max_correction=1.0))
        makers["SlaPolicy, last minute"] = lambda: _sla(
            cell, forecaster=Forecaster(experts=(Constant(half_life_s=60),))
        )
        # The first token comes with the first step of decode, which is no longer than this.
        makers["SlaPolicy, kv_transfer_ms"] = lambda: _sla(cell, capacity=LearnedCapacity(offset_ms=cell.sla.itl_ms))
        makers["SlaPolicy, slow drain"] = lambda: _sla(cell, drains=(600.0,))
    return {name: make() for name, make in makers.items()}


def _batch(cell: Cell) -> tuple[float, float]:
    """The batch that keeps the ITL target, and its KV usage, at a context of about 1200 tokens."""
    best = cell.profile().decode.best(cell.sla.itl_ms, 1200.0)
    return max(float(best.batch), 1.0), max(float(best.kv_usage), 0.01)


def _static(stage: Stage) -> Configurations:
    choices: Configurations = []
    for factor in np.geomspace(1.15, 5.0, 20):
        replicas = {name: int(np.ceil(factor * need)) for name, need in stage.need.items()}
        choices.append((f"{factor:.2f} x mean need", StaticLaw(replicas=replicas)))
    return choices


def _load(cell: Cell) -> Configurations:
    _, usage = _batch(cell)
    return [
        (
            f"kv_up {min(share * usage, 0.95):.2f}, queue_up {queue:g}, every {every:g} s",
            LoadPolicy(
                adjustment_interval_s=every,
                decode_kv_up=min(share * usage, 0.95),
                decode_kv_down=min(0.5 * share * usage, 0.4),
                prefill_queue_up=queue,
                prefill_queue_down=0.1 * queue,
            ),
        )
        for share, queue, every in product((0.9, 0.7, 0.5, 0.35, 0.25), (2.0, 0.5), (30.0, 10.0))
    ]


def _hpa(cell: Cell) -> Configurations:
    batch, _ = _batch(cell)
    choices: Configurations = []
    for share, prompts, window_s in product((0.9, 0.7, 0.5, 0.35, 0.25), (1.5, 0.7), (120.0, 300.0)):
        running = (HpaMetric(name="requests", target=share * batch),)
        law = HpaLaw(prefill=(HpaMetric(name="requests", target=prompts),), decode=running, aggregated=running)
        policy = law | Stabilization(down_window_s=window_s) | StepLimit()
        choices.append((f"running {share * batch:.0f}, prompts {prompts:g}, window {window_s:g} s", policy))
    return choices


def _kpa(cell: Cell) -> Configurations:
    batch, _ = _batch(cell)
    choices: Configurations = []
    for share, prompts in product((0.9, 0.7, 0.5, 0.35, 0.25), (1.5, 1.0, 0.7, 0.4)):
        targets = {"prefill": prompts, "decode": share * batch, "aggregated": share * batch}
        choices.append(
            (f"running {share * batch:.0f}, prompts {prompts:g}", KpaLaw.model_validate({"targets": targets}))
        )
    return choices


def _ray(cell: Cell) -> Configurations:
    batch, _ = _batch(cell)
    choices: Configurations = []
    for share, prompts, delay_s in product((0.9, 0.7, 0.5, 0.35, 0.25), (1.5, 0.7), (120.0, 600.0)):
        targets = {"prefill": prompts, "decode": share * batch, "aggregated": share * batch}
        policy = RayServeLaw.model_validate({"targets": targets, "downscale_delay_s": delay_s, "upscale_delay_s": 10.0})
        choices.append((f"running {share * batch:.0f}, prompts {prompts:g}, delay {delay_s:g} s", policy))
    return choices


def _keda(cell: Cell) -> Configurations:
    up = StepLimit(up_replicas=4, up_factor=2.0, period_s=60)
    down = StepLimit(up_replicas=None, up_factor=None, down_replicas=1, period_s=120)
    choices: Configurations = []
    for high, ratio, window_s in product((0.9, 0.7, 0.55, 0.4, 0.3), (0.75, 0.5), (180.0, 600.0)):
        law = KedaSloLaw(sla=cell.sla, up=high, down=high * ratio)
        policy = law | Stabilization(up_window_s=30, down_window_s=window_s) | up | down
        choices.append((f"band {high * ratio:.2f}-{high:.2f}, window {window_s:g} s", policy))
    return choices


def _wva(cell: Cell) -> Configurations:
    _, usage = _batch(cell)
    return [
        (
            f"kv_threshold {min(share * usage, 0.8):.2f}, queue {queue:g}",
            WvaLaw(kv_threshold=min(share * usage, 0.8), queue_threshold=queue) | StepLimit(),
        )
        for share, queue in product((1.2, 0.9, 0.7, 0.5, 0.35), (20.0, 10.0, 5.0, 2.0))
    ]


def _sla(
    cell: Cell,
    *,
    holds: tuple[float, ...] = (1.0, 4.0),
    drains: tuple[float, ...] = (60.0, 20.0),
    **fixed: Any,
) -> Configurations:
    profile = cell.profile()
    choices: Configurations = []
    for quantile, hold, drain_s in product((0.3, 0.5, 0.7, 0.9, 0.97), holds, drains):
        plan = SkiRental(quantile=quantile, restart_cost=hold, drain_s=drain_s)
        policy = SlaPolicy(sla=cell.sla, profile=profile, plan=plan, **fixed)
        choices.append((f"quantile {quantile:g}, hold {hold:g}, drain {drain_s:g} s", policy))
    return choices
