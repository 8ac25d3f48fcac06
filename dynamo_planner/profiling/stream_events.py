"""Tokens in the events of a streamed answer, as the OpenAI API words them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from dynamo_planner.profiling.engine import Answer

COUNT_TOKENS: Mapping[str, Mapping[str, Any]] = {"llamacpp": {"timings_per_token": True}}
"""By engine: fields of a request that let each event say how many tokens there are so far."""

PACE_OF = 4
"""Latest tokens that say how fast they come."""


def has_token(choice: Mapping[str, Any]) -> bool:
    """Whether a choice of a stream brings a token: all do but the opening of a chat and an empty end.

    >>> has_token({"text": " a"}), has_token({"delta": {"role": "assistant", "content": ""}})
    (True, False)
    >>> has_token({"text": "", "finish_reason": "length"}), has_token({"delta": {"reasoning_content": "b"}})
    (False, True)
    """
    delta = choice.get("delta")
    if delta is None:
        return bool(choice.get("text")) or not choice.get("finish_reason")
    content = (
        delta.get("content") or delta.get("reasoning_content") or delta.get("reasoning") or delta.get("tool_calls")
    )
    return bool(content) or not (delta.get("role") or choice.get("finish_reason"))


def take(event: Mapping[str, Any], answer: Answer, now_s: float) -> None:
    """Note the tokens of one event.

    llama.cpp keeps back tokens that end within a character, and sends them with the next one. Its events count the
    tokens so far where they are asked to (:data:`COUNT_TOKENS`). Those kept back are taken to have come at the pace of
    the tokens before, so that one long step stays one. The last event may bring a token without a text.

    >>> answer = Answer(isl=8, sent_s=0.0)
    >>> take({"choices": [{"text": "a"}], "timings": {"predicted_n": 1}}, answer, 1.0)
    >>> take({"choices": [{"text": "\u00e9b"}], "timings": {"predicted_n": 4}}, answer, 1.6)
    >>> [round(at_s, 1) for at_s in answer.token_s], answer.first_s
    ([1.0, 1.2, 1.4, 1.6], 1.0)
    """
    choice = (event.get("choices") or [{}])[0]
    brings = bool(choice) and (has_token(choice) or (not answer.token_s and bool(choice.get("finish_reason"))))
    counted = (event.get("timings") or {}).get("predicted_n")
    new = counted - len(answer.token_s) if isinstance(counted, int) else int(brings)
    if new <= 0:
        return
    if not answer.token_s:
        answer.first_s = now_s
    since_s = answer.token_s[-1] if answer.token_s else now_s
    pace_s = (now_s - since_s) / new
    if len(answer.token_s) >= PACE_OF:
        pace_s = min(pace_s, float(np.median(np.diff(answer.token_s[-PACE_OF:]))))
    answer.token_s += [*(since_s + pace_s * number for number in range(1, new)), now_s]


def close(answer: Answer) -> None:
    """Complete an answer. Where events brought several tokens each, these are spread over the time between them."""
    if not answer.token_s:
        answer.failure = answer.failure or "the stream brought no token"
        return
    answer.last_s = answer.token_s[-1]
    events = len(answer.token_s)
    if answer.tokens > 1.1 * events > 1.1:
        places = np.linspace(0, events - 1, answer.tokens)
        answer.token_s[:] = np.interp(places, np.arange(events), answer.token_s).tolist()
    answer.tokens = answer.tokens or events
