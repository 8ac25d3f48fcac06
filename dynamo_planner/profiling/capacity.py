"""The KV capacity of an engine that does not tell it: send more than fits, and see how many requests have a token.

Engines admit requests in order while their prompts fit into the KV cache. When no further request has a first token for
a while, those that have one hold nearly all of it: what the last one to be admitted left free is less than one prompt::

    held <= capacity < held + prompt        held = sum of the prompts and of the tokens that they had by then

The middle of the two is the estimate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from dynamo_planner.profiling.engine import Answer, Burst, Engine, Prompt

PARTS = 4
"""A request's prompt is the longest context over this, so that many fit."""

QUIET_S, QUIET_RATIO = 1.0, 6.0
"""Seconds without a further first token after which the cache is full; as many times the usual distance if longer."""


def kv_capacity(engine: Engine, max_context: int, max_batch: int) -> int | None:
    """The KV capacity in tokens, or None where ``max_batch`` requests of ``max_context`` tokens do not fill it."""
    for isl in (max_context // PARTS, max_context * 3 // PARTS):
        together = tuple(Prompt(isl, max_context - isl) for _ in range(max_batch))
        answers = engine.run(Burst(together), _full).together
        admitted = [answer for answer in answers if math.isfinite(answer.first_s)]
        if 0 < len(admitted) < max_batch:
            return int(_held(answers, max(answer.first_s for answer in admitted)) + isl / 2)
    return None


def _full(now_s: float, answers: Sequence[Answer]) -> bool:
    firsts = [answer.first_s for answer in answers if math.isfinite(answer.first_s)]
    if not firsts:
        return False
    if len(firsts) == len(answers):
        return True
    usual_s = (max(firsts) - min(firsts)) / len(firsts)
    return now_s - max(firsts) > max(QUIET_S, QUIET_RATIO * usual_s)


def _held(answers: Sequence[Answer], at_s: float) -> int:
    """Tokens that the admitted requests held at a time; each step gave all of them a token, the witness too."""
    witness = max(answers, key=lambda answer: len(answer.token_s))
    held = 0
    for answer in answers:
        if answer.first_s <= at_s:
            held += answer.isl + sum(answer.first_s <= token_s <= at_s for token_s in witness.token_s)
    return held
