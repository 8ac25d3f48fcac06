"""The simulator's engine under measurement, in simulated time: for judging a measuring plan against the truth."""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Sequence

from dynamo_planner.core.snapshot import Role
from dynamo_planner.profiling.engine import Answer, Answers, Burst, Prompt, Stop
from dynamo_planner.simulator.engine.engine import Engine, EngineLimits
from dynamo_planner.simulator.engine.request import Request
from dynamo_planner.simulator.engine.step_time import Line, StepTiming

OUTLIER_FACTOR = 4.0
"""How many times as long as usual a step takes that the noise makes an outlier."""

IDLE_S = 0.05
"""Seconds that pass between two bursts."""


class NoisyTiming:
    """A timing whose steps vary: log-normal with a standard deviation of ``noise``, and a share of ``outliers``."""

    def __init__(self, timing: StepTiming, noise: float, outliers: float, seed: int = 0) -> None:
        self._timing, self._noise, self._outliers = timing, noise, outliers
        self._random = random.Random(seed)  # noqa: S311 - no secret

    def line(self, prefill_tokens: int, num_decode: int, kv_tokens: int) -> Line:
        """A step by itself, since the next one differs."""
        factor = math.exp(self._random.gauss(0.0, self._noise))
        if self._random.random() < self._outliers:
            factor *= OUTLIER_FACTOR
        ms = factor * self._timing.line(prefill_tokens, num_decode, kv_tokens).ms
        return Line(ms, 0.0, kv_tokens + 1)


class SimulatedEngine:
    """An engine model as an :class:`~dynamo_planner.profiling.engine.Engine`.

    Args:
        timing: its step times.
        limits: its limits.
        role: what it does; prompts of a ``decode`` worker are computed elsewhere, in no time.
        offset_s: seconds between the client and the engine, in sum for both directions; 0 by default.
        jitter_s: mean of the exponential seconds by which the client sees a token late; 0 by default.
        seed: of the jitter.
    """

    def __init__(
        self,
        timing: StepTiming,
        limits: EngineLimits,
        *,
        role: Role = "aggregated",
        offset_s: float = 0.0,
        jitter_s: float = 0.0,
        seed: int = 0,
    ) -> None:
        self._engine = Engine(limits, timing)
        self._role = role
        self._offset_s, self._jitter_s = offset_s, jitter_s
        self._random = random.Random(seed)  # noqa: S311 - no secret
        self._now_s = 0.0
        self.busy_s = 0.0
        """Seconds that bursts took so far."""

    def now_s(self) -> float:
        return self._now_s

    def run(self, burst: Burst, stop: Stop | None = None) -> Answers:
        began_s = self._now_s
        run = _Run(self._engine, burst, began_s, self._offset_s, cached=self._role == "decode")
        stopped = False
        while not stopped and run.go_on():
            stopped = stop is not None and stop(run.now_s, run.together)
        if stopped:
            run.cancel()
        self._now_s = run.now_s + IDLE_S
        self.busy_s += run.now_s - began_s
        for answer in [*run.together, *run.chain]:
            self._delay(answer)
        return Answers(run.together, run.chain, stopped)

    def _delay(self, answer: Answer) -> None:
        """The client sees each token a little late, the more so the busier it is."""
        if self._jitter_s:
            late = [token_s + self._random.expovariate(1 / self._jitter_s) for token_s in answer.token_s]
            answer.token_s[:] = sorted(late)
            answer.first_s += self._random.expovariate(1 / self._jitter_s)
            answer.last_s += self._random.expovariate(1 / self._jitter_s)


class _Run:
    """One burst on an engine, event by event."""

    def __init__(self, engine: Engine, burst: Burst, now_s: float, offset_s: float, *, cached: bool) -> None:
        self.now_s = now_s
        self.together: Sequence[Answer] = [
            Answer(prompt.isl, now_s + at_s) for prompt, at_s in zip(burst.together, burst.sent_at_s, strict=True)
        ]
        self.chain: list[Answer] = []
        self._engine, self._offset_s, self._cached = engine, offset_s, cached
        self._left = deque(burst.chain)
        self._pause_s = burst.pause_s
        self._due: deque[tuple[float, Prompt, Answer]] = deque(
            (each.sent_s + offset_s, prompt, each) for prompt, each in zip(burst.together, self.together, strict=True)
        )
        self._answers: dict[Request, Answer] = {}
        self._chained: set[Answer] = set()
        self._without_token = len(self.together)
        self._open = len(self.together)
        self._longest = None if burst.longest is None else self.together[burst.longest]
        self._witness: Request | None = None
        self._pause_tokens, self._next_at = burst.pause_tokens, (math.inf, 0)
        if not self.together:
            self._send_next()

    def go_on(self) -> bool:
        """Go on to the next event; whether there was one."""
        step_s = self._engine.next_step_s()
        if self._due and self._due[0][0] <= step_s:
            self._submit(*self._due.popleft())
            return True
        if step_s == math.inf:
            return False
        self.now_s = step_s
        for event in self._engine.advance(step_s):
            self._note(event.kind, event.at_s, event.request)
        self._watch()
        return True

    def cancel(self) -> None:
        """Take back what is not done."""
        for request, answer in self._answers.items():
            if math.isnan(answer.last_s):
                answer.tokens = self._engine.generated(request)
                self._engine.cancel(request, self.now_s)
        while (step_s := self._engine.next_step_s()) < math.inf:
            self._engine.advance(step_s)
            self.now_s = step_s

    def _submit(self, at_s: float, prompt: Prompt, answer: Answer) -> None:
        self.now_s = max(self.now_s, at_s)
        try:
            request = self._engine.submit(prompt.isl, prompt.osl, at_s, prompt.isl if self._cached else 0)
        except ValueError as error:
            answer.failure = str(error)
            self._without_token -= 1
            self._open -= 1
            return
        self._answers[request] = answer
        if answer is self._longest:
            self._witness = request

    def _note(self, kind: str, at_s: float, request: Request) -> None:
        answer = self._answers[request]
        of_chain = answer in self._chained
        if kind == "first_token":
            answer.first_s = at_s
            if not of_chain:
                self._without_token -= 1
                if not self._without_token:
                    self._send_next()
        elif kind == "finished":
            answer.last_s, answer.tokens = at_s, request.osl
            if of_chain:
                self._send_next()
            else:
                self._open -= 1

    def _watch(self) -> None:
        if self._witness is not None and self._longest is not None:
            tokens = self._engine.generated(self._witness)
            if tokens > len(self._longest.token_s):
                self._longest.token_s.append(self.now_s)
            at_s, after_tokens = self._next_at
            if at_s < math.inf and self._open and tokens >= after_tokens:
                self._next_at = math.inf, 0
                self._send(max(at_s, self.now_s))

    def _send_next(self) -> None:
        if not self._left:
            return
        if not self.together:
            self._send(self.now_s + (self._pause_s if self.chain else 0.0))
        elif self._longest is not None:
            self._next_at = self.now_s + self._pause_s, len(self._longest.token_s) + self._pause_tokens

    def _send(self, sent_s: float) -> None:
        prompt = self._left.popleft()
        answer = Answer(prompt.isl, sent_s)
        self.chain.append(answer)
        self._chained.add(answer)
        self._due.append((sent_s + self._offset_s, prompt, answer))
