"""Three models as graphs in three namespaces of a real API server, under one budget, through troubles."""

from __future__ import annotations

import math
import time
from contextlib import ExitStack
from pathlib import Path

from dynamo_planner import Snapshot, Traffic
from dynamo_planner.core.snapshot import Observation
from dynamo_planner.executors.kubernetes import KubernetesExecutor
from dynamo_planner.fleet import Budget, Fleet, Member
from dynamo_planner.runtime import FleetPlanner, Planner
from tests.support.kubernetes.cluster import Place, new_place
from tests.support.kubernetes.control_plane import ControlPlane
from tests.support.kubernetes.objects import GRAPH, executor_of, graph, replicas_of, scaled, settle, version_of

GPUS = 12


class Rates:
    """A source for each model: its arrivals, ``None`` where its metrics are dead."""

    def __init__(self, rates: dict[str, float | None], name: str) -> None:
        self.rates, self.name = rates, name

    def observe(self, at_s: float) -> Observation:
        return Observation(traffic=Traffic(requests_per_s=self.rates[self.name], window_s=10))


def by_rate(snapshot: Snapshot) -> dict[str, int | None]:
    rate = snapshot.traffic.requests_per_s
    return {"decode": None if rate is None else math.ceil(rate / 10)}


def test_three_graphs_share_gpus_while_metrics_gpus_and_a_model_are_lost(
    control_plane: ControlPlane, tmp_path: Path
) -> None:
    """Six replicas of two GPUs. Chat wants 3, batch 2 and code 1; each loss moves no other model the wrong way."""
    rates: dict[str, float | None] = {"chat": 30, "batch": 20, "code": 10}
    places: dict[str, Place] = {}
    clock = {"s": time.time()}
    with ExitStack() as stack:

        def started(name: str, replicas: int) -> Planner:
            places[name] = new_place(control_plane, tmp_path)
            places[name].create(graph(Frontend=1, Decode=replicas))
            settle(places[name], Frontend=1, Decode=replicas)
            executor: KubernetesExecutor = executor_of(places[name], {"decode": scaled(name="llama")})
            stack.enter_context(executor)
            return Planner(by_rate, Rates(rates, name), executor, clock=lambda: clock["s"], name=name)

        planners = {name: started(name, 2) for name in rates}

        def fleet() -> Fleet:
            return Fleet(
                models={name: Member(policy=by_rate) for name in planners}, budgets={"gpu": Budget(total=GPUS)}
            )

        loop = FleetPlanner(fleet(), planners, clock=lambda: clock["s"])

        def ticks(count: int, **ready: int) -> dict[str, int]:
            """What the specs say after some ticks, in which all starts and ends are done but for the ``ready`` ones."""
            for _ in range(count):
                clock["s"] += 10
                loop.step()
                found = {name: replicas_of(places[name], "Decode") for name in planners}
                assert 2 * sum(found.values()) <= GPUS
                for name, own in found.items():
                    settle(places[name], Frontend=1, Decode=ready.get(name, own))
            return found

        assert ticks(1) == {"chat": 2, "batch": 2, "code": 1}, "what code gives up is still held"
        assert ticks(1) == {"chat": 3, "batch": 2, "code": 1}
        rates |= {"chat": None, "batch": 40}
        assert ticks(2) == {"chat": 3, "batch": 2, "code": 1}, "dead metrics of chat: it keeps what it has"
        assert ticks(2, code=0) == {"chat": 3, "batch": 2, "code": 1}, "code lost its GPUs: they stay counted"
        del planners["chat"]
        places.pop("chat").delete(version_of("components"), GRAPH, "llama")
        loop.set_models(fleet(), planners)
        assert ticks(2) == {"batch": 4, "code": 1}
        rates["chat"] = 20
        planners["chat"] = started("chat", 1)
        loop.set_models(fleet(), planners)
        assert ticks(2) == {"chat": 1, "batch": 4, "code": 1}, "a model that is added has what is left"
