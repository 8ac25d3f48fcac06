"""From pods and counts to replicas, with nothing but data: each case is a moment in the life of a pool."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynamo_planner import Replicas
from dynamo_planner.executors.kubernetes.pods import PodGroup, groups
from dynamo_planner.executors.kubernetes.replica_status import ReplicaReport, ReplicasUnknownError, count_replicas
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
    made["status"]["conditions"][0]["lastTransitionTime"] = timestamp(NOW_S - age_s / 2)
    return made


def test_replicas_start_since_their_pod_was_created_and_without_one_since_the_target_was_seen() -> None:
    seen = counted(ReplicaReport(target=4, ready=1), [aged(500, "a", ready=True), aged(100, "b"), aged(300, "c")])
    assert seen == Replicas(ready=1, starting=3, starting_since_s=(NOW_S - 300, NOW_S - 100, NOW_S - 20), target=4)


def test_a_container_that_was_started_again_starts_since_it_was_last_ready() -> None:
    restarted = aged(3600, containerStatuses=[{"name": "main", "restartCount": 1, "state": {"running": {}}}])
    assert counted(ReplicaReport(target=1, ready=0), [restarted]).starting_since_s == (NOW_S - 1800,)


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
    assert told.troubles == ("pod decode-0: ImagePullBackOff: no such image",)


def test_without_counts_and_without_pods_nothing_is_known() -> None:
    with pytest.raises(ReplicasUnknownError):
        counted(ReplicaReport(target=1, ready=None), None)


@pytest.mark.parametrize(("age_s", "failed"), [(60, 0), (3600, 2)])
def test_pods_that_a_deployment_cannot_create_are_failed_in_the_end(age_s: float, failed: int) -> None:
    refused = {"type": "ReplicaFailure", "status": "True", "lastTransitionTime": timestamp(NOW_S - age_s)}
    status = {"observedGeneration": 1, "replicas": 1, "updatedReplicas": 1, "readyReplicas": 1, "conditions": [refused]}
    reading = read_workload("Deployment", {"metadata": {"generation": 1}, "spec": {"replicas": 3}, "status": status})
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
    trouble = "cannot" if failing and not ready else None
    return PodGroup(ready and not leaving, leaving, since_s, trouble, NOW_S - 3600)


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
    assert seen.draining == sum(group.terminating for group in there)
    assert (seen.target, seen.ready) == (target, ready)
