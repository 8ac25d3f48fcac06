"""LoadPolicy in time: pools that move, ticks that come as they like, and the state."""

from __future__ import annotations

import json

import pytest

from dynamo_planner import Decision, Replicas, Snapshot, highest
from dynamo_planner.guards import Stabilization
from dynamo_planner.policies import LoadPolicy
from tests.support.timeline import BUSY, POLICY, Timeline, decode, prefill


def test_nothing_is_adjusted_while_a_pool_starts_or_drains() -> None:
    timeline = Timeline()
    starting = Replicas(ready=1, starting=1, starting_since_s=(0,))
    draining = Replicas(ready=1, draining=1)
    for at_s in range(0, 100, 10):
        timeline.expect(at_s, {}, prefill=prefill(1, 9), decode=decode(starting, 0.99))
    assert timeline.codes("prefill") == ["ReplicasMoving"]
    assert "decode has 1 replicas starting" in timeline.decision.explain()
    for at_s in range(100, 200, 10):
        timeline.expect(at_s, {}, prefill=prefill(draining, 9), decode=decode(1, 0.99))
    assert "prefill has 1 replicas draining" in timeline.decision.explain()
    timeline.expect(200, {}, prefill=prefill(1, 9), decode=decode(1, 0.99))
    timeline.expect(220, {"prefill": 2, "decode": 2}, prefill=prefill(1, 9), decode=decode(1, 0.99))


def test_an_interval_in_which_a_replica_became_ready_does_not_count() -> None:
    timeline = Timeline()
    timeline.expect(0, {}, decode=decode(2, 0.99))
    timeline.expect(20, {}, decode=decode(3, 0.99))
    timeline.expect(30, {}, decode=decode(3, 0.99))
    timeline.expect(50, {"decode": 4}, decode=decode(3, 0.99))


def test_a_start_that_takes_too_long_does_not_freeze_it() -> None:
    timeline = Timeline()
    stuck = Replicas(ready=1, starting=1, starting_since_s=(0,))
    timeline.expect(360, {}, decode=decode(stuck, 0.95))  # three start-up times of 120 s: may still come
    assert timeline.codes("decode") == ["ReplicasMoving"]
    timeline.expect(361, {}, decode=decode(stuck, 0.95))
    timeline.expect(391, {"decode": 3}, decode=decode(stuck, 0.95))
    assert timeline.codes("decode") == ["StartsStuck", "KvUsageHigh"]


@pytest.mark.parametrize(
    "replicas", [Replicas(ready=2, starting=1), Replicas(ready=2, draining=1), Replicas(ready=2, target=3), None]
)
def test_what_moves_for_ever_without_an_age_does_not_freeze_the_other_pool_for_ever(replicas: Replicas | None) -> None:
    timeline = Timeline()
    seen = []
    for at_s in range(0, 1000, 10):
        decision = timeline.see(at_s, prefill=prefill(replicas, 9), decode=decode(1, 0.95))
        seen += [at_s] if decision.targets.get("decode") == 2 else []
    assert seen[0] == 3 * 120 + 2 * 30 + 30  # patience: three start-up times and two intervals; then one interval


def test_it_is_as_patient_as_the_slowest_start_asks_for() -> None:
    """Starts of 20 s in one pool and of 120 s in the other: that waits for three of the latter and two intervals."""
    moves = prefill(Replicas(ready=2, target=3), 9)
    moves = moves.replace(spec=moves.spec.replace(startup_s=20.0))
    timeline = Timeline()
    seen = [at_s for at_s in range(0, 600, 10) if timeline.see(at_s, prefill=moves, decode=decode(1, 0.95)).targets]
    assert seen[0] == 3 * 120 + 2 * 30 + 30


def test_it_says_that_it_waited_long_enough() -> None:
    timeline = Timeline()
    while not timeline.decision.targets:
        timeline.see(timeline.decision.at_s + 10, prefill=prefill(Replicas(ready=2, draining=1), 9))
    why = timeline.decision.explain()
    assert "it adjusts although prefill has 1 replicas draining: no interval was completed for 450 s" in why


def test_ticks_may_be_irregular_and_the_same_observation_counts_once() -> None:
    timeline = Timeline()
    timeline.expect(0, {}, decode=decode(2, 0.80))
    timeline.expect(7, {}, decode=decode(2, 0.99))
    for at_s in (8, 9, 9.5):
        timeline.expect(at_s, {}, decode=decode(2, 0.99, observed_at_s=7))
    timeline.expect(31.5, {"decode": 2}, decode=decode(2, 0.82))  # (.80 + .99 + .82) / 3 = .87
    assert timeline.decision.reasons[0].values["samples"] == 3
    timeline.expect(61, {}, decode=decode(2, 0.95))  # 29.5 s after the last adjustment
    timeline.expect(61.5, {"decode": 3}, decode=decode(2, 0.95))


