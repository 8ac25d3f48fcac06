"""How long one decision on many models takes: ``OMP_NUM_THREADS=1 python -m benchmarks.fleet_speed [--quick]``.

200 models of a prefill and a decode pool each, with ``SlaPolicy`` and three profiles, 5,000 replicas of one, two and
four GPUs in all, on one budget that suffices for 85 % of what they want. In CPU time, policies
included, after a while of running:

- ``changed``: every model's arrivals and lengths differ from those of the tick before.
- ``soon``: the same loads as in the ticks before, while forecasts, lengths and the speed of engines still follow the
  change. It has no budget.
- ``same``: the same loads for so long that what is learned of them stands.

Beside each, in turns with it, the policies' own part: what the same machine needs at the same time for 200 decisions of
models alone. Each is the least of several ticks. Exits with 1 where a budget of time is missed.
"""

from __future__ import annotations

import argparse
import os
import sys
import time

import numpy as np

from dynamo_planner import Dist, PoolSpec, PoolStatus, Profile, SlaPolicy, Snapshot, Traffic
from dynamo_planner.core.decision import State
from dynamo_planner.core.policy import proposed
from dynamo_planner.core.values import FrozenMap
from dynamo_planner.fleet import Budget, Fleet, Member

PROFILES = {"llama31-8b_h100_vllm_tp1": 1, "llama31-70b_h100_vllm_tp4": 4, "llama31-70b-fp8_h200_trtllm_tp2": 2}
"""The profiles, and the GPUs of a replica."""

TICK_S, REPLICAS, SHARE = 10.0, 5000, 0.85
BUDGETS_MS = {"changed": 1000.0, "same": 250.0}

WARM_TICKS = 12
"""Ticks until the fleet is as large as it is to be, and again until it has settled within its budget."""

SETTLED_TICKS = 60
"""Ticks until what is learned of a load stands: a half-life of lengths and of the speed of engines."""


class Traffics:
    """The traffic of each model over time."""

    def __init__(self, models: int) -> None:
        self.random = np.random.default_rng(1)
        self.rates = self.random.lognormal(3.4, 0.6, models)
        self.isl, self.osl = self.random.uniform(600, 3000, models), self.random.uniform(100, 400, models)

    def change(self) -> None:
        """Other arrivals and lengths."""
        self.rates, self.isl, self.osl = [
            values * self.random.lognormal(0, 0.05, len(values)) for values in (self.rates, self.isl, self.osl)
        ]

    def snapshots(self, fleet: Fleet, at_s: float, targets: dict[str, dict[str, int]]) -> dict[str, Snapshot]:
        """The snapshots of all models, which have what they were granted."""
        found = {}
        for n, name in enumerate(fleet.models):
            gpus = gpus_of(name)
            pools = {
                role: PoolStatus(
                    spec=PoolSpec(role=role, gpus=gpus, startup_s=120),
                    replicas=targets.get(name, {}).get(role, 2),
                    queued=0,
                    running=8,
                )
                for role in ("prefill", "decode")
            }
            rate, count = float(self.rates[n]), float(self.rates[n]) * TICK_S
            traffic = Traffic(
                requests_per_s=rate,
                window_s=TICK_S,
                isl=Dist(mean=float(self.isl[n]), count=count, cv2=1.0),
                osl=Dist(mean=float(self.osl[n]), count=count, cv2=1.0),
                ttft_ms=Dist(mean=200, count=count),
                itl_ms=Dist(mean=15, count=count),
            )
            found[name] = Snapshot(at_s=at_s, traffic=traffic, pools=pools)
        return found


def gpus_of(name: str) -> int:
    """The GPUs of a replica of a model."""
    return list(PROFILES.values())[int(name.removeprefix("model")) % len(PROFILES)]


def fleet_of(models: int, total: float) -> Fleet:
    names = list(PROFILES)
    members = {}
    for n in range(models):
        name = names[n % len(names)]
        policy = SlaPolicy(ttft_ms=1000, itl_ms=40, profile=Profile.bundled(name))
        members[f"model{n:03}"] = Member(policy=policy, priority=n % 3, floor={"gpu": 4.0})
    return Fleet(models=members, budgets={"gpu": Budget(total=total)})


class Running:
    """A fleet that is decided tick by tick."""

    def __init__(self, models: int, replicas: int) -> None:
        self.traffics, self.targets = Traffics(models), dict[str, dict[str, int]]()
        self.fleet, self.at_s = fleet_of(models, 1e9), 0.0
        self.state: State | None = None
        self.tick()
        for _ in range(WARM_TICKS):  # to as many replicas as are asked for
            self.traffics.rates *= (replicas / self.replicas()) ** 0.5
            self.tick()
        gpus = sum(count * gpus_of(name) for name, own in self.targets.items() for count in own.values())
        print(f"{self.replicas()} replicas on {gpus:g} GPUs, of which {SHARE:.0%} are there")
        self.fleet = self.fleet.replace(budgets=FrozenMap({"gpu": Budget(total=SHARE * gpus)}))
        for _ in range(WARM_TICKS):
            self.tick()

    def replicas(self) -> int:
        return sum(sum(own.values()) for own in self.targets.values())

    def tick(self, *, alone: bool = False) -> float:
        """Milliseconds of a decision, or of those of the policies alone."""
        self.at_s += TICK_S
        snapshots = self.traffics.snapshots(self.fleet, self.at_s, self.targets)
        began_ns = time.process_time_ns()
        if alone:
            states = self.state.data.models if self.state else {}
            for name, member in self.fleet.models.items():
                proposed(member.policy, snapshots[name], states.get(name))
            took_ns = time.process_time_ns() - began_ns
        decision = self.fleet.decide(snapshots, self.state)
        if not alone:
            took_ns = time.process_time_ns() - began_ns
        self.state = decision.state
        self.targets.update({name: dict(own.targets) for name, own in decision.decisions.items()})
        return took_ns / 1e6


def measured(models: int, replicas: int, times: int) -> dict[str, tuple[float, float]]:
    """Milliseconds of a decision in each case, and of the policies alone."""
    running = Running(models, replicas)
    took: dict[tuple[str, bool], list[float]] = {}
    for _ in range(times):
        for alone in (False, True):
            running.traffics.change()
            took.setdefault(("changed", alone), []).append(running.tick(alone=alone))
        for alone in (False, True):
            took.setdefault(("soon", alone), []).append(running.tick(alone=alone))
    for _ in range(SETTLED_TICKS):
        running.tick()
    for _ in range(times):
        for alone in (False, True):
            took.setdefault(("same", alone), []).append(running.tick(alone=alone))
    return {case: (min(took[case, False]), min(took[case, True])) for case in ("changed", "soon", "same")}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="20 models")
    quick = parser.parse_args().quick
    if os.environ.get("OMP_NUM_THREADS") != "1":
        parser.error("set OMP_NUM_THREADS=1: numpy's threads would be counted")
    found = measured(20, 500, 2) if quick else measured(200, REPLICAS, 5)
    for case, (took_ms, alone_ms) in found.items():
        ratio, budget = took_ms / alone_ms, f", at most {BUDGETS_MS[case]:.0f} ms" if case in BUDGETS_MS else ""
        print(f"{case:8} {took_ms:6.0f} ms, {ratio:.2f} times the policies alone{budget}")
    return int(any(found[case][0] > most_ms for case, most_ms in BUDGETS_MS.items()))


if __name__ == "__main__":
    sys.exit(main())
