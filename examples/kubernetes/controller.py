"""A controller of your own in 40 lines: a Deployment of vLLM workers, scaled by a policy that is imported.

``python controller.py NAMESPACE DEPLOYMENT``, with the credentials of its pod or of your kubeconfig.
"""

import sys
import time

from kubernetes import client, config

from dynamo_planner import GpuBudget, PoolSpec, Profile, Replicas, Sla, SlaPolicy, State
from dynamo_planner.runtime import merge
from dynamo_planner.sources import ScrapeSource

PROFILE = Profile.bundled("llama31-8b_h100_vllm_tp1")
POLICY = SlaPolicy(sla=Sla(ttft_ms=500, itl_ms=25), profile=PROFILE) | GpuBudget(max_gpus=8)
PORT = 8000
POOLS = {"workers": PoolSpec(role="aggregated", gpus=1, min_replicas=1, max_replicas=8)}


class Controller:
    def __init__(self, namespace: str, name: str) -> None:
        self.where = {"namespace": namespace, "name": name}
        self.apps, self.core = client.AppsV1Api(), client.CoreV1Api()
        self.source = ScrapeSource(self.endpoints, {"workers": "aggregated"})
        self.state: State | None = None

    def endpoints(self) -> dict[str, dict[str, str]]:
        pods = self.core.list_namespaced_pod(self.where["namespace"], label_selector=f"app={self.where['name']}").items
        ready = [
            pod for pod in pods if any(c.type == "Ready" and c.status == "True" for c in pod.status.conditions or [])
        ]
        return {"workers": {pod.metadata.name: f"http://{pod.status.pod_ip}:{PORT}" for pod in ready}}

    def step(self, now_s: float) -> str:
        deployment = self.apps.read_namespaced_deployment(**self.where)
        target, ready = deployment.spec.replicas, deployment.status.ready_replicas or 0
        replicas = Replicas(ready=ready, starting=max(0, target - ready), target=target)
        snapshot = merge(now_s, POOLS, {"workers": replicas}, self.source.observe(now_s))
        decision = POLICY.decide(snapshot, self.state)
        for action in decision.actions:
            self.apps.patch_namespaced_deployment_scale(**self.where, body={"spec": {"replicas": action.replicas}})
        self.state = decision.state
        return decision.explain()


if __name__ == "__main__":
    config.load_config()
    controller = Controller(*sys.argv[1:3])
    while True:
        print(controller.step(time.time()), flush=True)
        time.sleep(10)
