"""Simulated workers as processes, spoken to over HTTP."""

from __future__ import annotations

import asyncio
import signal
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from dynamo_planner.profiles import Profile
from dynamo_planner.simulator.engine.engine import Engine, EngineLimits
from dynamo_planner.simulator.engine.step_time import LinearTiming

if TYPE_CHECKING:
    from tests.support.mock_workers import Answer, Client, StartWorker

STEADY = LinearTiming(base_ms=20, prefill_ms_per_token=0.1, kv_ms_per_token=0)


def test_streams_a_chunk_per_token_then_usage_then_done(start_worker: StartWorker, client: Client) -> None:
    async def scenario() -> tuple[Answer, Answer]:
        async with client() as session:
            await worker.ready(session)
            plain = await worker.complete(session, 50, 7, stream_options={"include_usage": True}, ignore_eos=True)
            messages = [
                {"role": "user", "content": "three small words"},
                {"role": "user", "content": [{"text": "one"}]},
            ]
            body = {"messages": messages, "max_completion_tokens": 3, "stream": True}
            return plain, await worker.post(session, "/v1/chat/completions", body)

    worker = start_worker()
    plain, chat = asyncio.run(scenario())
    assert (plain.status, plain.done, plain.text) == (200, True, " token" * 7)
    assert [chunk["object"] for chunk in plain.chunks] == ["text_completion"] * 8
    assert [choice["finish_reason"] for c in plain.chunks for choice in c["choices"]] == [None] * 6 + ["length"]
    assert plain.chunks[-1]["usage"] == {
        "prompt_tokens": 50,
        "completion_tokens": 7,
        "total_tokens": 57,
        "prompt_tokens_details": {"cached_tokens": 0},
    }
    assert [chunk["choices"][0]["delta"] for chunk in chat.chunks] == [
        {"role": "assistant", "content": ""},
        *[{"content": " token"}] * 3,
    ]
    assert chat.chunks[-1]["choices"][0]["finish_reason"] == "length"
    assert chat.done and {chunk["id"] for chunk in chat.chunks} == {chat.chunks[0]["id"]}


