"""Reduction of a multiple-choice knapsack with one limit: options that no optimum has are left out.

For any price ``p >= 0`` of a unit of the limit, no choice is worth more than

``bound(p) = p * amount + sum over claims of max over options of (worth - p * use)``

and one with an option whose ``worth - p * use`` is ``d`` below the highest of its claim is worth at most
``bound(p) - d``. So an option with ``d > bound(p) - found`` is in no choice that is worth as much as one that was found
(H. Kellerer, U. Pferschy and D. Pisinger, *Knapsack Problems*, 2004, section 11.1). With the price at which the bound
is lowest, one or two options of each claim are left.

With steps worth 10, 8 and 2 of one claim, 9 and 5 of another, 1 and 0.5 of a third, and 4 units, the price is 2, and
all that pays less is left out:

>>> worths = [np.array([0.0, 10, 18, 20]), np.array([0.0, 9, 14]), np.array([0.0, 1, 1.5])]
>>> uses = [np.arange(len(worth)) for worth in worths]
>>> [own.tolist() for own in promising(worths, uses, 4, slack=1e-9)]
[[2, 3], [2], [0]]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dynamo_planner.sizing.arrays import Floats

Places = npt.NDArray[np.int_]
"""Places of options in a claim."""


class _Choice(NamedTuple):
    """A choice of one option for each claim, with its total worth and use."""

    worth: float
    use: float


def promising(worths: Sequence[Floats], uses: Sequence[Places], amount: float, slack: float) -> list[Places]:
    """The places of the options that may be in a choice within ``amount`` that is worth the most, by claim.

    An option stays where a choice with it may be worth no less than the most but for ``slack``. The least uses
    together are to be within the amount.
    """
    most = max(map(len, worths))
    worth, use = np.full((len(worths), most), -np.inf), np.zeros((len(worths), most))
    for n, (own, used) in enumerate(zip(worths, uses, strict=True)):
        worth[n, : len(own)], use[n, : len(own)] = own, used
    price, found = _price(worth, use, amount)
    priced = worth - price * use
    highest = priced.max(axis=1, keepdims=True)
    gap = price * amount + float(highest.sum()) - found
    return [np.flatnonzero(own) for own in priced >= highest - (gap + slack)]


def _price(worth: Floats, use: Floats, amount: float) -> tuple[float, float]:
    """The price at which the bound is lowest, and the worth of a choice that is within the amount.

    Between a choice that is too large and one that is not, the price is that at which both are worth the same. It is
    right once no choice is worth more at it.
    """
    over = _best_at(0.0, worth, use)
    if over.use <= amount:
        return 0.0, over.worth
    least = np.where(np.isfinite(worth), use, np.inf).min(axis=1, keepdims=True)
    at_least = np.where(use == least, worth, -np.inf).max(axis=1)
    within = _Choice(float(at_least.sum()), float(least.sum()))
    while True:
        price = max((over.worth - within.worth) / (over.use - within.use), 0.0)
        between = _best_at(price, worth, use)
        if between.use <= amount:
            if between.use <= within.use:
                return price, within.worth
            within = between
        elif between.use >= over.use:
            return price, within.worth
        else:
            over = between


def _best_at(price: float, worth: Floats, use: Floats) -> _Choice:
    """The best choice at a price."""
    places = np.argmax(worth - price * use, axis=1)[:, None]
    return _Choice(
        float(np.take_along_axis(worth, places, axis=1).sum()), float(np.take_along_axis(use, places, axis=1).sum())
    )
