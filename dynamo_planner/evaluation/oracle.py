"""The yardstick for policies: a lower bound on the cost of any schedule, and the cheapest one that was found.

No policy gets below the first. One that gets below the second has found a better schedule than the search did.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dynamo_planner.core.decision import ScaleTo
from dynamo_planner.core.snapshot import Sla
from dynamo_planner.evaluation.lower_bound import LowerBound, least_replica_time
from dynamo_planner.evaluation.schedule_search import Plan, PlanResult, ScheduleSearch, work_shapes
from dynamo_planner.evaluation.work_floor import pool_work, unattainable
from dynamo_planner.policies.schedule import Schedule
from dynamo_planner.simulator.cluster import SimulatedCluster
from dynamo_planner.simulator.results import Served
from dynamo_planner.simulator.setup import ClusterSetup, PoolSetup
from dynamo_planner.workloads.trace import Trace

Targets = Mapping[str, Sequence[tuple[float, int]]]
"""The targets of each pool: from this second of the trace on, this many replicas."""

DRAIN_S = 300.0
LUCKY_START = 3.0
"""Where start-up times are log-normal, the bound takes one that is this many standard deviations shorter."""


@dataclass(frozen=True)
class Oracle:
    """The yardstick of a trace on a cluster.

    Args:
        bound_gpu_hours: GPU-hours below which no schedule can be; ``None`` where none at all can be good enough.
        feasible_gpu_hours: GPU-hours of the cheapest schedule that was found; ``None`` where none was.
        attainment: the share of attainable requests that this schedule serves in time.
        schedule: this schedule.
        evaluations: how many schedules were simulated.
    """

    bound_gpu_hours: float | None
    feasible_gpu_hours: float | None
    attainment: float | None
    schedule: Schedule | None
    evaluations: int

    @property
    def gap(self) -> float | None:
        """How many times the bound the schedule costs."""
        if self.bound_gpu_hours is None or self.feasible_gpu_hours is None:
            return None
        return self.feasible_gpu_hours / self.bound_gpu_hours


def oracle(
    trace: Trace,
    cluster: ClusterSetup,
    sla: Sla,
    *,
    interval_s: float = 10.0,
    seed: int = 0,
    budget: int = 100,
    starts: Sequence[Targets] = (),
) -> Oracle:
    """The yardstick for the share ``sla.attainment`` of the attainable requests.

    ``budget`` is how many schedules are simulated. They start from the bound's own replicas, from the work that comes,
    smoothed and held, and from a constant, each scaled until it is good enough, and from the targets in ``starts``, as
    those of a policy; the cheapest is trimmed. A shape asks for replicas as long beforehand as they take to start; all
    of them ask at multiples of ``interval_s``.
    """
    bounds = bound(trace, cluster, sla)
    simulate = PlanSimulator(trace, cluster, sla, interval_s, seed)
    limits = {name: (pool.spec.min_replicas, pool.spec.max_replicas) for name, pool in cluster.pools.items()}
    search = ScheduleSearch(simulate, sla.attainment, budget=budget, bounds=limits)
    shapes = _shapes(trace, cluster, sla, bounds, simulate.slots, interval_s)
    found = search.run(shapes, [simulate.plan(targets) for targets in starts])
    gpus = {name: pool.spec.gpus for name, pool in cluster.pools.items()}
    least = None
    if bounds is not None:
        least = sum(gpus[name] * part.replica_s for name, part in bounds.items()) / 3600
    if found is None:
        return Oracle(least, None, None, None, search.evaluated)
    return Oracle(
        least, found.result.gpu_s / 3600, found.result.attainment, simulate.schedule(found.plan), search.evaluated
    )


def bound(trace: Trace, cluster: ClusterSetup, sla: Sla) -> Mapping[str, LowerBound] | None:
    """The least replica time of each pool, by itself; ``None`` where no schedule can be good enough.

    It counts the attainable requests, up to the end of the trace. Prompts that decode workers may prefill
    themselves (``max_local_prefill``) cost the prefill pool nothing.
    """
    attainable = ~unattainable(trace, cluster, sla)
    if not attainable.any():
        return None
    hits = None if trace.prefix_hit is None else trace.prefix_hit[attainable]
    isl, osl = trace.isl[attainable], trace.osl[attainable]
    kept = Trace(trace.arrival_s[attainable], isl, osl, hits, trace.name, trace.duration_s)
    shortest = math.sqrt(math.log1p(cluster.faults.startup_cv**2)) * LUCKY_START
    bounds = {}
    for name, pool in cluster.pools.items():
        work = pool_work(kept, pool.timing, pool.limits, pool.spec.role, sla)
        if pool.spec.role == "prefill" and cluster.max_local_prefill:
            work = work._replace(work_s=np.where(kept.isl <= cluster.max_local_prefill, 0.0, work.work_s))
        try:
            bounds[name] = least_replica_time(
                work,
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


class PlanSimulator:
    """Simulates plans: the targets from each slot of ``interval_s`` on."""

    def __init__(self, trace: Trace, cluster: ClusterSetup, sla: Sla, interval_s: float, seed: int) -> None:
        self._trace, self._cluster, self._sla, self._interval_s, self._seed = trace, cluster, sla, interval_s, seed
        self._attainable = ~unattainable(trace, cluster, sla)
        self.slots = max(math.ceil(trace.duration_s / interval_s), 1)

    def __call__(self, plan: Plan) -> PlanResult:
        simulated = SimulatedCluster(self._cluster, self._trace, seed=self._seed)
        changes = {name: dict(steps) for name, steps in _changes(plan).items()}
        for slot in range(1, self.slots):
            simulated.advance_to(min(slot * self._interval_s, self._trace.duration_s))
            actions = [ScaleTo(pool=name, replicas=at[slot]) for name, at in changes.items() if slot in at]
            if actions:
                simulated.executor.apply(actions)
        simulated.advance_to(self._trace.duration_s)
        gpu_s = simulated.gpu_seconds()
        simulated.finish(DRAIN_S)
        return PlanResult(self._attained(simulated.served()), gpu_s)

    def schedule(self, plan: Plan) -> Schedule:
        """The plan as a policy, on the clock of a cluster that starts at 0."""
        steps = _changes(plan).items()
        return Schedule(plan={name: tuple((slot * self._interval_s, n) for slot, n in at) for name, at in steps})

    def plan(self, targets: Targets) -> Plan:
        """Targets at times as a plan."""
        plan = {}
        for name, changes in targets.items():
            counts = np.full(self.slots, self._cluster.pools[name].replicas, np.int64)
            for at_s, replicas in changes:
                counts[round(at_s / self._interval_s) :] = replicas
            plan[name] = counts
        return plan

    def _attained(self, served: Served) -> float:
        met = served.meets(self._sla)
        return float(met[self._attainable[: len(met)]].mean()) if self._attainable.any() else 1.0


def _changes(plan: Plan) -> dict[str, list[tuple[int, int]]]:
    """The slots in which a plan changes, and its targets from then on; the first can be set in slot 1."""
    changes = {}
    for name, counts in plan.items():
        slots = [1, *(slot for slot in (np.flatnonzero(np.diff(counts)) + 1).tolist() if slot > 1)]
        changes[name] = [(slot, int(counts[min(slot, len(counts) - 1)])) for slot in slots]
    return changes


def _ahead(level: NDArray[np.float64], slots: int) -> NDArray[np.float64]:
    """What has to be asked for from each slot on: the most that is to be ready within a start from there."""
    padded = np.concatenate([level, np.full(slots, level[-1])])
    return np.asarray(np.lib.stride_tricks.sliding_window_view(padded, slots + 1).max(axis=1))


def _shapes(
    trace: Trace,
    cluster: ClusterSetup,
    sla: Sla,
    bounds: Mapping[str, LowerBound] | None,
    slots: int,
    interval_s: float,
) -> list[dict[str, NDArray[np.float64]]]:
    """Where the search starts from: replicas over time, up to a factor."""
    work = {name: _work(trace, pool, sla, slots, interval_s) for name, pool in cluster.pools.items()}
    shapes = [{name: np.full(slots, level.mean()) for name, level in work.items()}]
    held = {name: work_shapes(level, slots) for name, level in work.items()}
    shapes += [dict(zip(held, choice, strict=True)) for choice in zip(*held.values(), strict=True)]
    if bounds is not None:
        at_s = (np.arange(slots) + 0.5) * interval_s
        best = {
            name: part.replicas[np.minimum((at_s // part.slot_s).astype(int), len(part.replicas) - 1)]
            for name, part in bounds.items()
        }
        shapes.insert(1, best)
    lead = {name: math.ceil(pool.spec.startup_s / interval_s) for name, pool in cluster.pools.items()}
    return [{name: _ahead(level, lead[name]) for name, level in shape.items()} for shape in shapes]


def _work(trace: Trace, pool: PoolSetup, sla: Sla, slots: int, interval_s: float) -> NDArray[np.float64]:
    """The least replicas that are busy with what arrives in each slot; outputs are spread over the time they take."""
    work = pool_work(trace, pool.timing, pool.limits, pool.spec.role, sla)
    spread_s = np.ones(len(work.arrival_s)) if pool.spec.role == "prefill" else work.deadline_s - work.arrival_s
    first = np.minimum((work.arrival_s // interval_s).astype(int), slots - 1)
    last = np.minimum(((work.arrival_s + spread_s) // interval_s).astype(int), slots - 1)
    share = work.work_s / (last - first + 1) / interval_s
    changes = np.bincount(first, weights=share, minlength=slots + 1)
    changes -= np.bincount(last + 1, weights=share, minlength=slots + 1)
    level = np.cumsum(changes)[:slots]
    return np.asarray(np.maximum(level, 0.0))
