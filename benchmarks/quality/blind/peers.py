"""The policies of the blind benchmark: each with its defaults, and peers tuned in hindsight on the very window."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import product

import numpy as np

from benchmarks.quality.cells import Cell, Stage
from benchmarks.quality.contenders import Configurations
from dynamo_planner import (
    HpaLaw,
    KedaSloLaw,
    KpaLaw,
    LlmdQueueLaw,
    LlmdTokensLaw,
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
        "queue (llm-d)": lambda: queue(LlmdQueueLaw()),
        "tokens (llm-d)": lambda: tokens(_token_law(cell)),
        "KPA (Knative)": KpaLaw,
        "Ray Serve": RayServeLaw,
        "LoadPolicy": lambda: LoadPolicy(sla=cell.sla),
        "WVA V2 (llm-d)": lambda: WvaLaw() | StepLimit(),
    }


def in_hindsight(cell: Cell, stage: Stage) -> Mapping[str, Callable[[], Configurations]]:
    """Ten configurations of each peer, its defaults among them. The constant is searched for by itself."""
    return {
        "HPA, hindsight": lambda: _hpa(cell, stage),
        "KEDA SLO (llm-d), hindsight": lambda: _keda(cell),
        "queue (llm-d), hindsight": lambda: _queue(cell, stage),
        "tokens (llm-d), hindsight": lambda: _tokens(cell, stage),
    }


def keda(law: Policy, down_window_s: float = 180.0) -> Policy:
    """A law under KEDA: with the ``behavior`` that llm-d's guide gives the HPA."""
    up = StepLimit(up_replicas=4, up_factor=2.0, period_s=60)
    down = StepLimit(up_replicas=None, up_factor=None, down_replicas=1, period_s=120)
    return law | Stabilization(up_window_s=30, down_window_s=down_window_s) | up | down


def queue(law: Policy) -> Policy:
    """A law with the ``behavior`` of llm-d's queue guide."""
    return law | Stabilization(down_window_s=300) | StepLimit(up_replicas=None, up_factor=2.0, period_s=15)


def tokens(law: Policy) -> Policy:
    """A law with the ``behavior`` of llm-d's token-aware guide."""
    up = StepLimit(up_replicas=1, up_factor=None, period_s=180)
    down = StepLimit(up_replicas=None, up_factor=None, down_replicas=1, period_s=300)
    return law | Stabilization(down_window_s=300) | up | down


BATCH_SHARES = (0.9, 0.6, 0.4)
"""Running requests per decode replica to aim at, as a share of the batch that keeps the ITL target."""

PROMPTS = (1.5, 0.7, 0.3)
"""Prompts per prefill replica to aim at, waiting and running."""


def _hpa(cell: Cell, stage: Stage) -> Configurations:
    batch = _batch(cell, stage)
    choices: Configurations = [("defaults", by_default(cell)["HPA"]())]
    for share, prompts in _shares(cell, PROMPTS):
        running = (HpaMetric(name="requests", target=share * batch),)
        law = HpaLaw(prefill=(HpaMetric(name="requests", target=prompts),), decode=running, aggregated=running)
        choices.append((f"running {share * batch:.0f}, prompts {prompts:g}", law | Stabilization() | StepLimit()))
    return choices


def _shares(cell: Cell, others: tuple[float, ...]) -> list[tuple[float, float]]:
    """Shares of the batch, with the choices for prompts; of aggregated engines prompts take much of each step."""
    if cell.aggregated:
        return [(share, others[len(others) // 2]) for share in np.geomspace(0.6, 0.04, 9).tolist()]
    return list(product(BATCH_SHARES, others))


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


def _queue(cell: Cell, stage: Stage) -> Configurations:
    batch = _batch(cell, stage)
    choices: Configurations = [("defaults", by_default(cell)["queue (llm-d)"]())]
    for share, waiting in _shares(cell, (4.0, 1.0, 0.3)):
        law = LlmdQueueLaw(queue_target=waiting, running_target=share * batch)
        choices.append((f"waiting {waiting:g}, running {share * batch:.0f}", queue(law)))
    return choices


def _tokens(cell: Cell, stage: Stage) -> Configurations:
    """Besides the thresholds also how fast it may rise, which llm-d's guide leaves at one replica in three minutes."""
    usage = float(cell.profile().decode.best(cell.sla.itl_ms, float(stage.trace.isl.mean())).kv_usage)
    choices: Configurations = [("defaults", by_default(cell)["tokens (llm-d)"]())]
    for share, of_target in _shares(cell, (0.7, 0.35, 0.15)):
        kv_target = min(max(share * usage, 0.01), 1.0)
        law = _token_law(cell).replace(kv_target=kv_target, backlog_s=of_target * cell.sla.ttft_ms / 1000)
        choices.append((f"backlog {law.backlog_s:.2g} s, KV {kv_target:.2f}", queue(law)))
    return choices


def _token_law(cell: Cell) -> LlmdTokensLaw:
    """Calibrated as its guide says: a full chunk over its TTFT alone."""
    chunk = cell.model[2]
    return LlmdTokensLaw(prefill_tokens_per_s=1000 * chunk / float(cell.profile().prefill.ttft_ms(chunk)))
