"""Credentials for an API server: of a kubeconfig, or of the pod that this runs in."""

from __future__ import annotations

import os
from pathlib import Path

from dynamo_planner.core.extras import needs_extra
from dynamo_planner.executors import ExecutorError

with needs_extra("kubernetes"):
    import urllib3
    from kubernetes import config as credentials
    from kubernetes.client import ApiClient, Configuration
    from kubernetes.config.config_exception import ConfigException

NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


def load_client(kubeconfig: Path | str | None, context: str | None) -> tuple[ApiClient, str]:
    """A client with credentials as they are now, and the namespace that they name. Raises :class:`ExecutorError`."""
    configuration = Configuration()
    inside = kubeconfig is None and context is None and "KUBERNETES_SERVICE_HOST" in os.environ
    try:
        if inside:
            credentials.load_incluster_config(client_configuration=configuration)
            namespace = NAMESPACE_FILE.read_text().strip()
        else:
            file = str(kubeconfig) if kubeconfig is not None else None
            credentials.load_kube_config(file, context=context, client_configuration=configuration)
            contexts, current = credentials.list_kube_config_contexts(file)
            chosen = next((entry for entry in contexts if entry["name"] == context), current)
            namespace = chosen["context"].get("namespace") or "default"
    except (ConfigException, OSError) as error:
        where = "this pod's service account" if inside else f"the kubeconfig {kubeconfig or '(default)'}"
        raise ExecutorError(f"no credentials for Kubernetes in {where}: {error}") from error
    return ApiClient(configuration), namespace


def has_credentials(client: ApiClient) -> bool:
    """Whether a client has a token or a certificate; an exec plugin that fails leaves none."""
    return bool(client.configuration.api_key or client.configuration.cert_file)


def is_stranger(answer: urllib3.BaseHTTPResponse) -> bool:
    """Whether the server does not know who asks: it says so, or takes the client for an anonymous one."""
    return answer.status == 401 or (answer.status == 403 and b'"system:anonymous\\"' in answer.data)
