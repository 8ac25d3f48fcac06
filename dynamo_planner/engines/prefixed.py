"""An engine's vocabulary whose names are spelled as a user's setup does: with a prefix, or without colons.

>>> from dynamo_planner.engines.vllm import VLLM
>>> with_prefix(VLLM, "ray_").quantities["running"][0].names
('ray_vllm:num_requests_running',)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dynamo_planner.engines.vocabulary import Vocabulary

NAMES = frozenset({"names", "plus", "minus", "numbered", "known_by", "prefixes", "unless", "repeated_by"})
"""The fields that hold names of metrics."""

NAME_PREFIX = "^[a-zA-Z_:][a-zA-Z0-9_:]*$|^$"
"""What a prefix may be, as a regular expression."""


def with_prefix(vocabulary: Vocabulary, prefix: str, colon: str = ":") -> Vocabulary:
    """The vocabulary with ``prefix`` before the names of all metrics, and ``colon`` for each colon in them.

    What is in JSON has the names that it had.

    The start time of the process is looked for under its own name as well.
    """
    if not prefix and colon == ":":
        return vocabulary
    data = _spelled(vocabulary.model_dump(), prefix, colon)
    started_at = (*vocabulary.started_at, *(prefix + name for name in vocabulary.started_at))
    return Vocabulary.model_validate({**data, "started_at": started_at})


def _spelled(data: Any, prefix: str, colon: str, *, is_name: bool = False) -> Any:
    if isinstance(data, Mapping):
        return {field: _spelled(value, prefix, colon, is_name=field in NAMES) for field, value in data.items()}
    if isinstance(data, list | tuple):
        return tuple(_spelled(value, prefix, colon, is_name=is_name) for value in data)
    return prefix + data.replace(":", colon) if is_name and isinstance(data, str) and not data.startswith("/") else data
