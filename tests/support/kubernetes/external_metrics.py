"""What prometheus-adapter is for an HPA: the external metrics API, here straight from the page of a planner.

It is reached through the API server's aggregation layer, as the adapter is. Prometheus between the two is left out.
"""

from __future__ import annotations

import json
import ssl
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prometheus_client import CollectorRegistry

from tests.support.kubernetes.control_plane import ControlPlane

GROUP, VERSION = "external.metrics.k8s.io", "v1beta1"
API = f"/apis/{GROUP}/{VERSION}"


def answer(path: str, registry: CollectorRegistry) -> dict[str, Any] | None:
    """The discovery document, or the values of a metric in a namespace that has the labels of the selector."""
    url = urllib.parse.urlsplit(path)
    if not url.path.startswith(API):
        return None
    if url.path.rstrip("/") == API:
        resource = {"name": "*", "namespaced": True, "kind": "ExternalMetricValueList", "verbs": ["get"]}
        return {
            "kind": "APIResourceList",
            "apiVersion": "v1",
            "groupVersion": f"{GROUP}/{VERSION}",
            "resources": [resource],
        }
    namespace, metric = url.path.removeprefix(f"{API}/namespaces/").split("/")
    selector = urllib.parse.parse_qs(url.query).get("labelSelector", [""])[0]
    wanted = {"namespace": namespace, **dict(term.split("=") for term in selector.split(",") if term)}
    samples = [sample for family in registry.collect() for sample in family.samples if sample.name == metric]
    items = [
        {
            "metricName": metric,
            "metricLabels": sample.labels,
            "timestamp": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "value": str(round(sample.value)),
        }
        for sample in samples
        if wanted.items() <= sample.labels.items()
    ]
    return {"kind": "ExternalMetricValueList", "apiVersion": f"{GROUP}/{VERSION}", "metadata": {}, "items": items}


@contextmanager
def external_metrics(server: ControlPlane, registry: CollectorRegistry) -> Iterator[None]:
    """Serve the API to a control plane, with its own certificate, since the aggregation layer is told not to look."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            told = answer(self.path, registry)
            body = json.dumps(told or {}).encode()
            self.send_response(404 if told is None else 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certs = server.directory / "certs"
    context.load_cert_chain(certs / "apiserver.crt", certs / "apiserver.key")
    listener.socket = context.wrap_socket(listener.socket, server_side=True)
    thread = threading.Thread(target=listener.serve_forever)
    thread.start()
    services, registration = "/api/v1/namespaces/default/services", "/apis/apiregistration.k8s.io/v1/apiservices"
    name = f"{VERSION}.{GROUP}"
    spec = {"type": "ExternalName", "externalName": "localhost", "ports": [{"port": listener.server_port}]}
    server.request("POST", services, {"metadata": {"name": "metrics"}, "spec": spec})
    service = {"namespace": "default", "name": "metrics", "port": listener.server_port}
    registered = {"group": GROUP, "version": VERSION, "groupPriorityMinimum": 100, "versionPriority": 100}
    registered |= {"insecureSkipTLSVerify": True, "service": service}
    server.request("POST", registration, {"metadata": {"name": name}, "spec": registered})
    try:
        yield
    finally:
        server.request("DELETE", f"{registration}/{name}")
        server.request("DELETE", f"{services}/metrics")
        listener.shutdown()
        listener.server_close()
        thread.join()
