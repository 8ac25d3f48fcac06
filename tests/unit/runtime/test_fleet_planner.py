"""The loop of several models: decided together, and each apart in its troubles."""

from __future__ import annotations

from pathlib import Path

from dynamo_planner.executors import ExecutorError
from dynamo_planner.fleet import Budget, Fleet, Member
from dynamo_planner.runtime import FleetPlanner, Planner
from dynamo_planner.sources import SourceError
from tests.support.loop_parts import Climbing, Clock, Cluster, Metrics, per_ten


class Place:
    """Models with ten replicas for each hundred requests per second, on eight GPUs."""

    def __init__(self, *names: str, state_file: Path | None = None, total: float = 8) -> None:
        self.clock, self.total, self.state_file = Clock(), total, state_file
        self.metrics = {name: Metrics() for name in names}
        self.clusters = {name: Cluster() for name in names}
        self.loop = FleetPlanner(*self.parts(*names), clock=self.clock, state_file=state_file)

    def parts(self, *names: str) -> tuple[Fleet, dict[str, Planner]]:
        members = {name: Member(policy=per_ten) for name in names}
        planners = {
            name: Planner(per_ten, self.metrics[name], self.clusters[name], clock=self.clock, name=name)
            for name in names
        }
        return Fleet(models=members, budgets={"gpu": Budget(total=self.total)}), planners

    def tick(self, **rates: float) -> dict[str, int]:
        for name, rate in rates.items():
            self.metrics[name].requests_per_s = rate
        self.clock.now_s += 10
        self.steps = self.loop.step()
        return {name: cluster.replicas for name, cluster in self.clusters.items()}

    def codes(self, name: str) -> set[str]:
        return {reason.code for reason in self.steps[name].decision.reasons}


def test_what_is_wanted_beyond_the_budget_is_shared() -> None:
    place = Place("a", "b")
    assert place.tick(a=30, b=30) == {"a": 3, "b": 3}
    assert place.tick(a=30, b=90) == {"a": 2, "b": 5}  # the sixth of b is worth more than the third of a
    assert place.tick() == {"a": 2, "b": 6}


def test_a_model_without_metrics_keeps_and_the_others_go_on() -> None:
    place = Place("a", "b")
    place.tick(a=30, b=30)
    place.metrics["a"].error = SourceError("no answer")
    assert place.tick(b=90) == {"a": 3, "b": 5}
    assert "SourceFailed" in place.codes("a")
    assert "SourceFailed" not in place.codes("b")


def test_gpus_of_a_model_that_cannot_be_read_stay_counted() -> None:
    place = Place("a", "b")
    place.tick(a=40, b=20)
    place.clusters["a"].observe_error = ExecutorError("no answer")
    assert place.tick(a=10, b=90) == {"a": 4, "b": 4}
    place.clusters["a"].pools_error = ExecutorError("no answer")
    assert place.tick(b=20) == {"a": 4, "b": 2}
    place.clusters["a"].observe_error = place.clusters["a"].pools_error = None
    assert place.tick(a=10, b=90) == {"a": 1, "b": 4}
    assert place.tick() == {"a": 1, "b": 7}


def test_models_come_and_go_between_steps(tmp_path: Path) -> None:
    place = Place("a", "b", state_file=tmp_path / "state.json")
    place.tick(a=30, b=30)
    place.metrics["c"], place.clusters["c"] = Metrics(), Cluster(replicas=0)
    place.loop.set_models(*place.parts("a", "b", "c"))
    assert place.tick(c=50) == {"a": 3, "b": 2, "c": 2}  # what b gives back is not there yet
    place.loop.set_models(*place.parts("a", "c"))
    assert place.tick() == {"a": 3, "b": 2, "c": 5}


def test_the_state_of_all_models_survives_a_restart(tmp_path: Path) -> None:
    def loop() -> FleetPlanner:
        members = {name: Member(policy=Climbing()) for name in "ab"}
        fleet = Fleet(models=members, budgets={"gpu": Budget(total=99)})
        planners = {name: Planner(Climbing(), Metrics(), Cluster(), clock=clock) for name in "ab"}
        return FleetPlanner(fleet, planners, clock=clock, state_file=tmp_path / "state.json")

    clock = Clock()
    loop().step()
    clock.now_s += 10
    steps = loop().step()
    assert {name: dict(step.decision.targets) for name, step in steps.items()} == {
        name: {"workers": 2} for name in "ab"
    }
