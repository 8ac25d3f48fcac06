"""Shares of budgets: by hand, against the optimum of small instances, and as laws on the way there."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynamo_planner.fleet import Budget, Claim, Grant, Option, PoolClaim, share
from dynamo_planner.fleet import choice as choice_module
from dynamo_planner.fleet.reduction import promising
from tests.support.laws import examples
from tests.support.share_instances import feasible, instance, optimum, problem_of, worths


def claim(model: str, present: int, worths: Sequence[float], gpus: float = 1, **more: Any) -> Claim:
    pool = PoolClaim("workers", {"gpu": gpus}, present, **more.pop("pool", {}))
    return Claim(model, (pool,), tuple(Option((n,), worth) for n, worth in enumerate(worths)), **more)


def test_the_highest_worth_is_served_first() -> None:
    """Of 4 GPUs: 10 + 8 + 9 + 5 are the four highest steps."""
    grants = share([claim("a", 0, [0, 10, 18, 21]), claim("b", 0, [0, 9, 14, 15])], {"gpu": Budget(total=4)})
    assert grants == {"a": Grant((2,), (2,)), "b": Grant((2,), (2,))}


def test_a_weight_counts_the_worth() -> None:
    claims = [claim("a", 0, [0, 10, 18]), claim("b", 0, [0, 6, 12], weight=2.0)]
    assert share(claims, {"gpu": Budget(total=2)})["b"].goal == (2,)


def test_a_priority_goes_before_any_worth() -> None:
    claims = [claim("a", 2, [0, 100, 200]), claim("b", 0, [0, 1, 2], priority=1)]
    assert share(claims, {"gpu": Budget(total=3)}) == {"a": Grant((1,), (1,)), "b": Grant((2,), (1,))}


def test_what_a_floor_does_not_use_is_lent_and_taken_back() -> None:
    """Batch is guaranteed 2 of 4. Idle it lends them; busy it takes them back once chat's are gone."""
    idle, busy = claim("batch", 0, [0], floor={"gpu": 2}), claim("batch", 0, [0, 1, 2, 3], floor={"gpu": 2})
    chat, budgets = claim("chat", 2, [0, 10, 20, 30, 40]), {"gpu": Budget(total=4)}
    assert share([chat, idle], budgets)["chat"].now == (4,)
    lent = claim("chat", 4, [0, 10, 20, 30, 40])
    assert share([lent, busy], budgets) == {"batch": Grant((2,), (0,)), "chat": Grant((2,), (2,))}
    draining = claim("chat", 2, [0, 10, 20, 30, 40], pool={"draining": 1})
    assert share([draining, busy], budgets)["batch"].now == (1,)


def test_a_small_difference_moves_nothing() -> None:
    """The third replica of ``a`` is worth 10 to it and 14.9 to ``b``: less than half more."""
    claims = [claim("a", 3, [0, 30, 40, 50]), claim("b", 1, [0, 30, 44.9])]
    assert share(claims, {"gpu": Budget(total=4)})["b"].goal == (1,)
    assert share(claims, {"gpu": Budget(total=4)}, margin=0.45)["b"].goal == (2,)


def test_prefill_and_decode_rise_together() -> None:
    """With one GPU free neither rises; with two, both do."""
    pools = tuple(PoolClaim(role, {"gpu": 1}, 1, stage=role) for role in ("prefill", "decode"))
    pair = Claim("pair", pools, (Option((1, 1), 1.0), Option((2, 2), 2.0)))
    other = claim("other", 2, [0, 5, 10], pool={"draining": 1})
    assert share([pair, other], {"gpu": Budget(total=6)})["pair"] == Grant((2, 2), (1, 1))
    assert share([pair, claim("other", 2, [0, 5, 10])], {"gpu": Budget(total=6)})["pair"].now == (2, 2)


def test_eight_free_gpus_on_two_nodes_hold_no_replica_of_eight() -> None:
    large, small = claim("large", 0, [0, 100], gpus=8), claim("small", 0, [0, *range(1, 9)])
    by_total, by_node = Budget(total=16), Budget(nodes=(4, 4, 8))
    two_large = large._replace(options=(Option((0,), 0), Option((2,), 200)))
    assert share([two_large, small], {"gpu": by_total})["large"].goal == (2,)
    assert share([large, small], {"gpu": by_node})["large"].goal == (1,)
    assert share([two_large, small], {"gpu": by_node}) == {
        "large": Grant((0,), (0,)),
        "small": Grant((8,), (8,)),
    }
    two = {"gpu": Budget(nodes=(8, 8))}
    busy = claim("small", 8, [0, *range(1, 9)])
    assert share([large, busy], two, free={"gpu": (8, 0)})["large"].now == (1,)
    assert share([large, busy], two, free={"gpu": (4, 4)})["large"].goal == (0,)


def test_a_model_that_keeps_what_it_has_is_counted_and_not_moved() -> None:
    fixed = Claim("dark", (PoolClaim("workers", {"gpu": 1}, 3),), (Option((3,), 0.0),), fixed=True)
    assert share([fixed, claim("a", 0, [0, 1, 2, 3])], {"gpu": Budget(total=4)}) == {
        "a": Grant((1,), (1,)),
        "dark": Grant((3,), (3,)),
    }


def test_a_total_is_kept_by_undoing_falls_first() -> None:
    claims = [
        claim("a", 3, [0, 10], pool={"most": 3, "load": 0.8}),
        claim("b", 1, [0, 10], pool={"most": 9, "load": 0.9}),
    ]
    budget = {"gpu": Budget(total=8, least=5)}
    assert {name: grant.goal for name, grant in share(claims, budget).items()} == {"a": (3,), "b": (2,)}


