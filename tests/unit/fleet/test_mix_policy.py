"""Several pools of one role on different GPUs: the cheapest mix, over start-up times, with what a router is told."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from dynamo_planner import PoolSpec, PoolStatus, Profile, Replicas, Sla, Snapshot, Traffic
from dynamo_planner.core.decision import Decision, State
from dynamo_planner.fleet import MixPolicy, PoolHardware, mix_policy

PROFILES = {
    "slow": Profile.bundled("llama31-8b_h100_vllm_tp1"),
    "fast": Profile.bundled("llama31-70b_h100_vllm_tp4"),
}
RATES = {"slow": 10.0, "fast": 30.0}
"""Requests per second of a replica of each pool, in these tests."""


@pytest.fixture(autouse=True)
def _rates(monkeypatch: pytest.MonkeyPatch) -> None:
    def in_time(sizing: object, *_: object) -> tuple[float, ...]:
        (name,) = [name for name, own in PROFILES.items() if own is getattr(sizing, "profile", None)]
        return tuple(RATES[name] * count for count in range(9))

    monkeypatch.setattr(mix_policy, "rates_in_time", in_time)


def policy(**more: object) -> MixPolicy:
    pools = {name: PoolHardware(profile=profile) for name, profile in PROFILES.items()}
    return MixPolicy.model_validate({"pools": pools, "sla": Sla(ttft_ms=500, itl_ms=25), **more})


def decide(
    own: MixPolicy,
    rate: float | None,
    slow: int | Replicas,
    fast: int | Replicas,
    state: State | None = None,
    at_s: float = 0.0,
) -> Decision:
    """On pools that start in 60 and 300 s and cost 1 and 2 an hour."""
    specs = {
        "slow": PoolSpec(role="aggregated", cost=1.0, startup_s=60, min_replicas=0),
        "fast": PoolSpec(role="aggregated", cost=2.0, startup_s=300, min_replicas=0),
    }
    replicas = {"slow": slow, "fast": fast}
    pools = {name: PoolStatus(spec=spec, replicas=replicas[name]) for name, spec in specs.items()}
    traffic = Traffic(requests_per_s=rate, window_s=30, isl=1000, osl=200)
    return own.decide(Snapshot(at_s=at_s, traffic=traffic, pools=pools), state)


def demanded(decision: Decision) -> float:
    return next(float(str(r.values["demand"])) for r in decision.reasons if r.code == "MixChosen")


def test_the_cheapest_mix_is_bridged_by_what_starts_sooner_and_what_goes_waits() -> None:
    """A fast replica serves a request for 0.067, a slow one for 0.1. For 68 requests/s, planned as just below 70, two
    fast and a slow one would be there in 300 s, for 5; until then the slow pool, which takes 60 s, serves all."""
    first = decide(policy(), 68.0, slow=2, fast=0)
    assert 68 <= demanded(first) <= 70
    assert dict(first.targets) == {"slow": 7, "fast": 2}
    later = decide(policy(), 68.0, slow=7, fast=Replicas(ready=0, starting=2, target=2), state=first.state, at_s=30)
    assert dict(later.targets) == {"slow": 7, "fast": 2}
    done = decide(policy(), 68.0, slow=7, fast=2, state=later.state, at_s=330)
    assert dict(done.targets) == {"slow": 1, "fast": 2}
    assert done.routing_weights == pytest.approx({"slow": 70 / 130, "fast": 60 / 130})


def test_the_mix_is_for_the_quantile_of_the_rate() -> None:
    """Between 20 and 40 requests/s in turns of a minute, more is planned for than is expected."""
    asked = {}
    for quantile in (0.5, 0.95):
        state, decision = None, None
        for tick in range(120):
            rate = 20.0 if tick // 2 % 2 else 40.0
            decision = decide(policy(quantile=quantile), rate, slow=6, fast=1, state=state, at_s=30.0 * tick)
            state = decision.state
        assert decision is not None
        asked[quantile] = demanded(decision)
    assert asked[0.95] > 1.1 * asked[0.5]


def test_what_there_is_stays_while_it_costs_little_more_and_an_unknown_rate_moves_nothing() -> None:
    """7 slow replicas cost 7 where 5 would do: 40 % more. A margin of 0.5 keeps them."""
    assert dict(decide(policy(margin=0.5), 68.0, slow=7, fast=0).targets) == {"slow": 7, "fast": 0}
    assert not decide(policy(), None, slow=7, fast=2).targets


def test_spot_capacity_has_a_base_that_stays() -> None:
    """The fast pool is cheap and can be taken away: half of 58 requests/s stays on three slow replicas."""
    spot = {
        "slow": PoolHardware(profile=PROFILES["slow"]),
        "fast": PoolHardware(profile=PROFILES["fast"], cost=0.5, spot=True),
    }
    decision = decide(policy(pools=spot, on_demand=0.5), 58.0, slow=6, fast=1)
    assert dict(decision.targets) == {"slow": 3, "fast": 1}


def test_a_mix_of_no_pools_is_refused() -> None:
    with pytest.raises(ValidationError, match="at least 1 item"):
        policy(pools={})
