"""The formulas of SlaPolicy's parts, one at a time, worked by hand."""

from __future__ import annotations

import math
from typing import NamedTuple

import pytest

from dynamo_planner import Dist, PoolSpec, PoolStatus, Replicas, Snapshot, Traffic
from dynamo_planner.policies.sla import ObservedStartup
from dynamo_planner.policies.sla.arrivals import ArrivalWindow, arrivals_in, what_is_unknown, why_no_arrivals
from dynamo_planner.policies.sla.demand import Demand, backlog_left, demand, shares
from dynamo_planner.policies.sla.lengths import LENGTHS_HALF_LIFE_S, ObservedLengths, learned, rounded
from dynamo_planner.policies.sla.losses import Losses, LossRate, spares, watched
from dynamo_planner.policies.sla.planned_quantile import expected_misses
from dynamo_planner.policies.sla.regret import Shortage, followed
from dynamo_planner.policies.sla.sliding_maximum import SlidingMaximum, largest, with_requirement
from dynamo_planner.policies.sla.startup import Starts, coming


class Uniform(NamedTuple):
    """A rate that is anything up to twice its mean."""

    mean: float

    def quantile(self, level: float) -> float:
        return 2 * self.mean * level


@pytest.mark.parametrize(
    ("traffic", "before_s", "found"),
    [
        ({"window_s": 30}, None, (100, 5, 30, 30)),
        ({"window_s": 30}, 90, (100, 5, 30, 10)),  # of which 10 s are new
        ({"window_s": 30}, 40, (100, 5, 30, 60)),
        ({"window_s": 30}, 100, (100, 5, 30, 0)),  # the same window again
        ({"window_s": 30}, 110, (100, 5, 30, 0)),
        ({}, 90, (100, 5, 10, 10)),  # a window that is not reported is what passed since the one before
        ({}, None, (100, 5, 60, 60)),
        ({"window_s": 1e6}, None, (100, 5, 86_400, 86_400)),
        ({"window_s": 30}, -1e6, (100, 5, 30, 86_400)),
        ({"window_s": 30, "observed_at_s": 40}, None, (40, 5, 30, 30)),  # just 60 s old
        ({"window_s": 30, "observed_at_s": 39}, None, None),
        ({"window_s": 30, "observed_at_s": 200}, None, (100, 5, 30, 30)),  # no window ends in the future
        ({"window_s": 30, "observed_at_s": None}, None, None),
    ],
)
def test_the_window_of_a_snapshot(
    traffic: dict[str, float], before_s: float | None, found: tuple[float, float, float, float] | None
) -> None:
    snapshot = Snapshot(at_s=100, traffic=Traffic.model_validate({"requests_per_s": 5, **traffic}))
    assert arrivals_in(snapshot, before_s, 60) == (found and ArrivalWindow(*found))


def test_only_what_is_new_in_a_window_counts() -> None:
    assert ArrivalWindow(0, 5, 30, 10).new_requests == 50
    assert ArrivalWindow(0, 5, 30, 60).new_requests == 150
    assert ArrivalWindow(0, 5, 30, 60).times(0.5) == ArrivalWindow(0, 2.5, 30, 60)


def test_what_is_unknown_is_named() -> None:
    assert arrivals_in(Snapshot(at_s=0), None, 60) is None
    assert why_no_arrivals(Snapshot(at_s=0), 60) == "traffic.requests_per_s is unknown"
    old = Snapshot(at_s=100, traffic=Traffic(requests_per_s=5, observed_at_s=20))
    assert why_no_arrivals(old, 60) == "traffic is 80 s old, and 60 s are allowed"
    known = Traffic(requests_per_s=5, isl=100, osl=100)
    assert what_is_unknown(Snapshot(at_s=0, traffic=known)) is None
    more = Snapshot(at_s=0, traffic=known, missing={"traffic.requests_per_s.at_least": "some give up"})
    assert what_is_unknown(more) == "traffic.requests_per_s is a lower bound: some give up"
    cause = Snapshot(at_s=0, traffic=known.replace(isl=None), missing={"traffic.isl": "no such series"})
    assert what_is_unknown(cause) == "traffic.isl is unknown: no such series"


