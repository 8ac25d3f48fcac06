"""The demo's policy and trace on Kubernetes: ``dynamo-planner run`` scales graphs of every shape up and down again.

The API server is real (a proxy in front of it hides ``v1beta1`` from the planner of the oldest shape), and so are the
planner, the workers (simulated engines, as processes that speak HTTP) and the
requests. What stands in for Dynamo's operator and the kubelet is :mod:`tests.support.kubernetes.graph_operator`.
"""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from dynamo_planner.core.decision import ScaleTo
from dynamo_planner.core.snapshot import Role
from dynamo_planner.demo.fit import EngineFit, fit
from dynamo_planner.demo.load import MODEL, LoadClient, TraceRequest
from dynamo_planner.demo.record import Recording
from dynamo_planner.demo.router import Router
from dynamo_planner.demo.stage import DemoStage, load_policy
from dynamo_planner.mock_workers.main import WorkerOptions
from dynamo_planner.runtime.decision_log import Step, read_log
from dynamo_planner.workloads.generators import burst_and_lull
from tests.support.cli import running
from tests.support.kubernetes.cluster import Place, new_place
from tests.support.kubernetes.control_plane import ControlPlane, free_port
from tests.support.kubernetes.faulty_proxy import Fault, Proxy
from tests.support.kubernetes.graph_operator import ADAPTER, GRAPH, GraphOperator
from tests.support.paths import EXAMPLES

RBAC = EXAMPLES / "kubernetes" / "rbac.yaml"
METRICS_PORT = free_port()
LENGTH_S = 20.0
ADJUSTED_EVERY_S = 2.0
STARTS_WITHIN_S, SETTLES_WITHIN_S = 120.0, 45.0
"""Far more than it takes: so long that only something that hangs fails."""

ROLES: dict[str, Role] = {"prefill": "prefill", "decode": "decode", "worker": "aggregated"}
"""The roles of the components' types."""


@dataclass(frozen=True)
class Shape:
    """How a graph is written."""

    version: str
    field: str
    has_adapter: bool = False

    def manifests(self, name: str, kinds: list[str]) -> list[dict[str, Any]]:
        """A graph with a frontend and one component of each kind, and a scaling adapter for the first of these."""
        types = {"Frontend": "frontend", **{f"Vllm{kind.title()}": kind for kind in kinds}}
        if self.field == "components":
            spec: Any = [{"name": each, "type": kind, "replicas": 1} for each, kind in types.items()]
        else:
            spec = {
                each: {"componentType": kind, "replicas": 1}
                if kind in {"frontend", "worker"}
                else {"componentType": "worker", "subComponentType": kind, "replicas": 1}
                for each, kind in types.items()
            }
        graph = {
            "apiVersion": f"nvidia.com/{self.version}",
            "kind": GRAPH,
            "metadata": {"name": name},
            "spec": {self.field: spec},
        }
        scaled = f"Vllm{kinds[0].title()}"
        adapter = {
            "apiVersion": f"nvidia.com/{self.version}",
            "kind": ADAPTER,
            "metadata": {"name": f"{name}-{scaled.lower()}"},
            "spec": {"replicas": 1, "dgdRef": {"name": name, "componentName": scaled}},
        }
        return [graph, adapter] if self.has_adapter else [graph]


SHAPES = {
    "components": Shape("v1beta1", "components", has_adapter=True),
    "early": Shape("v1beta1", "services"),
    "alpha": Shape("v1alpha1", "services"),
}


