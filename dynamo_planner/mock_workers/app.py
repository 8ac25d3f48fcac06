"""The HTTP side of a simulated worker."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Awaitable, Callable
from typing import Any, Literal

from dynamo_planner.core.extras import needs_extra
from dynamo_planner.core.snapshot import Role
from dynamo_planner.mock_workers.openai_api import Completion, Kind, OpenAiError
from dynamo_planner.mock_workers.realtime_engine import RealTimeEngine, TokenStream
from dynamo_planner.mock_workers.vllm_metrics import WorkerMetrics
from dynamo_planner.simulator.engine.engine import Engine

with needs_extra("worker"):
    from aiohttp import web

MAX_BODY_BYTES = 32 << 20
CHUNKS_PER_WRITE = 256
FLUSH_POLL_S = 0.01

Phase = Literal["starting", "ready", "draining"]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class WorkerApp:
    """The routes of a worker. It starts by refusing all, until :meth:`begin`, and ends by :meth:`drain`.

    ``/health`` is 200 when it takes requests, and 503 while it starts and while it drains, so that what balances
    load can go by it alone; the body says which.
    """

    def __init__(self, engine: Engine, *, model: str, role: Role, max_queued: int) -> None:
        self._model = model
        self._role = role
        self._max_queued = max_queued
        self._metrics = WorkerMetrics(model, engine)
        self._engine = RealTimeEngine(engine, self._metrics)
        self._phase: Phase = "starting"
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()

    def application(self) -> web.Application:
        """What an aiohttp runner serves."""
        app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[self._guard])
        app.router.add_get("/health", self._health)
        app.router.add_get("/metrics", self._exposition)
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/completions", self._completions)
        app.router.add_post("/v1/chat/completions", self._chat)
        return app

    def begin(self) -> None:
        """Take requests from now on."""
        if self._phase == "starting":
            self._phase = "ready"

    async def drain(self) -> None:
        """Take no more requests, and wait until those accepted are answered."""
        self._phase = "draining"
        await self._idle.wait()

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if self._phase == "starting" and request.path != "/health":
            return _refusal(OpenAiError(503, "the worker is starting"))
        try:
            return await handler(request)
        except OpenAiError as error:
            return _refusal(error)

    async def _health(self, _: web.Request) -> web.Response:
        return web.json_response({"status": self._phase}, status=200 if self._phase == "ready" else 503)

    async def _exposition(self, _: web.Request) -> web.Response:
        self._engine.catch_up()
        return web.Response(
            body=self._metrics.exposition(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        )

    async def _models(self, _: web.Request) -> web.Response:
        model = {"id": self._model, "object": "model", "owned_by": "dynamo_planner", "root": self._model}
        return web.json_response({"object": "list", "data": [model]})

    async def _completions(self, request: web.Request) -> web.StreamResponse:
        return await self._serve(request, "completion")

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        return await self._serve(request, "chat")

    async def _serve(self, request: web.Request, kind: Kind) -> web.StreamResponse:
        raw = await _json(request)
        if self._phase == "draining":
            raise OpenAiError(503, "the worker is draining: it finishes what it has and takes nothing more")
        completion = Completion(kind, raw, model=self._model, role=self._role)
        stream = self._open(completion)
        self._in_flight += 1
        self._idle.clear()
        try:
            answer = await (_stream if completion.stream else _whole)(request, completion, stream)
            await _flushed(request)
        finally:
            self._engine.close(stream)
            self._in_flight -= 1
            if not self._in_flight:
                self._idle.set()
        return answer

    def _open(self, completion: Completion) -> TokenStream:
        if self._engine.waiting >= self._max_queued:
            self._metrics.rejected()
            raise OpenAiError(503, f"{self._max_queued} requests are queued already")
        try:
            return self._engine.open(
                completion.isl, completion.osl, cached_here=completion.cached, prefilled=completion.prefilled
            )
        except ValueError as error:
            raise OpenAiError(400, str(error)) from None


def _refusal(error: OpenAiError) -> web.Response:
    return web.json_response(error.body(), status=error.status)


async def _json(request: web.Request) -> Any:
    try:
        return json.loads(await request.read())
    except (ValueError, RecursionError) as error:
        raise OpenAiError(400, f"the body is not JSON: {error}") from None
    except web.HTTPRequestEntityTooLarge:
        raise OpenAiError(413, f"the body is larger than {MAX_BODY_BYTES} bytes") from None


async def _whole(request: web.Request, completion: Completion, stream: TokenStream) -> web.StreamResponse:
    await stream.reach(completion.osl)
    answer = web.json_response(completion.whole(_transfer(request) if completion.handed_on else None))
    await answer.prepare(request)
    await answer.write_eof()
    return answer


def _transfer(request: web.Request) -> dict[str, Any]:
    """Where a decode worker is to fetch the KV cache: in the simulation, from nowhere."""
    host, port = request.get_extra_info("sockname", (None, None))[:2]
    return {
        "do_remote_prefill": True,
        "do_remote_decode": False,
        "remote_engine_id": f"{host}:{port}",
        "remote_request_id": uuid.uuid4().hex,
        "remote_block_ids": [],
        "remote_host": host,
        "remote_port": port,
    }


async def _stream(request: web.Request, completion: Completion, stream: TokenStream) -> web.StreamResponse:
    """A server-sent event for each token, when it comes; those of one wake-up go out together."""
    answer = web.StreamResponse(
        headers={"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-store"}
    )
    await answer.prepare(request)
    token, sent = completion.token(), 0
    while sent < completion.osl:
        ready = min(await stream.reach(sent + 1), sent + CHUNKS_PER_WRITE)
        chunks = token * (ready - sent)
        if ready == completion.osl:
            chunks = token * (ready - sent - 1) + completion.last_token() + completion.closing()
        await answer.write(chunks if sent else completion.opening() + chunks)
        sent = ready
    await answer.write_eof()
    return answer


async def _flushed(request: web.Request) -> None:
    """Wait until the answer has left this process, so that to exit does not cut it short."""
    while (transport := request.transport) is not None and transport.get_write_buffer_size():
        await asyncio.sleep(FLUSH_POLL_S)
