"""Simulated workers as processes, spoken to over HTTP."""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from typing import TYPE_CHECKING, Any

import aiohttp
import numpy as np
import pytest

from dynamo_planner.simulation.engine import Engine, EngineLimits
from dynamo_planner.simulation.timing import LinearTiming
from dynamo_planner.simulation.worker import main

if TYPE_CHECKING:
    from tests.simulation.conftest import Answer, Client, StartWorker

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
    """The same arrivals through the engine alone. A request that comes a moment later may wait for another step, so
    that single TTFTs differ by up to a step; means must agree."""
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
    engine = Engine(EngineLimits(), timing)
    modelled = [engine.submit(isl, osl, float(at_s)) for at_s, (isl, osl) in zip(arrivals, lengths, strict=True)]
    engine.advance(1e9)
    assert [len(answer.times) for answer in answers] == [osl for _, osl in lengths]
    ttft = np.mean([(request.first_token_s or 0) - request.arrival_s for request in modelled])
    itl = np.mean(
        [((request.finished_s or 0) - (request.first_token_s or 0)) / (request.osl - 1) for request in modelled]
    )
    assert np.mean([answer.ttft_s for answer in answers]) == pytest.approx(ttft, abs=0.02)
    assert np.mean([answer.itl_s for answer in answers]) == pytest.approx(itl, rel=0.1)


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
    assert after["time_to_first_token_seconds_sum"] == pytest.approx(seen, abs=10 * 0.03)
    seen = sum(answer.times[-1] - answer.times[0] for answer in answers)
    assert after["inter_token_latency_seconds_sum"] == pytest.approx(seen, rel=0.1)
    seen = sum(answer.times[-1] - answer.sent_s for answer in answers)
    assert after["e2e_request_latency_seconds_sum"] == pytest.approx(seen, rel=0.1)
    assert after["request_queue_time_seconds_sum"] > 5 * 20 * 0.02  # five had to wait for the other five
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
    assert np.mean([answer.itl_s for answer in answers]) == pytest.approx(0.05, rel=0.15)


def test_tokens_of_short_steps_still_have_a_chunk_each(start_worker: StartWorker, client: Client) -> None:
    async def scenario() -> Answer:
        async with client() as session:
            await worker.ready(session)
            return await worker.complete(session, 10, 2000)

    worker = start_worker(STEADY, time_scale=40.0)  # steps of half a millisecond
    answer = asyncio.run(scenario())
    assert answer.done and len(answer.times) == 2000
    assert 0.9 < answer.times[-1] - answer.sent_s < 2.5


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
            assert 0.3 < time.monotonic() - started < 3
            assert (await worker.complete(session, 1, 1)).done

    worker = start_worker(startup_s=10.0, time_scale=10.0)
    never = start_worker(startup_s=1000.0)
    asyncio.run(scenario())
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
    assert rest.ttft_s < 0.1 < alone.ttft_s
    assert wrong.status == 400 and "this worker only prefills" in wrong.body["error"]["message"]


def test_refuses_with_a_reason_what_it_cannot_serve(start_worker: StartWorker, client: Client) -> None:
    completions, chat = "/v1/completions", "/v1/chat/completions"
    bad: list[tuple[str, Any, int, str]] = [
        (completions, b"{", 400, "the body is not JSON"),
        (completions, b"[" * 100_000, 400, "the body is not JSON"),
        (completions, b"\xff", 400, "the body is not JSON"),
        (completions, [1], 400, "the body must be a JSON object, got list"),
        (completions, {"prompt": "a", "n": 2}, 400, "n must be 1, got 2"),
        (completions, {"prompt": "a", "max_tokens": 0}, 400, "max_tokens: Input should be greater than or equal to 1"),
        (completions, {"prompt": "a", "max_tokens": "x"}, 400, "max_tokens: Input should be a valid integer"),
        (completions, {"prompt": "a", "stream_options": {"include_usage": 7}}, 400, "stream_options.include_usage: "),
        (completions, {"prompt": "a", "max_tokens": 1001}, 400, "more than the KV cache holds (1000)"),
        (completions, {"prompt": [1] * 1001}, 400, "more than the KV cache holds (1000)"),
        (completions, {"prompt": ["a", "b"]}, 400, "prompt must be one string or one list of token ids"),
        (completions, {"prompt": []}, 400, "prompt must be one string or one list of token ids"),
        (completions, {}, 400, "prompt must be one string or one list of token ids, got None"),
        (completions, {"prompt": "a", "model": "big"}, 404, "The model `big` does not exist"),
        (completions, {"prompt": "a", "vllm_xargs": {"cached_tokens": -1}}, 400, "vllm_xargs.cached_tokens: "),
        (chat, {"messages": "hello"}, 400, "messages must be a list of objects"),
        (chat, {"messages": [{"content": 7}]}, 400, "content must be a string or a list of parts, got 7"),
        (completions, b'{"prompt": "' + b"a " * (17 << 20) + b'"}', 413, "the body is larger than 33554432 bytes"),
    ]

    async def scenario() -> None:
        async with client() as session:
            await worker.ready(session)
            for path, body, status, message in bad:
                answer = await worker.post(session, path, body)
                assert (answer.status, answer.body.get("error", {}).get("code")) == (status, status), message
                assert message in answer.body["error"]["message"]
            assert (await worker.complete(session, 900, 100)).done
            assert (await worker.metrics(session))["request_success_total:length"] == 1

    worker = start_worker(limits=EngineLimits(kv_tokens=1000), time_scale=20.0)
    asyncio.run(scenario())