@pytest.mark.parametrize(
    ("now", "then", "recent", "quantile", "planned"),
    [
        # expected, now and then: quantiles of 10 and 20 at 0.6 are 12 and 24
        (10, 20, 2, 0.6, (20, 12, 24)),
        (10, 20, 2, 0.9, (20, 13.05, 26.05)),  # 18 and 36 are more than 1.3 times as many and 3 in 60 s more
        (10, 20, 15, 0.6, (20, 15, 24)),  # never less than what came for certain
        (10, 20, 30, 0.9, (30, 30, 36)),
        (0.01, 0.01, 0, 0.9, (0.01, 0.018, 0.018)),
    ],
)
def test_the_planned_rate(now: float, then: float, recent: float, quantile: float, planned: tuple[float, ...]) -> None:
    found = demand(Uniform(now), Uniform(then), recent, 120, 60, quantile)
    assert (found.lead_s, found.certain) == (120, recent)
    assert found[1:4] == pytest.approx(planned)
    assert found.times(0.5) == pytest.approx(Demand(120, *[rate / 2 for rate in found[1:]]))


def test_without_a_forecast_what_came_is_planned_for() -> None:
    for now, then in ((None, Uniform(1)), (Uniform(1), None)):
        assert demand(now, then, 7, 120, 60, 0.9) == Demand(120, 7, 7, 7, 7)


@pytest.mark.parametrize(
    ("queued", "ready", "etas_s", "waits_s", "left"),
    [
        (0, 1, [], 0, 0),  # without a queue there is no backlog, whatever comes
        (20, 1, [], 0, 10),  # 20 that wait and 100 that come are 60 s of work, of which one takes 50 s
        (20, 1, [45.0], 0, 5),  # and one that is ready after 45 s takes 5 s
        (20, 1, [60.0], 0, 10),
        (20, 1, [60.0], 3, 4),  # 3 s of two replicas may wait
        (20, 2, [], 0, 0),
    ],
)
def test_the_backlog_that_is_left_when_a_start_is_ready(
    queued: float, ready: int, etas_s: list[float], waits_s: float, left: float
) -> None:
    """2 requests/s of 0.5 s for 50 s."""
    assert backlog_left(queued, 0.5, Demand(50, 2, 2, 2, 2), ready, etas_s, waits_s) == left


def pool(role: str, target: int, rate: float | None = None) -> PoolStatus:
    traffic = None if rate is None else Traffic(requests_per_s=rate)
    return PoolStatus(spec=PoolSpec.model_validate({"role": role}), replicas=target, traffic=traffic)


def test_pools_of_a_role_share_its_requests_by_what_arrives_or_by_replicas() -> None:
    assert shares({"a": pool("prefill", 1), "b": pool("decode", 3)}) == {"a": 1.0, "b": 1.0}
    two = {"a": pool("prefill", 1), "b": pool("decode", 3), "c": pool("decode", 1)}
    assert shares(two) == {"a": 1.0, "b": 0.75, "c": 0.25}
    assert shares({"a": pool("decode", 1, 6), "b": pool("decode", 1, 2)}) == {"a": 0.75, "b": 0.25}
    assert shares({"a": pool("decode", 1, 6), "b": pool("decode", 3)}) == {"a": 0.25, "b": 0.75}  # not all report it
    assert shares({"a": pool("decode", 1, 0), "b": pool("decode", 3, 0)}) == {"a": 0.25, "b": 0.75}
    assert shares({"a": pool("decode", 0), "b": pool("decode", 0)}) == {"a": 0.5, "b": 0.5}


