"""How long prompts wait where each replica has a queue of its own: GI/G/1 by Lindley's recursion on a grid.

::

    W' = max(W + S - T, 0)          stationary, on LEVELS levels up to the longest time that is asked for

======  ==================================================================================================
symbol  meaning
======  ==================================================================================================
W, W'   seconds that a prompt waits at a replica, and that the next one there does
S       seconds of the replica that a prompt takes
T       seconds between two prompts of the replica: gamma distributed, of squared coefficient of variation
        ``dispersion``
======  ==================================================================================================

Of n replicas that take turns each gets every n-th prompt, so that its prompts come n times as regularly as all of them
together. What is left of the waiting is due to long prompts, which no exponential tail describes.
"""

from __future__ import annotations

import numpy as np
from scipy.special import gammaincc

from dynamo_planner.sizing.arrays import Floats
from dynamo_planner.sizing.queueing import MAX_EXPONENT

LEVELS = 64
"""Levels of the waiting time."""

MARGIN, MAX_SERVICE = 1.25, 2.0
"""The highest level is the longest time that is asked for with this margin, and one service, of which no more than this
many times that time counts. What waits longer counts as the highest level."""

DEPTH = 16.0
"""The longest time on the levels, in mean services times one and their squared coefficient of variation. Beyond it the
share falls by ``exp(-2 (1 - rho) t / (s (I + c**2)))``, as in :mod:`~dynamo_planner.sizing.waiting`."""


def waits_longer(rate: Floats, dispersion: Floats, mean_s: Floats, shape: Floats, than_s: Floats) -> Floats:
    """The share of prompts that wait for longer than this: shape (counts, ...) as ``than_s``.

    Args:
        rate: prompts/s of a replica, for each count; times ``mean_s`` below 1.
        dispersion: variance over mean of their counts, above 0, for each count.
        mean_s: mean seconds of a replica that a prompt takes, for each count.
        shape: equally likely services over their mean.
        than_s: the times, of which each count has some.

    >>> one = np.ones(1)
    >>> exponential = -np.log1p(-(np.arange(400) + 0.5) / 400)
    >>> waits_longer(0.5 * one, one, one, exponential, np.array([[1.0, 4.0]])).round(2)  # .5 exp(-t / 2)
    array([[0.3 , 0.07]])
    """
    counts, flat = len(rate), than_s.reshape(len(rate), -1)
    spread = 1 + float(shape.var())
    longest_s = np.clip(flat.max(axis=1), 1e-9, DEPTH * spread * mean_s)
    level_s = (MARGIN * longest_s + np.minimum(mean_s * shape.max(), MAX_SERVICE * longest_s)) / LEVELS
    gaps = (np.arange(1, 2 * LEVELS + 1) - 0.5) * (rate * level_s / dispersion)[:, None]
    later = np.concatenate([np.ones((counts, LEVELS)), gammaincc((1 / dispersion)[:, None], gaps)], axis=1)
    moves = np.empty((counts, LEVELS, LEVELS))
    for each in range(counts):
        service = np.minimum(shape * (mean_s[each] / level_s[each]), LEVELS - 1.0)
        low = service.astype(np.intp)
        mass = np.bincount(low, low + 1 - service, LEVELS + 1) + np.bincount(low + 1, service - low, LEVELS + 1)
        # The share of S - T up to half a level above each of LEVELS - 1, ... -LEVELS levels.
        moves[each] = np.correlate(later[each], mass / len(shape), "valid")[_MOVES]
    moves[:, :, -1] = 1.0
    moves[:, :, 1:] -= moves[:, :, :-1].copy()
    balance = np.swapaxes(moves, 1, 2) - np.eye(LEVELS)
    balance[:, 0] = 1.0
    levels = np.linalg.solve(balance, np.eye(LEVELS, 1)[None])[..., 0]
    more = np.clip(np.cumsum(levels[:, ::-1], axis=1)[:, ::-1][:, 1:], 0.0, 1.0)
    tail = np.empty_like(flat)
    for each in range(counts):
        at_once = min(more[each, 0] ** 1.5 / max(more[each, 1], 1e-12) ** 0.5, 1.0)
        within = np.minimum(flat[each], longest_s[each]) / level_s[each]
        tail[each] = np.interp(within, _EDGES, np.append(at_once, more[each]))
    beyond_s = np.maximum(flat - longest_s[:, None], 0.0)
    decay = 2 * (1 - rate * mean_s) / (mean_s * (dispersion + spread - 1))
    tail *= np.exp(-np.minimum(beyond_s * decay[:, None], MAX_EXPONENT))
    return tail.reshape(than_s.shape)


_MOVES = LEVELS - 1 + np.arange(LEVELS)[:, None] - np.arange(LEVELS)
_EDGES = np.append(0.0, np.arange(LEVELS - 1) + 0.5)
