"""A service that answers to its knobs: what a tuner sees of it, tick by tick."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from dynamo_planner import (
    Decision,
    Dist,
    KnobPolicy,
    Policy,
    PoolSpec,
    PoolStatus,
    Profile,
    Replicas,
    SetKnob,
    Sla,
    Snapshot,
    Traffic,
)
from dynamo_planner.engines import Knob, catalogue

TICK_S = 30.0
SLA = Sla(ttft_ms=1000, itl_ms=25)
LIVE = tuple(knob.replace(applied="live") for knob in catalogue("vllm").values())
"""The knobs of vLLM, as if they could be set while it runs."""

Latencies = Callable[[Mapping[str, float], float], tuple[float, float]]
"""TTFT and ITL in ms by the knobs and the time."""


def tuner(**options: Any) -> KnobPolicy:
    """A tuner of live knobs."""
    options = {"sla": SLA, "engine": None, "more": LIVE, **options}
    return KnobPolicy(**options)


def restarting(**options: Any) -> KnobPolicy:
    """A tuner of knobs that restart workers, which knows what they should be."""
    return KnobPolicy(sla=SLA, profile=Profile.bundled("llama31-8b_h100_vllm_tp1"), **options)


@dataclass
class Service:
    """An aggregated pool whose latencies follow from its knobs, and the decisions that were made on it."""

    latencies: Latencies
    knobs: dict[str, float]
    replicas: Replicas = field(default_factory=lambda: Replicas(ready=4))
    requests_per_s: float = 20.0
    running: float = 32.0
    queued: float = 0.0
    obedient: bool = True
    missing: bool = False
    late_s: float = 0.0
    at_s: float = 0.0
    decisions: list[Decision] = field(default_factory=list)

    def snapshot(self) -> Snapshot:
        """What is seen now."""
        ttft, itl = self.latencies(self.knobs, self.at_s)
        known = {} if self.missing else {"ttft_ms": Dist(mean=ttft), "itl_ms": Dist(mean=itl)}
        traffic = Traffic(
            requests_per_s=self.requests_per_s,
            window_s=TICK_S,
            observed_at_s=self.at_s - self.late_s,
            isl=1000,
            osl=200,
            **known,
        )
        pool = PoolStatus(
            spec=PoolSpec(role="aggregated", startup_s=60),
            replicas=self.replicas,
            running=self.running,
            queued=self.queued,
            knobs=self.knobs,
        )
        return Snapshot(at_s=self.at_s, traffic=traffic, pools={"workers": pool})

    def run(self, policy: Policy, ticks: int) -> list[tuple[float, str, float]]:
        """So many ticks; the changes that were made: when, which knob, and to what."""
        changes = []
        for _ in range(ticks):
            state = self.decisions[-1].state if self.decisions else None
            decision = policy.decide(self.snapshot(), state)
            self.decisions.append(decision)
            for action in decision.actions:
                assert isinstance(action, SetKnob)
                assert isinstance(action.value, int | float)
                if self.obedient:
                    self.knobs[action.knob] = action.value
                changes.append((self.at_s, action.knob, action.value))
            self.at_s += TICK_S
        return changes

    def codes(self) -> list[str]:
        """The reasons of the last decision."""
        return [reason.code for reason in self.decisions[-1].reasons if reason.code != "NoOpinion"]


def knob(**options: Any) -> Knob:
    """A knob of an engine of one's own."""
    options = {"name": "depth", "own_name": "depth", "roles": ("aggregated",), "trades": "one for the other", **options}
    return Knob(**{"minimum": 1, "maximum": 64, "applied": "live", **options})
