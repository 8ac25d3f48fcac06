"""The state of a whole cluster, as Python objects or as arrays of records, and the rules that move it."""

from __future__ import annotations

import importlib.util
import math
from collections import namedtuple
from copy import copy
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from dynamo_planner.core.snapshot import WorkerStatus
from dynamo_planner.simulator import cluster_events as serving
from dynamo_planner.simulator import routing
from dynamo_planner.simulator.cluster_events import BUCKETS, World
from dynamo_planner.simulator.engine import step_runs as runs
from dynamo_planner.simulator.engine.engine import EngineLimits
from dynamo_planner.simulator.engine.request import NONE, Request
from dynamo_planner.simulator.engine.step_time_table import StepTable, as_lists, step_table
from dynamo_planner.simulator.gauges import Seen
from dynamo_planner.simulator.setup import ClusterSetup
from dynamo_planner.simulator.state import ClusterState, EngineState, Log, PoolState, record_type
from dynamo_planner.workloads.trace import Trace

ROUTING = {"least_loaded": routing.LEAST_LOADED, "round_robin": routing.ROUND_ROBIN, "hash": routing.HASH, "pull": 0}

_Counted: Any = namedtuple("_Counted", list(record_type(ClusterState).names or ()))  # type: ignore[misc]

NOTHING = EngineState(1, 1, 1)
"""What is in a place without a worker."""


def can_compile() -> bool:
    """Whether the extra ``fast`` is installed."""
    return importlib.util.find_spec("numba") is not None


