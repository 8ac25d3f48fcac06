"""An OpenAI-compatible endpoint under measurement: the client that sends bursts over HTTP and takes the times.

Prompts are random, so that no prefix cache knows them: token ids for ``/v1/completions`` where it takes them, else
words. How long a prompt was is what the endpoint's ``usage`` says, not what was meant.
"""

from __future__ import annotations

import asyncio
import json
import random
import ssl
from collections.abc import Awaitable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

from dynamo_planner.core.extras import needs_extra
from dynamo_planner.profiling.answer_checks import check_failures
from dynamo_planner.profiling.engine import Answer, Answers, Burst, Prompt, Stop
from dynamo_planner.profiling.stream_events import close, take

with needs_extra("profile"):
    from aiohttp import ClientError, ClientSession, ClientTimeout, ServerDisconnectedError, TCPConnector

Api = Literal["tokens", "text", "chat"]

PATHS: dict[Api, str] = {
    "tokens": "/v1/completions",
    "text": "/v1/completions",
    "chat": "/v1/chat/completions",
}

TOKEN_IDS = range(1000, 20_000)
"""Ids that most vocabularies have, and that stand for nothing special."""

BYTE_IDS = range(3, 250)
"""Ids for vocabularies of bytes."""

POLL_S = 0.05
"""Seconds between two looks at whether a burst is to be stopped."""

PAUSE_POLL_S = 0.002
"""Seconds between two looks at whether the tokens of a pause are there."""

SILENCE_S = 600.0
"""Seconds without a byte after which an answer is given up."""

ATTEMPTS_S = 0.0, 0.05, 0.5
"""Seconds before each attempt at a request whose stream ended before it began."""

CACHE_JUDGED = 64
"""Prompts of fewer tokens say nothing of a prefix cache: of three tokens, one is alike by chance."""

BODY_CHARS = 300
OK = 200


@dataclass
class Endpoint:
    """Where and how requests are sent.

    Args:
        url: the base URL, without ``/v1``.
        model: the name of the model.
        api: how prompts are written.
        ids: the token ids that prompts are drawn from.
        tokens_per_word: how many tokens the words of a text prompt have on average.
        overhead: tokens that the endpoint adds to each prompt, such as a chat template.
        fields: further fields of each request.
        headers: sent with each request.
        tls: the certificates to trust.
    """

    url: str
    model: str
    api: Api
    headers: Mapping[str, str]
    tls: ssl.SSLContext | None = None
    ids: range = TOKEN_IDS
    tokens_per_word: float = 1.0
    overhead: float = 0.0
    fields: Mapping[str, Any] = field(default_factory=dict)


