"""Clients of several models on this machine: a router for each, and requests to all without a pause."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import aiohttp

from dynamo_planner.demo.router import Router
from dynamo_planner.executors.circus.inspection import inspect

CLIENTS = 3
"""Requests of each model at once."""

BODY = {"model": "simulated", "prompt": "one two three four", "max_tokens": 12}


def endpoints(namespace: str, state_dir: Path) -> Callable[[], Mapping[str, Mapping[str, str]]]:
    """The ready workers of a namespace, as its records have them, whether a planner runs it or not."""

    def listed() -> Mapping[str, Mapping[str, str]]:
        workers = [worker for worker in inspect(namespace, state_dir).workers if worker.state == "ready"]
        return {"workers": {worker.name: f"http://127.0.0.1:{worker.port}" for worker in workers}}

    return listed


class FleetClients:
    """Requests to models from a thread of its own, from the beginning to the end of the block.

    Args:
        models: The namespaces of the models.
        state_dir: Where their records lie.
    """

    def __init__(self, models: Sequence[str], state_dir: Path) -> None:
        self.answered: Counter[str] = Counter()
        """Answers by model."""
        self.lost: list[str] = []
        """What became of each request that was not answered."""
        self._models, self._state_dir = models, state_dir
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._all()))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    async def _all(self) -> None:
        async with AsyncExitStack() as stack:
            session = await stack.enter_async_context(aiohttp.ClientSession())
            clients = []
            for model in self._models:
                router = await stack.enter_async_context(Router(endpoints(model, self._state_dir), ["workers"]))
                clients += [self._ask(session, model, router) for _ in range(CLIENTS)]
            await asyncio.gather(*clients)

    async def _ask(self, session: aiohttp.ClientSession, model: str, router: Router) -> None:
        await router.ready()
        while not self._stop.is_set():
            try:
                async with session.post(f"{router.url}/v1/completions", json=BODY) as response:
                    answer = await response.json()
                    if response.status == 200 and answer["usage"]["completion_tokens"] == BODY["max_tokens"]:
                        self.answered[model] += 1
                    else:
                        self.lost.append(f"{model}: {response.status} {answer}")
            except (aiohttp.ClientError, TimeoutError, ValueError) as error:
                self.lost.append(f"{model}: {error!r}")
