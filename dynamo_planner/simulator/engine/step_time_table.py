"""The timing of an engine as a table, so that compiled code can look it up, and any code quickly.

Corners are at all of ``batches`` x ``prompts`` x equal KV cells; inside, step times lie on straight lines between them.
What is affine is thus exact.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dynamo_planner.simulator.engine.engine import EngineLimits
from dynamo_planner.simulator.engine.step_time import Line, LinearTiming, ProfileTiming, StepTiming

Floats = NDArray[np.float64]

SMALL_BATCH = 16
BATCH_RATIO = 1.15
PROMPT_CELLS = 32
KV_CELLS = 48
"""How fine a table is: each batch up to the small one, then in this ratio; equal cells of prompt and KV tokens."""


class StepTable(NamedTuple):
    """For each count of requests that decode and of prompt tokens, the corner below it and how far it is from there to
    the next (0 to 1); and ``ms[batch corner][prompt corner][KV corner]``. All numpy arrays, or all lists."""

    batch_corner: Sequence[int]
    batch_part: Sequence[float]
    prompt_corner: Sequence[int]
    prompt_part: Sequence[float]
    kv_cell: Sequence[int]
    ms: Sequence[Sequence[Sequence[float]]]

    def line(self, prefill_tokens: int, num_decode: int, kv_tokens: int) -> Line:
        """As in :class:`~dynamo_planner.simulator.engine.step_time.StepTiming`."""
        return Line(*look_up(self, prefill_tokens, num_decode, kv_tokens))


def look_up(t: StepTable, prefill_tokens: int, num_decode: int, kv_tokens: int) -> tuple[float, float, float]:
    """The line at a step: ms, ms per KV token, and up to which KV level."""
    cell = kv_tokens // t.kv_cell[0]
    row, part = t.batch_corner[num_decode], t.batch_part[num_decode]
    left, right = _between_prompts(t, row, prefill_tokens, cell)
    if part:
        next_left, next_right = _between_prompts(t, row + 1, prefill_tokens, cell)
        left += part * (next_left - left)
        right += part * (next_right - right)
    slope = (right - left) / t.kv_cell[0]
    return left + slope * (kv_tokens - cell * t.kv_cell[0]), slope, float((cell + 1) * t.kv_cell[0])


def _between_prompts(t: StepTable, row: int, prefill_tokens: int, cell: int) -> tuple[float, float]:
    column, part = t.prompt_corner[prefill_tokens], t.prompt_part[prefill_tokens]
    left, right = t.ms[row][column][cell], t.ms[row][column][cell + 1]
    if part:
        left += part * (t.ms[row][column + 1][cell] - left)
        right += part * (t.ms[row][column + 1][cell + 1] - right)
    return left, right


def step_table(timing: StepTiming, limits: EngineLimits) -> StepTable:
    """The table of a timing, for all steps within the limits. Raises ``ValueError`` for a step time that is not a
    finite number above 0."""
    linear = isinstance(timing, LinearTiming)
    batches = _batches(limits.max_num_seqs, linear)
    prompts = np.unique(np.linspace(0, limits.max_num_batched_tokens, (1 if linear else PROMPT_CELLS) + 1).astype(int))
    prompts = prompts if linear else np.union1d(prompts, [1])  # the first token of a prompt costs more than the next
    cell = -(-limits.kv_tokens // (1 if linear else KV_CELLS))
    levels = np.arange(-(-limits.kv_tokens // cell) + 2) * cell
    corners = np.meshgrid(prompts, batches, levels, indexing="ij")
    ms = np.asarray(_step_ms(timing)(*(corner.astype(float).ravel() for corner in corners)), dtype=float)
    if not np.all(np.isfinite(ms) & (ms > 0)):
        worst = int(np.argmax(~(np.isfinite(ms) & (ms > 0))))
        where = [int(corner.ravel()[worst]) for corner in corners]
        raise ValueError(f"a step of {where} prompt, decoding and KV tokens takes {ms[worst]} ms; it must be above 0")
    shaped = np.ascontiguousarray(ms.reshape(corners[0].shape).transpose(1, 0, 2))
    return StepTable(*_places(batches), *_places(prompts), np.array([cell]), shaped)  # type: ignore[arg-type]


def as_lists(table: StepTable) -> StepTable:
    """The same table for code that is not compiled, which is quicker with lists."""
    return StepTable(*(np.asarray(part).tolist() for part in table))


def _step_ms(timing: StepTiming) -> Callable[[Floats, Floats, Floats], Any]:
    if isinstance(timing, ProfileTiming):
        return lambda prompts, batches, kv: timing.factor * timing.profile.step_ms(prompts, batches, kv)
    return np.vectorize(lambda prompt, batch, kv: timing.line(int(prompt), int(batch), int(kv)).ms, otypes=[float])


def _batches(largest: int, linear: bool) -> NDArray[np.int64]:
    if linear:
        return np.array([0, largest])
    batches = list(range(min(SMALL_BATCH, largest) + 1))
    while batches[-1] < largest:
        batches.append(min(max(batches[-1] + 1, round(batches[-1] * BATCH_RATIO)), largest))
    return np.array(batches)


def _places(corners: NDArray[np.int64]) -> tuple[NDArray[np.int64], Floats]:
    """For each number up to the last corner: the corner at or below it, and how far it is to the next."""
    numbers = np.arange(corners[-1] + 1)
    below = np.minimum(np.searchsorted(corners, numbers, side="right") - 1, max(len(corners) - 2, 0))
    width = np.diff(corners, append=corners[-1] + 1)
    part = (numbers - corners[below]) / width[below]
    last = part >= 1
    below[last] += 1
    part[last] = 0.0
    return below, part
