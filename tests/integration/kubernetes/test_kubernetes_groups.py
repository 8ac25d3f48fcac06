"""Groups of pods from their start to their end, in each layout of LeaderWorkerSets: counted right, within a budget.

The controllers are stand-ins, see ``tests.support.kubernetes.stand_ins``; the API server is real.
"""

from __future__ import annotations

import time

import pytest

from dynamo_planner import GpuBudget, Planner, Replicas, Snapshot
from dynamo_planner.core.metrics import Traffic
from dynamo_planner.core.snapshot import Observation
from dynamo_planner.executors.kubernetes import KubernetesExecutor, pods
from tests.support.kubernetes.cluster import Place
from tests.support.kubernetes.objects import executor_of, graph, replicas_of, scaled
from tests.support.kubernetes.stand_ins import Groups, Node, unschedulable

BUDGET = 64
GPUS_A_POD = 8


class Busy:
    """A source of some traffic."""

    def observe(self, at_s: float) -> Observation:
        return Observation(traffic=Traffic(requests_per_s=5.0))


def decode_of(executor: KubernetesExecutor) -> Replicas:
    """The replicas of the pool."""
    decode = executor.observe()["decode"]
    assert decode is not None, executor.unknown
    return decode


@pytest.mark.parametrize("one_set", [True, False])
@pytest.mark.parametrize("by_index_alone", [False, True], ids=["", "read wrongly"])
def test_a_budget_holds_at_its_peak(
    kubernetes: Place, monkeypatch: pytest.MonkeyPatch, one_set: bool, by_index_alone: bool
) -> None:
    """3 replicas of 16 GPUs fall to 1, and while two of them drain the policy wants 4, with a budget of 64.

    A reading by the group's index alone takes all groups of the sets for one, and breaks the budget: the stand-ins
    show it.
    """
    if by_index_alone:
        monkeypatch.setattr(pods, "INDEX_LABELS", dict.fromkeys(pods.INDEX_LABELS, "none"))
    kubernetes.create(graph(Decode=3))
    groups, node = Groups(kubernetes, one_set), Node(kubernetes)
    for _ in range(2):
        groups.reconcile(3)
    for group in range(3):
        for pod in (groups.leader(group), groups.worker(group)):
            node.bind(pod)
            node.ready(pod)
    groups.reconcile(3)
    executor = executor_of(kubernetes, {"decode": scaled(name="llama")})
    assert decode_of(executor) == Replicas(ready=3, starting_since_s=())

    wanted, peak = {"decode": 1}, 0

    def policy(snapshot: Snapshot) -> dict[str, int]:
        return wanted

    for wanted["decode"] in (1, 4, 4):
        Planner(policy | GpuBudget(max_gpus=BUDGET), Busy(), executor).step()
        target = replicas_of(kubernetes, "Decode")
        groups.reconcile(target)
        leaving = sum("deletionTimestamp" in pod["metadata"] for pod in kubernetes.list("v1", "Pod"))
        peak = max(peak, GPUS_A_POD * (2 * target + leaving))
    misread = by_index_alone and not one_set
    assert decode_of(executor).draining == (1 if misread else 2)
    assert peak == (80 if misread else 64)


def test_a_group_whose_leader_goes_first_starts_with_it_and_is_no_rollout(kubernetes: Place) -> None:
    kubernetes.create(graph(Decode=1))
    groups, node = Groups(kubernetes, one_set=True, leader_first=True), Node(kubernetes)
    groups.reconcile(1)
    executor = executor_of(kubernetes, {"decode": scaled(name="llama")})
    leader, worker = groups.leader(0), groups.worker(0)
    (since_s,) = decode_of(executor).starting_since_s or ()
    node.bind(leader)
    time.sleep(1.1)  # times are whole seconds
    node.ready(leader)
    for _ in range(2):
        groups.reconcile(1)
    unschedulable(kubernetes, worker, "0/4 nodes are available: 4 Insufficient nvidia.com/gpu.")
    assert decode_of(executor) == Replicas(ready=0, starting=1, starting_since_s=(since_s,))
    (reason,) = executor.troubles
    assert reason.code == "Unschedulable"
    assert "4 Insufficient nvidia.com/gpu." in reason.message
    node.bind(worker)
    node.ready(worker)
    groups.reconcile(1)
    assert decode_of(executor) == Replicas(ready=1, starting_since_s=())
    assert list(executor.troubles) == []


def test_pods_of_a_dead_node_block_no_budget(kubernetes: Place) -> None:
    """They stay Terminating for ever; a new group starts in their place within a budget of one."""
    kubernetes.create(graph(Decode=1))
    groups, node = Groups(kubernetes, one_set=False), Node(kubernetes)
    for _ in range(2):
        groups.reconcile(1)
    gone = (groups.leader(0), groups.worker(0))
    for pod in gone:
        node.bind(pod)
        node.ready(pod)
    groups.reconcile(1)
    clock = [time.time()]
    executor = executor_of(kubernetes, {"decode": scaled(name="llama")}, clock=lambda: clock[0])
    assert decode_of(executor) == Replicas(ready=1, starting_since_s=())
    node.lose(*gone)
    groups.reconcile(1)
    clock[0] += 10.0
    lost = decode_of(executor)
    assert (lost.ready, lost.starting, lost.draining) == (0, 1, 0)
    assert [reason.code for reason in executor.troubles] == ["NodeLost"]
    assert lost.starting_since_s == (clock[0],), "what is missing has been since it went, not since the target was set"
