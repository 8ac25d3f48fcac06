"""One turn of the loop: what is seen, what is done, and what becomes of it when something fails."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from dynamo_planner.core.decision import Decision, ScaleTo
from dynamo_planner.core.metrics import PoolMetrics, Traffic
from dynamo_planner.core.policy import Policy, as_policy
from dynamo_planner.core.snapshot import Observation, PoolSpec, Snapshot
from dynamo_planner.executors import ExecutorError
from dynamo_planner.guards import Bounds
from dynamo_planner.guards.bounds import PoolBounds
from dynamo_planner.guards.override import Override, Pin
from dynamo_planner.runtime.metrics import PlannerMetrics
from dynamo_planner.runtime.planner import Planner
from dynamo_planner.sources import SourceError
from tests.support.loop_parts import Climbing, Clock, Cluster, Metrics, per_ten


def codes(decision: Decision) -> list[str]:
    return [reason.code for reason in decision.reasons]


def test_observes_decides_applies(clock: Clock, metrics: Metrics, cluster: Cluster) -> None:
    metrics.requests_per_s = 50
    step = Planner(per_ten, metrics, cluster, clock=clock, name="llama").step()
    assert metrics.asked_s == [1000.0]
    assert step.decision.actions == (ScaleTo(pool="workers", replicas=5, expected=2),)
    assert [outcome.status for outcome in step.outcomes] == ["applied"]
    assert cluster.replicas == 5
    assert (step.at_s, step.name, step.advisory) == (1000.0, "llama", False)
    pool = step.snapshot.pools["workers"]
    assert (pool.replicas and pool.replicas.ready, pool.queued, pool.observed_at_s) == (2, 2, 1000.0)


def test_advisory_decides_without_acting(clock: Clock, metrics: Metrics, cluster: Cluster) -> None:
    planner = Planner(Climbing(), metrics, cluster, clock=clock, advisory=True)
    for wanted in (1, 2, 3):
        step = planner.step()
        assert step.advisory
        assert step.outcomes == ()
        assert step.decision.targets["workers"] == wanted
        clock.now_s += 10
    assert cluster.applied == []
    assert cluster.replicas == 2


@pytest.mark.parametrize(
    "error",
    [SourceError("prometheus does not answer"), ValueError("bad"), OSError(5, "I/O"), MemoryError(), KeyError("x")],
    ids=lambda error: type(error).__name__,
)
def test_a_source_that_fails_is_a_hold_and_the_policy_is_not_asked(
    error: Exception, clock: Clock, metrics: Metrics, cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    planner = Planner(Climbing(), metrics, cluster, clock=clock)
    assert planner.step().decision.targets["workers"] == 1
    clock.now_s += 10
    metrics.error = error
    step = planner.step()
    assert step.decision.actions == ()
    assert step.decision.targets == {}
    assert codes(step.decision) == ["SourceFailed", "SourceFailed"]
    assert step.decision.reasons[1].pool == "workers"
    assert "the source could not be read" in step.decision.explain()
    assert "the source could not be read" in step.snapshot.missing["pools.workers"]
    assert step.snapshot.traffic.observed_at_s is None
    assert any("the source could not be read" in record.message for record in caplog.records)
    clock.now_s += 10
    metrics.error = None
    assert planner.step().decision.targets["workers"] == 2, "what it remembered before the failure is still there"


@pytest.mark.parametrize("answer", ["nonsense", 7, Observation], ids=["text", "number", "class"])
def test_a_source_that_answers_nonsense_is_a_hold(answer: Any, clock: Clock, cluster: Cluster) -> None:
    metrics = Metrics()
    metrics.answer = answer
    assert "SourceFailed" in codes(Planner(per_ten, metrics, cluster, clock=clock).step().decision)
    assert cluster.applied == []


def test_guards_have_their_say_without_metrics(clock: Clock, metrics: Metrics, cluster: Cluster) -> None:
    """On a night without metrics, the person on call pins the replicas."""
    metrics.error = SourceError("prometheus does not answer")
    pin = Override(pins=(Pin(pool="workers", replicas=7, until_s=2000, reason="metrics are down"),))
    step = Planner(as_policy(per_ten) | pin, metrics, cluster, clock=clock).step()
    assert cluster.replicas == 7
    assert codes(step.decision) == ["SourceFailed", "Pinned"]


def test_min_replicas_hold_without_metrics(clock: Clock, metrics: Metrics) -> None:
    cluster = Cluster(replicas=0)
    cluster.specs = {"workers": PoolSpec(role="aggregated", min_replicas=2)}
    metrics.error = SourceError("no worker is up yet")
    Planner(per_ten, metrics, cluster, clock=clock).step()
    assert cluster.replicas == 2


@pytest.mark.parametrize("failing", ["pools_error", "observe_error"])
def test_an_executor_that_cannot_be_read_is_a_hold(
    failing: str, clock: Clock, metrics: Metrics, cluster: Cluster
) -> None:
    planner = Planner(Climbing(), metrics, cluster, clock=clock)
    planner.step()
    for error in (ExecutorError("the arbiter is gone"), RuntimeError("bug")):
        clock.now_s += 10
        setattr(cluster, failing, error)
        step = planner.step()
        assert step.decision.actions == ()
        assert codes(step.decision)[0] == "ExecutorFailed"
        assert str(error) in step.decision.explain()
    assert metrics.asked_s == [1000, 1010, 1020], "the source is asked all the same, so that its windows have no gap"
    setattr(cluster, failing, None)
    clock.now_s += 10
    assert planner.step().decision.targets["workers"] == 2


def test_both_failing_tells_both(clock: Clock, metrics: Metrics, cluster: Cluster) -> None:
    metrics.error, cluster.observe_error = SourceError("dark"), ExecutorError("deaf")
    said = Planner(per_ten, metrics, cluster, clock=clock).step().decision.explain()
    assert "dark" in said
    assert "deaf" in said


def test_an_executor_that_raises_while_it_acts_gives_failed_outcomes(
    clock: Clock, metrics: Metrics, cluster: Cluster
) -> None:
    metrics.requests_per_s = 40
    cluster.apply_error = RuntimeError("the cable is out")
    planner = Planner(per_ten, metrics, cluster, clock=clock)
    step = planner.step()
    (outcome,) = step.outcomes
    assert outcome.status == "failed"
    assert outcome.action == step.decision.actions[0]
    assert "the cable is out" in outcome.message
    cluster.apply_error = None
    clock.now_s += 10
    planner.step()
    assert cluster.replicas == 4, "it is tried again, since the replicas are not what they should be"


def test_an_executor_that_answers_nonsense_gives_failed_outcomes(
    clock: Clock, metrics: Metrics, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics.requests_per_s = 40
    for answer in (None, ["done"]):
        monkeypatch.setattr(cluster, "apply", lambda actions, answer=answer: answer)
        step = Planner(per_ten, metrics, cluster, clock=clock).step()
        assert [outcome.status for outcome in step.outcomes] == ["failed"]


def test_a_policy_that_raises_is_a_hold_told_loudly(
    clock: Clock, metrics: Metrics, cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    metrics.requests_per_s = None  # which per_ten does not expect
    step = Planner(per_ten, metrics, cluster, clock=clock).step()
    assert step.decision.actions == ()
    assert codes(step.decision) == ["PolicyFailed", "PolicyFailed"]
    assert step.decision.reasons[1].pool == "workers"
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.exc_info, "with its traceback"


def test_a_policy_that_decides_nonsense_is_a_hold(clock: Clock, metrics: Metrics, cluster: Cluster) -> None:
    class Broken(Climbing):
        def decide(self, snapshot: Snapshot, state: Any = None) -> Any:
            return {"workers": 3}

    step = Planner(Broken(), metrics, cluster, clock=clock).step()
    assert codes(step.decision) == ["PolicyFailed", "PolicyFailed"]


def test_a_guard_that_raises_is_a_hold_even_without_metrics(clock: Clock, cluster: Cluster) -> None:
    class Broken(Override):
        def limit(self, snapshot: Snapshot, proposal: Any, state: Any) -> Any:
            raise ZeroDivisionError

    metrics = Metrics()
    metrics.error = SourceError("dark")
    step = Planner(as_policy(per_ten) | Broken(), metrics, cluster, clock=clock).step()
    assert codes(step.decision) == ["SourceFailed", "PolicyFailed", "PolicyFailed"]


def test_keyboard_interrupts_are_not_swallowed(clock: Clock, metrics: Metrics, cluster: Cluster) -> None:
    metrics.error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        Planner(per_ten, metrics, cluster, clock=clock).step()


def test_long_errors_are_cut(clock: Clock, metrics: Metrics, cluster: Cluster) -> None:
    metrics.error = SourceError("x" * 1_000_000)
    step = Planner(per_ten, metrics, cluster, clock=clock).step()
    assert len(step.model_dump_json()) < 10_000


def test_a_new_policy_goes_on_from_the_state_of_the_old_one(clock: Clock, metrics: Metrics, cluster: Cluster) -> None:
    def climbing_until(until_s: float) -> Policy:
        return Climbing() | Override(pins=(Pin(pool="workers", replicas=5, until_s=until_s, reason="trying"),))

    planner = Planner(climbing_until(1), metrics, cluster, clock=clock)
    assert planner.step().decision.targets["workers"] == 1
    planner.policy = climbing_until(1011)
    clock.now_s = 1010
    assert planner.step().decision.targets["workers"] == 5
    clock.now_s = 1020
    assert planner.step().decision.targets["workers"] == 3, "it climbed on, through the change and under the pin"
    with pytest.raises(TypeError, match="expected a Policy"):
        planner.policy = 3  # type: ignore[assignment]


def test_time_stands_still_while_a_small_step_back_is_made_up_for(
    clock: Clock, metrics: Metrics, cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    planner = Planner(Climbing(), metrics, cluster, clock=clock)
    planner.step()
    for now_s, wanted, at_s in ((975.0, 1, 1000.0), (985.0, 1, 1000.0), (1000.0, 1, 1000.0), (1005.0, 2, 1005.0)):
        clock.now_s = now_s
        step = planner.step()
        assert (step.decision.targets["workers"], step.at_s) == (wanted, at_s)
        assert ("ClockSetBack" in codes(step.decision)) == (now_s < 1000.0)
    assert "set back by 25.000 s" in caplog.text


def test_a_source_that_fails_while_time_stands_still_is_a_hold_too(
    clock: Clock, metrics: Metrics, cluster: Cluster
) -> None:
    planner = Planner(Climbing(), metrics, cluster, clock=clock, advisory=True)
    assert planner.step().decision.targets["workers"] == 1
    clock.now_s -= 5
    metrics.error = SourceError("dark")
    assert planner.step().decision.targets == {}


def test_a_clock_set_far_back_starts_the_policy_anew_and_does_not_stop_it(
    clock: Clock, metrics: Metrics, cluster: Cluster
) -> None:
    planner = Planner(Climbing(), metrics, cluster, clock=clock)
    for _ in range(3):
        step = planner.step()
        clock.now_s += 10
    assert step.decision.targets["workers"] == 3
    clock.now_s -= 3600
    step = planner.step()
    assert codes(step.decision) == ["StateReset"]
    assert step.at_s == clock.now_s
    assert step.decision.targets["workers"] == 1
    clock.now_s += 10
    step = planner.step()
    assert step.decision.targets["workers"] == 2
    assert step.decision.reasons == ()


def test_a_pool_without_replicas_is_not_unknown(clock: Clock) -> None:
    cluster, metrics = Cluster(replicas=0), Metrics()
    metrics.answer = Observation(
        traffic=Traffic(requests_per_s=0),
        pools={"workers": PoolMetrics(observed_at_s=None)},
        missing={"pools.workers": "there are no workers to scrape", "traffic.isl": "no request finished"},
    )
    snapshot = Planner(per_ten, metrics, cluster, clock=clock).step().snapshot
    pool = snapshot.pools["workers"]
    assert (pool.queued, pool.running, pool.kv_usage, pool.coverage, pool.observed_at_s) == (0, 0, 0, 1, 1000)
    assert dict(snapshot.missing) == {"traffic.isl": "no request finished"}


def test_a_pool_without_replicas_that_drains_is_what_the_source_says(clock: Clock) -> None:
    cluster, metrics = Cluster(replicas=0), Metrics()
    metrics.answer = Observation(traffic=Traffic(requests_per_s=0), pools={"workers": PoolMetrics(running=2)})
    pool = Planner(per_ten, metrics, cluster, clock=clock).step().snapshot.pools["workers"]
    assert (pool.running, pool.queued) == (2, 0)


def test_what_nobody_told_is_said_to_be_missing(clock: Clock, cluster: Cluster) -> None:
    cluster.specs = {"workers": PoolSpec(role="prefill"), "others": PoolSpec(role="decode")}
    metrics = Metrics()
    metrics.answer = Observation(pools={"workers": PoolMetrics(), "strangers": PoolMetrics(queued=1)})
    snapshot = Planner(lambda snapshot: {}, metrics, cluster, clock=clock).step().snapshot
    assert set(snapshot.pools) == {"workers", "others"}
    assert snapshot.pools["others"].observed_at_s is None
    assert snapshot.missing["pools.others"] == "the source reported nothing of this pool"
    assert snapshot.missing["pools.others.replicas"] == "the executor could not read them"


@pytest.mark.parametrize("interval_s", [0, -1, float("nan"), float("inf")])
def test_a_wrong_interval_is_refused(interval_s: float, metrics: Metrics, cluster: Cluster) -> None:
    with pytest.raises(ValueError, match="interval_s must be a positive number of seconds"):
        Planner(per_ten, metrics, cluster, interval_s=interval_s)


def test_a_pool_that_disappears_from_under_a_guard_is_reported_until_it_is_back(
    clock: Clock, metrics: Metrics, cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    bounded = per_ten | Bounds(pools={"workers": PoolBounds(max_replicas=3)})
    planner = Planner(bounded, metrics, cluster, clock=clock)
    specs = cluster.specs
    assert "UnknownPool" not in codes(planner.step().decision)
    cluster.specs = {"worker": specs["workers"]}
    for _ in range(2):
        clock.now_s += 10
        assert "UnknownPool" in codes(planner.step().decision)
    assert caplog.text.count("policy.guards[0].pools: 'workers' is not a pool, did you mean 'worker'?") == 1
    cluster.specs = specs
    clock.now_s += 10
    assert "UnknownPool" not in codes(planner.step().decision)


def test_a_hold_that_lasts_is_reported_with_what_holds_since_when_and_ends(
    clock: Clock, metrics: Metrics, cluster: Cluster
) -> None:
    page = PlannerMetrics()
    labels = {"pool": "workers", "code": "HoldLasts"}

    def turn() -> float | None:
        page.record(planner.step())
        clock.now_s += 450
        return page.registry.get_sample_value("dynamo_planner_trouble_since_timestamp_seconds", labels)

    planner = Planner(per_ten, metrics, cluster, clock=clock)
    metrics.error = SourceError("prometheus does not answer")
    assert [turn(), turn(), turn(), turn()] == [None, None, 1000.0, 1000.0]
    metrics.error = None
    assert turn() is None
