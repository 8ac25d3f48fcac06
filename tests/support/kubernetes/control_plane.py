"""A real kube-apiserver on etcd, on loopback, and the controllers of Kubernetes where a test wants them."""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

import pytest
import urllib3
import yaml

BUILD = Path(__file__).with_name("build_servers.sh")
ADMIN = "admin-of-the-tests"
"""The bearer token of a user that may do everything."""


class StatusError(Exception):
    """The API server answered with an error; ``status`` is its HTTP status and ``body`` its ``Status``."""

    def __init__(self, status: int, body: Mapping[str, Any]) -> None:
        super().__init__(f"{status}: {body.get('message', body)}")
        self.status, self.body = status, body


def binaries() -> Path:
    """The directory of kube-apiserver, kube-controller-manager and etcd, which ``tests/run`` has built.

    Without them the test is skipped, with the reason; in CI it fails.
    """
    built = subprocess.run([BUILD, "--find"], capture_output=True, text=True, check=False)
    if built.returncode != 0:
        unavailable(built.stderr.strip())
    return Path(built.stdout.strip())


def unavailable(why: str) -> NoReturn:
    """Skip the test where a part of Kubernetes is missing; in CI, fail it."""
    if os.environ.get("CI"):
        pytest.fail(why)
    pytest.skip(why)


