"""KEDA's external scaler over TLS."""

from __future__ import annotations

import subprocess
from pathlib import Path

import grpc
import pytest

from dynamo_planner.integrations.keda import DesiredReplicas, keda_server
from dynamo_planner.integrations.keda_messages import SERVICE, message


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[bytes, bytes]:
    """A key and a certificate of localhost that nobody else signed."""
    make = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout key -out crt -days 2"
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run([*make.split(), *names], cwd=tmp_path, capture_output=True, check=True)
    return (tmp_path / "key").read_bytes(), (tmp_path / "crt").read_bytes()


def test_an_answer_over_tls_and_none_without(certificate: tuple[bytes, bytes]) -> None:
    desired = DesiredReplicas()
    desired.put("llm", "decode", 3)
    server = keda_server(desired, "localhost:0", grpc.ssl_server_credentials([certificate]))
    request = message("GetMetricsRequest")(scaledObjectRef={"name": "decode", "namespace": "llm"})

    def replicas(channel: grpc.Channel) -> float:
        send = channel.unary_unary(
            f"/{SERVICE}/GetMetrics", lambda sent: sent.SerializeToString(), message("GetMetricsResponse").FromString
        )
        return float(send(request, timeout=20).metricValues[0].metricValueFloat)

    try:
        trusted = grpc.ssl_channel_credentials(certificate[1])
        with grpc.secure_channel(f"localhost:{server.port}", trusted) as channel:
            assert replicas(channel) == 3.0
        with grpc.insecure_channel(f"localhost:{server.port}") as plain, pytest.raises(grpc.RpcError):
            replicas(plain)
    finally:
        server.stop(0)