class HttpEngine:
    """An endpoint as an :class:`~dynamo_planner.profiling.engine.Engine`."""

    def __init__(self, endpoint: Endpoint, seed: int | None = None) -> None:
        self.endpoint = endpoint
        self.cached_share = 0.0
        """The largest share of a prompt that the endpoint said it had in its prefix cache."""
        self.counts_tokens = False
        """Whether the endpoint said in its ``usage`` how many tokens a prompt had."""
        self.failed: list[str] = []
        """Why requests failed that are left out of the figures."""
        self.late_s = 0.0
        """The longest that this client was held up by itself in the last burst, in seconds."""
        self._random = random.Random(seed if seed is not None else random.SystemRandom().getrandbits(64))  # noqa: S311 - no secret
        self._loop = asyncio.new_event_loop()
        self._session: ClientSession | None = None

    def now_s(self) -> float:
        return self._loop.time()

    def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            self._loop.run_until_complete(self._session.close())
        self._loop.close()

    def run(self, burst: Burst, stop: Stop | None = None) -> Answers:
        task = self._loop.create_task(self._run(burst, stop))
        try:
            return self._loop.run_until_complete(task)
        except KeyboardInterrupt:
            task.cancel()
            self._loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
            raise

    def ask(self, prompt: Prompt) -> Answer:
        """The answer to one prompt. Raises :class:`ProfilingError` where there is none."""
        return self.run(Burst(chain=(prompt,))).chain[0]

    async def _run(self, burst: Burst, stop: Stop | None) -> Answers:
        if self._session is None:
            unlimited = ClientTimeout(total=None, sock_read=SILENCE_S, sock_connect=10)
            self._session = ClientSession(connector=TCPConnector(limit=0), timeout=unlimited)
        bodies = [self._body(prompt) for prompt in burst.together]
        began_s = self.now_s()
        times = zip(burst.together, burst.sent_at_s, strict=True)
        together = [Answer(prompt.isl, began_s + at_s) for prompt, at_s in times]
        begun = [asyncio.Event() for _ in together]
        chain: list[Answer] = []
        tasks = [asyncio.ensure_future(self._send(*parts)) for parts in zip(bodies, together, begun, strict=True)]
        sending = list(tasks)
        witness = None if burst.longest is None else together[burst.longest]
        chained = asyncio.ensure_future(self._chain(burst, tasks, begun, chain, witness))
        heart = asyncio.ensure_future(self._beat())
        try:
            stopped = await self._watched([*sending, chained] if not together else sending, together, stop)
            if together and not stopped:
                await asyncio.wait([chained], timeout=SILENCE_S)
        finally:
            for task in [*sending, chained, heart]:
                task.cancel()
            await asyncio.gather(*sending, chained, heart, return_exceptions=True)
        answers = Answers(together, chain, stopped)
        self.failed += check_failures(answers, self.endpoint.url)
        return answers

    async def _watched(self, tasks: Sequence[Awaitable[None]], answers: Sequence[Answer], stop: Stop | None) -> bool:
        """Wait for all tasks, or until ``stop`` says so; whether it did."""
        left = {asyncio.ensure_future(task) for task in tasks}
        while left:
            _, left = await asyncio.wait(left, timeout=POLL_S)
            if left and stop is not None and stop(self.now_s(), answers):
                return True
        return False

    async def _beat(self) -> None:
        """Notice how late the event loop is: a client that does not keep up would count its own time."""
        self.late_s = 0.0
        while True:
            due_s = self.now_s() + POLL_S
            await asyncio.sleep(POLL_S)
            self.late_s = max(self.late_s, self.now_s() - due_s)

    async def _chain(
        self,
        burst: Burst,
        tasks: Sequence[asyncio.Future[None]],
        begun: Sequence[asyncio.Event],
        chain: list[Answer],
        witness: Answer | None,
    ) -> None:
        for event in begun:
            await event.wait()
        for prompt in burst.chain:
            tokens = 0 if witness is None else len(witness.token_s) + burst.pause_tokens
            await asyncio.sleep(burst.pause_s)
            while witness is not None and len(witness.token_s) < tokens and not all(task.done() for task in tasks):
                await asyncio.sleep(PAUSE_POLL_S)
            if tasks and all(task.done() for task in tasks):
                return
            body = self._body(prompt)
            answer = Answer(prompt.isl, self.now_s())
            chain.append(answer)
            await self._send(body, answer, asyncio.Event())

    async def _send(self, body: bytes, answer: Answer, begun: asyncio.Event) -> None:
        """Send one request, and take the times of its tokens.

        A server may close an idle connection just when it is used again, or end a stream before it has begun; such a
        request is sent again.
        """
        await asyncio.sleep(answer.sent_s - self.now_s())
        try:
            for pause_s in ATTEMPTS_S:
                await asyncio.sleep(pause_s)
                with suppress(ServerDisconnectedError):
                    await self._stream(body, answer, begun)
                if answer.token_s or answer.failure:
                    break
            close(answer)
        except (ClientError, TimeoutError, OSError) as error:
            answer.failure = f"{type(error).__name__}: {error}"
            close(answer)
        except asyncio.CancelledError:  # the burst is stopped, which is no failure
            answer.tokens = len(answer.token_s)
            raise
        finally:
            begun.set()

    async def _stream(self, body: bytes, answer: Answer, begun: asyncio.Event) -> None:
        endpoint = self.endpoint
        assert self._session is not None  # noqa: S101 - made before
        answer.sent_s = self.now_s()
        async with self._session.post(
            endpoint.url + PATHS[endpoint.api],
            data=body,
            headers={**endpoint.headers, "Content-Type": "application/json"},
            ssl=endpoint.tls if endpoint.tls is not None else True,
        ) as response:
            kind = response.content_type
            if response.status != OK or kind != "text/event-stream":
                text = (await response.text(errors="replace"))[:BODY_CHARS].strip()
                what = "" if response.status != OK else f" with {kind}, where a stream of events is expected"
                answer.failure = f"answered {response.status}{what}: {text}"
                return
            pending = b""
            async for chunk in response.content.iter_any():
                now_s = self.now_s()
                *events, pending = (pending + chunk).split(b"\n\n")
                for event in events:
                    self._take(event, answer, now_s)
                if answer.token_s and not begun.is_set():
                    begun.set()

    def _take(self, event: bytes, answer: Answer, now_s: float) -> None:
        """One event of a stream: a token, or the count of them."""
        text = event.strip().removeprefix(b"data:").strip()
        if not text.startswith(b"{"):
            return
        try:
            data = json.loads(text)
        except ValueError:
            answer.failure = f"an event of the stream is not JSON: {text[:80].decode(errors='replace')}"
            return
        if data.get("error"):
            answer.failure = f"the stream ended with an error: {str(data['error'])[:BODY_CHARS]}"
        take(data, answer, now_s)
        usage = data.get("usage") or {}
        if usage.get("prompt_tokens"):
            answer.isl, self.counts_tokens = int(usage["prompt_tokens"]), True
            cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
            if answer.isl >= CACHE_JUDGED:
                self.cached_share = max(self.cached_share, cached / answer.isl)
        if usage.get("completion_tokens"):
            answer.tokens = int(usage["completion_tokens"])

    def _body(self, prompt: Prompt) -> bytes:
        endpoint = self.endpoint
        content: dict[str, Any]
        if endpoint.api == "tokens":
            content = {"prompt": self._random.choices(endpoint.ids, k=max(prompt.isl - round(endpoint.overhead), 1))}
        else:
            count = max(round((prompt.isl - endpoint.overhead) / endpoint.tokens_per_word), 1)
            text = " ".join(self._random.choices(WORDS, k=count))
            chat = [{"role": "user", "content": text}]
            content = {"messages": chat} if endpoint.api == "chat" else {"prompt": text}
        return json.dumps(
            {
                "model": endpoint.model,
                **content,
                "max_tokens": prompt.osl,
                "min_tokens": prompt.osl,
                "ignore_eos": True,
                "temperature": 1.0,
                "stream": True,
                "stream_options": {"include_usage": True},
                **endpoint.fields,
            }
        ).encode()


WORDS = tuple(f"{first}{second}{third}" for first in "bdfgklmnprst" for second in "aeiou" for third in "bdglmnrst")
"""Short syllables that random texts are made of."""