def test_misses_are_expected_over_the_rates_of_a_forecast() -> None:
    """The example of the module: misses of 0, 0, 10 and 100 % at 9, 10, 11 and 12 requests/s."""
    rates = [(0.5, 9.0), (0.3, 10.0), (0.15, 11.0), (0.05, 12.0)]
    kept = {9.0: 1.0, 10.0: 1.0, 11.0: 0.9, 12.0: 0.0}
    found = expected_misses(rates, 3, lambda rate, replicas: kept[rate])
    assert found == pytest.approx((0.15 * 11 * 0.1 + 0.05 * 12) / (0.5 * 9 + 0.3 * 10 + 0.15 * 11 + 0.05 * 12))
    assert expected_misses(rates, 3, lambda rate, replicas: None) is None
    assert expected_misses([(1.0, 0.0)], 3, lambda rate, replicas: 0.5) == 0.0


def test_the_most_that_was_required_lately() -> None:
    """A window of 240 s has buckets of 10 s."""
    kept: SlidingMaximum = ()
    for at_s, count, entries in (
        (5.0, 4, ((5.0, 4),)),
        (9.0, 3, ((9.0, 4),)),  # in the bucket of the first, whose count is the larger one
        (12.0, 3, ((9.0, 4), (12.0, 3))),
        (30.0, 1, ((9.0, 4), (12.0, 3), (30.0, 1))),
        (40.0, 3, ((9.0, 4), (40.0, 3))),  # what is no more than something newer never is the most again
        (249.0, 2, ((40.0, 3), (249.0, 2))),  # just 240 s after the first
        (281.0, 1, ((249.0, 2), (281.0, 1))),
        (290.0, 5, ((290.0, 5),)),
    ):
        kept = with_requirement(kept, at_s, count, 240)
        assert kept == entries, at_s
        assert largest(kept) == entries[0][1]
    assert largest(()) == 0.0


ONE = ObservedLengths(100.0, 200.0, last_mean=200.0, last_count=100.0)


def test_lengths_are_means_whose_evidence_fades() -> None:
    """Half of the weight is gone after a half-life in time and in requests, and less where either is shorter."""
    first = learned(None, Dist(mean=200), 100, 30)
    assert first is not None and first._replace(drift=ONE.drift) == ONE
    assert learned(ONE, None, 100, 30) is ONE
    assert learned(ONE, Dist(mean=300, count=0), 100, 30) is ONE
    for halves, requests, kept in ((1.0, 600.0, 0.5), (0.1, 500.0, 0.5**0.1), (1.0, 100.0, 0.5**0.2)):
        found = learned(ONE, Dist(mean=250), requests, halves * LENGTHS_HALF_LIFE_S, may_grow=False)
        assert found is not None
        assert found.weight == pytest.approx(100 * kept + requests)
        assert found.mean == pytest.approx((100 * kept * 200 + requests * 250) / (100 * kept + requests))
    few = learned(ONE, Dist(mean=250), 0.2, 0.0)  # less than one request counts as one, and a reported count as it is
    many = learned(ONE, Dist(mean=250, count=300), 0.2, 0.0)
    assert few is not None and many is not None
    assert (few.weight, many.weight) == (101, 400)


def test_the_spread_is_estimated_from_the_means_of_intervals() -> None:
    """Means of 100 requests each, 20 apart: 400 / (1 / 100 + 1 / 100) is the variance of one request."""
    lengths: ObservedLengths | None = ONE
    for number in range(12):
        assert lengths is not None and lengths.estimated_cv2() is None  # not before twelve intervals
        lengths = learned(lengths, Dist(mean=220 if number % 2 == 0 else 200), 100, 0.0)
    assert lengths is not None
    assert [lengths.intervals, lengths.between] == pytest.approx([12, 20_000])
    assert lengths.estimated_cv2() == pytest.approx((20 + 12 * 20_000 / lengths.mean**2) / 32)
    unequal = learned(ONE, Dist(mean=240, count=25), 0, 0.0)
    assert unequal is not None and unequal.between == pytest.approx(40**2 / (1 / 100 + 1 / 25))
    wild = learned(ONE, Dist(mean=4000, count=100), 0, 0.0, may_grow=False)
    assert wild is not None and wild.between == pytest.approx(20 * 200**2)
    assert ONE._replace(intervals=12, between=9 * 200**2).estimated_cv2() == pytest.approx((20 + 12 * 4) / 32)
    old = learned(ONE._replace(intervals=120, between=100.0), Dist(mean=220, count=100), 0, 0.0)
    assert old is not None and [old.intervals, old.between] == pytest.approx([120, 100 + 19_900 / 120])


