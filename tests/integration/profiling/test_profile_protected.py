"""`dynamo-planner profile URL` on an engine that it starts itself, behind TLS and a token, by chat completions."""

from __future__ import annotations

import http.client
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from dynamo_planner.cli.app import app
from dynamo_planner.executors.circus.ports import free_port
from dynamo_planner.mock_workers.main import WorkerOptions
from dynamo_planner.profiles import Profile
from dynamo_planner.simulator.engine.engine import EngineLimits
from dynamo_planner.simulator.engine.step_time import LinearTiming

pytestmark = pytest.mark.timeout(240)

LAW = LinearTiming(base_ms=25, prefill_ms_per_token=0.4, kv_ms_per_token=4e-3)
TOKEN = "a-token"


def planner(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["profile", *(str(argument) for argument in arguments)])


@pytest.fixture
def port() -> int:
    return free_port(())


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate of localhost, with its key in the same file."""
    path = tmp_path / "ca.pem"
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    where = ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(path), "-out", str(tmp_path / "cert.pem")]
    subprocess.run([*made, *where], check=True, capture_output=True)
    path.write_text(path.read_text() + (tmp_path / "cert.pem").read_text())
    return path


@pytest.fixture
def proxy(port: int, certificate: Path) -> Iterator[str]:
    """A server with TLS that wants a token, and hands requests on to the engine."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                self.send_error(401)
                return
            engine = http.client.HTTPConnection("127.0.0.1", port)
            try:
                engine.request(self.command, self.path, body, {"Content-Type": "application/json"})
                answer = engine.getresponse()
            except OSError:
                self.send_error(502)
                return
            self.send_response(answer.status)
            self.send_header("Content-Type", answer.getheader("Content-Type", "text/plain"))
            self.end_headers()
            while piece := answer.read1(65_536):
                self.wfile.write(piece)

        do_POST = do_GET  # noqa: N815 - the name that the base class calls

        def log_message(self, *_: object) -> None:
            pass

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    listening.socket = context.wrap_socket(listening.socket, server_side=True)
    threading.Thread(target=listening.serve_forever, daemon=True).start()
    yield f"https://localhost:{listening.server_port}"
    listening.shutdown()
    listening.server_close()


@pytest.mark.alone  # an engine is judged by how long it takes
def test_an_engine_is_started_and_measured_behind_tls(proxy: str, port: int, certificate: Path, tmp_path: Path) -> None:
    token, output = tmp_path / "token", tmp_path / "engine.json"
    token.write_text(TOKEN)
    limits = EngineLimits(max_num_seqs=4, max_num_batched_tokens=256, kv_tokens=6000)
    command = WorkerOptions(port=port, model="tiny", timing=LAW, limits=limits).command()
    options = ("-o", output, "--minutes", "0.2", "--api", "chat", "--max-concurrency", "4", "--max-context", "800")
    done = planner(proxy, *options, "--token", token, "--ca", certificate, "--", *command)
    assert done.exit_code == 0, done.stderr
    profile = Profile.load(output)
    assert 0.1 < float(profile.about["startup_s"] or 0) < 60
    assert profile.decode.step_ms(1, 300) == pytest.approx(26.2, rel=0.2)
    assert profile.prefill.ttft_ms(200) == pytest.approx(25 + 80, rel=0.25)
    assert "takes requests" in (tmp_path / "engine.log").read_text()
    refused = planner(proxy, *options, "--ca", certificate)
    assert "give its token with --token FILE" in refused.stderr
    ended = planner(proxy, *options, "--token", token, "--ca", certificate)
    assert ended.exit_code == 1  # the engine was ended with the session
    assert not isinstance(ended.exception, OSError)
    untrusted = planner(proxy, *options, "--token", token)
    assert "certificate" in untrusted.stderr


def test_an_engine_that_does_not_start_shows_why(port: int, tmp_path: Path) -> None:
    url, output = f"http://127.0.0.1:{port}", tmp_path / "engine.json"
    failing = (sys.executable, "-c", "import sys; sys.exit('CUDA out of memory')")
    done = planner(url, "-o", output, "--", *failing)
    assert done.exit_code == 1
    assert "ended with 1" in done.stderr
    assert "CUDA out of memory" in done.stderr
    missing = planner(url, "-o", output, "--", "/no/engine", "serve")
    assert "/no/engine: cannot be started: No such file or directory" in missing.stderr
