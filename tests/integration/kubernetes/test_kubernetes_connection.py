"""Credentials: of a kubeconfig and its context, or of the pod that the planner runs in."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes.config import incluster_config

from dynamo_planner.executors import ExecutorError
from dynamo_planner.executors.kubernetes import Api, ApiError, api, credentials
from dynamo_planner.executors.kubernetes.resources import PODS
from tests.support.kubernetes.cluster import Place
from tests.support.kubernetes.control_plane import ADMIN


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


def test_a_kubeconfig_that_is_half_written_is_told_as_such(tmp_path: Path) -> None:
    (tmp_path / "config").write_text("apiVersion: v1\nusers: [{name: a, user: {tok")
    with pytest.raises(ExecutorError, match=r"in the kubeconfig .*: it cannot be read"):
        Api.connect(tmp_path / "config")


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
    monkeypatch.setattr(credentials, "NAMESPACE_FILE", tmp_path / "namespace")
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
    monkeypatch.delitem(sys.modules, "dynamo_planner.executors.kubernetes.credentials")
    with pytest.raises(ImportError, match=r"pip install 'dynamo-planner\[kubernetes\]'"):
        _ = package.Api


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials that were refused are read again at the next request."""
    monkeypatch.setattr(api, "RENEWED_AGAIN_S", 0.0)


@pytest.mark.usefixtures("at_once")
class TestRenewal:
    """Credentials outside a pod that the server refuses are read again."""

    @staticmethod
    def connect(place: Place, user: dict[str, Any]) -> Api:
        """A connection by a kubeconfig with this user."""
        path = place.kubeconfig()
        config = yaml.safe_load(path.read_text())
        config["users"][0]["user"] = user
        path.write_text(yaml.safe_dump(config))
        return Api.connect(path)

    @staticmethod
    def plugin(directory: Path, status: str) -> dict[str, Any]:
        """A user whose token an exec plugin reads from a file; ``status`` is what else the plugin says."""
        script = directory / "plugin"
        kind = '"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential"'
        said = f'{{{kind}, "status": {{{status} "token": "\'$(cat {directory}/token)\'"}}}}'
        script.write_text(f"#!/bin/sh\necho run >> {directory}/runs\necho '{said}'\n")
        script.chmod(0o755)
        exec_config = {"apiVersion": "client.authentication.k8s.io/v1", "command": str(script)}
        return {"exec": {**exec_config, "interactiveMode": "Never"}}

    @pytest.mark.parametrize("how", ["tokenFile", "exec", "exec with expiry"])
    def test_a_token_that_was_replaced(self, kubernetes: Place, tmp_path: Path, how: str) -> None:
        expiry = '"expirationTimestamp": "2099-01-01T00:00:00Z",' if how == "exec with expiry" else ""
        file = tmp_path / "token"
        file.write_text("revoked\n")
        user = {"tokenFile": str(file)} if how == "tokenFile" else self.plugin(tmp_path, expiry)
        api = self.connect(kubernetes, user)
        with pytest.raises(ApiError, match="401 Unauthorized"):
            api.items(PODS, kubernetes.namespace)
        file.write_text(f"{ADMIN}\n")
        assert [api.items(PODS, kubernetes.namespace) for _ in range(3)] == [[]] * 3
        if how != "tokenFile":
            assert len((tmp_path / "runs").read_text().split()) == 3, "at the start, and at each refusal"

    def test_a_plugin_that_fails_takes_nothing_away(self, kubernetes: Place, tmp_path: Path) -> None:
        """Without credentials the server would take the planner for an anonymous user, whose 403 is no 401."""
        (tmp_path / "token").write_text("revoked")
        api = self.connect(kubernetes, self.plugin(tmp_path, ""))
        script = (tmp_path / "plugin").read_text()
        (tmp_path / "plugin").write_text("#!/bin/sh\nexit 1\n")
        with pytest.raises(ApiError, match="401 Unauthorized"):
            api.items(PODS, kubernetes.namespace)
        (tmp_path / "plugin").write_text(script)
        (tmp_path / "token").write_text(ADMIN)
        assert api.items(PODS, kubernetes.namespace) == []

    def test_a_plugin_that_hangs_is_not_waited_for(
        self, kubernetes: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(credentials, "GIVEN_WITHIN_S", 0.2)
        user = self.plugin(tmp_path, "")
        (tmp_path / "plugin").write_text("#!/bin/sh\nexec sleep 3\n")
        with pytest.raises(ExecutorError, match=r"an exec plugin did not answer within 0\.2 s"):
            self.connect(kubernetes, user)

    def test_a_certificate_that_was_replaced(self, kubernetes: Place, tmp_path: Path) -> None:
        """The first one is of an authority that the server does not know."""
        certificate, key = kubernetes.server.client_certificate(tmp_path, known=False)
        api = self.connect(kubernetes, {"client-certificate": str(certificate), "client-key": str(key)})
        with pytest.raises(ApiError, match="401 Unauthorized"):
            api.items(PODS, kubernetes.namespace)
        kubernetes.server.client_certificate(tmp_path, known=True)
        assert api.items(PODS, kubernetes.namespace) == []
