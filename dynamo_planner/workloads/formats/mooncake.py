"""Trace files of Mooncake: a JSON object per line with ``timestamp`` (ms), ``input_length``, ``output_length``, and if
they are there ``hash_ids``, the blocks of the prompt."""

from __future__ import annotations

import json
from array import array
from pathlib import Path
from typing import Any

import numpy as np

from dynamo_planner.workloads.formats.base import Columns, RequestRows, TextLines, TraceFormat

BLOCK_TOKENS = 512
"""The tokens of a block of ``hash_ids``."""

BATCH_S = 3.0
"""What a stamp stands for: requests are stamped in batches of this many seconds."""


class Mooncake(TraceFormat):
    """JSON lines as published for Mooncake; arrivals are spread over their batches, and blocks give prefix hits."""

    description = "Mooncake JSON lines (timestamp, input_length, output_length)"

    def recognises(self, start: bytes) -> bool:
        return start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{")

    def read(self, path: Path) -> Columns:
        rows, hits, known = RequestRows(), array("q"), set[int]()
        with TextLines(path) as lines:
            for line in lines:
                if not line.strip():
                    continue
                try:
                    record = json.loads(line)
                    isl, osl = (_whole(record, name) for name in ("input_length", "output_length"))
                    rows.add(_number(record, "timestamp") / 1000, isl, osl)
                    hits.append(_prefix_hit(record, isl, known))
                except (ValueError, OverflowError, RecursionError) as error:
                    raise lines.error(str(error)) from error
        columns = rows.columns(hits if known else None)
        return columns._replace(arrival_s=spread_batches(columns.arrival_s))


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


def _prefix_hit(record: dict[str, Any], isl: int, known: set[int]) -> int:
    """The prompt tokens that a prefix cache without bounds would hold: leading blocks that an earlier line has."""
    blocks = record.get("hash_ids", [])
    if not isinstance(blocks, list) or not all(type(block) is int for block in blocks):
        raise ValueError(f"hash_ids must be a list of whole numbers, got {blocks!r:.100}")
    hit = 0
    while hit < len(blocks) and blocks[hit] in known:
        hit += 1
    known.update(blocks)
    return min(hit * BLOCK_TOKENS, isl)


def spread_batches(arrival_s: np.ndarray) -> np.ndarray:
    """Spread requests of one and the same stamp evenly over the 3 s (or less, up to the next stamp) that it stands for.

    >>> spread_batches(np.array([0.0, 0.0, 0.0, 3.0, 3.0, 4.0])).tolist()
    [0.0, 1.0, 2.0, 3.0, 3.5, 4.0]
    """
    order = np.argsort(arrival_s, kind="stable")
    stamps, first, count = np.unique(arrival_s[order], return_index=True, return_counts=True)
    width = np.minimum(np.diff(stamps, append=np.inf), BATCH_S)
    place = np.arange(len(order)) - np.repeat(first, count)
    spread = np.empty(len(order))
    spread[order] = np.repeat(stamps, count) + np.repeat(width / count, count) * place
    return spread


MOONCAKE = Mooncake()