def test_reported_spreads_and_quantiles_move_and_count_before_estimates() -> None:
    first = learned(None, Dist(mean=200, cv2=1.0, quantiles={0.5: 100, 0.9: 400}), 100, 30)
    second = learned(first, Dist(mean=200, cv2=2.0, quantiles={0.5: 200, 0.9: 400}, count=300), 0, 0.0)
    assert second is not None
    assert (second.cv2, second.quantiles) == (1.75, ((0.5, 175.0), (0.9, 400.0)))  # 300 of 400
    assert learned(second, Dist(mean=200, count=400), 0, 0.0)._replace(weight=0)[2:4] == (1.75, second.quantiles)  # type: ignore[union-attr]
    other = learned(second, Dist(mean=200, quantiles={0.99: 900}, count=400), 0, 0.0)
    assert other is not None and other.quantiles == ((0.99, 900.0),)
    assert second.estimated_cv2() is None and not second.estimated
    assert ONE.estimated


@pytest.mark.parametrize(
    ("last", "mean", "kept"),
    [
        (310.0, 310.0, 25.0),  # over 200 * 1.5 twice, and over 200 * (1 + 5 / 10): a quarter of what 100 weigh
        (290.0, 310.0, 100.0),  # the window before was not
        (310.0, 300.0, 100.0),
        (310.0, 299.0, 100.0),
    ],
)
def test_lengths_that_have_grown_count_at_once(last: float, mean: float, kept: float) -> None:
    found = learned(ONE._replace(last_mean=last), Dist(mean=mean, count=100), 0, 0.0)
    assert found is not None
    # without time that passes the evidence has lost only what 100 requests take of it, nothing
    assert found.weight == pytest.approx(kept + 100)
    held = learned(ONE._replace(last_mean=last), Dist(mean=mean, count=100), 0, 0.0, may_grow=False)
    assert held is not None and held.weight == 200


def test_few_requests_that_are_long_may_be_so_by_chance() -> None:
    """Of 16 requests from 200 * (1 + 5 / 4) = 450 on, with a squared coefficient of variation of 4 from 700 on."""
    for cv2, mean, weight in ((None, 449.0, 116), (None, 451.0, 20), (4.0, 699.0, 116), (4.0, 701.0, 20)):
        found = learned(ONE._replace(last_mean=mean, cv2=cv2), Dist(mean=mean, count=16), 0, 0.0)
        assert found is not None and found.weight == pytest.approx(weight)


def test_lengths_are_rounded_in_steps_of_logarithms() -> None:
    assert rounded(200, 0.04) == pytest.approx(math.exp(0.04 * 132))  # ln 200 / 0.04 = 132.5, rounded to even
    assert rounded(0, 0.04) == 0.0
    lengths = ObservedLengths(1, 200, 0.7, ((0.5, 150.0), (0.9, 400.0))).lengths()
    mean = math.exp(0.04 * 132)
    assert lengths.mean == pytest.approx(mean)
    only = ObservedLengths(1, 200, 0.7).lengths()
    assert only.cv2 == pytest.approx(math.exp(0.2 * -2))  # ln 0.7 / 0.2 = -1.78
    assert ObservedLengths(1, 200).lengths().assumed


def test_losses_fade_and_are_counted_over_replica_seconds() -> None:
    before = Losses(0.0, 8, 0, 8, lost=4.0, exposed_s=1000.0, squares=8.0)
    found = watched(before, Replicas(ready=6, starting=2, target=8), 21_600.0)
    assert found == Losses(21_600.0, 6, 0, 8, lost=4.0, exposed_s=500.0 + 6 * 21_600, squares=8.0)  # 2 + 2, and 4 + 4
    assert (found.size, found.rate) == (2.0, LossRate(2.0, 500.0 + 6 * 21_600))
    assert watched(before, Replicas(ready=1, target=8), 0.0) is before  # no time has passed
    assert Losses(0.0, 8, 0, 8).size == 1.0


