"""A simulated cluster: a source and an executor on simulated time, so that a policy is tried in the loop of production.

>>> from dynamo_planner import LoadPolicy, Planner, Profile
>>> from dynamo_planner.workloads.generators import poisson
>>> profile = Profile.bundled("llama31-8b_h100_vllm_tp1")
>>> setup = ClusterSetup.aggregated(profile, replicas=2, startup_s=30)
>>> cluster = SimulatedCluster(setup, poisson(requests_per_s=10, duration_s=60, seed=1), compiled=False)
>>> planner = Planner(LoadPolicy(), cluster.source, cluster.executor, clock=lambda: cluster.now_s)
>>> while not cluster.over:
...     cluster.advance(5)
...     step = planner.step()
>>> served = cluster.served()
>>> len(served), served.attainment(Sla(ttft_ms=500, itl_ms=25))
(601, 1.0)
>>> round(cluster.gpu_seconds())
140
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from dynamo_planner.core.decision import Action, Outcome, ScaleTo, SetKnob
from dynamo_planner.core.snapshot import Observation, PoolSpec, Replicas, Sla
from dynamo_planner.core.values import KnobValue
from dynamo_planner.engines.standard_knobs import CHUNK, LOCAL_PREFILL, SEQUENCES
from dynamo_planner.simulator.backends import ObjectBackend, can_compile
from dynamo_planner.simulator.engine.engine import EngineLimits
from dynamo_planner.simulator.engine.request import NONE
from dynamo_planner.simulator.metrics import SimulatedMetrics
from dynamo_planner.simulator.results import ReplicaCounts, Served, WorkerLifecycle
from dynamo_planner.simulator.setup import ClusterSetup
from dynamo_planner.simulator.workers import SimulatedFleet
from dynamo_planner.workloads.trace import Trace

__all__ = ["ClusterSetup", "SimulatedCluster", "Sla"]

POOL_KNOBS = (SEQUENCES, CHUNK)
"""The knobs of pools; the service has :data:`~dynamo_planner.engines.standard_knobs.LOCAL_PREFILL`."""


class SimulatedCluster:
    """Serves a trace with the pools of a setup. Its two views, ``source`` and ``executor``, go into a ``Planner``.

    Nothing happens but by :meth:`advance`. ``now_s`` is the clock for the planner; all other times are seconds of the
    trace.

    Args:
        setup: what the cluster is made of.
        trace: the requests it serves.
        seed: decides all that is random: the same seed, the same run; 0 by default.
        origin_s: when the trace begins, in Unix seconds; 0 by default.
        compiled: whether to use the compiled rules (extra ``fast``), which give the same results. By default they are
            used where they are installed.
    """

    def __init__(
        self,
        setup: ClusterSetup,
        trace: Trace,
        *,
        seed: int = 0,
        origin_s: float = 0.0,
        compiled: bool | None = None,
    ) -> None:
        self.setup = setup
        self.trace = trace
        self.origin_s = origin_s
        fast = can_compile() if compiled is None else compiled
        self._backend = _compiled_backend(setup, trace) if fast else ObjectBackend(setup, trace)
        self._fleet = SimulatedFleet(setup, self._backend, seed)
        self._metrics = SimulatedMetrics(setup, self._backend, self._fleet, trace, seed)
        self._elapsed_s = 0.0
        self.source = ClusterSource(self)
        self.executor = ClusterExecutor(self)

    @property
    def now_s(self) -> float:
        """The simulated time in Unix seconds."""
        return self.origin_s + self._elapsed_s

    @property
    def elapsed_s(self) -> float:
        """The simulated time in seconds of the trace."""
        return self._elapsed_s

    @property
    def over(self) -> bool:
        """Whether the trace has ended and every request is finished, dropped, or can never be served."""
        counters = self._backend.counters()
        done = counters.finished + counters.dropped
        return self._elapsed_s >= self.trace.duration_s and done == counters.requests

    def advance(self, seconds: float) -> None:
        """Let ``seconds`` pass."""
        self.advance_to(self._elapsed_s + seconds)

    def advance_to(self, to_s: float) -> None:
        """Let everything happen up to and at this second of the trace. Raises ``ValueError`` for one that is past."""
        if not self._elapsed_s <= to_s < math.inf:
            raise ValueError(f"time only goes forward: {to_s} is before {self._elapsed_s}, or not finite")
        backend, fleet = self._backend, self._fleet
        while True:
            next_s = fleet.next_s()
            released = backend.serve(min(next_s, to_s))
            if released != NONE:
                fleet.released(released, float(backend.cluster.now_s))
            elif next_s <= to_s:
                fleet.act()
            else:
                break
        self._elapsed_s = to_s

    def finish(self, at_most_s: float = 3600.0) -> None:
        """Go on to the end of the trace, and then until every request is done, but not longer than ``at_most_s``."""
        self.advance_to(max(self.trace.duration_s, self._elapsed_s))
        limit_s = self._elapsed_s + at_most_s
        while not self.over and self._elapsed_s < limit_s:
            self.advance(min(10.0, limit_s - self._elapsed_s))

    def send(self, requests: Trace) -> np.ndarray:
        """Requests that arrive later than now, beside those of the trace; returns their places among all.

        The places of requests that have not arrived are those until the next call.
        """
        if requests.arrival_s[0] <= self._elapsed_s:
            raise ValueError(f"requests arrive after {self._elapsed_s:g} s, got {requests.arrival_s[0]:g} s")
        before = np.searchsorted(self.trace.arrival_s, requests.arrival_s, side="right")
        self.trace = _joined(self.trace, requests)
        self._backend.insert(before, requests)
        self._metrics.expect(self.trace)
        return np.asarray(before + np.arange(len(requests)))

    # Results.

    def served(self) -> Served:
        """Each request that has arrived so far, and how it was served."""
        arrived = int(self._backend.cluster.next_arrival)
        column = {
            name: self._backend.column(name, arrived)
            for name in (
                *("scheduled_s", "first_token_s", "finished_s"),
                *("worker", "cancelled", "preemptions", "retries"),
            )
        }
        arrival_s, osl = self.trace.arrival_s[:arrived], self.trace.osl[:arrived]
        decoding_s = column["finished_s"] - column["first_token_s"]
        return Served(
            arrival_s=arrival_s,
            isl=self.trace.isl[:arrived],
            osl=osl,
            ttft_ms=1e3 * (column["first_token_s"] - arrival_s),
            itl_ms=1e3 * decoding_s / np.maximum(osl - 1, 1),
            scheduled_s=column["scheduled_s"],
            finished_s=column["finished_s"],
            place=column["worker"],
            dropped=column["cancelled"],
            preemptions=column["preemptions"],
            retries=column["retries"],
        )

    def gpu_seconds(self, *pools: str) -> float:
        """The GPU seconds billed so far, from launch to release, of these pools or of all."""
        return self._fleet.gpu_seconds(self._elapsed_s, pools or tuple(self.setup.pools))

    @property
    def workers(self) -> Sequence[WorkerLifecycle]:
        """All workers, past and present, in the order of their launches."""
        return tuple(self._fleet.lifecycles)

    @property
    def timeline(self) -> Sequence[ReplicaCounts]:
        """The replicas of each pool at every time that they changed."""
        return tuple(self._fleet.timeline)

    def preemptions(self, pool: str) -> int:
        """How often a request of this pool lost its KV cache to others."""
        return int(self._backend.pool(self._backend.places[pool]).preemptions)

    def busy_seconds(self, pool: str) -> float:
        """The time that the engines of this pool have spent on steps that are over."""
        return float(self._backend.pool(self._backend.places[pool]).busy_s)


def _joined(trace: Trace, more: Trace) -> Trace:
    """The requests of both; of two that arrive together, the one of the first trace comes first."""

    def column(name: str) -> np.ndarray:
        parts = [getattr(own, name) for own in (trace, more)]
        sizes = len(trace), len(more)
        return np.concatenate(
            [np.zeros(n, np.int64) if own is None else own for own, n in zip(parts, sizes, strict=True)]
        )

    hits = None if trace.prefix_hit is None else column("prefix_hit")
    return Trace(column("arrival_s"), column("isl"), column("osl"), hits, trace.name, trace.duration_s, trace.start)


def _compiled_backend(setup: ClusterSetup, trace: Trace) -> ObjectBackend:
    from dynamo_planner.simulator.record_backend import RecordBackend  # noqa: PLC0415  # needs numba

    return RecordBackend(setup, trace)


class ClusterSource:
    """The view of the cluster that a planner takes its metrics from."""

    def __init__(self, cluster: SimulatedCluster) -> None:
        self._cluster = cluster

    def observe(self, at_s: float) -> Observation:
        """What the metrics of the setup show now; ``at_s`` is the cluster's own time."""
        return self._cluster._metrics.observe(self._cluster.elapsed_s, self._cluster.origin_s)


