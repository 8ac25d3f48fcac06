"""The policies of the blind benchmark: each with its defaults, and peers tuned in hindsight on the very window."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import product

from benchmarks.quality.cells import Cell, Stage
from benchmarks.quality.contenders import Configurations
from dynamo_planner import (
    HpaLaw,
    KedaSloLaw,
    KpaLaw,
    LoadPolicy,
    Policy,
    RayServeLaw,
    SlaPolicy,
    Stabilization,
    StepLimit,
    WvaLaw,
)
from dynamo_planner.policies.laws.hpa import HpaMetric

CONSTANT = "constant, hindsight"


def by_default(cell: Cell) -> Mapping[str, Callable[[], Policy]]:
    """Every policy with its defaults, and with the guards that its own documentation puts behind it."""
    return {
        "SlaPolicy": lambda: SlaPolicy(sla=cell.sla, profile=cell.profile()),
        "HPA": lambda: HpaLaw() | Stabilization() | StepLimit(),
        "KEDA SLO (llm-d)": lambda: keda(KedaSloLaw(sla=cell.sla)),
        "KPA (Knative)": KpaLaw,
        "Ray Serve": RayServeLaw,
        "load (Dynamo 0.3)": LoadPolicy,
        "WVA V2 (llm-d)": lambda: WvaLaw() | StepLimit(),
    }


def in_hindsight(cell: Cell, stage: Stage) -> Mapping[str, Callable[[], Configurations]]:
    """Ten configurations of each peer, its defaults among them. The constant is searched for by itself."""
    return {"HPA, hindsight": lambda: _hpa(cell, stage), "KEDA SLO (llm-d), hindsight": lambda: _keda(cell)}


def keda(law: Policy, down_window_s: float = 180.0) -> Policy:
    """A law under KEDA: with the ``behavior`` that llm-d's guide gives the HPA."""
    up = StepLimit(up_replicas=4, up_factor=2.0, period_s=60)
    down = StepLimit(up_replicas=None, up_factor=None, down_replicas=1, period_s=120)
    return law | Stabilization(up_window_s=30, down_window_s=down_window_s) | up | down


BATCH_SHARES = (0.9, 0.6, 0.4)
"""Running requests per decode replica to aim at, as a share of the batch that keeps the ITL target."""

PROMPTS = (1.5, 0.7, 0.3)
"""Prompts per prefill replica to aim at, waiting and running."""


def _hpa(cell: Cell, stage: Stage) -> Configurations:
    batch = _batch(cell, stage)
    choices: Configurations = [("defaults", by_default(cell)["HPA"]())]
    for share, prompts in product(BATCH_SHARES, PROMPTS):
        law = HpaLaw(
            prefill=(HpaMetric(name="requests", target=prompts),),
            decode=(HpaMetric(name="requests", target=share * batch),),
            aggregated=(HpaMetric(name="requests", target=share * prompts * batch),),
        )
        choices.append((f"running {share * batch:.0f}, prompts {prompts:g}", law | Stabilization() | StepLimit()))
    return choices


def _batch(cell: Cell, stage: Stage) -> float:
    """The batch of the mean request that keeps the ITL target."""
    context = float(stage.trace.isl.mean() + stage.trace.osl.mean() / 2)
    return max(float(cell.profile().decode.best(cell.sla.itl_ms, context).batch), 1.0)


def _keda(cell: Cell) -> Configurations:
    choices: Configurations = [("defaults", by_default(cell)["KEDA SLO (llm-d)"]())]
    for high, window_s in product((0.9, 0.7, 0.4), (180.0, 400.0, 900.0)):
        law = KedaSloLaw(sla=cell.sla, up=high, down=0.7 * high)
        choices.append((f"band {0.7 * high:.2f}-{high:.2f}, window {window_s:g} s", keda(law, window_s)))
    return choices