def test_spares_come_in_whole_losses() -> None:
    """Losses of 2.5 replicas at once: one of them is 3 spares."""
    seen = Losses(0, 8, 0, 8, lost=7.5, squares=18.75, exposed_s=8 * 3600.0)
    assert spares(seen, LossRate(), 8, 60, 0.005) == 3
    assert spares(seen._replace(exposed_s=0.0), LossRate(1.0, 3600.0), 8, 60, 0.005) == 0


@pytest.mark.parametrize(
    ("ages_s", "etas_s", "stuck"),
    [((30.0,), [70.0], 0), ((130.0, 30.0), [0.0, 70.0], 0), ((300.0,), [0.0], 0), ((301.0, 30.0), [70.0], 1)],
)
def test_starts_are_due_after_a_start_up_time_and_stuck_after_three(
    ages_s: tuple[float, ...], etas_s: list[float], stuck: int
) -> None:
    replicas = Replicas(ready=1, starting=len(ages_s), starting_since_s=tuple(1000 - age_s for age_s in ages_s))
    assert coming(replicas, 1000.0, 100.0) == (etas_s, stuck)
    assert coming(Replicas(ready=1, starting=2), 1000.0, 100.0) == ([100.0, 100.0], 0)


def test_the_mean_of_starts_and_their_deviation() -> None:
    """Three starts of 60, 90 and 30 s, one after the other: deviations of 30 and 45 s from the means before."""
    part, state = ObservedStartup(), None
    for at_s, ready, since_s in (
        (0, 1, (0,)),
        (60, 2, (60,)),
        (150, 3, (150,)),
        (180, 4, ()),
    ):
        replicas = Replicas(ready=ready, starting=len(since_s), starting_since_s=since_s)
        state = part.watch(state, replicas, at_s, 120.0)
    assert state == Starts(3, 60.0, pytest.approx(25.0), (), 4, 180)  # type: ignore[arg-type]
    assert part.planned_s(state, 120.0) == pytest.approx((2 * 120 + 3 * 60) / 5 + 25)
    full = Starts(20.0, 100.0, 10.0, (0.0,), 1, 0.0)
    found = part.watch(full, Replicas(ready=2), 140.0, 120.0)
    assert found[:3] == pytest.approx((20.0, 100 + 40 / 20, 10 + (40 - 10) / 20))  # the memory of twenty


def test_shortages_end_two_windows_after_the_last_and_recur_within_what_they_were_worth() -> None:
    short = Shortage(0.0, short_s=0.0, missing=0.25, late_s=5.0)  # worth 10 * 5 / 0.25 = 200 s
    assert followed(short, 60.0, 0.0, 2.0, 30.0).late_s == 7.0
    over = followed(short, 60.1, 0.0, 2.0, 30.0)
    assert (over.short_s, over.late_s) == (None, 0.0)
    assert over.worth_s == pytest.approx(200.0, rel=1e-2)
    gone = Shortage(0.0, worth_s=200.0, let_go_s=0.0)
    for at_s, recurs in ((198.0, True), (199.0, False)):  # by then it has faded to 198.7 s
        assert followed(gone, at_s, 0.5, 0.0, 30.0).recurs == recurs
    kept = followed(Shortage(0.0, hold_s=100.0, worth_s=200.0), 21_600.0, 0.0, 0.0, 30.0)
    assert (kept.hold_s, kept.worth_s) == (50.0, 100.0)
    assert Shortage(0.0, hold_s=100.0, worth_s=200.0, recurs=True, late_s=1.0).kept_s() == 200.0
    assert Shortage(0.0, hold_s=300.0, worth_s=200.0, recurs=True, late_s=1.0).kept_s() == 300.0
    assert Shortage(0.0, hold_s=100.0, worth_s=200.0, recurs=True).kept_s() == 100.0
