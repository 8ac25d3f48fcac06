"""The world of a simulation as Python objects, and the rules that move it."""

from __future__ import annotations

import importlib.util
import math
from copy import copy
from typing import Any

import numpy as np

from dynamo_planner.core.metrics import WorkerStatus
from dynamo_planner.simulator import cluster_events, routing
from dynamo_planner.simulator.engine.engine import EngineLimits
from dynamo_planner.simulator.engine.event_log import EventLog
from dynamo_planner.simulator.engine.request import NONE, Request
from dynamo_planner.simulator.engine.state import EngineState
from dynamo_planner.simulator.engine.step_runs import done
from dynamo_planner.simulator.engine.step_time_table import StepTable, as_lists, step_table
from dynamo_planner.simulator.gauges import PoolGauges
from dynamo_planner.simulator.setup import ClusterSetup
from dynamo_planner.simulator.state import LATENCY_BUCKETS, ClusterState, PoolState, World
from dynamo_planner.workloads.trace import Trace

ROUTING = {"least_loaded": routing.LEAST_LOADED, "round_robin": routing.ROUND_ROBIN, "hash": routing.HASH, "pull": 0}

NO_ENGINE = EngineState(1, 1, 1)
"""The engine in a place without a worker."""


def can_compile() -> bool:
    """Whether the extra ``fast`` is installed."""
    return importlib.util.find_spec("numba") is not None


