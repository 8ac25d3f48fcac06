"""The real llama.cpp server with a random model: what it serves and tells, how it drains, and why it cannot start."""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader

from dynamo_planner.engines.llamacpp import LLAMACPP_SPLIT
from dynamo_planner.executors.circus.ports import free_port
from dynamo_planner.mock_workers.llamacpp import MODULE, LlamaOptions
from dynamo_planner.mock_workers.random_gguf import VOCABULARY, RandomModel
from dynamo_planner.sources.scraping.source import ScrapeSource

pytestmark = pytest.mark.timeout(120)

SLOTS = 2
CONTEXT_TOKENS = 512
LONG = 250
"""As many tokens as a slot has room for, nearly."""


@dataclass(frozen=True)
class LlamaWorker:
    """A worker that is ready."""

    process: subprocess.Popen[str]
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=50)
        connection.request(method, path, json.dumps(body) if body else None)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()

    def complete(self, tokens: int) -> str:
        """The whole stream of a request for so many tokens."""
        body = {"prompt": [9, 8, 7], "max_tokens": tokens, "ignore_eos": True, "stream": True}
        status, text = self.ask("POST", "/v1/completions", {**body, "stream_options": {"include_usage": True}})
        assert status == 200, text
        return text

    def inside(self) -> dict[str, float]:
        lines = [line for line in self.ask("GET", "/metrics")[1].splitlines() if line.startswith("llamacpp:requests_")]
        return {line.split()[0].removeprefix("llamacpp:requests_"): float(line.split()[1]) for line in lines}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "random.gguf"
    RandomModel(width=256).write(path)
    return path


@pytest.fixture
def start(model: Path) -> Iterator[Callable[[], LlamaWorker]]:
    """Starts workers, and ends those that are left."""
    with ExitStack() as ends:

        def started() -> LlamaWorker:
            port = free_port(())
            options = LlamaOptions(port=port, model=str(model), slots=SLOTS, context_tokens=CONTEXT_TOKENS)
            process = subprocess.Popen(options.command(), stderr=subprocess.PIPE, text=True)
            ends.callback(process.communicate)
            ends.callback(process.kill)
            worker = LlamaWorker(process, port)
            until(lambda: worker.ask("GET", "/health")[0] == 200)
            return worker

        yield started


def until(true: Callable[[], bool], within_s: float = 30.0) -> None:
    deadline = time.monotonic() + within_s
    while True:
        with suppress(OSError):
            if true():
                return
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.02)


def test_a_model_is_what_was_asked_for_and_the_same_for_a_seed(tmp_path: Path) -> None:
    shape = RandomModel(width=128, layers=3, hidden=192)
    shape.write(tmp_path / "one.gguf")
    shape.write(tmp_path / "again.gguf")
    shape.replace(seed=1).write(tmp_path / "other.gguf")
    assert (tmp_path / "one.gguf").read_bytes() == (tmp_path / "again.gguf").read_bytes()
    assert (tmp_path / "one.gguf").read_bytes() != (tmp_path / "other.gguf").read_bytes()
    tensors = {tensor.name: tensor for tensor in GGUFReader(tmp_path / "one.gguf").tensors}
    assert len(tensors) == 3 + 3 * 9
    assert tuple(tensors["blk.2.ffn_down.weight"].shape) == (192, 128)  # GGUF has the input first
    assert tuple(tensors["token_embd.weight"].shape) == (128, VOCABULARY)
    assert np.std(tensors["blk.0.attn_q.weight"].data.astype(float)) == pytest.approx(0.02, rel=0.02)


def test_it_streams_exactly_the_tokens_that_were_asked_for(start: Callable[[], LlamaWorker]) -> None:
    text = start().complete(12)
    assert text.endswith("data: [DONE]\n\n")
    usage = json.loads(text.strip().splitlines()[-3].removeprefix("data: "))["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (3, 12)


def test_told_to_end_it_answers_what_it_has_and_what_was_on_its_way(start: Callable[[], LlamaWorker]) -> None:
    worker = start()
    with ThreadPoolExecutor(8) as clients:
        early = [clients.submit(worker.complete, LONG) for _ in range(6)]
        until(lambda: worker.inside()["deferred"] >= 2)
        worker.process.send_signal(signal.SIGTERM)
        late = [clients.submit(worker.complete, 20) for _ in range(2)]
        answers = [client.result() for client in (*early, *late)]
    assert all(answer.endswith("data: [DONE]\n\n") for answer in answers)
    assert worker.process.wait(20) == 0


def test_a_snapshot_has_what_llama_cpp_tells_and_says_what_it_does_not(start: Callable[[], LlamaWorker]) -> None:
    worker = start()
    urls = {"workers": {"one": worker.url}}
    source = ScrapeSource(urls, {"workers": "aggregated"}, vocabulary=LLAMACPP_SPLIT)
    source.observe(0.0)
    with ThreadPoolExecutor(5) as clients:
        answers = [clients.submit(worker.complete, LONG) for _ in range(5)]
        until(lambda: worker.inside()["deferred"] >= 2)
        busy = source.observe(1.0).pools["workers"]
        assert all(answer.result() for answer in answers)
    until(lambda: worker.inside() == {"processing": 0, "deferred": 0})
    idle = source.observe(2.0)
    empty = idle.pools["workers"]
    assert (busy.running, busy.kv_capacity_tokens) == (SLOTS, CONTEXT_TOKENS)
    assert busy.queued in {1, 2, 3}
    assert busy.kv_usage is not None
    assert 0 < busy.kv_usage <= SLOTS * (3 + LONG) / CONTEXT_TOKENS  # the prompts, and tokens so far
    assert (empty.running, empty.queued, empty.kv_usage, empty.kv_capacity_tokens) == (0, 0, 0, CONTEXT_TOKENS)
    assert idle.traffic is not None
    assert idle.traffic.itl_ms is not None  # over the tokens of the window
    for field in ("requests_per_s", "ttft_ms", "isl", "osl", "request_duration_s"):
        assert getattr(idle.traffic, field) is None
        assert "llama.cpp" in idle.missing[f"traffic.{field}"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--port=70000", "--model=m.gguf"], 2, "--port"),
        (["--port=8000", "--model=m.gguf", "--slots=none"], 2, "--slots"),
        (["--port=8000"], 2, "--model"),
        (["--port=8000", "--model=no-such-file.gguf"], 1, "no-such-file.gguf"),
    ],
)
def test_what_cannot_be_started_says_why(arguments: list[str], code: int, message: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", MODULE, *arguments], capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == code
    assert message in done.stderr
