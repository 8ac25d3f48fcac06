"""`dynamo-planner profile URL` on a simulated worker over HTTP, in real time, and what is said of trouble."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from dynamo_planner.cli.app import app
from dynamo_planner.cli.profile.screen import warn
from dynamo_planner.profiles import Profile
from dynamo_planner.profiling import ProfilingError
from dynamo_planner.profiling.answer_checks import check_failures
from dynamo_planner.profiling.capacity import kv_capacity
from dynamo_planner.profiling.discover import Found
from dynamo_planner.profiling.engine import Answer, Answers
from dynamo_planner.profiling.openai_client import Endpoint, HttpEngine
from dynamo_planner.profiling.prepare import connect
from dynamo_planner.simulator.engine.engine import EngineLimits
from dynamo_planner.simulator.engine.step_time import LinearTiming
from dynamo_planner.sources.access import Access
from tests.support.mock_workers import StartWorker

pytestmark = pytest.mark.timeout(240)

LAW = LinearTiming(base_ms=40, prefill_ms_per_token=0.2, kv_ms_per_token=1e-3)
"""Slow, so that a busy machine is little beside it."""

LIMITS = EngineLimits(max_num_seqs=8, max_num_batched_tokens=512, kv_tokens=20_000)
SMALL = ("--max-concurrency", "8", "--max-context", "2000")
STREAM = "text/event-stream"


def planner(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.mark.alone  # an engine is judged by how long it takes
def test_a_worker_is_measured_in_half_a_minute(start_worker: StartWorker, tmp_path: Path) -> None:
    worker = start_worker(LAW, LIMITS)
    output = tmp_path / "engine.json"
    begun = planner("profile", worker.url, "-o", output, "--minutes", "0.2", *SMALL)
    assert begun.exit_code == 0, begun.stderr
    spent_s = json.loads((tmp_path / "engine.measured.json").read_text())["measured"]["spent_s"]
    done = planner("profile", worker.url, "-o", output, "--minutes", "0.5", "--resume", "--flags", "a b", *SMALL)
    assert done.exit_code == 0, done.stderr
    assert json.loads((tmp_path / "engine.measured.json").read_text())["measured"]["spent_s"] > spent_s
    profile = Profile.load(output)
    assert profile.decode.max_kv_tokens == 20_000
    assert profile.about["backend"] == "vllm"
    assert profile.about["max_num_batched_tokens"] == 512
    assert profile.about["flags"] == "a b"
    assert profile.decode.step_ms(1, 500) == pytest.approx(40.5, rel=0.15)
    assert profile.decode.step_ms(6, 500) == pytest.approx(43, rel=0.2)
    assert profile.step_ms(400, 3, 1500) == pytest.approx(40 + 80 + 1.5, rel=0.25)
    shown = planner("profile", "show", output)
    assert "20,000 KV tokens" in shown.stdout
    compared = planner("profile", "compare", output, output)
    assert "1.00 in the median" in compared.stdout, compared.stderr
    merged = planner("profile", "merge", output, output, "-o", tmp_path / "both.json")
    assert Profile.load(tmp_path / "both.json").decode_points == Profile.load(output).decode_points, merged.stderr


def test_an_engine_that_dies_leaves_what_was_measured(start_worker: StartWorker, tmp_path: Path) -> None:
    worker = start_worker(LAW, LIMITS)
    output = tmp_path / "engine.json"

    def end() -> None:
        kept = tmp_path / "engine.measured.json"
        while not kept.exists():
            time.sleep(0.05)
        time.sleep(1.5)  # the first prompts are under way
        worker.signal(signal.SIGKILL)

    threading.Thread(target=end, daemon=True).start()
    done = planner("profile", worker.url, "-o", output, "--minutes", "1", *SMALL)
    assert done.exit_code == 1
    assert "requests failed" in done.stderr
    assert "go on with --resume" in done.stderr
    assert json.loads((tmp_path / "engine.measured.json").read_text())["measured"]["prompts"]


def test_the_kv_capacity_is_found_where_most_requests_wait_for_it(start_worker: StartWorker) -> None:
    worker = start_worker(LAW, EngineLimits(max_num_seqs=16, max_num_batched_tokens=512, kv_tokens=1600))
    engine = connect(worker.url, Access(), Found(model="tiny"))
    try:
        capacity = kv_capacity(engine, max_context=1000, max_batch=16)
        assert capacity == pytest.approx(1600, rel=0.1)
        assert engine.failed == []
    finally:
        engine.close()


def test_a_context_that_is_shorter_than_it_was_said(start_worker: StartWorker, tmp_path: Path) -> None:
    worker = start_worker(LAW, LIMITS)
    done = planner("profile", worker.url, "-o", tmp_path / "p.json", "--kv-tokens", "90000", "--max-context", "40000")
    assert done.exit_code == 1
    assert "give --max-context" in done.stderr
    assert "20000" in done.stderr


@contextmanager
def server(pages: dict[str, tuple[int, str, str]]) -> Iterator[str]:
    """A server with these answers by path; everything else is not found."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, kind, text = pages.get(self.path, (404, "text/plain", "not found"))
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        do_POST = do_GET  # noqa: N815 - the name that the base class calls

        def log_message(self, *_: object) -> None:
            pass

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=listening.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{listening.server_port}"
    listening.shutdown()
    listening.server_close()


