"""From pods and counts to replicas, with nothing but data: each case is a moment in the life of a pool."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynamo_planner import Replicas
from dynamo_planner.executors.kubernetes.graph import component_of, read_component
from dynamo_planner.executors.kubernetes.pods import PodGroup, groups
from dynamo_planner.executors.kubernetes.replica_status import ReplicaReport, ReplicasUnknownError, count_replicas
from dynamo_planner.executors.kubernetes.troubles import Trouble
from dynamo_planner.executors.kubernetes.workload import read_workload
from tests.support.kubernetes.objects import pod, timestamp

NOW_S = 1_800_000_000.0


def counted(reading: ReplicaReport, pods: list[dict[str, Any]] | None, **given_times: float) -> Replicas:
    """The replicas at :data:`NOW_S`, of a target that was first seen 20 s ago."""
    times = {"at_s": NOW_S, "failed_after_s": 600.0, "target_since_s": NOW_S - 20.0, **given_times}
    return count_replicas(reading, None if pods is None else groups(pods), **times).replicas


def aged(age_s: float, name: str = "a", *, ready: bool = False, **status: Any) -> dict[str, Any]:
    """A pod that was created so long before :data:`NOW_S`."""
    made = pod(name, {}, ready=ready, **status)
    made["metadata"]["creationTimestamp"] = timestamp(NOW_S - age_s)
    made["status"]["conditions"][0]["lastTransitionTime"] = timestamp(NOW_S - (age_s / 2 if ready else age_s))
    return made


def stopped(age_s: float, changed_s: float, name: str = "a", **status: Any) -> dict[str, Any]:
    """A pod of an age that stopped being ready so many seconds before :data:`NOW_S`."""
    made = aged(age_s, name, **status)
    made["status"]["conditions"][0]["lastTransitionTime"] = timestamp(NOW_S - changed_s)
    return made


def leaving(overdue_s: float, name: str = "a", *, lost: bool = False) -> dict[str, Any]:
    """A pod whose grace period was over so many seconds before :data:`NOW_S`; the node of a lost one is gone."""
    made = stopped(9e4, overdue_s, name)
    made["metadata"]["deletionTimestamp"] = timestamp(NOW_S - overdue_s)
    made["status"]["conditions"].append({"type": "ContainersReady", "status": "True" if lost else "False"})
    return made


def member(owner: str, index: int, worker: int, made: dict[str, Any]) -> dict[str, Any]:
    """A pod as one of a group of two of a LeaderWorkerSet."""
    prefix = "leaderworkerset.sigs.k8s.io"
    labels = {f"{prefix}/name": owner, f"{prefix}/group-index": str(index), f"{prefix}/worker-index": str(worker)}
    made["metadata"].update(labels=labels, name=f"{owner}-{index}-{worker}", annotations={f"{prefix}/size": "2"})
    return made


@pytest.mark.parametrize(("age_s", "told"), [(599, []), (601, ["pod a: ContainerCreating"])])
def test_a_start_without_end_is_told_in_the_kubelets_words_and_stays_a_start(age_s: float, told: list[str]) -> None:
    """A volume that cannot be mounted: nothing but Events says so, and an image of 100 GB looks the same."""
    waiting = aged(age_s, containerStatuses=[{"name": "main", "state": {"waiting": {"reason": "ContainerCreating"}}}])
    found = count_replicas(
        ReplicaReport(target=1, ready=0), groups([waiting]), at_s=NOW_S, failed_after_s=600, target_since_s=NOW_S
    )
    assert [(trouble.code, trouble.message) for trouble in found.troubles] == [("StillStarting", each) for each in told]
    assert (found.replicas.starting, found.replicas.failed) == (1, 0)


def test_replicas_start_since_their_pod_was_created_and_without_one_since_the_target_was_seen() -> None:
    seen = counted(ReplicaReport(target=4, ready=1), [aged(500, "a", ready=True), aged(100, "b"), aged(300, "c")])
    assert seen == Replicas(ready=1, starting=3, starting_since_s=(NOW_S - 300, NOW_S - 100, NOW_S - 20), target=4)


def test_a_container_that_was_started_again_starts_since_it_was_last_ready() -> None:
    running = [{"name": "main", "restartCount": 1, "state": {"running": {}}}]
    assert counted(ReplicaReport(target=1, ready=0), [stopped(3600, 1800, containerStatuses=running)]) == Replicas(
        ready=0, starting=1, starting_since_s=(NOW_S - 1800,)
    )


def test_a_pod_that_stopped_being_ready_did_not_start_when_it_was_created() -> None:
    told = count_replicas(
        ReplicaReport(target=2, ready=1),
        groups([aged(9e4, "a", ready=True), stopped(9e4, 700, "b")]),
        at_s=NOW_S,
        failed_after_s=600.0,
        target_since_s=NOW_S - 9e4,
    )
    assert told.replicas == Replicas(ready=1, starting=1, starting_since_s=(NOW_S - 700,))
    assert told.troubles == (Trouble("NotReady", "pod b: not ready", NOW_S - 700),)


def test_a_pod_that_is_ready_and_not_yet_available_has_been_starting_since_it_was_created() -> None:
    young, old = aged(100, "young", ready=True), aged(9e4, "old", ready=True)
    assert counted(ReplicaReport(target=2, ready=1), [young, old]).starting_since_s == (NOW_S - 100,)


@pytest.mark.parametrize(
    ("overdue_s", "lost", "draining"), [(-20, True, 1), (20, True, 0), (20, False, 1), (700, False, 0)]
)
def test_pods_that_should_have_ended_hold_no_gpus_for_ever(overdue_s: float, lost: bool, draining: int) -> None:
    """A lost node's at once, others after ``failed_after_s``; within its grace period each one does."""
    pods = [aged(100, "new", ready=True), leaving(overdue_s, "old", lost=lost)]
    assert counted(ReplicaReport(target=1, ready=1), pods).draining == draining


