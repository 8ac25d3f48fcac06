"""PercentileSizing at its surface: all profiles, both modes, and what must hold whatever the load."""

from __future__ import annotations

import itertools
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynamo_planner import Profile, Sla
from dynamo_planner.core.metrics import Dist
from dynamo_planner.core.snapshot import Role
from dynamo_planner.sizing import Arrivals, ClassicSizing, Lengths, Load, PercentileSizing
from dynamo_planner.sizing.decode import context_in_flight
from dynamo_planner.sizing.memo import Memo
from dynamo_planner.sizing.queueing import most_replicas
from dynamo_planner.sizing.waiting import Routing
from tests.support.laws import examples

SLA = Sla(ttft_ms=500, itl_ms=20)
BOTH: tuple[Role, ...] = ("prefill", "decode")


@pytest.fixture(scope="module")
def sizing(h100: Profile) -> PercentileSizing:
    return PercentileSizing(h100)


def test_every_profile_is_sized_in_every_mode_that_it_has_data_for(each_profile: Profile) -> None:
    points = each_profile.decode_points
    sla = Sla(ttft_ms=8 * max(each_profile.prefill.ttft_ms(2000), 50), itl_ms=1.6 * min(points.itl_ms))
    sizing, load = PercentileSizing(each_profile), Load.of(20, 2000, 200)
    modes: list[tuple[Role, ...]] = [BOTH]
    if each_profile.mixed is None:
        with pytest.raises(ValueError, match="has no mixed steps, so it cannot size aggregated replicas"):
            sizing.replicas_for(load, sla, ("aggregated",))
    else:
        modes.append(("aggregated",))
    for roles in modes:
        for role, need in sizing.replicas_for(load, sla, roles).items():
            assert need.load < need.replicas < 20 + 10 * need.load, (role, need)
            assert need.attained >= 0.99
            assert need.unattainable < 0.2
        counts = {role: need.replicas for role, need in sizing.replicas_for(load, sla, roles).items()}
        assert sizing.attainable(load, sla, counts) >= 0.99
    assert ClassicSizing(each_profile).replicas_for(load, sla)["prefill"].replicas >= 1


@examples(60)
@given(
    rate=st.floats(0, 300),
    more=st.floats(1, 3),
    isl=st.floats(1, 30_000),
    osl=st.floats(1, 3000),
    dispersion=st.floats(0, 30),
    hit=st.floats(0, 1),
    roles=st.sampled_from([BOTH, ("aggregated",)]),
)
def test_a_higher_rate_never_needs_fewer_and_every_number_is_one(
    sizing: PercentileSizing,
    rate: float,
    more: float,
    isl: float,
    osl: float,
    dispersion: float,
    hit: float,
    roles: tuple[Role, ...],
) -> None:
    low = Load.of(Arrivals(rate, dispersion), isl, osl, prefix_hit_rate=hit)
    high = Load(Arrivals(rate * more, dispersion), low.isl, low.osl, hit)
    needs = [sizing.replicas_for(load, SLA, roles) for load in (low, high)]
    for role in roles:
        fewer, many = needs[0][role], needs[1][role]
        assert fewer.replicas <= many.replicas
        assert np.isfinite([fewer.load, fewer.attained, fewer.unattainable]).all()
        assert 0 <= fewer.attained <= 1
        assert 0 <= fewer.unattainable <= 1
        assert (fewer.replicas == 0) == (fewer.load == 0)
        assert fewer.replicas == 0 or fewer.replicas > fewer.load


@pytest.mark.parametrize("roles", [BOTH, ("aggregated",)])
def test_what_is_attainable_rises_with_the_replicas_and_the_need_is_the_first_that_does(
    sizing: PercentileSizing, roles: tuple[Role, ...]
) -> None:
    load = Load.of(Arrivals(40, dispersion=3), 3000, 300)
    needs = sizing.replicas_for(load, SLA, roles)
    share = 1 - (1 - SLA.attainment) / len(roles)
    for role, need in needs.items():
        attained = sizing.attainable(load, SLA, {role: np.arange(1, 60)})
        assert np.all(np.diff(attained) >= -1e-9)
        assert need.replicas == 1 + int(np.argmax(attained >= share))


