"""One demo from start to end: workers up, the trace replayed while the planner scales, workers down."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from dynamo_planner.core.policy import Policy
from dynamo_planner.demo.load import LoadClient, Request
from dynamo_planner.demo.record import Recording
from dynamo_planner.demo.router import Router
from dynamo_planner.demo.screen import Screen
from dynamo_planner.demo.watch import Watch
from dynamo_planner.executors import ExecutorError
from dynamo_planner.executors.circus import CircusExecutor, CircusPool
from dynamo_planner.runtime.planner import Planner
from dynamo_planner.sources.scraping.source import ScrapeSource

DECIDES_EVERY_S = 1.0
WINDOW_S = 5.0
"""Over which rates and means of the workers' metrics are taken."""

LOOKS_EVERY_S = 0.1
STARTS_WITHIN_S = 30.0
SETTLES_WITHIN_S = 20.0
"""How long the workers may take to go once the replay is over."""

LASTS_AT_MOST_S = 108.0
"""From the start of the first worker; what is not answered by then is lost."""


@dataclass(frozen=True)
class Show:
    """What is to be shown: requests to replay within ``length_s``, the pools that serve them, and who scales those.

    The pools are in the order in which a request passes them.
    """

    recording: Recording
    requests: tuple[Request, ...]
    length_s: float
    pools: Mapping[str, CircusPool]
    policy: Policy
    decision_log: Path

    async def run(self, screen: Screen, stop: asyncio.Event) -> None:
        """Fill the recording; end early when ``stop`` is set. However it ends, it leaves no process behind.

        Raises :class:`ExecutorError` where the workers do not start.
        """
        ends_s = asyncio.get_running_loop().time() + LASTS_AT_MOST_S
        namespace = f"demo-{os.getpid()}"
        with tempfile.TemporaryDirectory(prefix=f"dynamo-planner-{namespace}-") as directory:
            executor = CircusExecutor(namespace, self.pools, state_dir=Path(directory), gpus=())
            try:
                await asyncio.to_thread(executor.start)
                await _ready(executor, stop)
                await self._replay(executor, screen, stop, ends_s)
            finally:
                await asyncio.to_thread(executor.close)

    async def _replay(self, executor: CircusExecutor, screen: Screen, stop: asyncio.Event, ends_s: float) -> None:
        roles = {name: pool.spec.role for name, pool in self.pools.items()}
        source = ScrapeSource(executor.endpoints, roles, window_s=WINDOW_S)
        planner = Planner(self.policy, source, executor, interval_s=DECIDES_EVERY_S, log=self.decision_log)
        async with Router(executor.endpoints, tuple(self.pools)) as router:
            began_s = asyncio.get_running_loop().time()
            client = LoadClient(router.url, self.recording, began_s)
            watch = Watch(self.recording, executor, planner, router, client, screen)
            replay = asyncio.create_task(client.replay(self.requests))
            ends_s = min(ends_s - began_s, self.length_s + SETTLES_WITHIN_S)
            try:
                with screen:
                    while not stop.is_set() and client.now_s() < ends_s:
                        await watch.turn()
                        if replay.done() and client.now_s() >= self.length_s and watch.settled():
                            break
            finally:
                replay.cancel()
                with suppress(asyncio.CancelledError):
                    await replay


async def _ready(executor: CircusExecutor, stop: asyncio.Event) -> None:
    """Wait until each pool has a ready worker, or until it is not worth the wait any more."""
    clock = asyncio.get_running_loop().time
    gives_up_s = clock() + STARTS_WITHIN_S
    while not stop.is_set():
        pools = await asyncio.to_thread(executor.observe)
        if all(replicas is not None and replicas.ready for replicas in pools.values()):
            return
        problems = "\n".join(f"{worker.name}: {worker.message}" for worker in executor.workers() if worker.message)
        if problems or clock() > gives_up_s:
            raise ExecutorError(
                f"the workers did not start within {STARTS_WITHIN_S:g} s: {problems or 'they say nothing'}"
            )
        await asyncio.sleep(LOOKS_EVERY_S)