def test_a_tick_that_is_repeated_gives_the_same_again_and_counts_once() -> None:
    timeline = Timeline()
    first = timeline.see(0, decode=decode(2, 0.80))
    for at_s in (0, -5, 0):
        again = timeline.see(at_s, decode=decode(2, 0.99))
        assert (again.targets, again.reasons, again.state) == (first.targets, first.reasons, first.state)
    timeline.expect(30, {"decode": 2}, decode=decode(2, 0.90))  # (.80 + .90) / 2


def test_after_a_gap_the_samples_before_it_are_dropped() -> None:
    timeline = Timeline()
    timeline.expect(0, {}, decode=decode(2, 0.1))
    timeline.expect(10, {}, decode=decode(2, 0.1))
    timeline.expect(1000, {"decode": 3}, decode=decode(2, 0.95))
    assert timeline.decision.reasons[0].values["samples"] == 1


def test_ticks_further_apart_than_the_interval_each_decide() -> None:
    timeline = Timeline()
    timeline.expect(0, {}, decode=decode(2, 0.95))
    timeline.expect(60, {"decode": 3}, decode=decode(2, 0.95))
    timeline.expect(120, {"decode": 2}, decode=decode(2, 0.85))
    timeline.expect(180, {"decode": 3}, decode=decode(2, 0.95))


def test_unix_seconds_do_not_make_an_interval_a_tick_longer() -> None:
    timeline = Timeline(LoadPolicy(adjustment_interval_s=0.3))
    adjusted = []
    for n in range(31):
        decision = timeline.see(1_700_000_000.1 + n * 0.1, decode=decode(2, 0.7))
        adjusted += [n] if decision.targets else []
    assert adjusted == [3, 6, 9, 12, 15, 18, 21, 24, 27, 30]


def test_a_clock_of_a_worker_that_runs_ahead_does_not_blind_it() -> None:
    timeline = Timeline()
    timeline.see(0, decode=decode(2, 0.95, observed_at_s=1e9))
    for at_s in (10, 20, 30):
        timeline.see(at_s, decode=decode(2, 0.95))
    assert timeline.decision.reasons[0].values["samples"] == 4


def test_state_goes_through_json_in_the_middle_of_an_interval() -> None:
    native, revived = Timeline(), Timeline()
    for n in range(40):
        pools = {
            "prefill": prefill(2, (n * 7) % 13, running=n % 3),
            "decode": decode(3 if n < 20 else 4, (n * 37 % 100) / 100),
        }
        a, b = native.see(n * 10, **pools), revived.see(n * 10, **pools)
        assert (a.targets, a.reasons) == (b.targets, b.reasons)
        text = json.dumps(b.state.model_dump(mode="json") if b.state else None)
        assert len(text) < 3000
        revived.state = json.loads(text)


def test_without_the_state_nothing_changes() -> None:
    for n in range(50):
        snapshot = Snapshot(at_s=n * 10, traffic=BUSY, pools={"decode": decode(3, 0.01), "prefill": prefill(3, 99)})
        assert POLICY.decide(snapshot).actions == ()


def test_pools_may_come_and_go() -> None:
    timeline = Timeline()
    timeline.expect(0, {}, gone=decode(2, 0.95))
    timeline.expect(10, {}, new=decode(2, 0.95))
    timeline.expect(40, {"new": 3}, new=decode(2, 0.95))
    assert timeline.state is not None
    assert "gone" not in timeline.state.model_dump_json()


def test_while_it_collects_the_other_of_highest_may_raise_and_not_lower() -> None:
    def both(wanted: int) -> Decision:
        return highest(POLICY, lambda _: {"decode": wanted}).decide(Snapshot(at_s=0, pools={"decode": decode(3, 0.6)}))

    assert (both(5).targets, both(2).targets) == ({"decode": 5}, {})


def test_it_scales_down_behind_a_stabilization_window_though_it_holds_most_of_the_time() -> None:
    timeline = Timeline(LoadPolicy(adjustment_interval_s=60) | Stabilization(down_window_s=150))
    lowered = []
    for at_s in range(0, 600, 10):
        decision = timeline.see(at_s, decode=decode(3, 0.1))
        lowered += [at_s] if decision.actions else []
    # adjustments at 60, 120, ...; at 60 the present target counts as recommended, until 210
    assert lowered == [240, 300, 360, 420, 480, 540]
