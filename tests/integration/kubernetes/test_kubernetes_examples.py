"""The manifests hold on a real API server, and the two programs of ``examples/kubernetes`` scale on it."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from dynamo_planner.config.run import load_config
from tests.support.examples import load
from tests.support.kubernetes.cluster import Place, collection
from tests.support.kubernetes.control_plane import StatusError, free_port
from tests.support.paths import EXAMPLES

MANIFESTS = EXAMPLES / "kubernetes"
NEWER = {"autoscaling/v2": "autoscaling/v2beta2"}
"""Versions that the API server of the tests does not have yet, and what it has of them."""

NEWER_FIELDS = {"tolerance"}


def manifests() -> list[tuple[str, dict[str, Any]]]:
    files = sorted(MANIFESTS.glob("*.yaml"))
    documents = [(file.name, each) for file in files for each in yaml.safe_load_all(file.read_text())]
    return [(f"{name} {each['kind']}", each) for name, each in documents]


@pytest.mark.parametrize("manifest", [each for _, each in manifests()], ids=[name for name, _ in manifests()])
def test_every_manifest_passes_a_dry_run_of_the_server_and_none_of_its_fields_is_lost(
    kubernetes: Place, manifest: dict[str, Any]
) -> None:
    version = NEWER.get(manifest["apiVersion"], manifest["apiVersion"])
    path = collection(version, manifest["kind"], kubernetes.namespace)
    told = kubernetes.server.request("POST", f"{path}?dryRun=All", {**manifest, "apiVersion": version})
    lost = list(_lost({**manifest, "apiVersion": version}, told))
    assert not lost, "an API server drops what it does not know, such as a misspelled field"
    with pytest.raises(StatusError, match="404"):
        kubernetes.get(version, manifest["kind"], manifest["metadata"]["name"])


def _lost(sent: Any, kept: Any, where: str = "") -> Iterator[str]:
    if isinstance(sent, Mapping):
        for key, value in sent.items():
            if key not in NEWER_FIELDS:
                yield from _lost(value, kept.get(key) if isinstance(kept, Mapping) else None, f"{where}.{key}")
    elif isinstance(sent, list):
        for n, value in enumerate(sent):
            yield from _lost(value, kept[n] if isinstance(kept, list) and n < len(kept) else None, f"{where}[{n}]")
    elif kept is None and sent is not None:
        yield where


def test_the_deployment_runs_what_the_config_map_has(tmp_path: Path) -> None:
    by_kind = {each["kind"]: each for name, each in manifests() if name.startswith("planner.yaml")}
    config_map, deployment = by_kind["ConfigMap"], by_kind["Deployment"]
    for name, text in config_map["data"].items():
        (tmp_path / name).write_text(text)
    config = load_config(tmp_path / "planner.yaml")
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert volumes["config"]["configMap"]["name"] == config_map["metadata"]["name"]
    assert container["args"] == ["run", f"{mounts['config']}/planner.yaml"]
    assert str(config.overrides) == f"{mounts['config']}/overrides.yaml"
    assert config.monitoring is not None
    assert {port["name"]: port["containerPort"] for port in container["ports"]} == {"metrics": config.monitoring.port}
    for file in (config.log, config.state_file):
        assert file is not None
        assert str(file.parent) == mounts["state"]


@contextmanager
def answering(answer: Callable[[str], str], host: str = "127.0.0.1", port: int = 0) -> Iterator[str]:
    """An HTTP server on loopback that answers each path with what ``answer`` says."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = answer(self.path).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer((host, port), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://{host}:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def a_deployment(place: Place, pod_ip: str, **metadata: Any) -> None:
    """A Deployment of one replica, whose pod is ready at an address. Its controller is Kubernetes' own."""
    place.server.start_controllers()
    labels = {"app": "llama"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "main", "image": "worker"}]}}
    place.create(
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "llama", **metadata},
            "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": template},
        }
    )
    (pod,) = place.until(lambda: place.list("v1", "Pod"))
    ready = {"type": "Ready", "status": "True"}
    place.set_status("v1", "Pod", pod["metadata"]["name"], {"phase": "Running", "podIP": pod_ip, "conditions": [ready]})
    place.until(lambda: place.get("apps/v1", "Deployment", "llama")["status"].get("readyReplicas") == 1)


