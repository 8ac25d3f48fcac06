"""Small simulated clusters, and requests for them, for tests by hand."""

from __future__ import annotations

from typing import Any

import numpy as np

from dynamo_planner import ScaleTo
from dynamo_planner.simulator.cluster import SimulatedCluster
from dynamo_planner.simulator.engine.step_time import LinearTiming
from dynamo_planner.simulator.setup import ClusterSetup
from dynamo_planner.workloads.trace import Trace

TIMING = LinearTiming(base_ms=10, prefill_ms_per_token=0.1, kv_ms_per_token=0)
OPTIONS: dict[str, Any] = {"startup_s": 30.0, "gpus": 2, "kv_tokens": 50_000}


def aggregated(replicas: int = 2, **options: Any) -> ClusterSetup:
    return ClusterSetup.aggregated(TIMING, replicas, **{**OPTIONS, **options})


def disaggregated(prefill: int = 2, decode: int = 2, **options: Any) -> ClusterSetup:
    return ClusterSetup.disaggregated(TIMING, prefill, decode, **{**OPTIONS, **options})


def cluster(setup: ClusterSetup, trace: Trace, **options: Any) -> SimulatedCluster:
    return SimulatedCluster(setup, trace, compiled=False, **options)


def requests(arrival_s: Any, isl: list[int], osl: list[int], **more: Any) -> Trace:
    return Trace(np.asarray(arrival_s, float), np.asarray(isl), np.asarray(osl), **more)


def one(isl: int = 400, osl: int = 3, at_s: float = 1.0) -> Trace:
    return requests([at_s], [isl], [osl])


def scale(made: SimulatedCluster, pool: str, replicas: int) -> None:
    (outcome,) = made.executor.apply([ScaleTo(pool=pool, replicas=replicas)])
    assert outcome.status == "applied"