def test_a_pod_on_a_lost_node_fails_with_that_word() -> None:
    pod = stopped(9e4, 700, "a")
    pod["status"]["conditions"].append({"type": "ContainersReady", "status": "True"})
    told = count_replicas(
        ReplicaReport(1, 0), groups([pod]), at_s=NOW_S, failed_after_s=600.0, target_since_s=NOW_S - 9e4
    )
    assert (told.replicas.failed, [trouble.code for trouble in told.troubles]) == (1, ["NodeLost"])


def test_pods_of_a_rollout_beyond_the_target_hold_gpus() -> None:
    pods = [aged(9e4, "a", ready=True), aged(9e4, "b", ready=True), aged(100, "new")]
    assert counted(ReplicaReport(target=2, ready=2), pods) == Replicas(ready=2, draining=1, starting_since_s=())


class TestGroups:
    """Groups of LeaderWorkerSets: one set for all replicas, and one for each (Dynamo's operator up to 0.8)."""

    @pytest.mark.parametrize("name", [("set", "set", "set"), ("set-0", "set-1", "set-2")])
    def test_a_group_is_known_by_its_set_and_its_index(self, name: tuple[str, ...]) -> None:
        of = [(name[n], n if name[0] == name[1] else 0) for n in range(3)]
        pods = [member(*of[0], worker, aged(9e4, ready=True)) for worker in range(2)]
        pods += [member(*of[1], worker, aged(300)) for worker in range(2)]
        pods += [member(*of[2], worker, aged(100)) for worker in range(2)]
        expected = Replicas(ready=1, starting=2, starting_since_s=(NOW_S - 300, NOW_S - 100))
        assert counted(ReplicaReport(target=3, ready=1), pods) == expected
        for each in pods[2:]:
            each["metadata"]["deletionTimestamp"] = timestamp(NOW_S + 30)
        assert counted(ReplicaReport(target=1, ready=1), pods) == Replicas(ready=1, draining=2, starting_since_s=())

    def test_without_its_workers_a_leader_is_no_ready_group(self) -> None:
        leader = member("set", 0, 0, aged(100, ready=True))
        assert counted(ReplicaReport(target=1, ready=None), [leader]).starting_since_s == (NOW_S - 100,)

    def test_workers_that_wait_for_their_leader_start_with_it_and_one_that_comes_anew_by_itself(self) -> None:
        leader = member("set", 0, 0, aged(400, ready=True))  # it became ready 200 s ago
        assert counted(ReplicaReport(1, 0), [leader, member("set", 0, 1, aged(199))]).starting_since_s == (NOW_S - 400,)
        assert counted(ReplicaReport(1, 0), [leader, member("set", 0, 1, aged(50))]).starting_since_s == (NOW_S - 50,)

    def test_a_group_that_starts_is_no_rollout(self) -> None:
        status: dict[str, Any] = {"observedGeneration": 5, "replicas": 3, "readyReplicas": 2, "updatedReplicas": 2}
        obj = {"metadata": {"generation": 5}, "spec": {"replicas": 3}, "status": status}
        assert read_workload("LeaderWorkerSet", obj) == ReplicaReport(target=3, ready=2)
        services = {"Decode": {"componentType": "worker", "subComponentType": "decode", "replicas": 3}}
        counts = {"Decode": {**status, "componentKind": "LeaderWorkerSet"}}
        graph = {"metadata": {"generation": 5}, "spec": {"services": services}}
        graph["status"] = {"observedGeneration": 5, "services": counts}
        assert read_component(graph, component_of(graph, "Decode", "decode")) == ReplicaReport(target=3, ready=2)
        status["conditions"] = [{"type": "UpdateInProgress", "status": "True", "message": "Rolling Upgrade"}]
        with pytest.raises(ReplicasUnknownError, match="Rolling Upgrade"):
            read_workload("LeaderWorkerSet", obj)


@pytest.mark.parametrize(("status", "ready"), [({"readyReplicas": 2}, 0), ({"availableReplicas": 1}, 1)])
def test_min_ready_seconds_count_what_is_available(status: dict[str, int], ready: int) -> None:
    obj = {"metadata": {}, "spec": {"replicas": 2, "minReadySeconds": 30}, "status": {"replicas": 2, **status}}
    assert read_workload("Deployment", {**obj, "status": {**obj["status"], "updatedReplicas": 2}}).ready == ready