def replicas(place: Place) -> int:
    return int(place.get("apps/v1", "Deployment", "llama")["spec"]["replicas"])


def marks(place: Place) -> set[str]:
    """The annotations of the Deployment that are not Kubernetes' own."""
    annotations = place.get("apps/v1", "Deployment", "llama")["metadata"]["annotations"]
    return {name for name in annotations if not name.startswith("deployment.kubernetes.io/")}


def vllm_page(at_s: float, requests_per_s: float = 40.0, isl: int = 1000, osl: int = 200) -> str:
    """What a vLLM worker tells that has had so many requests per second, of these lengths, since second 0."""
    requests = round(at_s * requests_per_s)
    lengths = {"vllm:request_prompt_tokens": isl, "vllm:request_generation_tokens": osl}
    lines = [f'vllm:request_success_total{{finished_reason="stop"}} {requests}', "vllm:kv_cache_usage_perc 0.5"]
    lines += ["vllm:num_requests_running 30", "vllm:num_requests_waiting 0"]
    for name, length in lengths.items():
        lines += [
            f'{name}_bucket{{le="+Inf"}} {requests}',
            f"{name}_count {requests}",
            f"{name}_sum {requests * length}",
        ]
    return "\n".join(lines) + "\n"


def test_the_controller_scales_a_deployment_by_what_its_workers_say(kubernetes: Place) -> None:
    from kubernetes import config

    config.load_kube_config(str(kubernetes.kubeconfig()))
    module = load("kubernetes/controller.py")
    host = f"127.{random.randrange(1, 255)}.{random.randrange(256)}.1"
    vars(module)["PORT"] = port = free_port()
    a_deployment(kubernetes, host)
    controller = module.Controller(kubernetes.namespace, "llama")
    now_s = [1000.0]
    told = []
    with answering(lambda _: vllm_page(now_s[0]), host, port):
        for now_s[0] in (1000.0, 1030.0, 1060.0):
            told.append(controller.step(now_s[0]))
    assert "workers: held" in told[0], "a rate takes two looks"
    assert "workers: 1 -> 2 replicas" in "\n".join(told)
    assert "Sized" in told[-1]
    assert replicas(kubernetes) == 2


def test_the_kopf_operator_scales_a_deployment_by_the_policy_in_its_annotation(kubernetes: Place) -> None:
    """Prometheus is a stub here, which knows the three numbers that the operator asks for."""
    policy = json.dumps([{"kind": "load", "adjustment_interval_s": 1}, {"kind": "bounds"}])
    a_deployment(
        kubernetes,
        "127.0.0.1",
        labels={"dynamo-planner": "enabled"},
        annotations={"dynamo-planner/policy": policy},
    )
    values = {"waiting": "8", "kv_cache": "0.97", "gateway": "5"}

    def prometheus(path: str) -> str:
        value = next(value for name, value in values.items() if name in path)
        return json.dumps({"status": "success", "data": {"resultType": "vector", "result": [{"value": [0, value]}]}})

    with answering(prometheus) as url:
        command = [sys.executable, "-m", "kopf", "run", "--standalone", "-n", kubernetes.namespace]
        environment = {"PROMETHEUS": url, "INTERVAL_S": "0.5", "KUBECONFIG": str(kubernetes.kubeconfig())}
        operator = subprocess.Popen(
            [*command, str(MANIFESTS / "kopf_operator.py")],
            env={**os.environ, **environment},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            kubernetes.until(lambda: replicas(kubernetes) == 2, within_s=30)
            metadata = kubernetes.get("apps/v1", "Deployment", "llama")["metadata"]
            assert json.loads(metadata["annotations"]["dynamo-planner/state"])["kind"] == "decision"
            assert "finalizers" not in metadata
            kubernetes.patch("apps/v1", "Deployment", "llama", {"metadata": {"labels": {"dynamo-planner": None}}})
            kubernetes.until(lambda: marks(kubernetes) == {"dynamo-planner/policy"})
        finally:
            operator.terminate()
            operator.wait(timeout=20)
    kubernetes.delete("apps/v1", "Deployment", "llama")
    with pytest.raises(StatusError, match="404"):
        kubernetes.get("apps/v1", "Deployment", "llama")
