"""Credentials for an API server: of a kubeconfig, or of the pod that this runs in."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from dynamo_planner.core.extras import needs_extra
from dynamo_planner.executors import ExecutorError

with needs_extra("kubernetes"):
    import urllib3
    from kubernetes import config as credentials
    from kubernetes.client import ApiClient, Configuration
    from kubernetes.config.config_exception import ConfigException

NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")

GIVEN_WITHIN_S = 30.0
"""Seconds that an exec plugin may take: the official client would wait for ever."""


def load_client(kubeconfig: Path | str | None, context: str | None) -> tuple[ApiClient, str]:
    """A client with credentials as they are now, and the namespace that they name.

    Raises :class:`ExecutorError`, also where an exec plugin does not answer within :data:`GIVEN_WITHIN_S`.
    """
    inside = kubeconfig is None and context is None and "KUBERNETES_SERVICE_HOST" in os.environ
    where = "this pod's service account" if inside else f"the kubeconfig {kubeconfig or '(default)'}"
    loaded: list[tuple[ApiClient, str]] = []
    failed: list[BaseException] = []

    def load() -> None:
        try:
            loaded.append(_of_pod() if inside else _of_kubeconfig(kubeconfig, context))
        except Exception as error:  # raised again below, in the thread that waits
            failed.append(error)

    loading = threading.Thread(target=load, name="dynamo-planner credentials", daemon=True)
    loading.start()
    loading.join(GIVEN_WITHIN_S)
    if not loaded:
        why = _said(failed[0]) if failed else f"an exec plugin did not answer within {GIVEN_WITHIN_S:g} s"
        raise ExecutorError(f"no credentials for Kubernetes in {where}: {why}") from (failed[0] if failed else None)
    return loaded[0]


def _said(error: BaseException) -> str:
    """What is wrong with a kubeconfig; of one that is being written just now, any error may be the answer."""
    known = isinstance(error, ConfigException | OSError)
    return str(error) if known else f"it cannot be read ({type(error).__name__}: {error})"


def _of_pod() -> tuple[ApiClient, str]:
    configuration = Configuration()
    credentials.load_incluster_config(client_configuration=configuration)
    return ApiClient(configuration), NAMESPACE_FILE.read_text().strip()


def _of_kubeconfig(kubeconfig: Path | str | None, context: str | None) -> tuple[ApiClient, str]:
    configuration, file = Configuration(), str(kubeconfig) if kubeconfig is not None else None
    credentials.load_kube_config(file, context=context, client_configuration=configuration)
    contexts, current = credentials.list_kube_config_contexts(file)
    chosen = next((entry for entry in contexts if entry["name"] == context), current)
    return ApiClient(configuration), chosen["context"].get("namespace") or "default"


def has_credentials(client: ApiClient) -> bool:
    """Whether a client has a token or a certificate; an exec plugin that fails leaves none."""
    return bool(client.configuration.api_key or client.configuration.cert_file)


def is_stranger(answer: urllib3.BaseHTTPResponse) -> bool:
    """Whether the server does not know who asks: it says so, or takes the client for an anonymous one."""
    return answer.status == 401 or (answer.status == 403 and b'"system:anonymous\\"' in answer.data)
