"""A planner that starts before its graph, its rights or its API server waits, with the reason."""

from __future__ import annotations

import time
from typing import Any

import pytest

from dynamo_planner import Planner
from dynamo_planner.core.metrics import Traffic
from dynamo_planner.core.snapshot import Observation
from dynamo_planner.executors import ExecutorError
from dynamo_planner.executors.kubernetes import Election
from tests.support.kubernetes.cluster import Place
from tests.support.kubernetes.faulty_proxy import Fault, Proxy
from tests.support.kubernetes.objects import api_of, executor_of, graph, replicas_of, scaled, settle


class Busy:
    """A source of some traffic."""

    def observe(self, at_s: float) -> Observation:
        return Observation(traffic=Traffic(requests_per_s=5.0))


def test_it_waits_for_server_rights_graph_and_status(kubernetes: Place, proxy: Proxy) -> None:
    election = Election(api_of(kubernetes, url=proxy.url), kubernetes.namespace, "planner", lease_s=3)
    pools = {"decode": scaled(name="llama")}
    proxy.rule = lambda method, path: Fault(503)
    ago = [0.0]
    given: dict[str, Any] = {"election": election, "waits": True, "clock": lambda: time.time() - ago[0]}
    with executor_of(kubernetes, pools, url=proxy.url, **given) as executor:
        planner = Planner(lambda snapshot: {"decode": 2}, Busy(), executor)

        def told() -> str:
            return "\n".join(str(reason) for reason in planner.step().decision.reasons)

        ago[0] = 100.0
        assert "503" in told()
        ago[0] = 0.0
        assert "ApiServerFailed: for 10" in told(), "after a minute, also where nothing at all could be read"
        proxy.rule = lambda method, path: Fault(403) if "dynamographdeployments" in path else None
        assert "403" in told()
        proxy.rule = lambda method, path: None
        assert "there is no dynamographdeployments 'llama'" in told()
        kubernetes.create(graph(gpus=0, Decode=1))
        assert "ReplicasUnknown" in told()
        assert "does not say how many GPUs a replica has" in executor.unknown["decode"]
        settle(kubernetes, more={"components": {"Decode": {"readyReplicas": 1, "gpusPerReplica": 16}}})
        kubernetes.until(lambda: executor.leading)
        assert planner.step().outcomes[0].status == "applied"
    assert executor.pools["decode"].gpus == 16
    assert replicas_of(kubernetes, "Decode") == 2


def test_what_never_passes_is_an_error_at_the_start(kubernetes: Place) -> None:
    kubernetes.create(graph(Decode=1))
    executor = executor_of(kubernetes, {"decode": scaled(name="llama", component="Vllm")}, waits=True)
    with pytest.raises(ExecutorError, match="it has no component 'Vllm'"):
        executor.start()
