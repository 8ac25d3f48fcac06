"""Credentials: of a kubeconfig and its context, or of the pod that the planner runs in."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import yaml
from kubernetes.config import incluster_config

from dynamo_planner.executors import ExecutorError
from dynamo_planner.executors.kubernetes import Api, ApiError, api
from dynamo_planner.executors.kubernetes.resources import PODS
from tests.support.kubernetes.cluster import Place


def test_a_context_is_chosen_by_name_and_its_namespace_is_the_default(kubernetes: Place) -> None:
    path = kubernetes.kubeconfig()
    config = yaml.safe_load(path.read_text())
    (context,) = config["contexts"]
    config["contexts"].append({"name": "beside", "context": {**context["context"], "namespace": "beside"}})
    path.write_text(yaml.safe_dump(config))
    assert Api.connect(path).namespace == kubernetes.namespace
    beside = Api.connect(path, "beside")
    assert beside.namespace == "beside"
    assert beside.items(PODS, kubernetes.namespace) == []
    with pytest.raises(ExecutorError, match=r"no credentials for Kubernetes in the kubeconfig .*: .*no-such"):
        Api.connect(path, "no-such")


def test_a_kubeconfig_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(ExecutorError, match=f"no credentials for Kubernetes in the kubeconfig {tmp_path}/none"):
        Api.connect(tmp_path / "none")


def test_in_a_pod_the_service_account_is_used(
    kubernetes: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kubernetes.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "planner"}})
    (tmp_path / "token").write_text(kubernetes.token("planner"))
    (tmp_path / "namespace").write_text(kubernetes.namespace)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(kubernetes.server.port))
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(tmp_path / "token"))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(kubernetes.server.ca))
    monkeypatch.setattr(api, "_NAMESPACE_FILE", tmp_path / "namespace")
    inside = Api.connect()
    assert inside.namespace == kubernetes.namespace
    account = f"system:serviceaccount:{kubernetes.namespace}:planner"
    with pytest.raises(ApiError, match=f'User "{account}" cannot list resource "pods"') as refused:
        inside.items(PODS, inside.namespace)
    assert refused.value.status == 403


def test_a_token_is_in_no_error_and_no_log(kubernetes: Place, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    stranger = Api.connect(kubernetes.kubeconfig(token="a-secret-of-somebody"))
    with pytest.raises(ApiError, match="401 Unauthorized") as refused:
        stranger.items(PODS, kubernetes.namespace)
    assert "a-secret" not in caplog.text + str(refused.value)


def test_the_missing_extra_is_told_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    from dynamo_planner.executors import kubernetes as package

    monkeypatch.setitem(sys.modules, "kubernetes", None)
    monkeypatch.delitem(sys.modules, "dynamo_planner.executors.kubernetes.api")
    with pytest.raises(ImportError, match=r"pip install 'dynamo-planner\[kubernetes\]'"):
        _ = package.Api