def test_where_the_least_does_not_fit_nothing_rises() -> None:
    must = Claim("must", (PoolClaim("workers", {"gpu": 1}, 1),), (Option((4,), 1.0),))
    assert share([must, claim("a", 1, [0, 10, 20])], {"gpu": Budget(total=3)}) == {
        "a": Grant((1,), (1,)),
        "must": Grant((1,), (1,)),
    }


def test_the_shares_equal_the_optimum() -> None:
    """``python -m tests.long.share_optimum`` does so for 2,000 instances."""
    for seed in range(60):
        claims, budgets = instance(seed)
        assert problem_of(claims, budgets, share(claims[::-1], budgets, margin=0.0)) is None, seed


def test_no_option_of_an_optimum_is_left_out() -> None:
    """All choices of small instances are tried, worths of any shape."""
    random = np.random.default_rng(5)
    left_out = 0
    for seed in range(200):
        worths = [random.integers(0, 12, 4).astype(float) for _ in range(3)]
        uses = [np.cumsum(random.integers(0, 4, 4)) for _ in range(3)]
        amount = float(random.integers(sum(int(own.min()) for own in uses), 20))
        within = {
            places: sum(own[place] for own, place in zip(worths, places, strict=True))
            for places in product(range(4), repeat=3)
            if sum(own[place] for own, place in zip(uses, places, strict=True)) <= amount
        }
        kept = promising(worths, uses, amount, slack=1e-9)
        for places, worth in within.items():
            if worth == max(within.values()):
                assert all(place in own for own, place in zip(kept, places, strict=True)), seed
        left_out += sum(4 - len(own) for own in kept)
    assert left_out > 200 * 4  # of twelve options


def test_beyond_the_exact_methods_a_step_is_lost_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    """With concave worths and one limit: no more than the largest step of a replica."""
    monkeypatch.setattr(choice_module, "MAX_CELLS", 0)
    monkeypatch.setattr(choice_module, "EXACT_OPTIONS", 0)
    random = np.random.default_rng(3)
    for _ in range(20):
        steps = [np.sort(random.integers(1, 30, 4))[::-1] for _ in range(3)]
        claims = [
            claim(f"m{n}", 0, [0, *np.cumsum(own).tolist()], gpus=float(random.choice([1, 2, 4])))
            for n, own in enumerate(steps)
        ]
        budgets = {"gpu": Budget(total=float(random.integers(4, 16)))}
        grants = share(claims, budgets, margin=0.0)
        goal = [grants[own.model].goal for own in claims]
        best = optimum(claims, budgets)
        assert best is not None
        assert feasible(claims, budgets, goal)
        assert worths(claims, goal)[0] >= best[0] - max(int(own[0]) for own in steps)


class Infrastructure:
    """Pools whose falls drain for a while and whose actions may fail, in any order."""

    def __init__(self, gpus: Sequence[int], counts: Sequence[int]) -> None:
        self.gpus, self.target, self.there = list(gpus), list(counts), list(counts)
        self.draining = [0] * len(gpus)

    def held(self) -> int:
        return sum(
            gpus * (there + draining)
            for gpus, there, draining in zip(self.gpus, self.there, self.draining, strict=True)
        )


@examples(60)
@given(st.data())
def test_no_budget_is_exceeded_whatever_becomes_of_the_actions(data: st.DataObject) -> None:
    """Actions are applied in any order or fail, launches lag behind, what falls drains for as long as it likes."""
    gpus = data.draw(st.lists(st.sampled_from([1, 2, 4]), min_size=2, max_size=3))
    total = data.draw(st.integers(4, 16))
    floors = [data.draw(st.integers(0, total // len(gpus))) for _ in gpus]
    priorities = [data.draw(st.integers(0, 1)) for _ in gpus]
    world = Infrastructure(gpus, [0] * len(gpus))
    for _ in range(8):
        wants = [data.draw(st.integers(0, 6)) for _ in gpus]
        claims = [
            Claim(
                f"m{n}",
                (PoolClaim("w", {"gpu": gpus[n]}, world.target[n], world.there[n], world.draining[n]),),
                tuple(Option((count,), float(10 * count - count * count / 2)) for count in range(wants[n] + 1)),
                priority=priorities[n],
                floor={"gpu": float(floors[n])},
            )
            for n in range(len(gpus))
        ]
        grants = share(claims, {"gpu": Budget(total=float(total))})
        for n in data.draw(st.permutations(range(len(gpus)))):
            goal = grants[f"m{n}"].goal[0]
            assert goal >= min(wants[n], floors[n] // gpus[n])
            if data.draw(st.booleans()):  # else the action fails
                world.target[n] = grants[f"m{n}"].now[0]
        for n in range(len(gpus)):
            world.draining[n] -= data.draw(st.integers(0, world.draining[n]))
            if world.there[n] > world.target[n]:
                leaving = data.draw(st.integers(0, world.there[n] - world.target[n]))
                world.there[n] -= leaving
                world.draining[n] += leaving
            elif world.there[n] < world.target[n]:
                world.there[n] += data.draw(st.integers(0, world.target[n] - world.there[n]))
            assert world.held() <= total


def test_constant_claims_settle_on_the_goal() -> None:
    """Steps towards a goal lead to the same goal: nothing goes back and forth."""
    for seed in range(40):
        claims, budgets = instance(seed)
        grants = share(claims, budgets)
        for _ in range(3):
            claims = [
                own._replace(
                    pools=tuple(
                        pool._replace(present=count)
                        for pool, count in zip(own.pools, grants[own.model].now, strict=True)
                    )
                )
                for own in claims
            ]
            after = share(claims, budgets)
            assert {name: grant.goal for name, grant in after.items()} == {
                name: grant.goal for name, grant in grants.items()
            }, seed
            grants = after