@pytest.mark.parametrize(
    ("container", "failed"),
    [
        ({"restartCount": 1, "state": {"running": {}}, "lastState": {"terminated": {"exitCode": 1}}}, 0),
        ({"restartCount": 3, "state": {"running": {}}, "lastState": {"terminated": {"exitCode": 1}}}, 1),
        ({"restartCount": 3, "state": {"running": {}}, "lastState": {"terminated": {"exitCode": 0}}}, 0),
        ({"restartCount": 0, "state": {"waiting": {"reason": "ContainerCreating"}}}, 0),
        ({"restartCount": 0, "state": {"waiting": {"reason": "ErrImagePull"}}}, 1),
    ],
)
def test_what_counts_as_unable_to_start(container: dict[str, Any], failed: int) -> None:
    seen = counted(ReplicaReport(target=1, ready=0), [aged(7200, containerStatuses=[{"name": "main", **container}])])
    assert (seen.failed, seen.starting) == (failed, 1 - failed)


def test_the_trouble_is_told_with_the_name_of_the_pod() -> None:
    waiting = {"reason": "ImagePullBackOff", "message": "no such image"}
    status = [{"name": "main", "restartCount": 0, "state": {"waiting": waiting}}]
    told = count_replicas(
        ReplicaReport(target=1, ready=0),
        groups([aged(7200, "decode-0", containerStatuses=status)]),
        at_s=NOW_S,
        failed_after_s=600.0,
        target_since_s=NOW_S,
    )
    assert told.troubles == told.failed
    assert told.troubles == (Trouble("ImagePullFailed", "pod decode-0: ImagePullBackOff: no such image", NOW_S - 7200),)


def test_without_counts_and_without_pods_nothing_is_known() -> None:
    with pytest.raises(ReplicasUnknownError):
        counted(ReplicaReport(target=1, ready=None), None)


@pytest.mark.parametrize(("age_s", "failed"), [(60, 0), (3600, 2)])
def test_pods_that_a_deployment_cannot_create_are_failed_in_the_end(age_s: float, failed: int) -> None:
    refused = {"type": "ReplicaFailure", "status": "True", "lastTransitionTime": timestamp(NOW_S - age_s)}
    refused |= {"reason": "FailedCreate", "message": "exceeded quota: gpus"}
    status = {"observedGeneration": 1, "replicas": 1, "updatedReplicas": 1, "readyReplicas": 1, "conditions": [refused]}
    reading = read_workload("Deployment", {"metadata": {"generation": 1}, "spec": {"replicas": 3}, "status": status})
    assert reading.blocked is not None
    assert reading.blocked.message == "its controller cannot create pods: FailedCreate: exceeded quota: gpus"
    seen = counted(reading, [aged(100, ready=True)])
    assert (seen.ready, seen.starting, seen.failed) == (1, 2 - failed, failed)


@pytest.mark.parametrize(
    ("strategy", "is_rollout"),
    [
        ({"type": "RollingUpdate"}, True),
        ({"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}, True),
        ({"type": "RollingUpdate", "rollingUpdate": {"partition": 1}}, False),
        ({"type": "OnDelete"}, False),
    ],
)
def test_two_revisions_of_a_stateful_set_are_a_rollout_where_they_are_to_become_one(
    strategy: dict[str, Any], is_rollout: bool
) -> None:
    status = {"observedGeneration": 1, "readyReplicas": 2, "currentRevision": "a", "updateRevision": "b"}
    thing = {"metadata": {"generation": 1}, "spec": {"replicas": 2, "updateStrategy": strategy}, "status": status}
    if is_rollout:
        with pytest.raises(ReplicasUnknownError, match=r"a rollout is in progress \(from revision a to b\)"):
            read_workload("StatefulSet", thing)
    else:
        assert read_workload("StatefulSet", thing) == ReplicaReport(target=2, ready=2)


def a_group(ready: bool, leaving: bool, since_s: float, failing: bool) -> PodGroup:
    trouble = Trouble("Crashing", "cannot", NOW_S - 3600) if failing and not ready and not leaving else None
    return PodGroup(ready and not leaving, leaving, since_s, trouble)


@given(
    st.integers(0, 8),
    st.integers(0, 8),
    st.lists(st.builds(a_group, st.booleans(), st.booleans(), st.floats(0, NOW_S), st.booleans()), max_size=8),
)
def test_every_replica_of_the_target_is_one_of_ready_starting_and_failed(
    target: int, ready: int, there: list[PodGroup]
) -> None:
    here = sorted(there, key=lambda group: group.since_s)
    reading = ReplicaReport(target=target, ready=ready)
    seen = count_replicas(reading, here, at_s=NOW_S, failed_after_s=600.0, target_since_s=NOW_S).replicas
    assert seen.ready + seen.starting + seen.failed == max(target, ready)
    assert seen.failed <= sum(not group.ready and group.trouble is not None for group in there)
    gone = [group for group in there if group.terminating]
    assert seen.draining == len(gone) + max(0, len(there) - len(gone) - max(target, ready))
    assert (seen.target, seen.ready) == (target, ready)
