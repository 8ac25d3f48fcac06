"""A small router in front of the workers: OpenAI-compatible, over HTTP on loopback, to the least loaded one."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from typing import Any, Self

from dynamo_planner.core.extras import needs_extra
from dynamo_planner.executors import ExecutorError

with needs_extra("worker"):
    from aiohttp import ClientError, ClientResponse, ClientSession, ClientTimeout, TCPConnector, web

log = logging.getLogger(__name__)

ROUTES = ("/v1/completions", "/v1/chat/completions")
MAX_BODY_BYTES = 64 * 2**20
OK, UNAVAILABLE = 200, 503

Endpoints = Mapping[str, Mapping[str, str]]
"""Base URLs of ready workers by pool and worker name; a draining worker is not among them."""


@dataclass(frozen=True)
class _Answer:
    """A worker's response of which the first bytes have come, so that it can no longer go to another worker."""

    url: str
    response: ClientResponse
    first: bytes


class Router:
    """Sends each request to the ready worker with the fewest requests in flight.

    ``stages`` are the names of the pools that a request passes: one for aggregated serving; prefill and decode for
    disaggregated serving, in vLLM's convention: prefill generates one token and answers with ``kv_transfer_params``,
    which decode is given.

    A request waits where no worker is ready. One that a worker refuses (no connection, or 503) or drops before its
    first byte goes to another worker; after that it is the client's loss. Where no first byte comes within
    ``patience_s`` the answer is 503. ``in_flight`` counts requests from arrival to end, ``held`` those that wait for
    a worker.
    """

    def __init__(
        self,
        endpoints: Callable[[], Endpoints],
        stages: Sequence[str],
        refresh_s: float = 0.25,
        patience_s: float = 60.0,
    ) -> None:
        self._endpoints = endpoints
        self._stages = tuple(stages)
        self._refresh_s = refresh_s
        self._patience_s = patience_s
        self._known: Endpoints = {}
        self._refreshed = asyncio.Condition()
        self._load: Counter[str] = Counter()
        self._turn = count()
        self._last_turn: dict[str, int] = {}
        self.in_flight = 0
        self.held = 0
        self.url = ""

    async def __aenter__(self) -> Self:
        unlimited = ClientTimeout(total=None, sock_read=None)
        self._session = ClientSession(connector=TCPConnector(limit=0), timeout=unlimited)
        app = web.Application(client_max_size=MAX_BODY_BYTES)
        app.add_routes([web.post(path, self._complete) for path in ROUTES])
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        self._refreshing = asyncio.create_task(self._refresh_forever())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._refreshing.cancel()
        with suppress(asyncio.CancelledError):
            await self._refreshing
        await self._runner.cleanup()
        await self._session.close()

    async def ready(self) -> None:
        """Wait until every stage has a ready worker."""
        async with self._refreshed:
            await self._refreshed.wait_for(lambda: all(self._known.get(stage) for stage in self._stages))

    async def _refresh_forever(self) -> None:
        while True:
            try:
                self._known = await asyncio.to_thread(self._endpoints)
            except ExecutorError as error:
                log.warning("the workers could not be listed, so requests go to those known before: %s", error)
            async with self._refreshed:
                self._refreshed.notify_all()
            await asyncio.sleep(self._refresh_s)

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        self.in_flight += 1
        try:
            body = await request.json()
            for stage in self._stages[:-1]:
                body = await self._prefill(stage, request.path, body)
            return await self._relay(request, await self._send(self._stages[-1], request.path, body))
        except json.JSONDecodeError as error:
            raise web.HTTPBadRequest(text=f"the body is not JSON: {error}") from None
        except TimeoutError:
            raise web.HTTPServiceUnavailable(text=f"no worker answered within {self._patience_s:g} s") from None
        finally:
            self.in_flight -= 1

    async def _prefill(self, stage: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Have the prompt computed: the request as the next stage is to get it."""
        remote = {"do_remote_decode": True, "do_remote_prefill": False}
        own = {key: value for key, value in body.items() if key not in ("stream_options", "min_tokens")}
        own |= {"stream": False, "max_tokens": 1, "kv_transfer_params": remote}
        answer = await self._send(stage, path, own)
        try:
            content = answer.first + await answer.response.read()
            transfer = json.loads(content).get("kv_transfer_params") if answer.response.status == OK else None
        except ClientError as error:
            raise web.HTTPBadGateway(text=f"{answer.url} broke off: {error}") from None
        finally:
            self._finished(answer)
        if transfer is None:
            raise web.HTTPBadGateway(text=f"{answer.url} gave no kv_transfer_params: {content[:500]!r}")
        return {**body, "kv_transfer_params": transfer}

    async def _relay(self, request: web.Request, answer: _Answer) -> web.StreamResponse:
        """Pass a worker's answer on as it comes. Where it breaks off, so does the client's connection."""
        try:
            client = web.StreamResponse(status=answer.response.status)
            client.content_type = answer.response.content_type
            await client.prepare(request)
            await client.write(answer.first)
            async for chunk in answer.response.content.iter_any():
                await client.write(chunk)
            await client.write_eof()
        except ClientError:
            if request.transport is not None:
                request.transport.abort()
        finally:
            self._finished(answer)
        return client

    async def _send(self, stage: str, path: str, body: dict[str, Any]) -> _Answer:
        """Send a request to one worker after the other until one answers. Raises ``TimeoutError``."""
        refused: set[str] = set()
        async with asyncio.timeout(self._patience_s):
            while True:
                url = await self._least_loaded(stage, refused)
                answer = await self._try(url, path, body)
                if answer is not None:
                    return answer
                refused.add(url)

    async def _try(self, url: str, path: str, body: dict[str, Any]) -> _Answer | None:
        """The answer of one worker, or ``None`` where it did not take the request."""
        self._load[url] += 1
        self._last_turn[url] = next(self._turn)
        response = answer = None
        try:
            response = await self._session.post(url + path, json=body)
            if response.status != UNAVAILABLE:
                answer = _Answer(url, response, await response.content.readany())
        except ClientError as error:
            log.info("%s did not take a request, which goes to another worker: %s", url, error)
        finally:
            if answer is None:
                self._load[url] -= 1
                if response is not None:
                    response.close()
        return answer

    async def _least_loaded(self, stage: str, refused: set[str]) -> str:
        """The worker to try next. Where all refused, they are tried again once the list of ready workers is renewed."""
        self.held += 1
        try:
            while not (urls := [url for url in self._known.get(stage, {}).values() if url not in refused]):
                async with self._refreshed:
                    await self._refreshed.wait()
                refused.clear()
        finally:
            self.held -= 1
        return min(urls, key=lambda url: (self._load[url], self._last_turn.get(url, -1)))

    def _finished(self, answer: _Answer) -> None:
        self._load[answer.url] -= 1
        answer.response.close()
