"""A graph under random troubles: three at random times, and after the last of them all is as the policy wants.

The API server, the planner's loop and its executor are real; operator, scheduler, kubelets and clients are stand-ins
that do one step at a time (:mod:`tests.support.kubernetes.stand_ins`, :mod:`tests.support.kubernetes.graph_requests`),
and the planner's requests go through a proxy that can fail them. What holds at any time: the pods hold no more GPUs
than the budget, but for what others request, and no request is lost but where a trouble took its pods.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from dynamo_planner import GpuBudget, Observation, Planner, Replicas, Snapshot, Traffic
from dynamo_planner.sources import SourceError
from tests.support.kubernetes.cluster import MERGE, Place
from tests.support.kubernetes.control_plane import StatusError
from tests.support.kubernetes.faulty_proxy import Fault, Proxy, Rule
from tests.support.kubernetes.graph_cluster import COMPONENTS, VERSION, Cluster
from tests.support.kubernetes.objects import GRAPH, executor_of, graph, replicas_of, scaled, timestamp
from tests.support.kubernetes.stand_ins import Node

GPUS, BUDGET = 2, 12
STEP_S = 0.1
TROUBLED_S = 3.0
"""Troubles begin within this time."""

WHOLE_WITHIN_S = 45.0
"""Seconds from the end of the last trouble until the pools are as the policy wants; it takes 1 to 6."""

SHORT = {"failed_after_s": 2.0, "rolls_within_s": 2.0}


class Service:
    """One run: what is wanted, what is wrong, and the planner of now."""

    def __init__(self, place: Place, proxy: Proxy, chance: random.Random) -> None:
        self.place, self.proxy, self.chance = place, proxy, chance
        self.cluster = Cluster(place)
        self.wanted = {"prefill": 1, "decode": 2}
        self.metrics = self.alone = True
        self.faults: list[Rule] = []
        self.usual: dict[str, Any] = {}
        self.mends: list[tuple[float, Callable[[], Any]]] = []
        proxy.rule = self._rule
        place.create(graph(gpus=GPUS, Prefill=1, Decode=2))
        self.start()

    def start(self) -> None:
        """A planner, the first one or the next after a kill."""
        spec = {"gpus": GPUS, "startup_s": 1}
        pools = {pool: scaled(pool, spec, name="llama", **SHORT) for pool in COMPONENTS}
        given: dict[str, Any] = {"yield_s": 2.0, "patience_s": 0.5, "spacing_s": 0.3, "waits": True}
        self.executor = executor_of(self.place, pools, url=self.proxy.url, **given).start()
        self.planner = Planner(self.policy | GpuBudget(max_gpus=BUDGET), self, self.executor)

    def policy(self, snapshot: Snapshot) -> dict[str, int]:
        return self.wanted

    def observe(self, at_s: float) -> Observation:
        if not self.metrics:
            raise SourceError("the metrics are away")
        return Observation(traffic=Traffic(requests_per_s=1.0))

    def _rule(self, method: str, path: str) -> Fault | None:
        return next((fault for rule in self.faults if (fault := rule(method, path)) is not None), None)

    def step(self) -> None:
        """Mend what has lasted long enough, one step of the loop and of the cluster, and what holds at any time."""
        for due_s, mend in [each for each in self.mends if each[0] <= time.monotonic()]:
            mend()
            self.mends.remove((due_s, mend))
        self.planner.step()
        self.cluster.step()
        pods = [pod["metadata"]["name"] for pod in self.place.list("v1", "Pod")]
        held = GPUS * len([pod for pod in pods if pod not in self.cluster.lost])
        assert held <= BUDGET or not self.alone, f"{held} GPUs of {BUDGET}: {pods}"

    def is_whole(self) -> bool:
        """Whether the graph and its pods are as the policy wants, and nothing is reported."""
        replicas = self.executor.observe()
        return not self.executor.troubles and all(
            replicas[pool] == Replicas(ready=count, starting_since_s=())
            and replicas_of(self.place, COMPONENTS[pool]) == count
            for pool, count in self.wanted.items()
        )

    def later(self, mend: Callable[[], Any]) -> None:
        """Mend this trouble after a random time."""
        self.mends.append((time.monotonic() + self.chance.uniform(0.5, 4.0), mend))

    def failing(self, rule: Rule) -> None:
        """Have the planner's requests fail for a while."""
        self.faults.append(rule)
        self.later(lambda: self.faults.remove(rule))

    def for_a_while(self, of: Any, name: str, value: Any) -> None:
        """Set an attribute, and later to what it was before all troubles."""
        usual = self.usual.setdefault(name, getattr(of, name))
        setattr(of, name, value)
        self.later(lambda: setattr(of, name, usual))

    def hits(self, *components: str) -> None:
        """Excuse the requests of components that a trouble takes the pods of."""
        self.cluster.requests.hit += [(component, time.monotonic()) for component in components]


def _load_moves(service: Service) -> None:
    service.wanted = {"prefill": service.chance.randint(1, 2), "decode": service.chance.randint(1, 4)}


