"""The fixtures of every test that needs Kubernetes: one real API server for the session, and a namespace for each test.

A ``conftest.py`` takes them with ``from tests.support.kubernetes.cluster import control_plane, kubernetes``.
No kubelet runs: what a pod's state is, a test writes with :meth:`Place.set_status`.
"""

from __future__ import annotations

import secrets
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest
import yaml

from tests.support.kubernetes.control_plane import ADMIN, ControlPlane, StatusError
from tests.support.kubernetes.faulty_proxy import Proxy

T = TypeVar("T")

CRDS = Path(__file__).with_name("crds")
CORE = {"Pod", "ServiceAccount", "ConfigMap", "Event", "Namespace", "Service", "Secret"}
MERGE = "application/merge-patch+json"


def collection(api_version: str, kind: str, namespace: str | None) -> str:
    """The path of all objects of a kind."""
    root = f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"
    return f"{root}/namespaces/{namespace}/{kind.lower()}s" if namespace else f"{root}/{kind.lower()}s"


@dataclass
class Place:
    """A namespace of the API server that belongs to one test."""

    server: ControlPlane
    namespace: str
    tmp: Path

    def path(self, api_version: str, kind: str, name: str, subresource: str = "") -> str:
        """The path of an object of this namespace."""
        whole = f"{collection(api_version, kind, self.namespace)}/{name}"
        return f"{whole}/{subresource}" if subresource else whole

    def create(self, manifest: Mapping[str, Any]) -> dict[str, Any]:
        """Create an object from its manifest; its ``status``, which a create does not take, is written after it."""
        path = collection(manifest["apiVersion"], manifest["kind"], self.namespace)
        created = self.server.request("POST", path, manifest)
        if "status" in manifest:
            return self.set_status(
                manifest["apiVersion"], manifest["kind"], created["metadata"]["name"], manifest["status"]
            )
        return created

    def get(self, api_version: str, kind: str, name: str, subresource: str = "") -> dict[str, Any]:
        """An object as it is."""
        return self.server.request("GET", self.path(api_version, kind, name, subresource))

    def list(self, api_version: str, kind: str) -> list[dict[str, Any]]:
        """All objects of a kind in this namespace."""
        return list(self.server.request("GET", collection(api_version, kind, self.namespace))["items"])

    def patch(self, api_version: str, kind: str, name: str, body: Any, subresource: str = "") -> dict[str, Any]:
        """Merge ``body`` into an object, as somebody beside the planner would."""
        return self.server.request("PATCH", self.path(api_version, kind, name, subresource), body, content_type=MERGE)

    def set_status(self, api_version: str, kind: str, name: str, status: Mapping[str, Any]) -> dict[str, Any]:
        """Write an object's status, as its controller or a kubelet would."""
        return self.patch(api_version, kind, name, {"status": status}, "status")

    def delete(self, api_version: str, kind: str, name: str) -> None:
        """Delete an object at once."""
        body = {"gracePeriodSeconds": 0, "propagationPolicy": "Background"}
        self.server.request("DELETE", self.path(api_version, kind, name), body)

    def token(self, account: str) -> str:
        """A token of a service account of this namespace."""
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": None}}
        path = self.path("v1", "ServiceAccount", account, "token")
        return str(self.server.request("POST", path, request)["status"]["token"])

    def kubeconfig(self, *, url: str | None = None, token: str = ADMIN) -> Path:
        """A kubeconfig of this namespace, for the administrator or the user of ``token``."""
        path = self.tmp / f"kubeconfig-{secrets.token_hex(4)}"
        return self.server.kubeconfig(path, url=url, token=token, namespace=self.namespace)

    @staticmethod
    def until(done: Callable[[], T], within_s: float = 15.0) -> T:
        """Ask again and again until the answer is true, and return it."""
        deadline = time.monotonic() + within_s
        while not (answer := done()):
            assert time.monotonic() < deadline, f"not within {within_s:g} s"
            time.sleep(0.03)
        return answer


def install_crds(server: ControlPlane) -> None:
    """Create every CRD of ``crds/`` and wait until its objects can be created."""
    crds = [crd for file in sorted(CRDS.glob("*.yaml")) for crd in yaml.safe_load_all(file.read_text())]
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    for crd in crds:
        server.request("POST", path, crd)

    def served(crd: Mapping[str, Any]) -> bool:
        spec = crd["spec"]
        try:
            for version in spec["versions"]:
                server.request("GET", f"/apis/{spec['group']}/{version['name']}/{spec['names']['plural']}")
        except StatusError:
            return False
        return True

    for crd in crds:
        Place.until(lambda crd=crd: served(crd))  # type: ignore[misc]


@pytest.fixture(scope="session")
def control_plane() -> Iterator[ControlPlane]:
    """A real API server with the CRDs of ``crds/``, for the whole session."""
    with tempfile.TemporaryDirectory(prefix="dp-kubernetes-") as directory:
        server = ControlPlane(Path(directory))
        try:
            server.start()
            install_crds(server)
            yield server
        finally:
            server.stop()


@pytest.fixture
def kubernetes(control_plane: ControlPlane, tmp_path: Path) -> Place:
    """A new namespace of the real API server."""
    return new_place(control_plane, tmp_path)


def new_place(server: ControlPlane, tmp: Path) -> Place:
    """A namespace that nobody uses yet."""
    namespace = f"t-{secrets.token_hex(4)}"
    server.request("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
    return Place(server, namespace, tmp)


@pytest.fixture
def proxy(control_plane: ControlPlane) -> Iterator[Proxy]:
    """A proxy that passes everything on until the test says otherwise."""
    between = Proxy(control_plane)
    with between.serving():
        yield between
