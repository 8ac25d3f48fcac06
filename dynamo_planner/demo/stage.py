"""What a demo sets up: workers in pools, requests that suit them, and policies that are quick to act."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from dynamo_planner.core.policy import Policy
from dynamo_planner.core.snapshot import PoolSpec, Role, Sla
from dynamo_planner.demo.load import TraceRequest
from dynamo_planner.engines.vocabulary import Vocabulary
from dynamo_planner.executors.circus import CircusPool
from dynamo_planner.forecasting import Constant, Forecaster, Trend
from dynamo_planner.policies.reactive import LoadPolicy
from dynamo_planner.policies.sla import SkiRental, SlaPolicy
from dynamo_planner.profiles import Profile
from dynamo_planner.simulator.setup import ClusterSetup

AGGREGATED: dict[str, Role] = {"workers": "aggregated"}
DISAGGREGATED: dict[str, Role] = {"prefill": "prefill", "decode": "decode"}
"""Pools by name, in the order in which a request passes them."""

GRACEFUL_TIMEOUT_S = 30.0

LEVEL_S = 4.0
"""Over which the sla policy means its rates: about as long as a start takes, as in production."""


@dataclass(frozen=True)
class DemoStage:
    """What a demo plays on.

    ``pools`` are in the order in which a request passes them. ``requests`` are those of the trace as they are sent,
    ``cut`` of them shortened because they are too long for such an engine. ``sla`` is what it can keep,
    ``engines`` says in a few lines what it is, and ``kv_per_waiting`` how much a waiting request counts beside the
    KV usage. ``profile`` is how fast an engine is, where that is known, with at most ``chunk_tokens`` in a step.
    ``vocabulary`` is what the engine calls its metrics, where that is not detected. ``cluster`` is the same in the
    simulator, where that can be.
    """

    pools: Mapping[str, CircusPool]
    requests: tuple[TraceRequest, ...]
    cut: int
    sla: Sla
    engines: str
    kv_per_waiting: float = 0.02
    vocabulary: Vocabulary | None = None
    profile: Profile | None = None
    cluster: ClusterSetup | None = None

    def with_targets(self, ttft_ms: float | None, itl_ms: float | None) -> DemoStage:
        """The same with other targets, where they are given."""
        given = {name: value for name, value in (("ttft_ms", ttft_ms), ("itl_ms", itl_ms)) if value is not None}
        return replace(self, sla=self.sla.replace(**given))

    chunk_tokens: int = 2048


def pool(command: list[str], role: Role, max_workers: int, startup_s: float) -> CircusPool:
    """A pool of up to ``max_workers`` workers with this command, in which ``--port=0`` stands for one of its own."""
    return CircusPool(
        spec=PoolSpec(role=role, gpus=0, max_replicas=max_workers, startup_s=startup_s),
        command=[argument.replace("--port=0", "--port={port}") for argument in command],
        startup_timeout_s=30.0,
        graceful_timeout_s=GRACEFUL_TIMEOUT_S,
        restart_backoff_s=1.0,
    )


def load_policy(interval_s: float, stage: DemoStage) -> LoadPolicy:
    """The load-based policy with intervals as short as a demo needs them.

    It is told the targets where the engine reports latencies; llama.cpp, of which no profile is known, does not.
    """
    return LoadPolicy(
        adjustment_interval_s=interval_s,
        prefill_queue_up=1.0,
        kv_per_waiting=stage.kv_per_waiting,
        decode_grace_intervals=1,
        sla=None if stage.profile is None else stage.sla,
    )


def sla_policy(interval_s: float, stage: DemoStage) -> SlaPolicy:
    """The SLA policy with times as short as a demo needs them: starts take seconds, and so does everything else.

    Raises ``ValueError`` where the speed of the engines is unknown.
    """
    if stage.profile is None:
        raise ValueError("the sla policy needs a profile of the engine, and there is none of this one: use load")
    return SlaPolicy(
        sla=stage.sla,
        profile=stage.profile,
        forecaster=Forecaster(
            experts=(Constant(half_life_s=3), Trend(half_life_s=3, damping_s=15)),
            horizons_s=(2.0, 6.0),
            spread_rate=0.1,
            score_rate=0.01,
        ),
        plan=SkiRental(quantile=0.75, drain_s=2 * interval_s, restart_cost=1),
        level_s=LEVEL_S,
        chunk_tokens=stage.chunk_tokens,
    )


POLICIES: Mapping[str, Callable[[float, DemoStage], Policy]] = {"sla": sla_policy, "load": load_policy}
"""Who can scale a demo, by name: a policy for a number of seconds between two adjustments, on a stage."""
