"""Writes the files that a loop of version 0.1 left behind, by ``python -m tests.golden.saved`` at commit 1a8ed5d.

They are kept as they were written then: later code must read them, and must not write them anew.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dynamo_planner import (
    Action,
    Decision,
    GpuBudget,
    KnobPolicy,
    LoadPolicy,
    Observation,
    Outcome,
    Planner,
    Policy,
    PoolSpec,
    Replicas,
    Sla,
    SlaPolicy,
    Snapshot,
    Stabilization,
    together,
)
from tests.golden.service import SPECS, Service, rates
from tests.golden.timelines import BUSY_KNOBS, LIVE, PROFILE, SLA

STATES = Path(__file__).with_name("state_0_1.json")
LOG = Path(__file__).with_name("decisions_0_1.jsonl")
TICK_S = 30.0
TICKS = 16
MORE = 4

KINDS: dict[str, str] = {"sla": "disaggregated", "together": "aggregated"}


def policy_of(name: str) -> Policy:
    """The policy whose state is kept under a name."""
    if name == "sla":
        return SlaPolicy(sla=SLA, profile=PROFILE) | Stabilization(down_window_s=120) | GpuBudget(max_gpus=20)
    knobs = KnobPolicy(sla=Sla(ttft_ms=300, itl_ms=25), engine=None, more=LIVE)
    return together(knobs, LoadPolicy(adjustment_interval_s=60))


def loads(name: str) -> list[float]:
    """Requests per second, of the ticks before the restart and after it."""
    return rates(20.0)[: TICKS + MORE] if name == "sla" else [18.0] * (TICKS + MORE)


class Loop:
    """The made-up service as a source and an executor, which follows what is decided."""

    def __init__(self, name: str) -> None:
        self.kind, self.loads, self.tick = KINDS[name], loads(name), 0
        self.service = Service(self.kind, 2, BUSY_KNOBS if name == "together" else None)
        self.now: Snapshot = self._next()

    @property
    def pools(self) -> Mapping[str, PoolSpec]:
        return SPECS[self.kind]

    @property
    def knobs(self) -> Mapping[str | None, Mapping[str, Any]]:
        return {name: dict(pool.knobs) for name, pool in self.now.pools.items()}

    def clock(self) -> float:
        return self.now.at_s

    def observe(self, at_s: float) -> Observation:
        pools = {
            name: {key: value for key, value in dict(pool).items() if key not in {"spec", "replicas", "knobs"}}
            for name, pool in self.now.pools.items()
        }
        return Observation(traffic=self.now.traffic, pools=pools)

    def apply(self, actions: Sequence[Action]) -> tuple[Outcome, ...]:
        self.service.apply(Decision(at_s=self.now.at_s, actions=tuple(actions)))
        return tuple(Outcome(action=action, status="applied") for action in actions)

    def follow(self) -> None:
        """Go to the next tick."""
        self.tick += 1
        self.now = self._next()

    def _next(self) -> Snapshot:
        return self.service.snapshot(self.tick, self.loads[self.tick], TICK_S, faults=False)


class Replicator:
    """The executor's side of a loop, whose ``observe`` tells replicas."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self.pools = loop.pools

    @property
    def knobs(self) -> Mapping[str | None, Mapping[str, Any]]:
        return self._loop.knobs

    def observe(self) -> Mapping[str, Replicas | None]:
        return {name: pool.replicas for name, pool in self._loop.now.pools.items()}

    def apply(self, actions: Sequence[Action]) -> tuple[Outcome, ...]:
        return self._loop.apply(actions)


def run(name: str, ticks: int, loop: Loop, **files: Any) -> list[Decision]:
    """The decisions of a planner over these ticks."""
    planner = Planner(policy_of(name), loop, Replicator(loop), clock=loop.clock, name=name, **files)
    decisions = []
    for _ in range(ticks):
        decisions.append(planner.step().decision)
        loop.follow()
    return decisions


def after(decisions: Iterable[Decision]) -> list[dict[str, Any]]:
    """What is compared of decisions after a restart."""
    return [
        {
            "targets": dict(decision.targets),
            "actions": [action.model_dump(mode="json") for action in decision.actions],
            "codes": [f"{reason.code}@{reason.pool}" for reason in decision.reasons],
        }
        for decision in decisions
    ]


def _write() -> None:
    states: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as directory:
        for name in KINDS:
            loop, path = Loop(name), Path(directory) / f"{name}.json"
            log = {"log": LOG} if name == "sla" else {}
            run(name, TICKS, loop, state_file=path, **log)
            text = path.read_text()
            states[name] = {"file": json.loads(text), "next": after(run(name, MORE - 1, loop, state_file=path))}
    STATES.write_text(json.dumps(states, indent=None, separators=(",", ":")).replace('"together"', '\n"together"'))


if __name__ == "__main__":
    LOG.unlink(missing_ok=True)
    _write()
