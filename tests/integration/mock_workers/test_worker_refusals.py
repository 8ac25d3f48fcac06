"""What a worker refuses, and clients that do it no good."""

from __future__ import annotations

import asyncio
import signal
import socket
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from dynamo_planner.mock_workers.main import main
from dynamo_planner.simulator.engine.engine import EngineLimits
from dynamo_planner.simulator.engine.step_time import LinearTiming

if TYPE_CHECKING:
    from tests.support.mock_workers import Answer, Client, StartWorker

STEADY = LinearTiming(base_ms=20, prefill_ms_per_token=0.1, kv_ms_per_token=0)


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
    assert answer.done and answer.times[-1] - answer.sent_s < 5


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
        (
            ["--port", "1", "--model", "tiny", "--profile", "x", "--base-ms", "5"],
            "timing is from --profile or from --base-ms: give one of the two",
        ),
        (["--port", "1", "--model", "tiny", "--profile", "none"], "--profile: "),
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
