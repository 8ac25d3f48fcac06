"""Profiles from the results of load tests: GuideLLM's and those of `vllm bench serve`, as both tools write them."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import pytest

from dynamo_planner.profiles import Profile, ProfileError
from dynamo_planner.profiling.engine import Answer
from dynamo_planner.simulator.engine.engine import Engine, EngineLimits
from dynamo_planner.simulator.engine.request import Request
from dynamo_planner.simulator.engine.step_time import LinearTiming

LAW = LinearTiming(base_ms=10, prefill_ms_per_token=0.05, kv_ms_per_token=2e-4)


@pytest.fixture(scope="module")
def answers() -> list[Answer]:
    """Load tests with 1, 8 and 32 requests at once, one after the other."""
    engine = Engine(EngineLimits(max_num_batched_tokens=8192, kv_tokens=200_000), LAW)
    random, done, now_s = Random(1), [], 0.0
    for concurrency, count in ((1, 20), (8, 80), (32, 200)):
        live: dict[Request, Answer] = {}
        for left in range(count + concurrency, 0, -1):
            while len(live) >= min(concurrency, left):
                now_s = engine.next_step_s()
                for event in engine.advance(now_s):
                    answer = live[event.request]
                    if event.kind == "first_token":
                        answer.first_s = event.at_s
                    elif event.kind == "finished":
                        answer.last_s = event.at_s
                        done.append(live.pop(event.request))
            if left > concurrency:
                isl, osl = random.randint(50, 2000), random.randint(20, 300)
                live[engine.submit(isl, osl, now_s)] = Answer(isl, now_s, osl)
    return done


def guidellm(answers: list[Answer], total: int | None = None) -> dict[str, Any]:
    requests = [
        {
            "type_": "generative_request_stats",
            "request_start_time": 1.7e9 + answer.sent_s,
            "time_to_first_token_ms": answer.ttft_ms,
            "inter_token_latency_ms": 1000 * (answer.last_s - answer.first_s) / (answer.tokens - 1),
            "prompt_tokens": answer.isl,
            "output_tokens": answer.tokens,
        }
        for answer in answers
        if answer.tokens > 1
    ]
    requests[:0] = [{**requests[0], "inter_token_latency_ms": None, "output_tokens": 1}]
    totals = {"successful": total or len(requests), "errored": 0, "incomplete": 0}
    requests_by_status = {"successful": requests, "errored": [], "incomplete": []}
    return {"args": {}, "benchmarks": [{"metrics": {"request_totals": totals}, "requests": requests_by_status}]}


def vllm(answers: list[Answer]) -> dict[str, Any]:
    itls = [[(a.last_s - a.first_s) / (a.tokens - 1)] * (a.tokens - 1) if a.tokens > 1 else [] for a in answers]
    return {
        "backend": "vllm",
        "model_id": "m",
        "completed": len(answers),
        "input_lens": [answer.isl for answer in answers],
        "output_lens": [answer.tokens for answer in answers],
        "ttfts": [answer.ttft_ms / 1000 for answer in answers],
        "itls": itls,
        "start_times": [answer.sent_s for answer in answers],
    }


@pytest.mark.parametrize("tool", [guidellm, vllm])
def test_a_load_test_tells_the_steps_of_its_engine(tool: Any, answers: list[Answer], tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_text(json.dumps(tool(answers)))
    profile = Profile.load(path)
    assert profile.name == "result"
    assert "requests" in str(profile.about["origin"])
    for batch, context in ((1, 500), (8, 1000), (30, 1500)):
        step_ms = 10 + 2e-4 * batch * context
        assert profile.decode.step_ms(batch, context) == pytest.approx(step_ms, rel=0.1)
    assert profile.prefill.ttft_ms(2000) == pytest.approx(10 + 0.05 * 2000, rel=0.2)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda result: result.pop("start_times"), "has no start_times and itls, which --save-detailed writes"),
        (lambda result: result.update(itls=[[]] * len(result["itls"])), "no request of two output tokens"),
        (lambda result: result["ttfts"].pop(), "no result of vllm bench serve as expected"),
    ],
)
def test_what_a_result_of_vllm_lacks(change: Any, says: str, answers: list[Answer], tmp_path: Path) -> None:
    path, result = tmp_path / "result.json", vllm(answers)
    change(result)
    path.write_text(json.dumps(result))
    with pytest.raises(ProfileError, match=says):
        Profile.load(path)


def test_a_sample_of_the_requests_does_not_tell_the_load(answers: list[Answer], tmp_path: Path) -> None:
    path = tmp_path / "benchmarks.json"
    path.write_text(json.dumps(guidellm(answers, total=5000)))
    with pytest.raises(ProfileError, match="a sample of 301 of 5000 requests"):
        Profile.load(path)
