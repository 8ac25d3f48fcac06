"""A real HPA controller follows the gauge, with the HPA of ``examples/kubernetes/gauge.yaml``; its traps are real."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

from dynamo_planner import PoolSpec, ScaleTo
from dynamo_planner.executors.dry_run import DryRunExecutor
from dynamo_planner.executors.gauge import GaugeExecutor
from tests.support.kubernetes.cluster import Place
from tests.support.kubernetes.external_metrics import external_metrics
from tests.support.loop_parts import Clock
from tests.support.paths import EXAMPLES

GAUGE = EXAMPLES / "kubernetes" / "gauge.yaml"
AUTOSCALING = "autoscaling/v2beta2"
"""What the API server of the tests has of ``autoscaling/v2``; ``tolerance`` is newer, and left out."""

SYNC_S = 1


def the_hpa() -> dict[str, Any]:
    hpa, _ = yaml.safe_load_all(GAUGE.read_text())
    assert hpa["apiVersion"] == "autoscaling/v2"
    for direction in hpa["spec"]["behavior"].values():
        assert float(direction.pop("tolerance")) == 0
    return {**hpa, "apiVersion": AUTOSCALING}


@dataclass
class Setup:
    """A Deployment with its HPA, and the gauge that it follows."""

    place: Place
    gauge: GaugeExecutor
    clock: Clock

    def want(self, replicas: int) -> None:
        self.gauge.observe()
        assert self.gauge.apply([ScaleTo(pool="decode", replicas=replicas)])[0].status in {"applied", "unchanged"}

    @property
    def has(self) -> int:
        return int(self.place.get("apps/v1", "Deployment", "llama-decode")["spec"]["replicas"])

    @property
    def status(self) -> dict[str, Any]:
        return dict(self.place.get(AUTOSCALING, "HorizontalPodAutoscaler", "llama-decode").get("status", {}))

    def reaches(self, replicas: int) -> None:
        self.place.until(lambda: self.has == replicas, within_s=20)
        self.place.until(lambda: self.status["currentReplicas"] == replicas, within_s=20)

    def stays(self, replicas: int) -> None:
        for _ in range(3 * SYNC_S * 5):
            assert self.has == replicas
            time.sleep(0.2)


@pytest.fixture
def setup(kubernetes: Place) -> Iterator[Setup]:
    kubernetes.server.start_controllers()
    registry, clock = CollectorRegistry(), Clock()
    there = DryRunExecutor({"decode": PoolSpec(role="decode")}, {"decode": 1})
    gauge = GaugeExecutor(kubernetes.namespace, "llama", there, registry, clock=clock)
    labels = {"app": "llama-decode"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "main", "image": "worker"}]}}
    kubernetes.create(
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "llama-decode"},
            "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": template},
        }
    )
    with external_metrics(kubernetes.server, registry), kubernetes.server.autoscaling(SYNC_S):
        yield Setup(kubernetes, gauge, clock)


def test_an_hpa_follows_the_gauge_and_keeps_what_there_is_while_it_is_absent(setup: Setup) -> None:
    setup.place.create(the_hpa())
    setup.want(1)
    for wanted in (3, 8, 2):
        setup.want(wanted)
        setup.reaches(wanted)
    setup.clock.now_s += 3600
    setup.stays(2)
    conditions = {each["type"]: each for each in setup.status["conditions"]}
    assert conditions["ScalingActive"]["status"] == "False"
    assert conditions["ScalingActive"]["reason"] == "FailedGetExternalMetric"
    setup.want(4)
    setup.reaches(4)


def test_the_traps_are_there(setup: Setup) -> None:
    """Without ``tolerance`` a change of up to a tenth is not followed; with ``Value`` the wish is multiplied."""
    wide = the_hpa()
    wide["spec"]["maxReplicas"] = 64
    setup.place.create(wide)
    setup.want(20)
    setup.reaches(20)
    setup.want(21)
    setup.stays(20)
    setup.want(3)
    setup.reaches(3)
    multiplied = copy.deepcopy(wide["spec"]["metrics"])
    multiplied[0]["external"]["target"] = {"type": "Value", "value": "1"}
    path = setup.place.path(AUTOSCALING, "HorizontalPodAutoscaler", "llama-decode")
    ready = [pod["metadata"]["name"] for pod in setup.place.list("v1", "Pod")]
    for name in ready:
        status = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
        setup.place.set_status("v1", "Pod", name, status)
    patch = {"spec": {"metrics": multiplied}}
    setup.place.server.request("PATCH", path, patch, content_type="application/merge-patch+json")
    setup.want(4)
    setup.place.until(lambda: setup.has >= 12, within_s=20)