def test_where_it_is_looked_for_first_changes_nothing(sizing: PercentileSizing) -> None:
    load = Load.of(40, 3000, 300)
    cold = sizing.replicas_for(load, SLA)
    for guess in (0, 1, 4, 50, 5000):
        near: dict[Role, int] = {"prefill": guess, "decode": guess}
        assert sizing.replicas_for(load, SLA, near=near) == cold


def test_cached_prompt_tokens_are_saved_on_prefill_only(sizing: PercentileSizing) -> None:
    cold, warm = (sizing.replicas_for(Load.of(40, 3000, 300, prefix_hit_rate=hit), SLA) for hit in (0, 0.5))
    assert warm["prefill"].load < 0.7 * cold["prefill"].load
    assert warm["decode"] == cold["decode"]


def test_an_easier_itl_never_takes_more_aggregated_replicas(sizing: PercentileSizing) -> None:
    """Prompts of 6,000 tokens, whose steps take far longer for each token than steps of a few tokens do."""
    role: tuple[Role, ...] = ("aggregated",)
    load = Load.of(10, 6000, 400)
    needs = [sizing.replicas_for(load, Sla(ttft_ms=1500, itl_ms=itl), role)["aggregated"] for itl in (15, 25, 40)]
    counts = [need.replicas for need in needs]
    assert counts == sorted(counts, reverse=True)
    assert needs[0].load > needs[1].load > needs[2].load


def test_long_prompts_on_aggregated_replicas_need_no_more_than_keep_one_idle(sizing: PercentileSizing) -> None:
    def load(isl: float) -> Load:
        return Load.of(2, Dist(mean=isl, cv2=1), Dist(mean=250, cv2=1))

    # With prompts of 64,000 tokens 13.7 requests are in flight; a Poisson number reaches 32 in 18 of a million cases.
    # Simulated steps, whose prompts attend to nothing, need 15 replicas.
    assert sizing.attainable(load(64_000), Sla(ttft_ms=500, itl_ms=25), {"aggregated": 32})[()] > 0.999
    # Simulated, 12 replicas keep 99.7 % with prompts of 32,000; it is 91 % where a short prompt pays for their context.
    assert sizing.attainable(load(32_000), Sla(ttft_ms=500, itl_ms=25), {"aggregated": 12})[()] > 0.96
    counts = [
        sizing.replicas_for(load(isl), Sla(ttft_ms=500, itl_ms=25), ("aggregated",))["aggregated"].replicas
        for isl in (16_000, 24_000, 32_000, 48_000, 64_000, 100_000)
    ]
    assert all(now < then <= 1.75 * now for now, then in itertools.pairwise(counts)), counts


def test_a_slower_engine_than_the_profile_says_needs_more(sizing: PercentileSizing) -> None:
    load = Load.of(40, 3000, 300)
    right = sizing.replicas_for(load, SLA)
    slow: dict[Role, float] = {"prefill": 1.3, "decode": 1.3}
    slower = sizing.replicas_for(load, SLA, service_factor=slow)
    assert slower["prefill"].load == pytest.approx(1.3 * right["prefill"].load)
    assert slower["decode"].load > 1.3 * right["decode"].load
    with pytest.raises(ValueError, match="service_factor of decode must be a finite number above 0, got 0"):
        sizing.replicas_for(load, SLA, service_factor={"decode": 0})


def test_bursts_and_wide_lengths_cost_replicas_but_no_load(sizing: PercentileSizing) -> None:
    even = Load.of(Arrivals(100, 1), Dist(mean=2000, cv2=0.1), Dist(mean=300, cv2=0.1))
    wild = Load.of(Arrivals(100, 20), Dist(mean=2000, cv2=2), Dist(mean=300, cv2=0.1))
    calm, stormy = (sizing.replicas_for(load, SLA) for load in (even, wild))
    assert stormy["prefill"].replicas > calm["prefill"].replicas
    assert stormy["decode"].replicas > calm["decode"].replicas
    assert stormy["decode"].load == pytest.approx(calm["decode"].load, rel=0.02)


