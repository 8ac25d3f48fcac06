"""The best choice of one option for each claim within linear limits: a multiple-choice knapsack.

``maximise sum(worth[m, k] * x[m, k])`` over ``x[m, k]`` of 0 or 1 with ``sum(x[m, :]) == 1`` for each claim ``m`` and
``sum(use[m, k, r] * x[m, k]) <= amount[r]`` for each limit ``r``.

- One limit in whole units: dynamic programming over the units and the options that may be in an optimum
  (:mod:`~dynamo_planner.fleet.reduction`), exact up to :data:`MAX_CELLS`.
- Several limits and at most :data:`EXACT_OPTIONS` options: an integer program (HiGHS through ``scipy``), exact.
- Beyond: the linear relaxation. A basic solution of it splits at most as many claims as there are limits between two
  options; each of those gets the lesser one, and what is left over is filled greedily. That is worth less than the
  optimum by at most one step of each limit that binds.

Claims that have no limit in common that can bind are chosen apart.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

from dynamo_planner.fleet.capacity import TOLERANCE, fits
from dynamo_planner.fleet.reduction import promising
from dynamo_planner.sizing.arrays import Floats

EXACT_OPTIONS = 400
"""Options up to which several limits are met by an exact method."""

MAX_CELLS = 80_000_000
"""Options times units, of those that may be in an optimum, up to which one limit is met by dynamic programming."""

EPSILON = 1e-9
"""The least difference in worth that counts, as a share of all that there is to choose from."""


class Choices(NamedTuple):
    """The options of one claim.

    Args:
        use: What each option (row) counts for each limit (column).
        worth: What each option is worth.
    """

    use: Floats
    worth: Floats


def best(choices: Sequence[Choices], amount: Floats, *, sparing: bool = False) -> list[int] | None:
    """The option of each claim with the highest total worth within the limits; ``None`` where nothing is within them.

    A claim whose limits cannot bind gets its last option, or with ``sparing`` the one that uses the least of those that
    are worth the most.
    """
    if not choices:
        return []
    least = [int(np.argmin(each.use.sum(axis=1))) for each in choices]
    most = np.array([each.use.max(axis=0) for each in choices])
    total = most.sum(axis=0)
    binding = (total > 0) if sparing else total > amount * (1 + TOLERANCE) + TOLERANCE
    chosen = [len(each.worth) - 1 for each in choices]
    for members, rows in _components(most > 0, binding):
        own = [Choices(choices[m].use[:, rows], choices[m].worth) for m in members]
        found = _best_of(own, amount[rows], [least[m] for m in members])
        if found is None:
            return None
        for member, option in zip(members, found, strict=True):
            chosen[member] = option
    return chosen


def _components(
    uses: np.ndarray[tuple[int, int], np.dtype[np.bool_]], binding: Floats
) -> list[tuple[list[int], list[int]]]:
    """Claims that share limits that bind, with those limits."""
    rows = [int(row) for row in np.flatnonzero(binding)]
    groups: list[tuple[set[int], list[int]]] = []
    for row in rows:
        members = {int(m) for m in np.flatnonzero(uses[:, row])}
        joined, own = members, [row]
        apart = []
        for other, theirs in groups:
            if other & joined:
                joined, own = joined | other, theirs + own
            else:
                apart.append((other, theirs))
        groups = [*apart, (joined, own)]
    return [(sorted(members), sorted(own)) for members, own in groups]


def _best_of(choices: list[Choices], amount: Floats, least: list[int]) -> list[int] | None:
    """The best choice of claims that share limits."""
    whole = _in_units(choices, amount) if len(amount) == 1 else None
    if whole is not None:
        uses, units = whole
        if sum(int(use.min()) for use in uses) > units:
            return None
        worths = [each.worth for each in choices]
        least_gain = EPSILON * max(sum(float(np.abs(worth).max()) for worth in worths), 1e-12)
        kept = promising(worths, uses, units, slack=(len(worths) + 1) * least_gain)
        worths = [worth[own] for worth, own in zip(worths, kept, strict=True)]
        uses = [use[own] for use, own in zip(uses, kept, strict=True)]
        units = min(units, sum(int(use.max()) for use in uses)) - sum(int(use.min()) for use in uses)
        if sum(map(len, kept)) * (units + 1) <= MAX_CELLS:
            found = _by_units(worths, [use - use.min() for use in uses], units, least_gain)
            return [int(own[place]) for own, place in zip(kept, found, strict=True)]
    if sum(len(each.worth) for each in choices) <= EXACT_OPTIONS:
        return _by_program(choices, amount)
    return _relaxed(choices, amount, least)


def _in_units(choices: list[Choices], amount: Floats) -> tuple[list[npt.NDArray[np.int_]], int] | None:
    """The uses and the amount in whole units of their greatest common divisor; ``None`` where they are not whole."""
    uses = [each.use[:, 0] for each in choices]
    flat = np.concatenate(uses)
    if np.any(flat != np.floor(flat)):
        return None
    unit = int(np.gcd.reduce(flat.astype(int))) or 1
    return [use.astype(int) // unit for use in uses], math.floor(float(amount[0]) * (1 + TOLERANCE) / unit)


def _by_units(worths: list[Floats], uses: list[npt.NDArray[np.int_]], units: int, least_gain: float) -> list[int]:
    """Dynamic programming: the highest worth of the first claims for each number of units."""
    value = np.zeros(units + 1)
    picks: list[npt.NDArray[np.int32] | None] = []
    for worth, use in zip(worths, uses, strict=True):
        if len(worth) == 1:
            value = value + worth[0]
            picks.append(None)
            continue
        better = np.full(units + 1, -np.inf)
        pick = np.zeros(units + 1, np.int32)
        for option in np.lexsort((-worth, use)).tolist():
            start = int(use[option])
            if start > units:
                continue
            candidate = value[: units + 1 - start] + worth[option]
            rises = candidate > better[start:] + least_gain
            better[start:][rises] = candidate[rises]
            pick[start:][rises] = option
        value = better
        picks.append(pick)
    left = int(np.flatnonzero(value >= value[units] - least_gain)[0])
    chosen = []
    for picked, use in zip(reversed(picks), reversed(uses), strict=True):
        chosen.append(0 if picked is None else int(picked[left]))
        left -= int(use[chosen[-1]])
    return chosen[::-1]


def _program(choices: list[Choices], amount: Floats, *, whole: bool) -> Floats | None:
    """The solution of the integer program, or of its linear relaxation."""
    sizes = [len(each.worth) for each in choices]
    use, worth = np.vstack([each.use for each in choices]), np.concatenate([each.worth for each in choices])
    scale = max(float(np.abs(worth).max()), 1e-12)
    dearness = use @ (1.0 / np.maximum(amount, 1.0))
    total = sum(sizes)
    one = csr_array((np.ones(total), (np.repeat(np.arange(len(sizes)), sizes), np.arange(total))))
    found = milp(
        -worth / scale + EPSILON * dearness,
        integrality=np.full(total, int(whole)),
        bounds=Bounds(0, 1),
        constraints=[LinearConstraint(one, 1, 1), LinearConstraint(use.T, -np.inf, amount * (1 + TOLERANCE))],
        options={"mip_rel_gap": 0.0},
    )
    return None if found.x is None else np.asarray(found.x)


def _by_program(choices: list[Choices], amount: Floats) -> list[int] | None:
    solution = _program(choices, amount, whole=True)
    return None if solution is None else _picked(choices, solution)


def _picked(choices: list[Choices], solution: Floats) -> list[int]:
    places = np.cumsum([0, *[len(each.worth) for each in choices]])
    return [int(np.argmax(solution[a:b])) for a, b in pairwise(places)]


def _relaxed(choices: list[Choices], amount: Floats, least: list[int]) -> list[int] | None:
    """The linear relaxation, with split claims at the lesser of their options, filled up greedily."""
    solution = _program(choices, amount, whole=False)
    if solution is None:
        return None
    places = np.cumsum([0, *[len(each.worth) for each in choices]])
    chosen, split = [], []
    for member, (each, start) in enumerate(zip(choices, places, strict=False)):
        parts = np.flatnonzero(solution[start : start + len(each.worth)] > EPSILON)
        if len(parts) > 1:
            split.append(member)
        chosen.append(int(parts[np.argmin(each.use[parts].sum(axis=1))]) if len(parts) else least[member])
    used = sum((each.use[option] for each, option in zip(choices, chosen, strict=True)), np.zeros_like(amount))
    for member in split:
        if not fits(used, amount):  # an option that uses less of one limit may use more of another
            used = used - choices[member].use[chosen[member]] + choices[member].use[least[member]]
            chosen[member] = least[member]
    return filled(choices, chosen, amount) if fits(used, amount) else None


def filled(choices: Sequence[Choices], chosen: list[int], amount: Floats) -> list[int]:
    """The choice, and the better option of a claim wherever it still fits, the one that gains the most first."""
    chosen = list(chosen)
    used = sum((each.use[option] for each, option in zip(choices, chosen, strict=True)), np.zeros_like(amount))
    limit = amount + TOLERANCE * np.maximum(amount, 1.0)
    while True:
        gains: list[tuple[float, int, int]] = []
        for member, each in enumerate(choices):
            own = each.use[chosen[member]]
            gain = each.worth - each.worth[chosen[member]]
            gain[~np.all(used - own + each.use <= limit, axis=1)] = 0.0
            option = int(np.argmax(gain))
            if gain[option] > EPSILON:
                gains.append((-float(gain[option]), member, option))
        if not gains:
            return chosen
        _, member, option = min(gains)
        used = used - choices[member].use[chosen[member]] + choices[member].use[option]
        chosen[member] = option