class ObjectWorld:
    """The world as Python objects: for machines without numba, and to hold the compiled one against."""

    seen: list[Seen]
    """What the first and the last pool show at the time that the world has come to."""

    _perform: Any = staticmethod(serving.perform)

    def __init__(self, setup: ClusterSetup, trace: Trace) -> None:
        order = sorted(setup.pools, key=lambda name: setup.pools[name].spec.role == "decode")
        self.places = {name: place for place, name in enumerate(order)}
        """The places of the pools: the entry first."""
        self._pools = [setup.pools[name] for name in order]
        self._tables = [step_table(pool.timing, pool.limits) for pool in self._pools]
        self._limits = [pool.limits for pool in self._pools]
        self._batch = max(limits.max_num_seqs for limits in self._limits)
        self._free: list[int] = []
        cluster = ClusterState(len(trace))
        cluster.longest = min(limits.kv_tokens for limits in self._limits)
        cluster.transfer_s = setup.kv_transfer_s
        cluster.transfer_s_per_token = setup.kv_transfer_s_per_token
        cluster.max_local_prefill = setup.max_local_prefill
        pools = []
        for pool in self._pools:
            state = PoolState(ROUTING[pool.routing], pulls=pool.routing == "pull", onward=NONE)
            state.onward = 1 if pool.spec.role == "prefill" else NONE
            pools.append(state)
        self.world = self._made(cluster, pools, trace)
        self._make_room()
        self._do(serving.DISPATCH)

    def _made(self, cluster: ClusterState, pools: list[PoolState], trace: Trace) -> World:
        hits = [0] * len(trace) if trace.prefix_hit is None else trace.prefix_hit.tolist()
        columns = zip(trace.arrival_s.tolist(), trace.isl.tolist(), trace.osl.tolist(), hits, strict=True)
        return World(
            cluster=[cluster],
            pools=pools,
            members=[[] for _ in pools],
            engines=[],
            heaps=[],
            wakes=[],
            timings=_two([as_lists(table) for table in self._tables]),
            requests=[_request(*row) for row in columns],
            transfers=[0] * len(trace),
            transfer_s=[0.0] * len(trace),
            ttft_counts=[0] * BUCKETS,
            itl_counts=[0] * BUCKETS,
            log=Log(),
        )

    def serve(self, to_s: float) -> int:
        """Let everything happen up to and at this time, or up to the time at which a draining worker is empty; returns
        its place, or ``NONE``."""
        return self._do(serving.SERVE, to_s=to_s)

    def withdraw(self, worker: int) -> None:
        """The worker has crashed: what it had goes back to the router."""
        self._do(serving.WITHDRAW, worker)

    def add(self, pool: int, number: int, slowness: float) -> int:
        """A place for a new worker of a pool, which has nothing to do yet."""
        limits = self._limits[pool]
        state = EngineState(limits.max_num_seqs, limits.max_num_batched_tokens, limits.kv_tokens)
        state.prefill_only = self._pools[pool].spec.role == "prefill"
        state.slowness = slowness
        state.pool = pool
        state.number = number
        if not self._free:
            self._make_room()
        worker = self._free.pop()
        self._put(worker, state)
        return worker

    def remove(self, worker: int) -> None:
        """The worker is gone, and had nothing to do any more."""
        self._put(worker, NOTHING)
        self.world.wakes[worker] = math.inf
        self._free.append(worker)

    def join(self, worker: int) -> None:
        """The worker takes requests from now on, beginning with those that wait in front of its pool."""
        pool = int(self.engine(worker).pool)
        state = self.pool(pool)
        self.world.members[pool][state.members] = worker
        state.members += 1
        self._do(serving.DISPATCH, pool)

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

    def limit(self, pool: int, limits: EngineLimits, *, present: bool) -> None:
        """Give the engines of a pool that are to come other limits, and with ``present`` those that are there."""
        self._limits[pool] = limits
        largest = self._tables[pool].batch_corner, self._tables[pool].prompt_corner
        if limits.max_num_seqs >= len(largest[0]) or limits.max_num_batched_tokens >= len(largest[1]):
            self._tables[pool] = step_table(self._pools[pool].timing, limits)
            self._time(self._tables)
        if limits.max_num_seqs > self._batch:
            self._batch = limits.max_num_seqs
            self._widen()
        for worker in range(len(self.world.wakes)) if present else ():
            state = self.engine(worker)
            if state.pool == pool and worker not in self._free:
                state.max_num_seqs, state.max_num_batched_tokens = limits.max_num_seqs, limits.max_num_batched_tokens
                self._do(serving.REPLAN, worker)

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
        released, *self.seen = self._perform(self.world, what, which, to_s)
        return int(released)

    def counters(self) -> ClusterState:
        """What the cluster has counted so far: a copy."""
        return copy(self.cluster)

    def status(self, worker: int) -> WorkerStatus:
        """What a worker shows of itself now."""
        e = self.engine(worker)
        now_s = float(self.cluster.now_s)
        steps = runs.done(e, now_s) if e.steps else -1
        return WorkerStatus.unchecked(
            name=f"worker-{int(e.number)}",
            queued=float(e.waiting),
            running=float(e.running),
            kv_usage=max(float(e.kv + e.decoding * steps) / float(e.kv_tokens), 0.0),
            kv_capacity_tokens=float(e.kv_tokens),
            observed_at_s=now_s,
        )

    def column(self, name: str, requests: int) -> np.ndarray:
        """A field of the first so many requests."""
        return np.array([getattr(request, name) for request in self.world.requests[:requests]])

    def _make_room(self) -> None:
        before = len(self.world.wakes)
        self._grow()
        self._free = list(range(len(self.world.wakes) - 1, before - 1, -1))

    def _put(self, worker: int, state: EngineState) -> None:
        self.world.engines[worker] = state  # type: ignore[index]

    def _grow(self) -> None:
        self.world.engines.append(NOTHING)  # type: ignore[attr-defined]
        self.world.heaps.append([0] * self._batch)  # type: ignore[attr-defined]
        self.world.wakes.append(math.inf)
        for members in self.world.members:
            members.append(0)

    def _widen(self) -> None:
        for heap in self.world.heaps:
            heap.extend([0] * (self._batch - len(heap)))

    def _time(self, tables: list[StepTable]) -> None:
        self.world = self.world._replace(timings=_two([as_lists(table) for table in tables]))