def test_what_can_never_meet_the_target_is_told_and_not_paid_for(sizing: PercentileSizing) -> None:
    load = Load.of(10, Dist(mean=6000, cv2=2), 300)
    need = sizing.replicas_for(load, SLA)["prefill"]
    assert 0.05 < need.unattainable < 0.5
    assert need.replicas < 30
    assert "Unattainable" in [fact.code for fact in need.facts]
    never = sizing.replicas_for(load, Sla(ttft_ms=1, itl_ms=1))
    assert {need.unattainable for need in never.values()} == {1.0}
    assert {need.limit for need in never.values()} == {"stability"}
    assert all(need.replicas > need.load for need in never.values())


def test_what_is_assumed_is_told(sizing: PercentileSizing) -> None:
    codes = [fact.code for fact in sizing.replicas_for(Load.of(10, 3000, 300), SLA)["decode"].facts]
    assert codes == ["Sized", "SpreadAssumed"]
    known = Load.of(10, Dist(mean=3000, cv2=1), Dist(mean=300, cv2=1))
    assert [fact.code for fact in sizing.replicas_for(known, SLA)["decode"].facts] == ["Sized"]
    far = sizing.replicas_for(Load.of(1, 200_000, 10), Sla(ttft_ms=1e6, itl_ms=100))
    assert far["prefill"].extrapolated
    assert "Extrapolated" in [fact.code for fact in far["prefill"].facts]


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("prefix_hit_rate", 1.5, "prefix_hit_rate must be from 0 to 1, got 1.5"),
        ("kv_transfer_ms", -1, "kv_transfer_ms"),
    ],
)
def test_bad_input_is_refused_by_name(field: str, value: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Load.of(1, 1, 1, **{field: value})


def test_lengths_are_through_the_quantiles_and_have_the_mean() -> None:
    drawn = np.random.default_rng(0).lognormal(5, 1, 200_000)
    dist = Dist(mean=drawn.mean(), quantiles={q: float(np.quantile(drawn, q)) for q in (0.1, 0.5, 0.9, 0.99)})
    lengths = Lengths.of(dist)
    assert lengths.values.mean() == pytest.approx(dist.mean)
    assert np.quantile(lengths.values, 0.5) == pytest.approx(np.median(drawn), rel=0.1)
    assert np.quantile(lengths.values, 0.9) == pytest.approx(np.quantile(drawn, 0.9), rel=0.1)
    assert Lengths.of(Dist(mean=7, cv2=0)).values == pytest.approx(7)
    assert Lengths.of(0).mean == 0


def test_lengths_without_quantiles_have_a_shorter_tail_than_a_log_normal_distribution() -> None:
    """Of 1,024 equally likely ones the longest is at a score of 3.3, of 64 at 2.42: exp(0.83 * 0.88 / 2) apart."""
    told = Lengths.of(Dist(mean=1000, cv2=1, quantiles={0.1: 244, 0.5: 707, 0.9: 2055}))  # log-normal
    spread = Lengths.of(Dist(mean=1000, cv2=1))
    assert spread.values == pytest.approx(told.values, rel=0.03)
    assert spread.finer(1024).max() / spread.values.max() == pytest.approx(1.44, abs=0.01)
    assert told.finer(1024).max() / told.values.max() == pytest.approx(1.44**2, abs=0.05)


def test_a_finer_sample_of_lengths_with_a_short_tail_is_the_same_inside() -> None:
    # From the median to its .9 quantile it grows eightfold, and hardly any more after that.
    lengths = Lengths.of(Dist(mean=1000, quantiles={0.1: 60, 0.5: 500, 0.9: 4000, 0.99: 4400}))
    finer = lengths.finer(256)
    assert finer.mean() == pytest.approx(1000, rel=0.02)
    assert np.quantile(finer, 0.5) == pytest.approx(np.quantile(lengths.values, 0.5), rel=0.05)
    assert lengths.values[-1] < finer[-1] < 1.2 * lengths.values[-1]


def test_equal_loads_are_sized_once_and_no_array_can_change_under_the_cache(h100: Profile) -> None:
    sizing, counts = PercentileSizing(h100), np.array([30.0, 50, 20, 80])
    one, other = [Load.of(Arrivals.observed(counts, slot_s=5), Dist(mean=800, cv2=0.5), 200) for _ in range(2)]
    assert one == other
    assert hash(one) == hash(other)
    assert sizing.replicas_for(one, SLA)["decode"] is sizing.replicas_for(other, SLA)["decode"]
    assert Load.of(Arrivals.observed(counts[::-1], slot_s=5), Dist(mean=800, cv2=0.5), 200) != one
    own = np.ones(64)
    lengths = Lengths(1.0, 0.0, own)
    own[0] = 2.0
    assert lengths == Lengths(1.0, 0.0, np.ones(64))
    with pytest.raises(ValueError, match="read-only"):
        lengths.values[0] = 2.0


def test_how_long_requests_stay_is_told() -> None:
    profile = Profile.from_points(
        isl=[100, 10_000],
        ttft_ms=[10, 1000],
        max_kv_tokens=1e7,
        batch=[1, 10, 100, 1, 10, 100],
        context=[100, 100, 100, 10_000, 10_000, 10_000],
        itl_ms=[10, 20, 110] * 2,
    )
    load = Load.of(1, Dist(mean=1000, cv2=0), Dist(mean=3000, cv2=0))
    needs = PercentileSizing(profile).replicas_for(load, Sla(ttft_ms=1000, itl_ms=20))
    assert needs["decode"].residence_s == pytest.approx(3000 * 0.020, rel=0.02)
    assert needs["prefill"].residence_s == pytest.approx(0.1, rel=0.02)


ROLES: tuple[Role, ...] = ("prefill", "decode", "aggregated")
SIZINGS = Memo[PercentileSizing](3)


@examples(60)
@given(
    role=st.sampled_from(ROLES),
    routing=st.sampled_from(get_args(Routing)),
    rate=st.floats(0.1, 300),
    isl=st.floats(10, 30_000),
    osl=st.floats(1, 3000),
    dispersion=st.floats(0, 30),
    ttft_ms=st.floats(1, 20_000),
    itl_ms=st.floats(1, 100),
    attainment=st.floats(0.5, 0.999),
    harder=st.sampled_from(("rate", "slowness", "ttft_ms", "itl_ms", "attainment")),
    by=st.floats(1, 3),
)
def test_what_is_harder_never_needs_fewer_and_no_count_is_the_end_of_a_search(
    h100: Profile,
    role: Role,
    routing: Routing,
    rate: float,
    isl: float,
    osl: float,
    dispersion: float,
    ttft_ms: float,
    itl_ms: float,
    attainment: float,
    harder: str,
    by: float,
) -> None:
    sizing = SIZINGS.get(routing, lambda: PercentileSizing(h100, routing=routing))
    needs = []
    for times in (1.0, by):
        scale = {name: times if name == harder else 1.0 for name in ("rate", "slowness", "ttft_ms", "itl_ms")}
        share = 1 - (1 - attainment) / (times if harder == "attainment" else 1.0)
        sla = Sla(ttft_ms=ttft_ms / scale["ttft_ms"], itl_ms=itl_ms / scale["itl_ms"], attainment=share)
        load = Load.of(Arrivals(rate * scale["rate"], dispersion), isl, osl)
        needs.append(sizing.replicas_for(load, sla, (role,), {role: scale["slowness"]})[role])
        assert needs[-1].replicas < most_replicas(needs[-1].load)
    grid = routing != "least_loaded" and role == "prefill"  # the waiting is worked out on levels
    if needs[0].unattainable == needs[1].unattainable:  # else more is given up as unattainable
        assert needs[0].replicas <= needs[1].replicas + grid


@pytest.mark.parametrize("cv2", [8.0, 44.0])
def test_single_answers_that_are_very_long_fill_a_part_of_a_replica(cv2: float) -> None:
    """Answers of 100 tokens with a squared coefficient of variation of 8 are ``100 * 9 / 2 = 450`` long in flight, and
    their mean square ``100**2 * 9**3 / 3``; beyond 8, that of a few requests counts no more."""
    mean, spread = context_in_flight(Lengths.of(Dist(mean=300, cv2=0)), Lengths.of(Dist(mean=100, cv2=cv2)))
    assert mean == pytest.approx(750)
    assert spread == pytest.approx((100**2 * 9**3 / 3 - 450**2) / 750**2)
