"""A stage of real llama.cpp servers with a random model. How fast they are is measured, and the requests made to fit.

As in :mod:`~dynamo_planner.demo.fit`, the busiest :data:`PEAK_WINDOW_S` of the replay is to need a certain number
of workers. Here the engine is what it is on this machine, so prompts and outputs are scaled: at the peak
:data:`PREFILL_SHARE` of the time of :data:`PEAK_WORKERS` workers goes into prompts, and the rest into tokens.
"""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dynamo_planner.core.snapshot import Sla
from dynamo_planner.demo.fit import LONGEST_DECODE_S, peak_per_s, rounded_up
from dynamo_planner.demo.load import TraceRequest
from dynamo_planner.demo.stage import AGGREGATED, DemoStage, pool
from dynamo_planner.engines.llamacpp import LLAMACPP_SPLIT
from dynamo_planner.executors import ExecutorError
from dynamo_planner.executors.circus.ports import free_port
from dynamo_planner.executors.circus.state_dir import TEMPORARY
from dynamo_planner.mock_workers.llamacpp import LlamaOptions
from dynamo_planner.mock_workers.random_gguf import RandomModel

PEAK_WORKERS = 1.5
"""More would not help on two cores, on which the load client and the router run as well."""

PREFILL_SHARE = 0.35
SLA_SCALE = 3.0
SLOTS = 4
KV_PER_WAITING = 0.25
"""What a waiting request counts beside the KV usage: slots are short long before their KV cache is, since each of them
has room for the longest request."""

STARTUP_S = 2.0
PROBE_ISL, PROBE_OSL = 256, 48
STARTS_WITHIN_S = 30.0
OK = 200


@dataclass(frozen=True)
class Speed:
    """What one worker can do: prompt tokens per second, and output tokens per second with all of its slots busy."""

    prompt_per_s: float
    tokens_per_s: float


@contextmanager
def llamacpp_stage(requests: Sequence[TraceRequest], max_workers: int) -> Iterator[DemoStage]:
    """llama.cpp workers, and the requests scaled so that they need a few of them at their peak.

    Raises :class:`ExecutorError` where such a worker does not start.
    """
    with tempfile.TemporaryDirectory(prefix=f"{TEMPORARY}llamacpp-{os.getpid()}-") as directory:
        model = Path(directory) / "random.gguf"
        RandomModel().write(model)
        speed = measured(model)
        sent, cut = scaled(requests, speed)
        longest = max(request.isl + request.osl for request in sent)
        options = LlamaOptions(port=0, model=str(model), slots=SLOTS, context_tokens=SLOTS * (longest + 1))
        yield DemoStage(
            pools={name: pool(options.command(), role, max_workers, STARTUP_S) for name, role in AGGREGATED.items()},
            requests=sent,
            cut=cut,
            sla=_sla(sent, speed),
            engines=(
                f"llama.cpp with a random model of {model.stat().st_size / 1e6:.0f} MB and {SLOTS} slots, one thread"
                f" each: here {speed.prompt_per_s:.0f} prompt tokens/s\nor {speed.tokens_per_s:.0f} tokens/s; prompts"
                f" and outputs are scaled so that the replay needs about {PEAK_WORKERS:g} of them at its peak"
            ),
            kv_per_waiting=KV_PER_WAITING,
            vocabulary=LLAMACPP_SPLIT,
        )


def measured(model: Path) -> Speed:
    """How fast a worker with this model is now, on this machine."""
    port = free_port(())
    options = LlamaOptions(port=port, model=str(model), slots=SLOTS, context_tokens=SLOTS * 2 * PROBE_ISL)
    process = subprocess.Popen(options.command(), stderr=subprocess.PIPE, text=True)  # noqa: S603 - this interpreter
    try:
        _wait_for(process, port)
        prompt = _complete(port, PROBE_ISL, 1)["timings"]
        began_s = time.monotonic()
        with ThreadPoolExecutor(SLOTS) as threads:
            list(threads.map(lambda _: _complete(port, 1, PROBE_OSL), range(SLOTS)))
        return Speed(
            prompt_per_s=float(prompt["prompt_per_second"]),
            tokens_per_s=SLOTS * PROBE_OSL / (time.monotonic() - began_s),
        )
    finally:
        process.kill()
        process.communicate()


def _wait_for(process: subprocess.Popen[str], port: int) -> None:
    gives_up_s = time.monotonic() + STARTS_WITHIN_S
    while process.poll() is None and time.monotonic() < gives_up_s:
        with suppress(OSError):
            if _answer(port, "GET", "/health").status == OK:
                return
        time.sleep(0.05)
    process.kill()
    raise ExecutorError(f"llama.cpp did not start: {process.communicate()[1]}")


def _complete(port: int, isl: int, osl: int) -> dict[str, Any]:
    body = {"prompt": [isl] * isl, "max_tokens": osl, "ignore_eos": True}
    answer: dict[str, Any] = json.load(_answer(port, "POST", "/v1/completions", json.dumps(body)))
    return answer


def _answer(port: int, method: str, path: str, body: str | None = None) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=STARTS_WITHIN_S)
    connection.request(method, path, body)
    return connection.getresponse()


def scaled(requests: Sequence[TraceRequest], speed: Speed) -> tuple[tuple[TraceRequest, ...], int]:
    """The requests with lengths that suit workers of this speed, and how many were cut, which would take too long."""
    due_s = np.array([request.due_s for request in requests])
    isl = np.array([request.isl for request in requests])
    osl = np.array([request.osl for request in requests])
    prompts = PEAK_WORKERS * PREFILL_SHARE * speed.prompt_per_s / peak_per_s(due_s, isl)
    tokens = PEAK_WORKERS * (1 - PREFILL_SHARE) * speed.tokens_per_s / peak_per_s(due_s, osl)
    longest_isl = LONGEST_DECODE_S * PREFILL_SHARE * speed.prompt_per_s
    longest_osl = LONGEST_DECODE_S * speed.tokens_per_s / SLOTS
    sent = tuple(
        TraceRequest(request.due_s, int(max(1, min(longest_isl, prompt))), int(max(1, min(longest_osl, output))))
        for request, prompt, output in zip(requests, isl * prompts, osl * tokens, strict=True)
    )
    cut = int(((isl * prompts > longest_isl) | (osl * tokens > longest_osl)).sum())
    return sent, cut


def _sla(requests: Sequence[TraceRequest], speed: Speed) -> Sla:
    """Targets several times what a request with a long prompt sees on a worker whose slots are all busy."""
    token_ms = 1000 * SLOTS / speed.tokens_per_s
    prompt_ms = 1000 * float(np.percentile([request.isl for request in requests], 95)) / speed.prompt_per_s
    return Sla(ttft_ms=rounded_up(SLA_SCALE * (prompt_ms + token_ms)), itl_ms=rounded_up(SLA_SCALE * token_ms))