class ClusterExecutor:
    """The view of the cluster that a planner acts on."""

    def __init__(self, cluster: SimulatedCluster) -> None:
        self._cluster = cluster
        self.pools: Mapping[str, PoolSpec] = {name: pool.spec for name, pool in cluster.setup.pools.items()}
        self._knobs: Mapping[str | None, Mapping[str, KnobValue]] = self._read_knobs()

    @property
    def knobs(self) -> Mapping[str | None, Mapping[str, KnobValue]]:
        """How the knobs of each pool, and of the service (``None``), are set."""
        return self._knobs

    def _read_knobs(self) -> Mapping[str | None, Mapping[str, KnobValue]]:
        backend = self._cluster._backend
        pools: dict[str | None, Mapping[str, KnobValue]] = {
            pool: {name: getattr(backend.limits(place), name) for name in POOL_KNOBS}
            for pool, place in backend.places.items()
        }
        return {None: {LOCAL_PREFILL: int(backend.cluster.max_local_prefill)}, **pools}

    def observe(self) -> Mapping[str, Replicas | None]:
        """The replicas of each pool."""
        return {name: self._cluster._fleet.replicas(name, self._cluster.origin_s) for name in self.pools}

    def apply(self, actions: Sequence[Action]) -> tuple[Outcome, ...]:
        """Act at once, and report an outcome for each action."""
        return tuple(self._applied(action) for action in actions)

    def _applied(self, action: Action) -> Outcome:
        if action.pool is not None and action.pool not in self.pools:
            message = f"there is no pool {action.pool!r}, only {', '.join(self.pools)}"
            return Outcome(action=action, status="failed", message=message)
        return self._scaled(action) if isinstance(action, ScaleTo) else self._knob_set(action)

    def _scaled(self, action: ScaleTo) -> Outcome:
        cluster = self._cluster
        target = cluster._fleet.pools[action.pool].target
        if action.expected is not None and action.expected != target:
            return Outcome(action=action, status="refused", message=f"the target is {target}, not {action.expected}")
        if action.replicas == target:
            return Outcome(action=action, status="unchanged")
        cluster._fleet.scale(action.pool, action.replicas, cluster.elapsed_s)
        return Outcome(action=action, status="applied")

    def _knob_set(self, action: SetKnob) -> Outcome:
        present = self._knobs[action.pool].get(action.knob)
        if present is None:
            return Outcome(action=action, status="failed", message=f"there is no such knob: {action.knob!r}")
        if action.expected is not None and action.expected != present:
            return Outcome(action=action, status="refused", message=f"it is {present}, not {action.expected}")
        if action.value == present:
            return Outcome(action=action, status="unchanged")
        try:
            self._set(action)
        except ValueError as error:
            return Outcome(action=action, status="failed", message=str(error))
        self._knobs = self._read_knobs()
        return Outcome(action=action, status="applied")

    def _set(self, action: SetKnob) -> None:
        backend = self._cluster._backend
        if action.pool is None:
            value = int(action.value)
            if value < 0:
                raise ValueError(f"{action.knob} must be at least 0, got {value}")
            backend.cluster.max_local_prefill = value
            return
        place = backend.places[action.pool]
        limits = backend.limits(place)
        live = self._cluster.setup.live_knobs
        backend.limit(place, EngineLimits(**{**limits.model_dump(), action.knob: action.value}), live=live)
        if not live:
            self._cluster._fleet.replace(action.pool, self._cluster.elapsed_s)
