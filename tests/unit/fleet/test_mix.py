"""The cheapest mix of hardware, by hand and against trying every mix."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from dynamo_planner import Profile, Sla
from dynamo_planner.fleet import Hardware, cheapest_mix, rates_in_time
from dynamo_planner.sizing import Load, PercentileSizing


def test_the_mix_is_the_cheapest_of_all() -> None:
    random = np.random.default_rng(5)
    for _ in range(100):
        kinds = [
            Hardware(
                f"k{n}",
                cost=float(random.integers(1, 9)),
                rates=(0.0, *np.cumsum(random.uniform(1, 9, 4))),
                spot=bool(random.integers(2)),
            )
            for n in range(3)
        ]
        demand, base = float(random.uniform(5, 40)), float(random.choice([0.0, 0.5]))
        costs = [
            sum(kind.cost * count for kind, count in zip(kinds, counts, strict=True))
            for counts in product(range(5), repeat=3)
            if sum(kind.rates[count] for kind, count in zip(kinds, counts, strict=True)) >= demand
            and sum(kind.rates[count] for kind, count in zip(kinds, counts, strict=True) if not kind.spot)
            >= min(base * demand, sum(kind.rates[-1] for kind in kinds if not kind.spot))
        ]
        if costs:
            assert cheapest_mix(kinds, demand, base).cost == min(costs)


def test_spot_replicas_have_an_on_demand_base_and_spares() -> None:
    """Half of 20 requests/s stays on demand: one replica of 10. Spot replicas are there for 0.9 of the time: two
    of 10 serve 18 of the other 10, and one only 9."""
    kinds = [
        Hardware("steady", cost=4.0, rates=(0.0, 10.0, 20.0)),
        Hardware("spot", cost=1.0, rates=(0.0, 10.0, 20.0), spot=True, lost_per_h=10 / 3),
    ]
    assert dict(cheapest_mix(kinds, 20.0, on_demand=0.5).replicas) == {"steady": 1, "spot": 2}
    assert dict(cheapest_mix(kinds, 18.0).replicas) == {"steady": 0, "spot": 2}


def test_where_all_does_not_suffice_all_of_it_is_used() -> None:
    mix = cheapest_mix([Hardware("a", cost=1.0, rates=(0.0, 5.0)), Hardware("b", cost=9.0, rates=(0.0, 5.0))], 99.0)
    assert dict(mix.replicas) == {"a": 1, "b": 1}
    assert dict(mix.weights) == {"a": 0.5, "b": 0.5}


def test_the_rate_in_time_is_what_the_sizing_needs_the_replicas_for() -> None:
    sizing = PercentileSizing(Profile.bundled("llama31-8b_h100_vllm_tp1"))
    sla, load = Sla(ttft_ms=500, itl_ms=25), Load.of(1.0, isl=1000, osl=200)
    rates = rates_in_time(sizing, load, sla, "decode", most=3)
    assert list(rates) == sorted(rates)
    for count in (1, 2, 3):
        below, above = Load.of(0.99 * rates[count], 1000, 200), Load.of(1.01 * rates[count], 1000, 200)
        assert float(sizing.attainable(below, sla, {"decode": count})) >= sla.attainment
        assert float(sizing.attainable(above, sla, {"decode": count})) < sla.attainment
    assert rates[2] == pytest.approx(2 * rates[1], rel=0.2)