def free_port() -> int:
    """A port of 127.0.0.1 on which nothing listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])


def _openssl(directory: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=directory, capture_output=True, check=True)


class ControlPlane:
    """etcd and kube-apiserver, and on request the controller manager; everything below ``directory``."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._binaries = binaries()
        self._etcd_port, self._peer_port, self.port = free_port(), free_port(), free_port()
        self.url = f"https://127.0.0.1:{self.port}"
        self.ca = directory / "certs" / "apiserver.crt"
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._pool: urllib3.PoolManager | None = None

    def start(self) -> None:
        """Start both and wait until the API server is ready."""
        etcd = f"http://127.0.0.1:{self._etcd_port}"
        peer = f"http://127.0.0.1:{self._peer_port}"
        self._run(
            *("etcd", "--unsafe-no-fsync", f"--data-dir={self.directory / 'etcd'}", f"--listen-client-urls={etcd}"),
            *(f"--advertise-client-urls={etcd}", f"--listen-peer-urls={peer}"),
            *(f"--initial-advertise-peer-urls={peer}", f"--initial-cluster=default={peer}"),
        )
        self.start_apiserver()

    def start_apiserver(self) -> None:
        """Start the API server, at the address that it had before, and wait until it is ready."""
        certs, tokens = self.directory / "certs", self.directory / "tokens.csv"
        if not self._authority("clients").exists():
            self._make_authority("clients")
        tokens.write_text(f'{ADMIN},admin,admin,"system:masters"\n')
        self._run(
            *("kube-apiserver", f"--etcd-servers=http://127.0.0.1:{self._etcd_port}", "--bind-address=127.0.0.1"),
            *("--advertise-address=127.0.0.1", f"--secure-port={self.port}", f"--cert-dir={certs}"),
            f"--client-ca-file={self._authority('clients')}",
            *(f"--token-auth-file={tokens}", "--authorization-mode=RBAC", "--service-cluster-ip-range=10.0.0.0/24"),
            *(f"--service-account-key-file={certs / 'apiserver.key'}",),
            *(f"--service-account-signing-key-file={certs / 'apiserver.key'}",),
            "--service-account-issuer=https://kubernetes.default.svc",
            "--disable-admission-plugins=ServiceAccount",
            *("--endpoint-reconciler-type=none", "--enable-priority-and-fairness=false"),
        )
        self._wait_until_ready()

    def _authority(self, name: str) -> Path:
        """The certificate of an authority that signs those of clients."""
        return self.directory / f"{name}.crt"

    def _make_authority(self, name: str) -> None:
        key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", f"{name}.key")
        _openssl(self.directory, "req", "-x509", *key, "-out", f"{name}.crt", "-subj", f"/CN={name}", "-days", "2")

    def client_certificate(self, directory: Path, *, known: bool) -> tuple[Path, Path]:
        """A certificate of an administrator and its key, of an authority that the server knows or does not."""
        authority = "clients" if known else "strangers"
        if not self._authority(authority).exists():
            self._make_authority(authority)
        key, signer = directory / "client.key", self.directory / authority
        new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", str(key))
        _openssl(directory, "req", "-new", *new, "-out", "client.csr", "-subj", "/O=system:masters/CN=somebody")
        signed = ("-CA", f"{signer}.crt", "-CAkey", f"{signer}.key", "-set_serial", "1", "-days", "2")
        _openssl(directory, "x509", "-req", "-in", "client.csr", *signed, "-out", "client.crt")
        return directory / "client.crt", key

    def start_controllers(self) -> None:
        """Start the controllers of Deployments, ReplicaSets and StatefulSets."""
        self._start_controllers("deployment,replicaset,statefulset")

    @contextmanager
    def autoscaling(self, sync_s: int) -> Iterator[None]:
        """Have a controller for HorizontalPodAutoscalers, which looks every ``sync_s`` seconds, until the end."""
        period = f"--horizontal-pod-autoscaler-sync-period={sync_s}s"
        self._start_controllers("horizontalpodautoscaling", period)
        try:
            yield
        finally:
            process = self._running.pop("horizontalpodautoscaling")
            process.terminate()
            process.wait()

    def _start_controllers(self, names: str, *options: str) -> None:
        if names in self._running:
            return
        if not (self._binaries / "kube-controller-manager").exists():
            unavailable(f"there is no kube-controller-manager in {self._binaries}")
        kubeconfig = self.kubeconfig(self.directory / "controllers.kubeconfig")
        self._run(
            *("kube-controller-manager", f"--kubeconfig={kubeconfig}", f"--controllers={names}", *options),
            *("--port=0", f"--secure-port={free_port()}", "--bind-address=127.0.0.1", "--leader-elect=false"),
            *(f"--cert-dir={self.directory / 'controllers'}", "--kube-api-qps=1000", "--kube-api-burst=1000"),
            name=names,
        )

    def _run(self, program: str, *arguments: str, name: str | None = None) -> None:
        log = (self.directory / f"{name or program}.log").open("ab")
        with log:
            command = [str(self._binaries / program), *arguments]
            self._running[name or program] = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.directory)

    def _wait_until_ready(self, within_s: float = 60.0) -> None:
        deadline = time.monotonic() + within_s
        while True:
            process = self._running["kube-apiserver"]
            with suppress(OSError, urllib3.exceptions.HTTPError, StatusError):
                self.request("GET", "/readyz")
                return
            if process.poll() is not None or time.monotonic() > deadline:
                log = (self.directory / "kube-apiserver.log").read_text()[-3000:]
                pytest.fail(f"kube-apiserver is not ready (exit status {process.returncode}): {log}")
            time.sleep(0.05)

    def kill_apiserver(self) -> None:
        """End the API server at once; what it stored stays in etcd."""
        process = self._running.pop("kube-apiserver")
        process.kill()
        process.wait()
        self._pool = None

    def stop(self) -> None:
        """End everything that was started."""
        for process in reversed(self._running.values()):
            process.terminate()
        for process in reversed(self._running.values()):
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._running.clear()

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        content_type: str = "application/json",
        token: str = ADMIN,
    ) -> dict[str, Any]:
        """One request, as the user of ``token``, and the JSON of the answer. Raises :class:`StatusError`."""
        if self._pool is None:
            context = ssl.create_default_context(cafile=str(self.ca))
            self._pool = urllib3.PoolManager(maxsize=8, ssl_context=context)
        answer = self._pool.request(
            method,
            self.url + path,
            body=None if body is None else json.dumps(body),
            headers={"Authorization": f"Bearer {token}", "Content-Type": content_type},
            retries=False,
            timeout=30.0,
        )
        try:
            told = json.loads(answer.data)
        except ValueError:
            told = {"message": answer.data.decode()}
        if answer.status >= 300:
            raise StatusError(answer.status, told)
        return dict(told)

    def kubeconfig(self, path: Path, *, url: str | None = None, token: str = ADMIN, namespace: str = "default") -> Path:
        """A kubeconfig for the user of ``token``; with ``url``, to reach the server through a proxy without TLS."""
        cluster: dict[str, Any] = (
            {"server": url} if url else {"server": self.url, "certificate-authority": str(self.ca)}
        )
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": "test", "user": {"token": token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test", "namespace": namespace}}],
            "current-context": "test",
        }
        path.write_text(yaml.safe_dump(config))
        path.chmod(0o600)
        return path
