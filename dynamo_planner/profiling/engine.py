"""The engine under measurement, as the measuring plan sees it: prompts go in, and the times of tokens come out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from pydantic import Field

from dynamo_planner.core.values import Frozen


class ProfilingError(Exception):
    """The engine cannot be measured (any further); the message names what was wrong, its value, and the remedy.

    Attributes:
        answers: what came of the burst that failed; None where nothing was sent, or it says nothing of the engine.
    """

    def __init__(self, message: str, answers: Answers | None = None) -> None:
        super().__init__(message)
        self.answers = answers


class Limits(Frozen):
    """What an engine says about itself, or its owner knows. Unknown is None, and is then measured or assumed.

    Args:
        kv_tokens: KV capacity, in tokens.
        max_num_seqs: the most requests that it runs at once.
        max_num_batched_tokens: the most tokens that one step computes.
        max_context: the most tokens, prompt and output, of one request.
    """

    kv_tokens: int | None = Field(default=None, ge=16)
    max_num_seqs: int | None = Field(default=None, ge=1)
    max_num_batched_tokens: int | None = Field(default=None, ge=1)
    max_context: int | None = Field(default=None, ge=8)

    def overlaid(self, other: Limits) -> Limits:
        """These limits, with what the other ones know instead."""
        return self.replace(**{name: value for name, value in other if value is not None})


class Prompt(NamedTuple):
    """A request to send: a random prompt of ``isl`` tokens, and ``osl`` tokens of output."""

    isl: int
    osl: int


class Burst(NamedTuple):
    """One experiment.

    Args:
        together: prompts that are sent at once, or at ``at_s``.
        chain: prompts that are sent one after the other, while those of ``together`` get tokens: the first when all of
            them have their first token, each next one after the answer to the one before. What is left of the chain
            when ``together`` is done is not sent. Without ``together`` all are sent.
        pause_s: seconds before each prompt of the chain; 0 by default.
        at_s: when each prompt of ``together`` is sent, in seconds since the burst began, in
            ascending order; all at once by default.
        pause_tokens: tokens that the longest answer of ``together`` gets at least in each pause; 0 by default.
    """

    together: tuple[Prompt, ...] = ()
    chain: tuple[Prompt, ...] = ()
    pause_s: float = 0.0
    at_s: tuple[float, ...] = ()
    pause_tokens: int = 0

    @property
    def sent_at_s(self) -> tuple[float, ...]:
        """When each prompt of ``together`` is sent, in seconds since the burst began."""
        return self.at_s or (0.0,) * len(self.together)

    @property
    def longest(self) -> int | None:
        """The place in ``together`` of the prompt with the longest output; None where there is none."""
        return max(range(len(self.together)), key=lambda place: self.together[place].osl, default=None)


@dataclass(slots=True, eq=False)
class Answer:
    """What came back for one prompt, on the clock of the client.

    Attributes:
        isl: prompt tokens, as the engine counted them.
        tokens: output tokens that came.
        sent_s: when it was sent.
        first_s: when the first token came; NaN where none did.
        last_s: when the last token came; NaN while it goes on.
        token_s: when each token came. Only the longest answer of a burst needs it.
        failure: why it was not answered in full; empty where it was.
    """

    isl: int
    sent_s: float
    tokens: int = 0
    first_s: float = math.nan
    last_s: float = math.nan
    token_s: list[float] = field(default_factory=list)
    failure: str = ""

    @property
    def ttft_ms(self) -> float:
        """Time to first token in ms, NaN where none came."""
        return 1000 * (self.first_s - self.sent_s)


class Answers(NamedTuple):
    """What came of a burst, in the order of its prompts; of the chain, what was sent of it.

    Args:
        stopped: whether the caller's ``stop`` ended it before all was done.
    """

    together: Sequence[Answer]
    chain: Sequence[Answer]
    stopped: bool = False


Stop = Callable[[float, Sequence[Answer]], bool]
"""Whether to end a burst early: gets the time, and the answers of ``together`` so far."""


class Engine(Protocol):
    """An engine, over HTTP or simulated."""

    def now_s(self) -> float:
        """The time on the clock of the answers, in seconds."""

    def run(self, burst: Burst, stop: Stop | None = None) -> Answers:
        """Send the prompts of a burst, wait until all are answered or ``stop`` says so, and return what came.

        Raises :class:`ProfilingError` where no answer can be had. A single prompt that fails says so in its answer.
        """
