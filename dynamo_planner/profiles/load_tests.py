"""A profile from the result of a load test: of GuideLLM, or of vLLM's ``bench serve``.

Both say of each request when it was sent, when its first and its last token came, and how many tokens it had. So it is
known how many others decoded meanwhile, and which prompts were computed beside it: the work of a mean step, which took
the ITL of the request. A linear step (:mod:`~dynamo_planner.profiles.step_model`) is fitted to these; what a test never
showed comes from the shape that measured engines share.

=====================  ============================================================================================
file                   fields
=====================  ============================================================================================
GuideLLM, JSON         ``benchmarks[].requests.successful[]`` with ``request_start_time`` (s),
                       ``time_to_first_token_ms``, ``inter_token_latency_ms``, ``prompt_tokens``, ``output_tokens``;
                       and ``metrics.request_totals``, since a sample of the requests does not tell the load
``vllm bench serve``   ``start_times``, ``ttfts`` and ``itls`` (s), ``input_lens``, ``output_lens``, which
                       ``--save-result --save-detailed`` writes
=====================  ============================================================================================

Neither has the KV capacity, the tokens of a step, or the GPUs; and a TTFT has the network and the server in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dynamo_planner.profiles.learned_profile import LearnedEngine, learned_fields
from dynamo_planner.profiles.step_model import MINUTE_S, StepModel, StepSample, prompt_work
from dynamo_planner.profiles.validation import ProfileError

Floats = NDArray[np.float64]

MOST_REQUESTS = 1000
"""Requests that a step is fitted to, evenly chosen; all of them count as load of the others."""

SAME_STEP_S = 5e-4
"""First tokens that come within this many seconds are of one step."""


class Served(NamedTuple):
    """The requests of a load test, an array each.

    Args:
        sent_s: when it was sent.
        first_s: when its first token came.
        last_s: when its last token came.
        prompt: prompt tokens.
        output: output tokens.
    """

    sent_s: Floats
    first_s: Floats
    last_s: Floats
    prompt: Floats
    output: Floats


def fields_from_load_test(data: Mapping[str, Any], name: str) -> dict[str, Any] | None:
    """The fields of a profile from a result as parsed from JSON; None where it is of no tool that is known.

    Raises :class:`ProfileError` where it lacks what a profile takes.
    """
    for tool, (mark, read) in READERS.items():
        if mark in data:
            try:
                served = read(data)
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                raise ProfileError(f"{name}: is no result of {tool} as expected: {error!r}") from error
            return _fields(served, name, tool)
    return None


def _guidellm(data: Mapping[str, Any]) -> Served:
    benchmarks = data["benchmarks"]
    requests = [request for each in benchmarks for request in each["requests"]["successful"]]
    served = sum(each["metrics"]["request_totals"]["successful"] for each in benchmarks)
    if len(requests) < served:
        raise ValueError(f"it has a sample of {len(requests)} of {served} requests, and the load was all of them")
    names = "request_start_time", "time_to_first_token_ms", "inter_token_latency_ms", "prompt_tokens", "output_tokens"
    rows = [row for request in requests if None not in (row := [request[name] for name in names])]
    sent_s, ttft_ms, itl_ms, prompt, output = np.array(rows, float).reshape(-1, len(names)).T
    first_s = sent_s + ttft_ms / 1000
    return Served(sent_s, first_s, first_s + itl_ms * (output - 1) / 1000, prompt, output)


def _vllm(data: Mapping[str, Any]) -> Served:
    if "start_times" not in data or "itls" not in data:
        raise ValueError("it has no start_times and itls, which --save-detailed writes")
    columns = (data[name] for name in ("start_times", "ttfts", "itls", "input_lens", "output_lens"))
    rows = [
        (start_s, start_s + ttft_s, start_s + ttft_s + sum(itls), prompt, output)
        for start_s, ttft_s, itls, prompt, output in zip(*columns, strict=True)
        if itls  # a request that failed has none
    ]
    return Served(*np.array(rows, float).reshape(-1, len(Served._fields)).T)


READERS: dict[str, tuple[str, Callable[[Mapping[str, Any]], Served]]] = {
    "GuideLLM": ("benchmarks", _guidellm),
    "vllm bench serve": ("input_lens", _vllm),
}
"""By tool: a field that tells its results, and what reads them."""


def _fields(served: Served, name: str, tool: str) -> dict[str, Any]:
    several = np.flatnonzero((served.output > 1) & (served.last_s > served.first_s) & (served.first_s > served.sent_s))
    if not len(several):
        raise ProfileError(f"{name}: has no request of two output tokens or more with their times")
    model = StepModel()
    batch = kv_tokens = 1.0
    chosen = several[:: -(-len(several) // MOST_REQUESTS)]
    for sample in _samples(served, chosen.tolist()):
        model = model.plus(sample, MINUTE_S)  # in a live pool the loads of a minute differ, here those of requests
        batch, kv_tokens = max(batch, sample.requests), max(kv_tokens, sample.kv_tokens)
    engine = LearnedEngine(model.costs(), batch, kv_tokens)
    fields = learned_fields(engine, engine, aggregated=True, name=name)
    about = {"origin": f"{tool}, {len(several)} requests", "kv_tokens": "not told: as many as the test held at once"}
    return {**fields, "about": about}


def _samples(served: Served, chosen: Sequence[int]) -> Iterator[StepSample]:
    """The mean step of each request, and its TTFT where it was the only prompt."""
    sent_s, first_s, last_s, prompt, output = served
    context, work = prompt + output / 2, prompt_work(prompt)
    begin_s = _computed_from(sent_s, first_s)
    for k in chosen:
        lasted_s = float(last_s[k] - first_s[k])
        beside = _overlap(first_s, last_s, first_s[k], last_s[k]) / lasted_s
        computed = float(work @ (_overlap(begin_s, first_s, first_s[k], last_s[k]) / (first_s - begin_s)))
        steps = float(output[k]) - 1
        step_ms = 1000 * lasted_s / steps
        yield StepSample(step_ms, 1.0, computed / steps, float(beside.sum()), float(beside @ context), steps)
        waited_s = float(first_s[k] - sent_s[k])
        pending = _overlap(sent_s, first_s, sent_s[k], first_s[k])
        if pending.sum() <= waited_s * (1 + 1e-6):
            decoding = _overlap(first_s, last_s, sent_s[k], first_s[k]) / waited_s
            batch, kv_tokens = float(decoding.sum()), float(decoding @ context)
            yield StepSample(1000 * waited_s, 1.0, float(work[k]), batch, kv_tokens)


def _computed_from(sent_s: Floats, first_s: Floats) -> Floats:
    """When the computing of each prompt began: engines compute prompts in turn, so after the first token before."""
    firsts = np.concatenate([[-np.inf], np.sort(first_s)])
    before = firsts[np.searchsorted(firsts, first_s - SAME_STEP_S) - 1]
    return np.asarray(np.minimum(np.maximum(sent_s, before), first_s - SAME_STEP_S))


def _overlap(begin_s: Floats, end_s: Floats, from_s: float, to_s: float) -> Floats:
    """For how many seconds each span lies within another one."""
    return np.asarray(np.maximum(np.minimum(end_s, to_s) - np.maximum(begin_s, from_s), 0.0))
