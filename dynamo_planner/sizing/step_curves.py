"""Step times of a profile on a fixed grid: what sizing asks of them many times a second, as plain interpolation."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dynamo_planner.profiles import DecodePoints, MixedSteps, Profile
from dynamo_planner.sizing.queueing import Floats

_BATCHES, _CONTEXTS = 96, 96
_PROMPTS, _MIXED_BATCHES, _MIXED_CONTEXTS = 24, 32, 32

BEYOND = 4.0
"""The longest context of the grid over the longest that was measured."""


class Steps(NamedTuple):
    """Steps with requests of one mean context: how long they take at each of ``batches``, as seen by a request
    (``step_ms``) and for all the work to be done (``pace_ms``), how much longer with longer contexts (elasticity),
    whether that was measured, and how long a single request's take at ``contexts``."""

    batches: Floats
    step_ms: Floats
    pace_ms: Floats
    per_context: Floats
    extrapolated: Floats
    contexts: Floats
    alone_ms: Floats


class DecodeCurves:
    """Steps that only decode, over batch, for any mean context.

    The largest batch is ``max_num_seqs``, or where that is left out the largest that was measured at any context.
    """

    def __init__(self, profile: Profile, max_num_seqs: int | None = None) -> None:
        points, decode = profile.decode_points, profile.decode
        self.room_tokens = points.max_kv_tokens
        most = max(points.batch) if max_num_seqs is None else float(max_num_seqs)
        self.batches = np.geomspace(1.0, max(most, 2.0), _BATCHES)
        self.contexts = _contexts(points, _CONTEXTS)
        contexts, batches = np.broadcast_arrays(self.contexts[:, None], self.batches)
        self.step_ms = decode.step_ms(batches, contexts)
        self._outside = decode.extrapolated(batches * contexts / self.room_tokens, contexts)
        self._per_context = np.gradient(np.log(self.step_ms), np.log(self.contexts), axis=0)

    def at(self, context: float, factor: float = 1.0) -> Steps:
        """The steps with requests of ``context`` tokens on average, each ``factor`` times as long."""
        cell, share = _place(self.contexts, context)
        steps = (self.step_ms[cell] * (1 - share) + self.step_ms[cell + 1] * share) * factor
        near = cell + int(share > 0.5)
        alone = self.step_ms[:, 0] * factor
        return Steps(self.batches, steps, steps, self._per_context[near], self._outside[near], self.contexts, alone)


class MixedCurves:
    """How long a prompt token makes a step, over the prompt tokens of the step and its batch, for any mean context."""

    def __init__(self, points: DecodePoints, mixed: MixedSteps) -> None:
        self.prompts = np.geomspace(16.0, max(*mixed.points.prefill_tokens, 17.0), _PROMPTS)
        self.batches = np.geomspace(1.0, max(*mixed.points.num_decode, 2.0), _MIXED_BATCHES)
        self.contexts = _contexts(points, _MIXED_CONTEXTS)
        prompts, batches, contexts = np.meshgrid(self.prompts, self.batches, self.contexts, indexing="ij")
        self.most_prompt_tokens = float(self.prompts[-1])
        self._step_ms = mixed.step_ms(prompts, batches, contexts)

    def step_ms(self, prompt_tokens: float, batches: Floats, context: float) -> Floats:
        """A step with so many tokens of prompts beside each of ``batches``; beyond the most that was measured it
        grows with them as it did before."""
        cell, share = _place(self.contexts, context)
        row, part = _place(self.prompts, prompt_tokens, within=False)
        plane = self._step_ms[row : row + 2, :, cell] * (1 - share) + self._step_ms[row : row + 2, :, cell + 1] * share
        return np.asarray(np.interp(batches, self.batches, plane[0] * (1 - part) + plane[1] * part))


def _contexts(points: DecodePoints, count: int) -> Floats:
    return np.geomspace(16.0, BEYOND * max(points.context), count)


def _place(axis: Floats, value: float, within: bool = True) -> tuple[int, float]:
    """The cell that a value is in, and how far into it."""
    cell = min(max(int(np.searchsorted(axis, value)) - 1, 0), len(axis) - 2)
    share = (value - axis[cell]) / (axis[cell + 1] - axis[cell])
    return cell, float(min(max(share, 0.0), 1.0) if within else max(share, 0.0))
