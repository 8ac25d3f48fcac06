"""The world of a simulation as arrays of numpy records, moved by compiled rules (extra ``fast``)."""

from __future__ import annotations

import math
from collections import namedtuple
from functools import cache
from typing import Any

import numpy as np

from dynamo_planner.simulator.backends import NO_ENGINE, ObjectBackend, both
from dynamo_planner.simulator.compiled import compiled
from dynamo_planner.simulator.engine.event_log import ArrayEventLog
from dynamo_planner.simulator.engine.request import Request
from dynamo_planner.simulator.engine.state import EngineState, record_type
from dynamo_planner.simulator.engine.step_time_table import StepTable
from dynamo_planner.simulator.setup import ClusterSetup
from dynamo_planner.simulator.state import LATENCY_BUCKETS, ClusterState, PoolState, World
from dynamo_planner.workloads.trace import Trace

_Counted: Any = namedtuple("_Counted", list(record_type(ClusterState).names or ()))  # type: ignore[misc]


class RecordBackend(ObjectBackend):
    """The world as arrays of records, moved by compiled rules (extra ``fast``)."""

    def __init__(self, setup: ClusterSetup, trace: Trace) -> None:
        self._perform = compiled()
        super().__init__(setup, trace)
        self._cluster_row = np.asarray(self.world.cluster)

    def insert(self, before: np.ndarray, trace: Trace) -> None:
        w, more = self.world, np.zeros(len(trace))
        requests = np.insert(np.asarray(w.requests), before, np.asarray(self._requests_of(trace)))
        self.world = w._replace(
            requests=requests.view(np.recarray),  # type: ignore[arg-type]
            transfers=np.concatenate([np.asarray(w.transfers), more.astype(np.int64)]),  # type: ignore[arg-type]
            transfer_s=np.concatenate([np.asarray(w.transfer_s), more]),  # type: ignore[arg-type]
        )
        self.cluster.requests += len(trace)

    def _requests_of(self, trace: Trace) -> Any:
        requests = np.repeat(_records([Request(1, 1, 0.0)], "i4"), len(trace))
        requests["arrival_s"] = requests["queued_s"] = trace.arrival_s
        requests["isl"], requests["osl"] = trace.isl, trace.osl
        requests["cached"] = 0 if trace.prefix_hit is None else trace.prefix_hit
        requests["todo"] = trace.isl
        return requests.view(np.recarray)

    def _first_world(self, cluster: ClusterState, pools: list[PoolState], trace: Trace) -> World:
        return World(
            cluster=_records([cluster]),
            pools=_records(pools),
            members=np.zeros((len(pools), 0), np.int64),  # type: ignore[arg-type]
            engines=np.zeros(0, record_type(EngineState)).view(np.recarray),  # type: ignore[arg-type]
            decode_heaps=np.zeros((0, self._batch), np.int64),  # type: ignore[arg-type]
            next_event_s=np.zeros(0),  # type: ignore[arg-type]
            timings=both(self._tables),
            requests=self._requests_of(trace),
            transfers=np.zeros(len(trace), np.int64),  # type: ignore[arg-type]
            transfer_s=np.zeros(len(trace)),  # type: ignore[arg-type]
            ttft_counts=np.zeros(LATENCY_BUCKETS, np.int64),  # type: ignore[arg-type]
            itl_counts=np.zeros(LATENCY_BUCKETS, np.int64),  # type: ignore[arg-type]
            log=self._empty_log(),  # type: ignore[arg-type]
        )

    def counters(self) -> ClusterState:
        return _Counted._make(self._cluster_row[0].item())  # type: ignore[return-value]

    def column(self, name: str, requests: int) -> np.ndarray:
        return np.array(self.world.requests[name][:requests])  # type: ignore[call-overload]

    def _put(self, worker: int, state: EngineState) -> None:
        self.world.engines[worker] = _row(state)  # type: ignore[index]

    def _grow(self) -> None:
        w, more = self.world, max(len(self.world.next_event_s), 8)
        arrays: dict[str, Any] = {
            "engines": np.concatenate([w.engines, _records([NO_ENGINE] * more)]).view(np.recarray),
            "decode_heaps": np.concatenate([w.decode_heaps, np.zeros((more, self._batch), np.int64)]),
            "next_event_s": np.concatenate([w.next_event_s, np.full(more, math.inf)]),
            "members": np.concatenate([w.members, np.zeros((len(w.members), more), np.int64)], axis=1),
        }
        self.world = w._replace(**arrays)

    def _widen(self) -> None:
        heaps = np.asarray(self.world.decode_heaps)
        wider = np.zeros((len(heaps), self._batch), np.int64)
        wider[:, : heaps.shape[1]] = heaps
        self.world = self.world._replace(decode_heaps=wider, log=self._empty_log())  # type: ignore[arg-type]

    def _empty_log(self) -> ArrayEventLog:
        """A log with space for all that one call of the rules can note of one worker."""
        return ArrayEventLog.of(8 * self._batch + 64)

    def _time(self, tables: list[StepTable]) -> None:
        self.world = self.world._replace(timings=both(tables))


def _row(state: Any) -> tuple[Any, ...]:
    return tuple(getattr(state, name) for name in _names(type(state)))


_names: Any = cache(lambda state: record_type(state).names)


def _records(states: list[Any], whole: str = "i8") -> Any:
    return np.array([_row(state) for state in states], record_type(type(states[0]), whole)).view(np.recarray)