def test_answers_in_one_piece(start_worker: StartWorker, client: Client) -> None:
    async def scenario() -> tuple[Answer, Answer, Any]:
        async with client() as session:
            await worker.ready(session)
            body = {"prompt": "to be or not", "max_tokens": 2}
            plain = await worker.post(session, "/v1/completions", body)
            chat = await worker.post(session, "/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}]})
            async with session.get(f"{worker.url}/v1/models") as response:
                return plain, chat, await response.json()

    worker = start_worker(time_scale=20.0)
    plain, chat, models = asyncio.run(scenario())
    assert plain.body["choices"][0]["text"] == " token token"
    assert (plain.body["usage"]["prompt_tokens"], plain.body["usage"]["total_tokens"]) == (4, 6)
    assert chat.body["choices"][0]["message"]["role"] == "assistant"
    assert chat.body["usage"] | {"prompt_tokens_details": None} == {
        "prompt_tokens": 1,
        "completion_tokens": 128,
        "total_tokens": 129,
        "prompt_tokens_details": None,
    }
    assert [model["id"] for model in models["data"]] == ["tiny"]


def test_latencies_are_those_of_the_engine_model(start_worker: StartWorker, client: Client) -> None:
    """The same requests through the engine alone, at the times when they were sent. One that comes a moment later may
    wait for another step, so that single TTFTs differ by up to a step; a busy machine stalls some of them, but makes
    none early. So the median is compared."""
    timing = LinearTiming(base_ms=20, prefill_ms_per_token=0.1, kv_ms_per_token=0.001)
    random = np.random.default_rng(2)
    arrivals = np.cumsum(random.exponential(0.05, 60))
    lengths = random.integers((50, 5), (600, 60), (60, 2)).tolist()

    async def scenario() -> list[Answer]:
        async def later(at_s: float, isl: int, osl: int) -> Answer:
            await asyncio.sleep(at_s)
            return await worker.complete(session, isl, osl)

        async with client() as session:
            await worker.ready(session)
            jobs = [later(at_s, isl, osl) for at_s, (isl, osl) in zip(arrivals, lengths, strict=True)]
            return await asyncio.gather(*jobs)

    worker = start_worker(timing)
    answers = asyncio.run(scenario())
    assert [len(answer.times) for answer in answers] == [osl for _, osl in lengths]
    engine = Engine(EngineLimits(), timing)
    order = sorted(zip(answers, lengths, strict=True), key=lambda sent: sent[0].sent_s)
    modelled = [(answer, engine.submit(isl, osl, answer.sent_s)) for answer, (isl, osl) in order]
    engine.advance(1e9)
    late_s, itl_ratio = [], []
    for answer, request in modelled:
        first_s, last_s = request.first_token_s or 0, request.finished_s or 0
        late_s.append(answer.ttft_s - (first_s - request.arrival_s))
        itl_ratio.append(answer.itl_s * (request.osl - 1) / (last_s - first_s))
    assert -0.02 < np.median(late_s) < 0.05
    assert np.median(itl_ratio) == pytest.approx(1.0, abs=0.1)


def test_metrics_are_what_the_client_saw(start_worker: StartWorker, client: Client) -> None:
    async def scenario() -> tuple[list[Answer], dict[str, float], dict[str, float]]:
        async with client() as session:
            await worker.ready(session)
            before = await worker.metrics(session)
            jobs = [worker.complete(session, 40 + n, 20, vllm_xargs={"cached_tokens": n}) for n in range(10)]
            answers = await asyncio.gather(*jobs)
            return answers, before, await worker.metrics(session)

    worker = start_worker(limits=EngineLimits(max_num_seqs=5, kv_tokens=3200))
    answers, before, after = asyncio.run(scenario())
    assert before["request_success_total:length"] == before["time_to_first_token_seconds_count"] == 0
    assert after["request_success_total:length"] == 10
    assert after["prompt_tokens_total"] == after["request_prompt_tokens_sum"] == sum(range(40, 50))
    assert after["generation_tokens_total"] == after["request_generation_tokens_sum"] == 200
    assert after["prefix_cache_queries_total"] == sum(range(40, 50))
    assert after["prefix_cache_hits_total"] == sum(range(10))
    assert after["time_to_first_token_seconds_count"] == after["request_time_per_output_token_seconds_count"] == 10
    assert after["inter_token_latency_seconds_count"] == 190
    seen = sum(answer.ttft_s for answer in answers)
    assert after["time_to_first_token_seconds_sum"] == pytest.approx(seen, rel=0.3)
    seen = sum(answer.times[-1] - answer.times[0] for answer in answers)
    assert after["inter_token_latency_seconds_sum"] == pytest.approx(seen, rel=0.15)
    seen = sum(answer.times[-1] - answer.sent_s for answer in answers)
    assert after["e2e_request_latency_seconds_sum"] == pytest.approx(seen, rel=0.15)
    assert after["request_queue_time_seconds_sum"] > 5 * 20 * 0.02  # five had to wait for the other five
    stages = [after[f"request_{stage}_time_seconds_sum"] for stage in ("queue", "prefill", "decode")]
    assert sum(stages) == pytest.approx(after["e2e_request_latency_seconds_sum"])
    assert after["num_requests_running"] == after["num_requests_waiting"] == after["kv_cache_usage_perc"] == 0
    assert after["num_preemptions_total"] == 0
    assert after["cache_config_info:16:3200:200"] == 1


def test_gauges_and_preemptions_while_it_works(start_worker: StartWorker, client: Client) -> None:
    async def scenario() -> tuple[dict[str, float], dict[str, float]]:
        async with client() as session:
            await worker.ready(session)
            jobs = [asyncio.create_task(worker.complete(session, 40, 30)) for _ in range(4)]
            during = await worker.holds(session, running=3, waiting=1)
            await asyncio.gather(*jobs)
            return during, await worker.metrics(session)

    worker = start_worker(limits=EngineLimits(max_num_seqs=3, kv_tokens=160))
    during, after = asyncio.run(scenario())
    assert 0.75 <= during["kv_cache_usage_perc"] <= 1
    assert after["num_preemptions_total"] > 0
    assert after["request_success_total:length"] == 4


def test_two_hundred_streams_at_once(start_worker: StartWorker, client: Client) -> None:
    async def scenario() -> list[Answer]:
        async with client() as session:
            await worker.ready(session)
            return await asyncio.gather(*(worker.complete(session, 20, 40) for _ in range(200)))

    worker = start_worker(LinearTiming(base_ms=50, prefill_ms_per_token=0.01, kv_ms_per_token=0))
    answers = asyncio.run(scenario())
    assert all(answer.done and len(answer.times) == 40 for answer in answers)
    assert np.mean([answer.itl_s for answer in answers]) == pytest.approx(0.05, rel=0.25)


def test_tokens_of_short_steps_still_have_a_chunk_each(start_worker: StartWorker, client: Client) -> None:
    async def scenario() -> Answer:
        async with client() as session:
            await worker.ready(session)
            return await worker.complete(session, 10, 2000)

    worker = start_worker(STEADY, time_scale=40.0)  # steps of half a millisecond
    answer = asyncio.run(scenario())
    assert answer.done and len(answer.times) == 2000
    assert 0.9 < answer.times[-1] - answer.sent_s < 4


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_drains_what_it_has_accepted_and_takes_no_more(
    start_worker: StartWorker, client: Client, number: signal.Signals
) -> None:
    async def scenario() -> tuple[list[Answer], Answer, tuple[int, str], dict[str, float]]:
        async with client() as session:
            await worker.ready(session)
            jobs = [asyncio.create_task(worker.complete(session, 100, 40, stream=n % 2 == 0)) for n in range(50)]
            await worker.holds(session, running=20, waiting=30)
            worker.signal(number)
            while (health := await worker.health(session))[0] == 200:
                await asyncio.sleep(0.01)
            refused, metrics = await worker.complete(session, 1, 1), await worker.metrics(session)
            worker.signal(number)  # said twice, it still finishes
            return await asyncio.gather(*jobs), refused, health, metrics

    worker = start_worker(limits=EngineLimits(max_num_seqs=20))
    answers, refused, health, metrics = asyncio.run(scenario())
    assert worker.exit_code() == 0, worker.log.read_text()
    assert (refused.status, refused.body["error"]["code"]) == (503, 503)
    assert "draining" in refused.body["error"]["message"]
    assert health == (503, "draining")
    assert metrics["num_requests_running"] == 20
    assert [answer.done for answer in answers] == [n % 2 == 0 for n in range(50)]
    assert all(len(answer.times) == 40 for answer in answers[::2])
    assert all(answer.body["usage"]["completion_tokens"] == 40 for answer in answers[1::2])


def test_starts_late_and_can_be_stopped_meanwhile(start_worker: StartWorker, client: Client) -> None:
    async def scenario() -> None:
        async with client() as session:
            assert await worker.health(session) == (503, "starting")
            refused = await worker.complete(session, 1, 1)
            assert (refused.status, refused.body["error"]["message"]) == (503, "the worker is starting")
            started = time.monotonic()
            await worker.ready(session)
            assert 0.3 < time.monotonic() - started < 4
            assert (await worker.complete(session, 1, 1)).done

    worker = start_worker(startup_s=20.0, time_scale=10.0)
    asyncio.run(scenario())
    never = start_worker(startup_s=1000.0)
    never.signal(signal.SIGTERM)
    assert never.exit_code() == 0


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_away_frees_its_kv(start_worker: StartWorker, client: Client, stream: bool) -> None:
    async def scenario() -> tuple[dict[str, float], dict[str, float]]:
        async with client() as session:
            await worker.ready(session)
            jobs = [asyncio.create_task(worker.complete(session, 100, 10_000, stream=stream)) for _ in range(4)]
            during = await worker.holds(session, running=2, waiting=2)
            for job in jobs:
                job.cancel()
            after = await worker.holds(session, running=0, waiting=0)
            assert (await worker.complete(session, 1, 1)).done
            return during, after

    worker = start_worker(limits=EngineLimits(max_num_seqs=2))
    during, after = asyncio.run(scenario())
    assert during["kv_cache_usage_perc"] > 0
    assert after["kv_cache_usage_perc"] == 0
    assert (after["request_success_total:abort"], after["request_success_total:length"]) == (4, 0)


def test_prefill_and_decode_workers_hand_over(start_worker: StartWorker, client: Client) -> None:
    """20 ms a step and 0.1 ms a prompt token: 2000 tokens take 220 ms to prefill, and a step to decode the first."""

    async def scenario() -> tuple[Answer, Answer, Answer, Answer]:
        async with client() as session:
            await asyncio.gather(prefill.ready(session), decode.ready(session))
            handed = {"do_remote_decode": True, "do_remote_prefill": False}
            first = await prefill.complete(session, 2000, 1, stream=False, kv_transfer_params=handed)
            rest = await decode.complete(session, 2000, 5, kv_transfer_params=first.body["kv_transfer_params"])
            alone = await decode.complete(session, 2000, 5)
            wrong = await prefill.complete(session, 2000, 5)
            return first, rest, alone, wrong

    prefill, decode = start_worker(role="prefill"), start_worker(role="decode")
    first, rest, alone, wrong = asyncio.run(scenario())
    assert first.body["kv_transfer_params"]["do_remote_prefill"] is True
    assert prefill.url.endswith(f"{first.body['kv_transfer_params']['remote_port']}")
    assert len(rest.times) == 5
    assert rest.ttft_s < alone.ttft_s - 0.1
    assert wrong.status == 400 and "this worker only prefills" in wrong.body["error"]["message"]


def test_takes_timing_and_capacity_from_a_profile(start_worker: StartWorker, client: Client) -> None:
    async def scenario() -> tuple[Answer, dict[str, float]]:
        async with client() as session:
            await worker.ready(session)
            return await worker.complete(session, 1000, 100), await worker.metrics(session)

    profile = Profile.bundled("llama31-8b_h100_vllm_tp1")
    worker = start_worker(None, profile=profile.name)
    answer, metrics = asyncio.run(scenario())
    assert answer.itl_s == pytest.approx(profile.step_ms(0, 1, 1050) / 1000, rel=0.25)
    capacity = int(profile.decode_points.max_kv_tokens)
    assert metrics[f"cache_config_info:16:{capacity}:{capacity // 16}"] == 1
