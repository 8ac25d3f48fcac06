"""Trace files of JSON lines with ``timestamp``, ``input_length``, ``output_length``, and if they are there
``hash_ids``, the blocks of the prompt. Several publishers use these keys, each with its
own unit of time and size of blocks.

- Mooncake and what writes its format: milliseconds, blocks of 512 tokens.
- Qwen-Bailian: seconds, blocks of 16 tokens; known by ``chat_id``.
- Seconds under the keys of Mooncake, as some load generators write them.
"""

from __future__ import annotations

import json
import re
from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dynamo_planner.workloads.formats.base import Columns, RequestRows, TimeUnit, TraceError, TraceFormat
from dynamo_planner.workloads.formats.text import TextLines

_FRACTION = re.compile(rb'"timestamp"\s*:\s*\d+\.\d*[1-9]')


@dataclass(frozen=True)
class JsonLines(TraceFormat):
    """A JSON object per line.

    Args:
        description: the format in a few words, for messages.
        unit: of ``timestamp``; times count from the earliest one.
        block_tokens: the tokens of a block of ``hash_ids``.
        chats: whether requests have a ``chat_id``.
        fractions_only: whether a file is recognised by its content only where stamps have fractions; by default in
            any case.
        batch_s: what a stamp stands for, where requests are stamped in batches of this many seconds; by default one
            moment.
    """

    description: str
    unit: TimeUnit
    block_tokens: int
    chats: bool = False
    fractions_only: bool = False
    batch_s: float = 0.0

    def recognises(self, start: bytes) -> bool:
        text = start.lstrip(b"\xef\xbb\xbf \t\r\n")
        if not text.startswith(b"{") or (b'"chat_id"' in text) != self.chats:
            return False
        return not self.fractions_only or _FRACTION.search(text) is not None

    def read(self, path: Path) -> Columns:
        rows, hits, prefixes = RequestRows(self.unit), array("q"), _Prefixes(self.block_tokens)
        with TextLines(path) as lines:
            for line in lines:
                if not line.strip():
                    continue
                try:
                    record = json.loads(line)
                    isl, osl = (_whole(record, name) for name in ("input_length", "output_length"))
                    rows.add(_number(record, "timestamp"), isl, osl)
                    hits.append(prefixes.hit(record, isl))
                except (ValueError, OverflowError, RecursionError) as error:
                    raise lines.error(str(error)) from error
        if prefixes.too_long:
            raise TraceError(
                f"{path}: its hash_ids are fewer than its prompts have blocks of {self.block_tokens} tokens"
            )
        columns = rows.columns(path, hits if prefixes.known else None)
        return columns._replace(arrival_s=spread_batches(columns.arrival_s, self.batch_s)) if self.batch_s else columns


class _Prefixes:
    """The blocks of the prompts so far.

    Args:
        block_tokens: the tokens of a block.

    Attributes:
        known: the blocks.
        too_long: whether every prompt of several blocks had fewer than its tokens make.
    """

    def __init__(self, block_tokens: int) -> None:
        self._block_tokens = block_tokens
        self._long = self._covered = 0
        self.known = set[int]()

    @property
    def too_long(self) -> bool:
        return self._long > 0 and not self._covered

    def hit(self, record: dict[str, Any], isl: int) -> int:
        """The prompt tokens that a prefix cache without bounds would hold: leading blocks that an earlier line has."""
        blocks = record.get("hash_ids", [])
        if not isinstance(blocks, list) or not all(type(block) is int for block in blocks):
            raise ValueError(f"hash_ids must be a list of whole numbers, got {blocks!r:.100}")
        if len(blocks) > isl // self._block_tokens + 1:
            raise ValueError(
                f"hash_ids has {len(blocks)} blocks for {isl} tokens, and blocks have {self._block_tokens} here; "
                "name a format with blocks of another size (trace_format)"
            )
        if blocks and isl >= 2 * self._block_tokens:
            self._long += 1
            self._covered += len(blocks) >= isl // self._block_tokens
        hit = 0
        while hit < len(blocks) and blocks[hit] in self.known:
            hit += 1
        self.known.update(blocks)
        return min(hit * self._block_tokens, isl)


def _number(record: Any, name: str) -> float:
    value = record.get(name) if isinstance(record, dict) else None
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ValueError(f"{name} must be a number, got {value!r:.100}")  # noqa: TRY004 - it is data, not a type
    return value


def _whole(record: Any, name: str) -> int:
    value = _number(record, name)
    if not isinstance(value, int):
        raise ValueError(f"{name} must be a whole number, got {value!r}")  # noqa: TRY004
    return value


def spread_batches(arrival_s: np.ndarray, batch_s: float) -> np.ndarray:
    """Spread requests of one and the same stamp evenly over the time (or less, up to the next stamp) it stands for.

    >>> spread_batches(np.array([0.0, 0.0, 0.0, 3.0, 3.0, 4.0]), 3.0).tolist()
    [0.0, 1.0, 2.0, 3.0, 3.5, 4.0]
    """
    order = np.argsort(arrival_s, kind="stable")
    stamps, first, count = np.unique(arrival_s[order], return_index=True, return_counts=True)
    width = np.minimum(np.diff(stamps, append=np.inf), batch_s)
    place = np.arange(len(order)) - np.repeat(first, count)
    spread = np.empty(len(order))
    spread[order] = np.repeat(stamps, count) + np.repeat(width / count, count) * place
    return spread


MOONCAKE = JsonLines(
    "Mooncake JSON lines (timestamp in ms, input_length, output_length, hash_ids of 512 tokens)",
    unit="ms",
    block_tokens=512,
    batch_s=3.0,
)
"""Mooncake stamps requests in batches of 3 s."""

BAILIAN = JsonLines(
    "Qwen-Bailian JSON lines (chat_id, timestamp in s, input_length, output_length, hash_ids of 16 tokens)",
    unit="s",
    block_tokens=16,
    chats=True,
)
"""The traces of Qwen's use on Alibaba Cloud's Bailian."""

SECONDS = JsonLines(
    "JSON lines with Mooncake's keys and seconds (timestamp in s, input_length, output_length, hash_ids of 512 tokens)",
    unit="s",
    block_tokens=512,
    fractions_only=True,
)
"""Mooncake's keys with seconds, as guidellm replays them. Stamps with fractions could be either."""
