"""Step times of a profile on a fixed grid, so that sizing can look them up by plain interpolation."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dynamo_planner.profiles import DecodePoints, MixedSteps, Profile
from dynamo_planner.sizing.arrays import Floats

BATCHES, CONTEXTS = 96, 96
"""Nodes of the grid of steps that only decode."""

PROMPTS, MIXED_BATCHES, MIXED_CONTEXTS = 24, 32, 32
"""Nodes of the grid of steps with prompts."""

CONTEXT_RANGE = 4.0
"""The longest context of the grid over the longest that was measured."""

MIN_CONTEXT = 16.0
"""The shortest context of the grid, in tokens."""

MIN_PROMPT_TOKENS = 16.0
"""The fewest prompt tokens of a step on the grid."""


class StepTimes(NamedTuple):
    """Step times by batch, of requests with one mean context.

    Attributes:
        batches: requests in flight on a replica.
        step_ms: how long a step takes as a request experiences it, at each batch.
        pace_ms: how long it takes until all work of a step is done, at each batch.
        per_context: elasticity of the step time in the context, at each batch.
        extrapolated: whether nothing was measured there, at each batch.
        contexts: contexts in tokens.
        alone_ms: how long a step of a single request takes, at each context.
    """

    batches: Floats
    step_ms: Floats
    pace_ms: Floats
    per_context: Floats
    extrapolated: Floats
    contexts: Floats
    alone_ms: Floats


class DecodeCurves:
    """Times of steps that only decode, by batch, for any mean context.

    Args:
        profile: the measured profile.
        max_num_seqs: the largest batch. Default: the largest that was measured at any context.
    """

    def __init__(self, profile: Profile, max_num_seqs: int | None = None) -> None:
        points, decode = profile.decode_points, profile.decode
        self.max_kv_tokens = points.max_kv_tokens
        most = profile.max_batch if max_num_seqs is None else float(max_num_seqs)
        self.most = max(most, 1.0)
        self.batches = np.geomspace(1.0, max(most, 2.0), BATCHES)
        self.contexts = _contexts(points, CONTEXTS)
        contexts, batches = np.broadcast_arrays(self.contexts[:, None], self.batches)
        self.step_ms = decode.step_ms(batches, contexts)
        self._outside = decode.extrapolated(batches * contexts / self.max_kv_tokens, contexts)
        self._per_context = np.gradient(np.log(self.step_ms), np.log(self.contexts), axis=0)

    def at(self, context: float, factor: float = 1.0) -> StepTimes:
        """The step times of requests of ``context`` tokens on average, ``factor`` times as long as measured."""
        cell, share = _place(self.contexts, context)
        steps = (self.step_ms[cell] * (1 - share) + self.step_ms[cell + 1] * share) * factor
        near = cell + int(share > 0.5)
        alone = self.step_ms[:, 0] * factor
        return StepTimes(self.batches, steps, steps, self._per_context[near], self._outside[near], self.contexts, alone)


class MixedCurves:
    """Times of steps with prompts, by prompt tokens and batch, for any mean context.

    Args:
        points: the decode points, whose contexts set the grid.
        mixed: the measured mixed steps.
    """

    def __init__(self, points: DecodePoints, mixed: MixedSteps) -> None:
        most_prompts = max(*mixed.points.prefill_tokens, MIN_PROMPT_TOKENS + 1)
        self.prompts = np.geomspace(MIN_PROMPT_TOKENS, most_prompts, PROMPTS)
        self.batches = np.geomspace(1.0, max(*mixed.points.num_decode, 2.0), MIXED_BATCHES)
        self.contexts = _contexts(points, MIXED_CONTEXTS)
        prompts, batches, contexts = np.meshgrid(self.prompts, self.batches, self.contexts, indexing="ij")
        self.most_prompt_tokens = float(self.prompts[-1])
        self._step_ms = mixed.step_ms(prompts, batches, contexts)

    def step_ms(self, prompt_tokens: npt.ArrayLike, batches: Floats, context: float) -> Floats:
        """The time of a step with each of ``prompt_tokens`` of prompts (rows) beside each of ``batches`` (columns), one
        row for a single number; beyond the most that was measured it grows on along the last slope."""
        cell, share = _place(self.contexts, context)
        plane = self._step_ms[:, :, cell] * (1 - share) + self._step_ms[:, :, cell + 1] * share
        tokens = np.asarray(prompt_tokens, float)
        row = np.clip(np.searchsorted(self.prompts, tokens) - 1, 0, PROMPTS - 2)
        part = np.maximum((tokens - self.prompts[row]) / (self.prompts[row + 1] - self.prompts[row]), 0.0)[..., None]
        rows = plane[row] * (1 - part) + plane[row + 1] * part
        column = np.clip(np.searchsorted(self.batches, batches) - 1, 0, MIXED_BATCHES - 2)
        across = (batches - self.batches[column]) / (self.batches[column + 1] - self.batches[column])
        across = np.clip(across, 0.0, 1.0)
        return np.asarray(rows[..., column] * (1 - across) + rows[..., column + 1] * across)


def _contexts(points: DecodePoints, count: int) -> Floats:
    return np.geomspace(MIN_CONTEXT, CONTEXT_RANGE * max(points.context), count)


def _place(axis: Floats, value: float) -> tuple[int, float]:
    """The cell that a value is in, and how far into it (0 to 1)."""
    cell = min(max(int(np.searchsorted(axis, value)) - 1, 0), len(axis) - 2)
    share = (value - axis[cell]) / (axis[cell + 1] - axis[cell])
    return cell, float(min(max(share, 0.0), 1.0))
