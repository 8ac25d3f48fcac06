"""Tokens in the events of a streamed answer, as the OpenAI API words them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from dynamo_planner.profiling.engine import Answer


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
