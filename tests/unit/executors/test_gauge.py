"""The gauge: what a scrape of it says, and that it never tells what is not known."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from dynamo_planner import Planner, Replicas, ScaleTo, SetKnob
from dynamo_planner.core.snapshot import Snapshot
from dynamo_planner.executors.gauge import GaugeExecutor
from tests.support.loop_parts import Clock, Cluster, Metrics, per_ten


class Watched(Cluster):
    """A cluster that can be unreadable, and whose replicas others change."""

    readable = True

    def observe(self) -> Mapping[str, Replicas | None]:
        return super().observe() if self.readable else {"workers": None}


class Setup:
    def __init__(self) -> None:
        self.clock, self.there, self.registry = Clock(), Watched(replicas=2), CollectorRegistry()
        self.gauge = GaugeExecutor("llm", "llama", self.there, self.registry, valid_s=60, clock=self.clock)

    @property
    def told(self) -> list[str]:
        page = generate_latest(self.registry).decode().splitlines()
        return [line for line in page if not line.startswith("#")]


def line(replicas: int) -> list[str]:
    return [f'dynamo_planner_desired_replicas{{namespace="llm",pool="workers",target="llama"}} {replicas}.0']


@pytest.fixture
def setup() -> Setup:
    return Setup()


def test_nothing_is_told_before_a_pool_could_be_read(setup: Setup) -> None:
    setup.there.readable = False
    assert setup.gauge.observe() == {"workers": None}
    assert setup.told == []
    (outcome,) = setup.gauge.apply([ScaleTo(pool="workers", replicas=3)])
    assert (outcome.status, setup.told) == ("refused", [])


def test_it_begins_with_what_there_is_and_then_tells_what_is_wanted(setup: Setup) -> None:
    setup.gauge.observe()
    assert setup.told == line(2)
    (outcome,) = setup.gauge.apply([ScaleTo(pool="workers", replicas=5, expected=2)])
    assert (outcome.status, setup.told) == ("applied", line(5))
    assert setup.gauge.observe()["workers"] == Replicas(ready=2, target=5)
    assert setup.gauge.apply([ScaleTo(pool="workers", replicas=5)])[0].status == "unchanged"
    assert setup.gauge.apply([ScaleTo(pool="workers", replicas=1, expected=2)])[0].status == "refused"
    assert setup.gauge.apply([SetKnob(knob="max_num_seqs", value=4)])[0].status == "refused"
    assert setup.told == line(5)
    assert setup.there.applied == [], "what is observed is never acted on"


def test_a_number_that_is_not_confirmed_runs_out_and_is_never_zero(setup: Setup) -> None:
    setup.gauge.observe()
    setup.clock.now_s += 59
    setup.there.readable = False
    setup.gauge.observe()
    assert setup.told == line(2)
    setup.clock.now_s += 2
    assert setup.told == []
    setup.there.readable = True
    setup.gauge.observe()
    assert setup.told == line(2)


def test_in_the_loop_a_wish_is_taken_back_before_anybody_followed_it(setup: Setup) -> None:
    """Actions are changes of what was last published, not of what there is: else 5 would stay on the page."""
    metrics = Metrics(requests_per_s=50.0)
    loop = Planner(per_ten, metrics, setup.gauge, clock=setup.clock)
    loop.step()
    assert setup.told == line(5)
    setup.clock.now_s += 10
    metrics.requests_per_s = 20.0
    loop.step()
    assert setup.told == line(2)


def test_a_loop_that_cannot_see_the_load_keeps_the_last_number(setup: Setup) -> None:
    metrics = Metrics(requests_per_s=50.0)
    loop = Planner(per_ten, metrics, setup.gauge, clock=setup.clock)
    loop.step()
    setup.there.replicas = 5
    metrics.error = RuntimeError("no metrics")
    for _ in range(20):
        setup.clock.now_s += 10
        loop.step()
    assert setup.told == line(5)


def test_an_autoscaler_that_stays_at_a_maximum_of_its_own_is_believed_and_reported(setup: Setup) -> None:
    """An HPA with ``maxReplicas: 4``: 6 is taken back after 120 s, a fall then acts at once, and 10 min later it is
    tried again."""
    metrics = Metrics(requests_per_s=60.0)
    loop = Planner(per_ten, metrics, setup.gauge, clock=setup.clock)
    published: dict[int, list[str]] = {}
    for second in range(0, 880, 10):
        step = loop.step()
        published[second] = setup.told
        setup.there.replicas = min(4, round(float(setup.told[0].split()[-1])))
        codes = {reason.code for reason in step.decision.reasons}
        assert ("NotFollowed" in codes) == (130 <= second < 740), second
        setup.clock.now_s += 10
    assert published[120] == line(6)
    assert [second for second, told in published.items() if told == line(4)] == list(range(130, 750, 10))
    setup.gauge.observe()
    (limited,) = setup.gauge.troubles
    assert (limited.code, limited.values["requested"]) == ("NotFollowed", 6)
    assert setup.gauge.pools["workers"].max_replicas == 4
    metrics.requests_per_s = 20.0
    loop.step()
    assert setup.told == line(2)


def test_zero_is_told_where_zero_is_wanted(setup: Setup) -> None:
    def none(snapshot: Snapshot) -> dict[str, int]:
        return {"workers": 0}

    Planner(none, Metrics(requests_per_s=0.0), setup.gauge, clock=setup.clock).step()
    assert setup.told == line(0)