class ObjectBackend:
    """The world as Python objects: for machines without numba, and to compare the compiled one with."""

    gauges: list[PoolGauges]
    """The gauges of the first and the last pool at the time that the world has come to."""

    _perform: Any = staticmethod(cluster_events.perform)

    def __init__(self, setup: ClusterSetup, trace: Trace) -> None:
        order = sorted(setup.pools, key=lambda name: setup.pools[name].spec.role == "decode")
        self.places = {name: place for place, name in enumerate(order)}
        """The places of the pools: the entry first."""
        self._pools = [setup.pools[name] for name in order]
        self._tables = [step_table(pool.timing, pool.limits) for pool in self._pools]
        self._limits = [pool.limits for pool in self._pools]
        self._batch = max(limits.max_num_seqs for limits in self._limits)
        self._free: list[int] = []
        sla = setup.metrics.sla
        cluster = ClusterState(
            requests=len(trace),
            max_request_tokens=min(limits.kv_tokens for limits in self._limits),
            transfer_s=setup.kv_transfer_s,
            transfer_s_per_token=setup.kv_transfer_s_per_token,
            max_local_prefill=setup.max_local_prefill,
            target_ttft_s=math.inf if sla is None else sla.ttft_ms / 1000,
            target_itl_s=math.inf if sla is None else sla.itl_ms / 1000,
        )
        pools = [
            PoolState(ROUTING[pool.routing], pool.routing == "pull", 1 if pool.spec.role == "prefill" else NONE)
            for pool in self._pools
        ]
        self.world = self._first_world(cluster, pools, trace)
        self._add_places()
        self._do(cluster_events.DISPATCH)

    def _requests_of(self, trace: Trace) -> Any:
        """The requests of a trace."""
        hits = [0] * len(trace) if trace.prefix_hit is None else trace.prefix_hit.tolist()
        columns = zip(trace.arrival_s.tolist(), trace.isl.tolist(), trace.osl.tolist(), hits, strict=True)
        return [_request(*row) for row in columns]

    def _first_world(self, cluster: ClusterState, pools: list[PoolState], trace: Trace) -> World:
        return World(
            cluster=[cluster],
            pools=pools,
            members=[[] for _ in pools],
            engines=[],
            decode_heaps=[],
            next_event_s=[],
            timings=both([as_lists(table) for table in self._tables]),
            requests=self._requests_of(trace),
            transfers=[0] * len(trace),
            transfer_s=[0.0] * len(trace),
            ttft_counts=[0] * LATENCY_BUCKETS,
            itl_counts=[0] * LATENCY_BUCKETS,
            log=EventLog(),
        )

    def insert(self, before: np.ndarray, trace: Trace) -> None:
        """More requests that have not arrived yet, each before the one at its place."""
        requests = list(self.world.requests)
        for place, request in reversed(list(zip(before.tolist(), self._requests_of(trace), strict=True))):
            requests.insert(place, request)
        more = len(trace)
        transfers, transfer_s = [*self.world.transfers, *[0] * more], [*self.world.transfer_s, *[0.0] * more]
        self.world = self.world._replace(requests=requests, transfers=transfers, transfer_s=transfer_s)
        self.cluster.requests += more

    def serve(self, to_s: float) -> int:
        """Process all events up to and at this time, or up to the time at which a draining worker is empty; returns its
        place, or ``NONE``."""
        return self._do(cluster_events.SERVE, to_s=to_s)

    def withdraw(self, worker: int) -> None:
        """The worker has crashed: its requests go back to the router."""
        self._do(cluster_events.WITHDRAW, worker)

    def add(self, pool: int, number: int, slowness: float) -> int:
        """Make a place for a new worker of a pool, which has nothing to do yet, and return it."""
        limits = self._limits[pool]
        state = EngineState(
            max_num_seqs=limits.max_num_seqs,
            max_num_batched_tokens=limits.max_num_batched_tokens,
            kv_tokens=limits.kv_tokens,
            slowness=slowness,
            prefill_only=self._pools[pool].spec.role == "prefill",
            pool=pool,
            number=number,
        )
        if not self._free:
            self._add_places()
        worker = self._free.pop()
        self._put(worker, state)
        return worker

    def remove(self, worker: int) -> None:
        """The worker is gone, and had nothing to do any more."""
        self._put(worker, NO_ENGINE)
        self.world.next_event_s[worker] = math.inf
        self._free.append(worker)

    def join(self, worker: int) -> None:
        """The worker takes requests from now on, beginning with those that wait in front of its pool."""
        pool = int(self.engine(worker).pool)
        state = self.pool(pool)
        self.world.members[pool][state.members] = worker
        state.members += 1
        self._do(cluster_events.DISPATCH, pool)

    def leave(self, worker: int) -> None:
        """The worker takes no more requests."""
        pool = int(self.engine(worker).pool)
        state, members = self.pool(pool), self.world.members[pool]
        there = [int(members[k]) for k in range(int(state.members)) if members[k] != worker]
        for k, member in enumerate(there):
            members[k] = member
        state.members = len(there)

    def limits(self, pool: int) -> EngineLimits:
        """The limits of the engines of a pool."""
        return self._limits[pool]

    def limit(self, pool: int, limits: EngineLimits, *, live: bool) -> None:
        """Give the next engines of a pool other limits, and with ``live`` those that are there too."""
        self._limits[pool] = limits
        table = self._tables[pool]
        if limits.max_num_seqs >= len(table.batch_corner) or limits.max_num_batched_tokens >= len(table.prompt_corner):
            self._tables[pool] = step_table(self._pools[pool].timing, limits)
            self._time(self._tables)
        if limits.max_num_seqs > self._batch:
            self._batch = limits.max_num_seqs
            self._widen()
        for worker in range(len(self.world.next_event_s)) if live else ():
            state = self.engine(worker)
            if state.pool == pool and worker not in self._free:
                state.max_num_seqs, state.max_num_batched_tokens = limits.max_num_seqs, limits.max_num_batched_tokens
                self._do(cluster_events.REPLAN, worker)

    def is_current(self, worker: int) -> bool:
        """Whether a worker has the limits that its pool has now."""
        state = self.engine(worker)
        limits = self._limits[int(state.pool)]
        present = int(state.max_num_seqs), int(state.max_num_batched_tokens)
        return present == (limits.max_num_seqs, limits.max_num_batched_tokens)

    def engine(self, worker: int) -> EngineState:
        """The state of a worker's engine, to read and to write."""
        return self.world.engines[worker]

    def pool(self, pool: int) -> PoolState:
        """The state of a pool."""
        return self.world.pools[pool]

    @property
    def cluster(self) -> ClusterState:
        """The state of the cluster."""
        return self.world.cluster[0]

    def _do(self, what: int, which: int = 0, to_s: float = 0.0) -> int:
        released, *self.gauges = self._perform(self.world, what, which, to_s)
        return int(released)

    def counters(self) -> ClusterState:
        """A copy of what the cluster has counted so far."""
        return copy(self.cluster)

    def status(self, worker: int) -> WorkerStatus:
        """The gauges of a worker now."""
        e = self.engine(worker)
        now_s = float(self.cluster.now_s)
        steps = done(e, now_s) if e.steps else -1
        return WorkerStatus.unchecked(
            name=f"worker-{int(e.number)}",
            queued=float(e.waiting),
            queued_tokens=float(e.waiting_tokens),
            running=float(e.running),
            kv_usage=max(float(e.kv + e.decoding * steps) / float(e.kv_tokens), 0.0),
            kv_capacity_tokens=float(e.kv_tokens),
            observed_at_s=now_s,
        )

    def column(self, name: str, requests: int) -> np.ndarray:
        """A field of the first ``requests`` requests."""
        return np.array([getattr(request, name) for request in self.world.requests[:requests]])

    def _add_places(self) -> None:
        before = len(self.world.next_event_s)
        self._grow()
        self._free = list(range(len(self.world.next_event_s) - 1, before - 1, -1))

    def _put(self, worker: int, state: EngineState) -> None:
        self.world.engines[worker] = state  # type: ignore[index]

    def _grow(self) -> None:
        self.world.engines.append(NO_ENGINE)  # type: ignore[attr-defined]
        self.world.decode_heaps.append([0] * self._batch)  # type: ignore[attr-defined]
        self.world.next_event_s.append(math.inf)
        for members in self.world.members:
            members.append(0)

    def _widen(self) -> None:
        for heap in self.world.decode_heaps:
            heap.extend([0] * (self._batch - len(heap)))

    def _time(self, tables: list[StepTable]) -> None:
        self.world = self.world._replace(timings=both([as_lists(table) for table in tables]))


def both(tables: list[StepTable]) -> tuple[StepTable, StepTable]:
    """The tables of two pools, also where there is one, so that compiled code always has the same types."""
    return tables[0], tables[-1]


def _request(arrival_s: float, isl: int, osl: int, hit: int) -> Request:
    """A request of a trace; how much of its prompt is cached is known once it comes to a worker."""
    request = Request(isl, osl, arrival_s)
    request.cached = hit
    return request
