"""Who goes first when replicas are lowered: the annotation ``controller.kubernetes.io/pod-deletion-cost``.

A ReplicaSet ends the pods with the lowest cost first, after those that are not ready (``ActivePodsWithRanks`` in
pkg/controller of Kubernetes, beta since 1.22). Groups and StatefulSets go by their index, whatever the cost.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from dynamo_planner.executors.kubernetes.api import Api
from dynamo_planner.executors.kubernetes.api_error import ApiError
from dynamo_planner.executors.kubernetes.cluster import KubeObject
from dynamo_planner.executors.kubernetes.pod_conditions import is_ready
from dynamo_planner.executors.kubernetes.pods import is_member
from dynamo_planner.executors.kubernetes.resources import PODS

logger = logging.getLogger(__name__)

ANNOTATION = "controller.kubernetes.io/pod-deletion-cost"

PATIENCE_S = 2.0
"""Seconds that the annotation of one pod may take."""


class DeletionCosts:
    """The deletion costs of the pods of a namespace: the requests that wait and run at each.

    Needs the right ``patch`` on pods; without it the pods are left as they are, which is logged once.
    """

    def __init__(self, api: Api, namespace: str) -> None:
        self._api, self._namespace = api, namespace
        self._requests: Mapping[str, Mapping[str, float]] = {}
        self._logged = False

    def consider(self, requests: Mapping[str, Mapping[str, float]]) -> None:
        """Take the requests at each worker, by pool and name."""
        self._requests = requests

    def set(self, pool: str, pods: Sequence[KubeObject]) -> None:
        """Annotate the ready pods of a pool that are in no group, before its replicas are lowered.

        A pod of which nothing is known costs as much as the busiest, since without the annotation it would cost 0.
        """
        known = self._requests.get(pool) or {}
        alone = [pod for pod in pods if is_ready(pod) and not is_member(pod)]
        costs = {pod["metadata"]["name"]: known.get(pod["metadata"]["name"]) for pod in alone}
        most = max((cost for cost in costs.values() if cost is not None), default=None)
        if most is None:
            return
        present = {pod["metadata"]["name"]: pod["metadata"].get("annotations") or {} for pod in pods}
        for name, requests in costs.items():
            cost = str(round(most if requests is None else requests))
            if present[name].get(ANNOTATION) != cost and not self._annotate(name, cost):
                return

    def _annotate(self, name: str, cost: str) -> bool:
        body = {"metadata": {"annotations": {ANNOTATION: cost}}}
        try:
            self._api.patch(PODS, self._namespace, name, "", body, timeout_s=PATIENCE_S)
        except ApiError as error:
            if error.status == 404:
                return True
            if not self._logged:
                logger.warning("which pods go first is left to Kubernetes: %s", error)
            self._logged = True
            return False
        self._logged = False
        return True