MODELS = (200, "application/json", '{"data": [{"id": "m", "max_model_len": 4096}]}')
BUSY = (200, "text/plain", "vllm:num_requests_running 3\n")
HTML = (200, "text/html", "<html>Welcome</html>")


@pytest.mark.parametrize(
    ("pages", "says"),
    [
        ({"/v1/models": HTML}, "a web page: give the URL of the engine"),
        ({}, "names no model: give it with --model NAME"),
        (
            {"/v1/models": MODELS, "/v1/completions": (429, "text/plain", "slow down")},
            "were refused (answered 429: slow down): wait",
        ),
        ({"/v1/models": (500, "text/plain", "boom")}, "it answered 500, not 200: is the engine ready?"),
        (
            {"/v1/models": MODELS, "/v1/completions": (200, "application/json", "{}")},
            "with application/json, where a stream of events is expected",
        ),
        ({"/v1/models": MODELS, "/v1/completions": HTML}, "with text/html, where a stream of events is expected"),
        ({"/v1/models": MODELS, "/v1/completions": (200, STREAM, "data: [DONE]\n\n")}, "the stream brought no token"),
        ({"/v1/models": MODELS, "/metrics": BUSY}, "others have 3 requests on the engine"),
    ],
)
def test_what_is_wrong_with_an_endpoint_is_said(
    pages: dict[str, tuple[int, str, str]], says: str, tmp_path: Path
) -> None:
    with server(pages) as url:
        done = planner("profile", url, "-o", tmp_path / "p.json")
    assert done.exit_code == 1
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_nothing_answers(tmp_path: Path) -> None:
    done = planner("profile", "http://127.0.0.1:9", "-o", tmp_path / "p.json")
    assert done.exit_code == 1
    assert "nothing answers there" in done.stderr


def test_a_request_of_many_that_fails_is_left_out_and_told(capsys: pytest.CaptureFixture[str]) -> None:
    engine = HttpEngine(Endpoint("http://127.0.0.1:9", "m", "text", {}))
    answers = [Answer(isl=100, sent_s=0.0) for _ in range(8)]
    answers[3].failure = "answered 503: busy"
    engine.failed += check_failures(Answers(answers, []), "http://127.0.0.1:9")
    warn(engine)
    assert "failed requests, which are in no figure: 1; the first: answered 503: busy" in capsys.readouterr().err
    for answer in answers[:3]:
        answer.failure = "answered 503: busy"
    with pytest.raises(ProfilingError, match="4 of 8 requests failed"):
        check_failures(Answers(answers, []), "http://127.0.0.1:9")