class RecordWorld(ObjectWorld):
    """The world as arrays of records, moved by compiled rules (extra ``fast``)."""

    def __init__(self, setup: ClusterSetup, trace: Trace) -> None:
        from dynamo_planner.simulator.compiled import compiled  # noqa: PLC0415

        self._perform = compiled()
        super().__init__(setup, trace)
        self._cluster_row = np.asarray(self.world.cluster)

    def _made(self, cluster: ClusterState, pools: list[PoolState], trace: Trace) -> World:
        requests = np.zeros(len(trace), record_type(Request, "i4"))
        for name in ("scheduled_s", "prefilled_s", "first_token_s", "finished_s"):
            requests[name] = math.nan
        for name in ("next", "pool", "worker"):
            requests[name] = NONE
        requests["arrival_s"] = trace.arrival_s
        requests["isl"], requests["osl"] = trace.isl, trace.osl
        requests["cached"] = 0 if trace.prefix_hit is None else trace.prefix_hit
        requests["todo"] = trace.isl
        room = 8 * self._batch + 64
        return World(
            cluster=_records([cluster]),
            pools=_records(pools),
            members=np.zeros((len(pools), 0), np.int64),  # type: ignore[arg-type]
            engines=np.zeros(0, record_type(EngineState)).view(np.recarray),  # type: ignore[arg-type]
            heaps=np.zeros((0, self._batch), np.int64),  # type: ignore[arg-type]
            wakes=np.zeros(0),  # type: ignore[arg-type]
            timings=_two(self._tables),
            requests=requests.view(np.recarray),  # type: ignore[arg-type]
            transfers=np.zeros(len(trace), np.int64),  # type: ignore[arg-type]
            transfer_s=np.zeros(len(trace)),  # type: ignore[arg-type]
            ttft_counts=np.zeros(BUCKETS, np.int64),  # type: ignore[arg-type]
            itl_counts=np.zeros(BUCKETS, np.int64),  # type: ignore[arg-type]
            log=_array_log(room),
        )

    def counters(self) -> ClusterState:
        return _Counted._make(self._cluster_row[0].item())  # type: ignore[return-value]

    def column(self, name: str, requests: int) -> np.ndarray:
        return np.array(self.world.requests[name][:requests])  # type: ignore[call-overload]

    def _put(self, worker: int, state: EngineState) -> None:
        self.world.engines[worker] = _row(state)  # type: ignore[index]

    def _grow(self) -> None:
        w, more = self.world, max(len(self.world.wakes), 8)
        arrays: dict[str, Any] = {
            "engines": np.concatenate([w.engines, _records([NOTHING] * more)]).view(np.recarray),
            "heaps": np.concatenate([w.heaps, np.zeros((more, self._batch), np.int64)]),
            "wakes": np.concatenate([w.wakes, np.full(more, math.inf)]),
            "members": np.concatenate([w.members, np.zeros((len(w.members), more), np.int64)], axis=1),
        }
        self.world = w._replace(**arrays)

    def _widen(self) -> None:
        heaps = np.asarray(self.world.heaps)
        wider = np.zeros((len(heaps), self._batch), np.int64)
        wider[:, : heaps.shape[1]] = heaps
        room = 8 * self._batch + 64
        self.world = self.world._replace(heaps=wider, log=_array_log(room))  # type: ignore[arg-type]

    def _time(self, tables: list[StepTable]) -> None:
        self.world = self.world._replace(timings=_two(tables))


class _ArrayLog(NamedTuple):
    """A :class:`~dynamo_planner.simulator.state.Log` of arrays."""

    size: np.ndarray
    at_s: np.ndarray
    kind: np.ndarray
    request: np.ndarray


def _array_log(room: int) -> Any:
    return _ArrayLog(np.zeros(1, np.int64), np.zeros(room), np.zeros(room, np.int64), np.zeros(room, np.int64))


def _two(tables: list[StepTable]) -> tuple[StepTable, StepTable]:
    """The tables of two pools, also where there is one, so that compiled code always has the same types."""
    return tables[0], tables[-1]


def _request(arrival_s: float, isl: int, osl: int, hit: int) -> Request:
    request = Request(isl, osl, arrival_s)
    request.cached = hit
    return request


def _row(state: Any) -> tuple[Any, ...]:
    return tuple(getattr(state, name) for name in _names(type(state)))


_names: Any = cache(lambda state: record_type(state).names)


def _records(states: list[Any]) -> Any:
    return np.array([_row(state) for state in states], record_type(type(states[0]))).view(np.recarray)
