"""Sharing: what each model may have of budgets that do not suffice for all, and which part of it can be done at once.

The goal, in this order:

1. Every model has one of its options, the least of which it must have, and all of them together are within the budgets.
2. A model that wants it has what its floor pays for. What it does not want of its floor is lent.
3. The models of the highest priority have ``sum(weight * worth)`` as high as can be, then those of the next.
4. At least ``Budget.least`` stays in use.

To take a replica away from a model costs ``margin`` more than it is worth, so that small differences move nothing.

On the way to the goal no budget is exceeded, whatever becomes of the actions and in whatever order: every fall is done
at once, what falls counts until it is gone, and a model rises only as far as there is room beside all that is held. Its
pools rise together.

>>> from dynamo_planner.fleet.claims import Budget, Claim, Option, PoolClaim
>>> def claim(model, present, worths, **more):
...     options = tuple(Option((count,), worth) for count, worth in enumerate(worths))
...     return Claim(model, (PoolClaim("workers", {"gpu": 1}, present),), options, **more)
>>> chat = claim("chat", 4, [0, 10, 18, 24, 28, 30])
>>> batch = claim("batch", 1, [0, 5, 9], floor={"gpu": 2})
>>> share([chat, batch], {"gpu": Budget(total=5)})
{'batch': Grant(goal=(2,), now=(1,)), 'chat': Grant(goal=(3,), now=(3,))}
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dynamo_planner.fleet.capacity import TOLERANCE, Limit, amounts, fits, limits, per_replica, total
from dynamo_planner.fleet.choice import Choices, best, filled
from dynamo_planner.fleet.claims import Budget, Claim, Grant, Option
from dynamo_planner.fleet.moves import topped_up, towards
from dynamo_planner.sizing.arrays import Floats

REBALANCE_MARGIN = 0.5
"""By how much more than its worth a replica counts for the model that has it. A replica that moves is away for a start
of ``S`` seconds; where the other model needs it for ``T``, it has to be worth ``T / (T - S)`` times as much there: 1.5
times for three starts."""

USE_WORTH = 1e-7
"""What it is worth to use a budget at all, as a share of the largest worth: nothing that is wanted stays idle."""

LOWER_WORTH = 1e-4
"""What the worth of all lower priorities counts beside the largest worth of one of a priority: it decides ties."""


def share(
    claims: Sequence[Claim],
    budgets: Mapping[str, Budget],
    free: Mapping[str, Sequence[int]] | None = None,
    margin: float = REBALANCE_MARGIN,
) -> dict[str, Grant]:
    """What each model is given, by name.

    Args:
        claims: The claims, in any order.
        budgets: The budgets by name; one that no claim uses is no error, and a budget that is not here has no limit.
        free: The free GPUs of each node that were observed, by budget. Default none: only totals, and what nodes of
            these sizes can hold, limit the next step.
        margin: By how much more than its worth a replica counts for the model that has it. Default 0.5.

    Where not even the least fits, nothing rises.
    """
    claims = sorted(claims, key=lambda claim: claim.model)
    rows = limits(budgets, amounts(claims))
    sizes = [per_replica(claim, rows) for claim in claims]
    goal = _goal(claims, rows, sizes, margin)
    goal = topped_up(claims, budgets, rows, sizes, goal)
    now, blocked = towards(claims, rows, sizes, goal, free or {})
    if blocked:
        claims = [_without_rises(claim, blocked.get(claim.model, ())) for claim in claims]
        goal = topped_up(claims, budgets, rows, sizes, _goal(claims, rows, sizes, margin))
        now, _ = towards(claims, rows, sizes, goal, free or {})
    return {claim.model: Grant(goal[n], now[n]) for n, claim in enumerate(claims)}


def _without_rises(claim: Claim, pools: Sequence[str]) -> Claim:
    """The claim without the options for which these pools would have to rise."""
    if not pools:
        return claim
    stay = [number for number, pool in enumerate(claim.pools) if pool.name in pools]
    options = [o for o in claim.options if all(o.counts[n] <= claim.pools[n].present for n in stay)]
    return claim._replace(options=tuple(options or [Option(claim.kept, 0.0)]))


class _Options(NamedTuple):
    """The options of one claim: the replicas of each pool (columns) and what they are worth, the least first."""

    counts: Floats
    worth: Floats

    @classmethod
    def of(cls, options: Sequence[Option]) -> _Options:
        return cls(np.array([own.counts for own in options], float), np.array([own.worth for own in options], float))

    def only(self, rows: npt.NDArray[np.bool_]) -> _Options:
        """Those of these rows."""
        return _Options(self.counts[rows], self.worth[rows])

    def at(self, row: int) -> tuple[int, ...]:
        """The replicas of one of them."""
        return tuple(map(int, self.counts[row].tolist()))


def _goal(
    claims: Sequence[Claim], rows: Sequence[Limit], sizes: Sequence[Floats], margin: float
) -> list[tuple[int, ...]]:
    """The replicas that each model settles on."""
    amount = np.array([row.amount for row in rows])
    wanted = [claim.wanted for claim in claims]
    if fits(total(wanted, sizes, rows), amount):
        return wanted
    options = [_Options.of(_with_kept(claim, claim.kept)) for claim in claims]
    for allowed in _ways(claims, options):
        found = _best(claims, allowed, sizes, amount, margin)
        if found is not None:
            return found
    unraised = [
        own.only(within) if (within := _within(own, claim)).any() else _Options.of([Option(claim.kept, 0.0)])
        for claim, own in zip(claims, options, strict=True)
    ]
    return _best(claims, unraised, sizes, amount, margin) or [own.at(0) for own in unraised]


def _within(options: _Options, claim: Claim) -> npt.NDArray[np.bool_]:
    """Which options need no more than the model has."""
    return np.asarray(np.all(options.counts <= np.array(claim.kept, float), axis=1))


def _with_kept(claim: Claim, kept: tuple[int, ...]) -> tuple[Option, ...]:
    """The options, the least first, with what the model has of what it wants among them."""
    if any(option.counts == kept for option in claim.options):
        return claim.options
    below = [o.worth for o in claim.options if all(a <= b for a, b in zip(o.counts, kept, strict=True))]
    first, *others = claim.options
    return (first, Option(kept, max(below)), *others) if below else claim.options


def _ways(claims: Sequence[Claim], options: Sequence[_Options]) -> Iterator[list[_Options]]:
    """The options that leave every model its floor and, as long as these do not fit, without the floor of one more."""
    allowed = [_above_floor(claim, own) for claim, own in zip(claims, options, strict=True)]
    yield list(allowed)
    for n in sorted(range(len(claims)), key=lambda n: (claims[n].priority, claims[n].model)):
        if len(allowed[n].worth) < len(options[n].worth):
            allowed[n] = options[n]
            yield list(allowed)


def _above_floor(claim: Claim, options: _Options) -> _Options:
    """The options that are worth no less than the best one that the floor pays for."""
    if not claim.floor:
        return options
    counts, worth = options
    paid = np.ones(len(worth), bool)
    for name, own in claim.floor.items():
        paid &= counts @ np.array([pool.uses.get(name, 0.0) for pool in claim.pools]) <= own
    return options.only(worth >= worth[paid].max(initial=-np.inf))


def _best(
    claims: Sequence[Claim], allowed: Sequence[_Options], sizes: Sequence[Floats], amount: Floats, margin: float
) -> list[tuple[int, ...]] | None:
    """The best options by priority, one class after the other; the later ones decide between what is equal."""
    choices = [_choices(*each, margin) for each in zip(claims, allowed, sizes, strict=True)]
    most = sum((own.use.max(axis=0) for own in choices), np.zeros(len(amount)))
    binding = np.flatnonzero(most > amount * (1 + TOLERANCE))
    if len(binding) > 1:
        chosen = _several_limits(claims, choices, amount)
    else:  # the others cannot bind
        own = [Choices(each.use[:, binding], each.worth) for each in choices]
        chosen = _one_limit(claims, own, amount[binding])
    if chosen is None:
        return None
    chosen = filled([_used(*each) for each in zip(claims, allowed, choices, strict=True)], chosen, amount)
    return [own.at(option) for own, option in zip(allowed, chosen, strict=True)]


def _classes(claims: Sequence[Claim]) -> list[tuple[int, list[int]]]:
    """The priorities, highest first, with the places of their claims."""
    found = sorted({claim.priority for claim in claims}, reverse=True)
    return [(own, [n for n, claim in enumerate(claims) if claim.priority == own]) for own in found]


def _one_limit(claims: Sequence[Claim], choices: Sequence[Choices], amount: Floats) -> list[int] | None:
    """One class after the other: what a class leaves is all that matters to the later ones."""
    chosen = [0] * len(claims)
    least = np.array([own.use.min(axis=0) for own in choices])
    left = amount - least.sum(axis=0)
    for _, members in _classes(claims):
        found = best([choices[n] for n in members], left + least[members].sum(axis=0), sparing=True)
        if found is None:
            return None
        for n, option in zip(members, found, strict=True):
            chosen[n] = option
            left = left + least[n] - choices[n].use[option]
    return chosen


def _several_limits(claims: Sequence[Claim], choices: Sequence[Choices], amount: Floats) -> list[int] | None:
    """One class after the other, with the later ones deciding between what is equal."""
    left, chosen = list(choices), [0] * len(claims)
    for priority, members in _classes(claims):
        found = best(_in_turn(claims, left, priority), amount)
        if found is None:
            return None
        for n in members:
            chosen[n] = found[n]
            left[n] = Choices(left[n].use[[found[n]]], left[n].worth[[found[n]]])
    return chosen


def _in_turn(claims: Sequence[Claim], choices: Sequence[Choices], priority: int) -> list[Choices]:
    """The options with those of one priority worth what they are, and those of the lower ones next to nothing."""
    spans = [float(np.ptp(own.worth)) for own in choices]
    own = max((span for span, claim in zip(spans, claims, strict=True) if claim.priority == priority), default=0.0)
    lower = sum(span for span, claim in zip(spans, claims, strict=True) if claim.priority < priority)
    factor = LOWER_WORTH * own / lower if own and lower else 1.0
    return [
        each if claim.priority >= priority else each._replace(worth=factor * each.worth)
        for claim, each in zip(claims, choices, strict=True)
    ]


def _choices(claim: Claim, options: _Options, sizes: Floats, margin: float) -> Choices:
    """The options for the choice: weighted, and what the model has of them counts more."""
    worth = claim.weight * options.worth
    within = _within(options, claim)
    if within.any():
        worth -= margin * np.maximum(worth[within].max() - worth, 0.0)
    return Choices(options.counts @ sizes, worth)


def _used(claim: Claim, options: _Options, choices: Choices) -> Choices:
    """The options, of which those that hold more are worth a little more."""
    part = options.counts @ (1.0 / (len(claim.pools) * np.maximum(np.array(claim.wanted, float), 1.0)))
    return choices._replace(worth=choices.worth + USE_WORTH * max(float(np.abs(choices.worth).max()), 1.0) * part)