class Served:
    """One graph: its operator, its planner, a router before its workers, and clients."""

    def __init__(self, shape: str, place: Place, url: str | None, kinds: list[str], fitted: EngineFit) -> None:
        self.shape, self.place, self.url, self.kinds, self.fitted = SHAPES[shape], place, url, kinds, fitted
        self.name = f"llama-{shape}"
        self.token = self._rights()
        self.log = place.tmp / f"{shape}.jsonl"
        self.config = place.tmp / f"{shape}.json"
        self.config.write_text(json.dumps(self._config()))
        self.recording = Recording(shape, fitted.sla, ())
        self.told = ""

    def _rights(self) -> str:
        """The token of the service account of ``examples/kubernetes/rbac.yaml``, with its rights and no others."""
        for manifest in yaml.safe_load_all(RBAC.read_text()):
            self.place.create(manifest)
        return self.place.token("dynamo-planner")

    def _config(self) -> dict[str, Any]:
        spec = {"gpus": 0, "max_replicas": 2, "startup_s": 10}
        pools = {
            kind: {
                "spec": {**spec, "role": ROLES[kind]},
                "target": {"name": self.name},
                "metrics_port": METRICS_PORT,
            }
            for kind in self.kinds
        }
        return {
            "policy": load_policy(ADJUSTED_EVERY_S, self._stage()).model_dump(mode="json"),
            "executor": {
                "kind": "kubernetes",
                "kubeconfig": str(self.place.kubeconfig(url=self.url, token=self.token)),
                "pools": pools,
                "lease": {"name": "dynamo-planner", "seconds": 30},
                "events": True,
            },
            "source": {"window_s": 5},
            "interval_s": 1.0,
            "log": str(self.log),
        }

    def _stage(self) -> DemoStage:
        return DemoStage(pools={}, requests=self.fitted.requests, cut=self.fitted.cut, sla=self.fitted.sla, engines="")

    def _command(self, kind: str, host: str, port: str) -> list[str]:
        options = WorkerOptions(
            port=int(port),
            host=host,
            model=MODEL,
            role=ROLES[kind],
            startup_s=0.5,
            limits=self.fitted.limits,
            timing=self.fitted.timing,
        )
        return options.command()

    async def run(self) -> None:
        """Replay the trace, and wait until the planner has taken the workers away again."""
        for manifest in self.shape.manifests(self.name, self.kinds):
            self.place.create(manifest)
        with (
            GraphOperator(self.place, self._command, METRICS_PORT, self.shape.version) as operator,
            running(self.config) as planner,
        ):
            stages = [f"Vllm{kind.title()}" for kind in self.kinds]
            async with Router(lambda: operator.endpoints(self.name), stages) as router:
                await asyncio.wait_for(router.ready(), timeout=STARTS_WITHIN_S)
                client = LoadClient(router.url, self.recording, asyncio.get_running_loop().time())
                await client.replay(self.fitted.requests)
                await self._settled(operator)
            await asyncio.to_thread(self._end, planner)

    async def _settled(self, operator: GraphOperator) -> None:
        gives_up_s = asyncio.get_running_loop().time() + SETTLES_WITHIN_S
        while sum(map(len, operator.endpoints(self.name).values())) > len(self.kinds) or operator.is_draining:
            assert asyncio.get_running_loop().time() < gives_up_s, f"{self.name}: {explained(list(read_log(self.log)))}"
            await asyncio.sleep(0.1)

    def _end(self, planner: subprocess.Popen[str]) -> None:
        planner.send_signal(signal.SIGTERM)
        _, self.told = planner.communicate(timeout=30)
        assert planner.returncode == 0, self.told

    def check(self) -> None:
        """No request was lost, workers came and went, and nothing was refused or failed on the way."""
        lost = [record.lost for record in self.recording.requests if record.lost]
        assert not lost, f"{len(lost)} of {len(self.fitted.requests)} requests were lost: {lost[:3]}"
        assert len(self.recording.requests) == len(self.fitted.requests)
        assert self.token not in self.told + self.log.read_text()
        events = [each["reason"] for each in self.place.list("v1", "Event")]
        assert {"ScaledUp", "ScaledDown"} == set(events)
        steps = list(read_log(self.log))
        outcomes = [outcome for step in steps for outcome in step.outcomes]
        assert {outcome.status for outcome in outcomes} == {"applied"}, self.told
        moves = [outcome.action for outcome in outcomes if isinstance(outcome.action, ScaleTo)]
        grown = {move.pool for move in moves if move.replicas > (move.expected or 0)}
        shrunk = {move.pool for move in moves if move.replicas < (move.expected or 0)}
        assert grown, f"nothing was scaled up: {explained(steps)}"
        assert grown == shrunk, explained(steps)
        assert max(most_ready(steps, pool) for pool in grown) > 1


def most_ready(steps: list[Step], pool: str) -> int:
    seen = (step.snapshot.pools[pool].replicas for step in steps if pool in step.snapshot.pools)
    return max(replicas.ready for replicas in seen if replicas is not None)


def explained(steps: list[Step]) -> str:
    return "\n".join(step.decision.explain() for step in steps[-3:])


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kinds", [["worker"], ["prefill", "decode"]], ids=["aggregated", "disaggregated"])
def test_graphs_of_every_shape_grow_and_shrink_with_the_trace(
    kinds: list[str], control_plane: ControlPlane, proxy: Proxy, tmp_path: Path
) -> None:
    proxy.rule = lambda _, path: Fault(404) if path.startswith("/apis/nvidia.com/v1beta1/") else None
    trace = burst_and_lull(2, 7, seed=0, duration_s=LENGTH_S, length_scale=0.6)
    rows = zip(trace.arrival_s.tolist(), trace.isl.tolist(), trace.osl.tolist(), strict=True)
    requests = [TraceRequest(due_s, isl, 1 + osl // 4) for due_s, isl, osl in rows]
    fitted = fit(requests, disaggregated=len(kinds) > 1)
    served = [
        Served(shape, new_place(control_plane, tmp_path), proxy.url if shape == "alpha" else None, kinds, fitted)
        for shape in SHAPES
    ]

    async def serve_all() -> None:
        async with asyncio.TaskGroup() as group:
            for each in served:
                group.create_task(each.run())

    asyncio.run(serve_all())
    for each in served:
        each.check()
