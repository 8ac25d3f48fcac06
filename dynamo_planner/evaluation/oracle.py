"""The yardstick: what any schedule must cost at the least, and the cheapest one that is known to be good enough.

No policy gets below the first. One that gets below the second has found a better schedule than the search did.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dynamo_planner.core.decision import ScaleTo
from dynamo_planner.core.snapshot import Sla
from dynamo_planner.evaluation.lower_bound import Bound, least_replica_time
from dynamo_planner.evaluation.schedule_search import Judged, Plan, Search, needs
from dynamo_planner.evaluation.work_floor import demand, hopeless
from dynamo_planner.policies.schedule import Schedule
from dynamo_planner.simulator.cluster import SimulatedCluster
from dynamo_planner.simulator.results import Served
from dynamo_planner.simulator.setup import ClusterSetup, PoolSetup
from dynamo_planner.workloads.trace import Trace

DRAIN_S = 300.0
LUCKY_START = 3.0
"""Where starts take log-normal times, the bound takes one that is so many standard deviations shorter."""


@dataclass(frozen=True)
class Oracle:
    """The yardstick of a trace on a cluster, in GPU-hours.

    ``bound_gpu_hours`` is ``None`` where no schedule at all can be good enough, and ``feasible_gpu_hours`` where none
    was found; ``schedule`` is the one that costs that, and ``attainment`` what it attains.
    """

    bound_gpu_hours: float | None
    feasible_gpu_hours: float | None
    attainment: float | None
    schedule: Schedule | None
    judgements: int

    @property
    def gap(self) -> float | None:
        """How many times the bound the schedule costs."""
        if self.bound_gpu_hours is None or self.feasible_gpu_hours is None:
            return None
        return self.feasible_gpu_hours / self.bound_gpu_hours


def oracle(
    trace: Trace, cluster: ClusterSetup, sla: Sla, *, interval_s: float = 10.0, seed: int = 0, budget: int = 100
) -> Oracle:
    """The yardstick for the share ``sla.attainment`` of the requests that have a chance.

    ``budget`` is how many schedules are simulated. They start from the bound's own replicas, from the work that comes,
    smoothed and held, and from a constant, each scaled until it is good enough, and then trimmed. A schedule asks for
    replicas as long beforehand as they take to start, at multiples of ``interval_s``.
    """
    bounds = bound(trace, cluster, sla)
    judge = Judge(trace, cluster, sla, interval_s, seed)
    limits = {name: (pool.spec.min_replicas, pool.spec.max_replicas) for name, pool in cluster.pools.items()}
    search = Search(judge, sla.attainment, budget=budget, bounds=limits)
    found = search.run(_shapes(trace, cluster, sla, bounds, judge.slots, interval_s))
    gpus = {name: pool.spec.gpus for name, pool in cluster.pools.items()}
    least = None
    if bounds is not None:
        least = sum(gpus[name] * part.replica_s for name, part in bounds.items()) / 3600
    if found is None:
        return Oracle(least, None, None, None, search.judged)
    return Oracle(
        least, found.judged.gpu_s / 3600, found.judged.attainment, judge.schedule(found.plan), found.judgements
    )


def bound(trace: Trace, cluster: ClusterSetup, sla: Sla) -> Mapping[str, Bound] | None:
    """The least replica time of each pool, by itself; ``None`` where no schedule can be good enough.

    It counts the requests that have a chance, up to the end of the trace. Prompts that decode workers may prefill
    themselves (``max_local_prefill``) cost the prefill pool nothing.
    """
    chance = ~hopeless(trace, cluster, sla)
    if not chance.any():
        return None
    hits = None if trace.prefix_hit is None else trace.prefix_hit[chance]
    kept = Trace(trace.arrival_s[chance], trace.isl[chance], trace.osl[chance], hits, trace.name, trace.duration_s)
    shortest = math.sqrt(math.log1p(cluster.faults.startup_cv**2)) * LUCKY_START
    bounds = {}
    for name, pool in cluster.pools.items():
        asked = demand(kept, pool.timing, pool.limits, pool.spec.role, sla)
        if pool.spec.role == "prefill" and cluster.max_local_prefill:
            asked = asked._replace(work_s=np.where(kept.isl <= cluster.max_local_prefill, 0.0, asked.work_s))
        try:
            bounds[name] = least_replica_time(
                asked,
                attainment=sla.attainment,
                startup_s=pool.spec.startup_s * math.exp(-shortest),
                start=pool.replicas,
                duration_s=trace.duration_s,
                min_replicas=pool.spec.min_replicas,
                max_replicas=pool.spec.max_replicas,
            )
        except ValueError:
            return None
    return bounds


class Judge:
    """Simulates plans: replicas to be ready in each slot of ``interval_s``."""

    def __init__(self, trace: Trace, cluster: ClusterSetup, sla: Sla, interval_s: float, seed: int) -> None:
        self._trace, self._cluster, self._sla, self._interval_s, self._seed = trace, cluster, sla, interval_s, seed
        self._chance = ~hopeless(trace, cluster, sla)
        self.slots = max(math.ceil(trace.duration_s / interval_s), 1)

    def __call__(self, plan: Plan) -> Judged:
        simulated = SimulatedCluster(self._cluster, self._trace, seed=self._seed)
        changes = {name: dict(steps) for name, steps in self._asked(plan).items()}
        for slot in range(1, self.slots):
            simulated.advance_to(min(slot * self._interval_s, self._trace.duration_s))
            actions = [ScaleTo(pool=name, replicas=at[slot]) for name, at in changes.items() if slot in at]
            if actions:
                simulated.executor.apply(actions)
        simulated.advance_to(self._trace.duration_s)
        gpu_s = simulated.gpu_seconds()
        simulated.finish(DRAIN_S)
        return Judged(self._attained(simulated.served()), gpu_s)

    def schedule(self, plan: Plan) -> Schedule:
        """The plan as a policy, on the clock of a cluster that starts at 0."""
        asked = self._asked(plan).items()
        return Schedule(plan={name: tuple((slot * self._interval_s, n) for slot, n in at) for name, at in asked})

    def _attained(self, served: Served) -> float:
        met = served.meets(self._sla)
        return float(met[self._chance[: len(met)]].mean()) if self._chance.any() else 1.0

    def _asked(self, plan: Plan) -> dict[str, list[tuple[int, int]]]:
        """When to ask for how many: what the plan has at its most in the time that a start takes from then on."""
        asked = {}
        for name, counts in plan.items():
            lead = math.ceil(self._cluster.pools[name].spec.startup_s / self._interval_s)
            padded = np.concatenate([counts, np.full(lead, counts[-1])])
            ahead = np.lib.stride_tricks.sliding_window_view(padded, lead + 1).max(axis=1)
            changed = np.flatnonzero(np.diff(ahead)) + 1
            asked[name] = [(1, int(ahead[1] if len(ahead) > 1 else ahead[0]))]
            asked[name] += [(int(slot), int(ahead[slot])) for slot in changed if slot > 1]
        return asked


def _shapes(
    trace: Trace,
    cluster: ClusterSetup,
    sla: Sla,
    bounds: Mapping[str, Bound] | None,
    slots: int,
    interval_s: float,
) -> list[dict[str, NDArray[np.float64]]]:
    """Where the search starts from: replicas over time, up to a factor."""
    work = {name: _work(trace, pool, sla, slots, interval_s) for name, pool in cluster.pools.items()}
    shapes = [{name: np.full(slots, level.mean()) for name, level in work.items()}]
    held = {name: needs(level, slots) for name, level in work.items()}
    shapes += [dict(zip(held, choice, strict=True)) for choice in zip(*held.values(), strict=True)]
    if bounds is not None:
        at_s = (np.arange(slots) + 0.5) * interval_s
        best = {
            name: part.replicas[np.minimum((at_s // part.slot_s).astype(int), len(part.replicas) - 1)]
            for name, part in bounds.items()
        }
        shapes.insert(1, best)
    return shapes


def _work(trace: Trace, pool: PoolSetup, sla: Sla, slots: int, interval_s: float) -> NDArray[np.float64]:
    """The least replicas that are busy with what comes in each slot; an answer is spread over the time it takes."""
    asked = demand(trace, pool.timing, pool.limits, pool.spec.role, sla)
    lasts = np.ones(len(asked.arrival_s)) if pool.spec.role == "prefill" else asked.deadline_s - asked.arrival_s
    first = np.minimum((asked.arrival_s // interval_s).astype(int), slots - 1)
    last = np.minimum(((asked.arrival_s + lasts) // interval_s).astype(int), slots - 1)
    share = asked.work_s / (last - first + 1) / interval_s
    changes = np.bincount(first, weights=share, minlength=slots + 1)
    changes -= np.bincount(last + 1, weights=share, minlength=slots + 1)
    level = np.cumsum(changes)[:slots]
    return np.asarray(np.maximum(level, 0.0))
