"""The load client: sends the requests of a trace when they are due, over HTTP, and measures each answer."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass

from dynamo_planner.core.extras import needs_extra
from dynamo_planner.demo.record import Recording, RequestRecord

with needs_extra("worker"):
    from aiohttp import ClientError, ClientSession, ClientTimeout, TCPConnector

MODEL = "simulated"
"""The name that the demo's workers serve their model under."""

TOKENS = range(3, 259)
"""Ids that every vocabulary has, and that stand for nothing special."""

OK = 200
EVENT, END = b"data: ", b"data: [DONE]"
TAIL_BYTES = 2000
"""Enough of a stream's end to hold its usage and the end mark."""


@dataclass(frozen=True, slots=True)
class TraceRequest:
    """A request of a trace: when it is due, in seconds since the replay began, and its prompt and output in tokens."""

    due_s: float
    isl: int
    osl: int


class LoadClient:
    """Replays requests against a server. ``began_s`` is the replay's second 0 on the event loop's clock."""

    def __init__(self, url: str, recording: Recording, began_s: float) -> None:
        self._url = url + "/v1/completions"
        self._recording = recording
        self.began_s = began_s

    def now_s(self) -> float:
        """Seconds since the replay began."""
        return asyncio.get_running_loop().time() - self.began_s

    async def replay(self, requests: Sequence[TraceRequest]) -> None:
        """Send the requests, each when it is due, and record each answer. Returns when the last answer is in."""
        unlimited = ClientTimeout(total=None, sock_read=None)
        session = ClientSession(connector=TCPConnector(limit=0), timeout=unlimited)
        async with session, asyncio.TaskGroup() as group:
            for request in requests:
                await asyncio.sleep(request.due_s - self.now_s())
                self._recording.sent_late_ms.append(1000 * (self.now_s() - request.due_s))
                group.create_task(self._send(session, request))

    async def _send(self, session: ClientSession, request: TraceRequest) -> None:
        body = {
            "model": MODEL,
            "prompt": prompt(request),
            "max_tokens": request.osl,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        first_s, tail, lost = None, b"", None
        try:
            async with session.post(self._url, json=body) as response:
                async for chunk in response.content.iter_any():
                    tail = (tail + chunk)[-TAIL_BYTES:]
                    if first_s is None and response.status == OK and EVENT in tail:
                        first_s = self.now_s()
                        self._recording.first_tokens.append((first_s, 1000 * (first_s - request.due_s)))
                lost = _shortfall(response.status, tail, request.osl)
        except ClientError as error:
            where = "before" if first_s is None else "after"
            lost = f"the connection broke {where} its first token: {type(error).__name__}: {error}"
        done_s = self.now_s()
        steps = request.osl - 1
        self._recording.requests.append(
            RequestRecord(
                due_s=request.due_s,
                done_s=done_s,
                tokens=request.osl,
                ttft_ms=None if first_s is None else 1000 * (first_s - request.due_s),
                itl_ms=None if first_s is None or lost or not steps else 1000 * (done_s - first_s) / steps,
                lost=lost,
            )
        )


def prompt(request: TraceRequest) -> list[int]:
    """The prompt of a request as token ids. It begins like no other, or an engine's prefix cache would know it.

    >>> prompt(TraceRequest(due_s=1.5, isl=4, osl=10))
    [144, 68, 152, 144]
    """
    return random.Random(request.due_s).choices(TOKENS, k=request.isl)  # noqa: S311 - no secret


def _shortfall(status: int, tail: bytes, osl: int) -> str | None:
    """What is missing from an answer, given the end of its stream, or ``None`` where it is whole.

    >>> _shortfall(200, b'data: {"usage": {"completion_tokens": 7}}\\n\\ndata: [DONE]\\n\\n', 7)
    >>> _shortfall(200, b'data: {"usage": {"completion_tokens": 5}}\\n\\ndata: [DONE]\\n\\n', 7)
    '5 of 7 tokens came'
    >>> _shortfall(503, b"no worker", 7)
    'answered 503: no worker'
    """
    if status != OK:
        return f"answered {status}: {tail.decode(errors='replace')}"
    events, end, _ = tail.partition(END)
    if not end:
        return "the answer ended without an end mark"
    _, found, usage = events.rstrip().rpartition(EVENT)
    tokens = ((json.loads(usage) if found else {}).get("usage") or {}).get("completion_tokens")
    return None if tokens == osl else f"{tokens} of {osl} tokens came"
