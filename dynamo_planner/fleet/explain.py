"""The reasons for what a model is given: what it lends and borrows, waits for, and gives back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dynamo_planner.core.decision import Reason
from dynamo_planner.fleet.claims import Budget, Claim, Grant

Explained = Mapping[str, Sequence[Reason]]
"""Reasons by model."""


def reasons_of(claims: Sequence[Claim], grants: Mapping[str, Grant], budgets: Mapping[str, Budget]) -> Explained:
    """The reasons of each model."""
    found: dict[str, list[Reason]] = {claim.model: [] for claim in claims}
    for budget in budgets:
        _lent(found, claims, grants, budget, budgets[budget].amount)
    limited = [claim for claim in claims if grants[claim.model].goal != claim.wanted]
    below = [claim.model for claim in claims if _takes_back(claim, grants[claim.model])]
    for claim in claims:
        found[claim.model] += _of_pools(claim, grants[claim.model], below, share=bool(limited))
    return found


def _lent(
    found: dict[str, list[Reason]],
    claims: Sequence[Claim],
    grants: Mapping[str, Grant],
    budget: str,
    amount: float,
) -> None:
    """What is used above floors beyond what belongs to none is lent by those that do not use theirs."""
    used = {claim.model: claim.used(grants[claim.model].goal, budget) for claim in claims}
    floors = {claim.model: claim.floor.get(budget, 0.0) for claim in claims}
    above = {name: used[name] - floors[name] for name in sorted(used) if used[name] > floors[name]}
    idle = {name: floors[name] - used[name] for name in sorted(used) if used[name] < floors[name]}
    common = amount - sum(floors.values())
    for borrower, more in above.items():
        own = min(common, more)
        common, rest = common - own, more - own
        for lender, spare in list(idle.items()):
            part = min(spare, rest)
            if part <= 0:
                continue
            idle[lender], rest = spare - part, rest - part
            until = f"until {lender} needs them"
            found[lender].append(
                Reason(
                    code="FloorLent",
                    message=f"{part:g} {budget} lent to {borrower} {until}",
                    values={"lent": part, "floor": floors[lender]},
                )
            )
            found[borrower].append(
                Reason(
                    code="FloorBorrowed",
                    message=f"{part:g} {budget} lent by {lender} {until}",
                    values={"borrowed": part, "floor": floors[borrower]},
                )
            )


def _takes_back(claim: Claim, grant: Grant) -> bool:
    """Whether a model rises within its floor."""
    before = tuple(pool.present for pool in claim.pools)
    return any(
        claim.used(before, budget) < min(claim.used(grant.goal, budget), floor) for budget, floor in claim.floor.items()
    )


def _of_pools(claim: Claim, grant: Grant, below: Sequence[str], *, share: bool) -> list[Reason]:
    """Why a pool gets less than it wants, or later, or more."""
    reasons = []
    for pool, wanted, goal, now in zip(claim.pools, claim.wanted, grant.goal, grant.now, strict=True):
        values = {"wanted": wanted, "goal": goal, "granted": now}
        if goal > wanted:
            reasons.append(Reason(code="TotalKept", pool=pool.name, message="a budget's least is kept", values=values))
        elif share and goal < min(pool.present, wanted):
            others = [name for name in below if name != claim.model]
            to = f"to {', '.join(others)}, whose floor it is" if others else "to a model that it is worth more to"
            message = f"gives {min(pool.present, wanted) - goal} replicas {to}"
            reasons.append(Reason(code="BudgetGivenBack", pool=pool.name, message=message, values=values))
        elif goal < wanted:
            message = f"the budgets leave it {goal} of {wanted} wanted replicas"
            reasons.append(Reason(code="BudgetLimit", pool=pool.name, message=message, values=values))
        if now < goal and now <= pool.present:
            message = f"waits for what is still held, and goes to {goal} replicas then"
            reasons.append(Reason(code="BudgetWait", pool=pool.name, message=message, values=values))
    return reasons
