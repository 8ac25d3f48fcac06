"""The API server of the tests is one: it validates, counts generations, and refuses what is stale."""

from __future__ import annotations

import pytest

from tests.support.kubernetes.cluster import Place
from tests.support.kubernetes.control_plane import StatusError

DGD = {
    "apiVersion": "nvidia.com/v1beta1",
    "kind": "DynamoGraphDeployment",
    "metadata": {"name": "llama"},
    "spec": {"components": [{"name": "Worker", "type": "decode", "replicas": 2}]},
    "status": {"observedGeneration": 1},
}


def test_objects_have_a_generation_that_a_status_does_not_count_up(kubernetes: Place) -> None:
    created = kubernetes.create(DGD)
    assert created["metadata"]["generation"] == 1
    patch = {"spec": {"components": [{"name": "Worker", "type": "decode", "replicas": 3}]}}
    changed = kubernetes.patch("nvidia.com/v1beta1", "DynamoGraphDeployment", "llama", patch)
    assert (changed["metadata"]["generation"], changed["status"]["observedGeneration"]) == (2, 1)


def test_a_value_outside_the_schema_and_a_stale_write_are_refused(kubernetes: Place) -> None:
    kubernetes.create({**DGD, "spec": {"services": {"Worker": {"replicas": 1}}}})
    for patch, status in (
        ({"spec": {"services": {"Worker": {"replicas": 65}}}}, 422),
        ({"metadata": {"resourceVersion": "1"}, "spec": {"services": {"Worker": {"replicas": 2}}}}, 409),
    ):
        with pytest.raises(StatusError) as refused:
            kubernetes.patch("nvidia.com/v1alpha1", "DynamoGraphDeployment", "llama", patch)
        assert refused.value.status == status