def test_refuses_what_does_not_fit_in_the_queue(start_worker: StartWorker, client: Client) -> None:
    async def scenario() -> list[Answer]:
        async with client() as session:
            await worker.ready(session)
            jobs = [asyncio.create_task(worker.complete(session, 10, 20)) for _ in range(8)]
            answers = await asyncio.gather(*jobs)
            assert (await worker.metrics(session))["admission_rejections_total:max_num_queued_reqs"] == 5
            return answers

    worker = start_worker(limits=EngineLimits(max_num_seqs=1), max_num_queued_reqs=2)
    answers = asyncio.run(scenario())
    assert sorted(answer.status for answer in answers) == [200] * 3 + [503] * 5
    assert all(answer.done for answer in answers if answer.status == 200)


def test_a_client_that_does_not_read_holds_up_nobody(start_worker: StartWorker, client: Client) -> None:
    async def scenario() -> Answer:
        async with client() as session:
            await worker.ready(session)
            host, port = worker.url.removeprefix("http://").split(":")
            body = b'{"prompt": "a", "max_tokens": 100000, "stream": true}'
            deaf = socket.create_connection((host, int(port)))
            with deaf:
                head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
                deaf.sendall(head.encode() + body)
                await asyncio.sleep(0.5)
                return await worker.complete(session, 10, 200)

    worker = start_worker(time_scale=20.0)
    answer = asyncio.run(scenario())
    assert answer.done and answer.times[-1] - answer.sent_s < 1.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "tiny"], "the following arguments are required: --port"),
        (["--port", "x", "--model", "tiny"], "--port: Input should be a valid integer"),
        (["--port", "70000", "--model", "tiny"], "--port: Input should be less than or equal to 65535, got 70000"),
        (["--port", "1", "--model", ""], "--model: String should have at least 1 character"),
        (["--port", "1", "--model", "tiny", "--base-ms", "0"], "--base-ms: Input should be greater than 0, got 0"),
        (["--port", "1", "--model", "tiny", "--startup-s", "-1"], "--startup-s: Input should be greater than or equal"),
        (["--port", "1", "--model", "tiny", "--time-scale", "nan"], "--time-scale: Input should be a finite number"),
        (["--port", "1", "--model", "tiny", "--role", "both"], "--role: invalid choice: 'both'"),
        (
            ["--port", "1", "--model", "tiny", "--max-num-seqs", "9999"],
            "max_num_batched_tokens (2048) must be at least",
        ),
        (["--port", "1", "--model", "tiny", "--base", "5"], "unrecognized arguments: --base 5"),
    ],
)
def test_bad_arguments_are_refused(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert message in capsys.readouterr().err


def test_a_port_that_is_taken_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SystemExit, match="1"):
            main(["--port", str(port), "--model", "tiny"])
    assert f"cannot listen on 127.0.0.1, port {port}: " in capsys.readouterr().err


def test_listens_on_loopback_only(start_worker: StartWorker) -> None:
    assert start_worker().url.startswith("http://127.0.0.1:")


def test_broken_and_stalled_uploads_hold_up_nothing(start_worker: StartWorker, client: Client) -> None:
    async def scenario() -> dict[str, float]:
        async with client() as session:
            await worker.ready(session)
            host, port = worker.url.removeprefix("http://").split(":")
            head = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{"
            writers = []
            for garbage in (head, b"\x00\xff\r\n\r\n", head):
                _, writer = await asyncio.open_connection(host, int(port))
                writer.write(garbage)
                await writer.drain()
                writers.append(writer)
            writers[0].close()
            await asyncio.sleep(0.1)
            metrics = await worker.metrics(session)
            worker.signal(signal.SIGTERM)
            assert await asyncio.to_thread(worker.exit_code) == 0
            return metrics

    worker = start_worker()
    assert asyncio.run(scenario())["num_requests_running"] == 0


def test_answers_to_unknown_paths_are_404(start_worker: StartWorker) -> None:
    async def scenario() -> tuple[int, int]:
        async with aiohttp.ClientSession() as session:
            await worker.ready(session)
            async with session.get(f"{worker.url}/v2") as unknown, session.get(f"{worker.url}/v1/completions") as wrong:
                return unknown.status, wrong.status

    worker = start_worker()
    assert asyncio.run(scenario()) == (404, 405)