def _edited(service: Service) -> None:
    """A person sets other replicas."""
    service.alone = False
    parts = [{"name": each, "type": pool, "replicas": 2} for pool, each in COMPONENTS.items()]
    path = service.place.path(VERSION, GRAPH, "llama") + "?fieldManager=kubectl-edit"
    with suppress(StatusError):  # it is deleted just now
        service.place.server.request("PATCH", path, {"spec": {"components": parts}}, content_type=MERGE)


def _created_anew(service: Service) -> None:
    service.hits(*COMPONENTS.values())
    with suppress(StatusError):
        service.place.delete(VERSION, GRAPH, "llama")
    service.later(lambda: service.place.create(graph(gpus=GPUS, Prefill=1, Decode=2)))


def _second_planner(service: Service) -> None:
    service.alone = False
    loop = Planner(
        lambda snapshot: {"decode": 3}, service, executor_of(service.place, {"decode": scaled(name="llama")})
    )
    loop.step()
    service.later(loop.step)


def _autoscaler(service: Service) -> None:
    reference = {"apiVersion": VERSION, "kind": GRAPH, "name": "llama"}
    spec = {"maxReplicas": 9, "scaleTargetRef": reference}
    path = f"/apis/autoscaling/v1/namespaces/{service.place.namespace}/horizontalpodautoscalers"
    service.place.server.request("POST", path, {"metadata": {"name": "theirs"}, "spec": spec})
    service.later(lambda: service.place.server.request("DELETE", f"{path}/theirs"))


def _pod(service: Service) -> str | None:
    pods = [pod for pod in service.place.list("v1", "Pod") if "deletionTimestamp" not in pod["metadata"]]
    bound = [pod["metadata"] for pod in pods if "nodeName" in pod["spec"]]
    if not bound:
        return None
    about = service.chance.choice(bound)
    service.hits(about["labels"]["nvidia.com/dynamo-component"])
    return str(about["name"])


def _node_lost(service: Service) -> None:
    """The node of one pod; once it is deleted, its pods are gone."""
    if name := _pod(service):
        service.cluster.lost.add(name)
        Node(service.place).lose(name)
        service.later(lambda: service.place.delete("v1", "Pod", name))


def _blip(service: Service) -> None:
    if name := _pod(service):
        Node(service.place).ready(name, ready=False)


def _killed(service: Service) -> None:
    service.start()


TROUBLES: dict[str, Callable[[Service], None]] = {
    "no answer": lambda service: service.failing(lambda method, path: Fault(503)),
    "answers are lost": lambda service: service.failing(
        lambda method, path: Fault(500, done_first=True) if method == "PATCH" else None
    ),
    "rights are away": lambda service: service.failing(
        lambda method, path: Fault(403) if "dynamographdeployments" in path else None
    ),
    "the operator is away": lambda service: service.for_a_while(service.cluster, "operates", False),
    "no node is free": lambda service: service.for_a_while(service.cluster, "schedules", False),
    "an image cannot be pulled": lambda service: service.for_a_while(service.cluster, "pulls", False),
    "a rollout hangs": lambda service: service.for_a_while(
        service.cluster, "rolling", {"phase": "InProgress", "startTime": timestamp()}
    ),
    "a rollout fails": lambda service: service.for_a_while(
        service.cluster, "rolling", {"phase": "Failed", "endTime": timestamp()}
    ),
    "the metrics are away": lambda service: service.for_a_while(service, "metrics", False),
    "the planner is killed": _killed,
    "the graph is created anew": _created_anew,
    "somebody edits": _edited,
    "a second planner": _second_planner,
    "an autoscaler": _autoscaler,
    "a node is lost": _node_lost,
    "a probe fails once": _blip,
    "the load moves": _load_moves,
}


def campaign(place: Place, proxy: Proxy, seed: int) -> tuple[list[str], float]:
    """One run: its troubles with their times, and the seconds until all was whole again after the last of them.

    Raises :class:`AssertionError` where it does not come to that.
    """
    chance = random.Random(seed)
    plan = sorted((chance.uniform(0.0, TROUBLED_S), name) for name in chance.sample(sorted(TROUBLES), 3))
    service = Service(place, proxy, chance)
    began_s, todo = time.monotonic(), list(plan)
    while todo or service.mends:
        while todo and todo[0][0] <= time.monotonic() - began_s:
            TROUBLES[todo.pop(0)[1]](service)
        service.step()
        time.sleep(STEP_S)
    ended_s = time.monotonic()
    while not service.is_whole():
        told = (service.executor.unknown, [str(reason) for reason in service.executor.troubles])
        assert time.monotonic() - ended_s < WHOLE_WITHIN_S, f"{plan}: {told}"
        service.step()
        time.sleep(STEP_S)
    requests = service.cluster.requests
    assert requests.begun > 0, f"{requests.begun} requests: {plan}"
    assert requests.unexcused() == [], f"requests were lost that could have been kept: {plan}"
    return [f"{name} at {at_s:.1f} s" for at_s, name in plan], time.monotonic() - ended_s
