"""An engine model in real time: what it predicts for a time happens then, and wakes what waits for it."""

from __future__ import annotations

import asyncio

from dynamo_planner.mock_workers.vllm_metrics import WorkerMetrics
from dynamo_planner.simulator.engine.engine import Engine
from dynamo_planner.simulator.engine.request import Request

SHORTEST_SLEEP_S = 0.005
"""Tokens of shorter steps are announced together, so that many streams do not drown in wake-ups."""


class TokenStream:
    """The tokens of one request, as they come. ``tokens`` counts those that are there."""

    def __init__(self, request: Request, cached_here: int) -> None:
        self.request = request
        self.cached_here = cached_here
        self.tokens = 0
        self.last_token_s = request.arrival_s
        self._goal = 0
        self._reached: asyncio.Future[None] | None = None

    async def reach(self, tokens: int) -> int:
        """Wait until there are at least ``tokens``; returns how many there are."""
        if self.tokens < tokens:
            self._goal = tokens
            self._reached = asyncio.get_running_loop().create_future()
            await self._reached
        return self.tokens

    def tell(self) -> None:
        """Wake everything that waits for what is there now."""
        if self._reached is not None and self.tokens >= self._goal and not self._reached.done():
            self._reached.set_result(None)


class RealTimeEngine:
    """Runs an engine on the clock of the event loop. It sleeps until the step in progress ends, and never polls."""

    def __init__(self, engine: Engine, metrics: WorkerMetrics) -> None:
        self._engine = engine
        self._metrics = metrics
        self._loop = asyncio.get_running_loop()
        self._streams: dict[Request, TokenStream] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._announced_s = 0.0

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return self._engine.waiting

    def open(self, isl: int, osl: int, *, cached_here: int = 0, prefilled: bool = False) -> TokenStream:
        """Submit a request now. Raises ``ValueError`` where it can never be served."""
        now_s = self.catch_up()
        request = self._engine.submit(isl, osl, now_s, isl if prefilled else cached_here)
        stream = self._streams[request] = TokenStream(request, cached_here)
        self._schedule()
        return stream

    def close(self, stream: TokenStream) -> None:
        """No one waits for this stream any more; what is left of it is cancelled."""
        now_s = self.catch_up()
        if self._streams.pop(stream.request, None) is not None:
            self._engine.cancel(stream.request, now_s)
            self._metrics.aborted()
            self._schedule()

    def catch_up(self) -> float:
        """Let everything happen that is due, step by step, and tell who waits; returns what time it is."""
        now_s = self._loop.time()
        while (end_s := self._engine.next_step_s()) <= now_s:
            self._step(end_s)
            self._announced_s = now_s
        self._go_on(now_s)
        if self._announced_s == now_s:
            for stream in self._streams.values():
                stream.tell()
        return now_s

    def _step(self, end_s: float) -> None:
        finished = self._go_on(end_s)
        for request, stream in self._streams.items():
            if self._engine.generated(request) > stream.tokens:
                self._token(stream, end_s)
        for request in finished:
            self._metrics.finished(request, end_s)
            self._streams.pop(request).tell()

    def _go_on(self, to_s: float) -> list[Request]:
        """Let the engine go on, and count what it preempts; returns what it has finished."""
        events = self._engine.advance(to_s)
        self._metrics.preempted(sum(event.kind == "preempted" for event in events))
        return [event.request for event in events if event.kind == "finished"]

    def _token(self, stream: TokenStream, at_s: float) -> None:
        if stream.tokens:
            self._metrics.token(at_s - stream.last_token_s)
        else:
            self._metrics.first_token(stream.request, at_s, stream.cached_here)
        stream.tokens += 1
        stream.last_token_s = at_s

    def _schedule(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._streams:
            due_s = max(self._engine.next_step_s(), self._announced_s + SHORTEST_SLEEP_S)
            self._timer = self._loop.call_at(due_s, self._tick)

    def _tick(self) -> None:
        self.catch_up()
        self._schedule()
