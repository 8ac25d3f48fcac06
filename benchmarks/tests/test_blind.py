"""The blind benchmark: its rows, its draw and its search for a constant, worked by hand."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from benchmarks.quality.blind.contest import Contest, matches, worst
from benchmarks.quality.blind.draw import MODES, NEEDS, STARTUPS_S, draw
from benchmarks.quality.blind.plan import PROFILES
from benchmarks.quality.blind.results import Best, Outcome, WindowResult, rows
from benchmarks.quality.blind.shown import against, tables
from benchmarks.quality.blind.targets import TABLE, Targets, by_rule
from benchmarks.quality.blind.windows import Engine
from benchmarks.shared import SHARED
from dynamo_planner.profiles import Profile
from dynamo_planner.profiles.files import bundled_profiles


def outcome(attainment: float, gpu_hours: float) -> Outcome:
    return Outcome("defaults", attainment, gpu_hours, attainment - 0.1, attainment - 0.2, 3)


def result(name: str, best: float | None, group: str = "window", **policies: tuple[float, float]) -> WindowResult:
    outcomes = {policy: outcome(*each) for policy, each in policies.items()}
    found = None if best is None else Best(best, 0.991, "search", {"decode": [(10.0, 3)]})
    return WindowResult(name, group, 0.99, 1000, found, outcomes, 1.0)


RESULTS = [
    result("calm", 5.0, good=(0.995, 6.0), cheap=(0.97, 5.0)),
    result("wild", 8.0, good=(0.99, 16.0), cheap=(0.99, 12.0)),
    result("no schedule", None, good=(0.5, 6.0), cheap=(0.5, 5.0)),
    result("new", 1.0, "apart", good=(0.99, 1.0), cheap=(0.99, 3.0)),
]


def test_cost_is_the_ratio_to_the_best_schedule_with_the_price_of_what_was_missed() -> None:
    cheap, good = rows(RESULTS[:3])
    assert (cheap.policy, good.policy, good.windows) == ("cheap", "good", 2)
    assert good.cost == pytest.approx(math.sqrt(1.2 * 2.0))
    assert cheap.cost == pytest.approx(math.sqrt(1.0 * 1.2 * 1.5))  # 2 % too few cost 20 %
    assert cheap.gpu_hours == pytest.approx(math.sqrt(1.5))
    assert (good.held, cheap.held) == (1.0, 0.5)
    assert cheap.worst_window == 0.97
    assert cheap.worst_hour == pytest.approx(0.88)  # the median of 0.87 and 0.89
    assert good.low <= good.cost <= good.high


def test_what_is_kept_apart_has_a_table_of_its_own_and_results_survive_json() -> None:
    first, *_, apart, every = tables(RESULTS).split("### ")[1:]
    assert "| cheap | 50% of 2 |" in first
    assert apart.startswith("Kept apart") and "| good | 100% of 1 | **1.00**" in apart
    assert "| calm | 5.00 | search | 1.20 | 1.00 (97.0 %) |" in every
    assert [WindowResult.of_data(each.as_data()) for each in RESULTS] == RESULTS
    later = [result("calm", 5.0, good=(0.98, 6.0))]
    assert against(later, RESULTS) == "good: cost 1.200 -> 1.320, held 100% -> 0% of 1"


def test_the_worst_stretch_moves_on_by_the_minute() -> None:
    arrival_s = np.array([0.0, 70.0, 130.0, 190.0, 250.0, 310.0])
    met = np.array([True, True, False, False, True, True])
    assert worst(arrival_s, met, 120.0) == 0.0  # the minutes 2 and 3
    assert worst(arrival_s, met, 240.0) == 0.5
    assert worst(arrival_s, met, 3600.0) == pytest.approx(4 / 6)


@dataclass
class Trials(Contest):
    """A window in which 3 prefill and 5 decode replicas do."""

    tried: int = 0

    def run(self, name: str, configuration: str, policy: Any) -> Outcome:
        self.tried += 1
        counts = policy.replicas
        served = min(counts["prefill"] / 3, 1.0) * min(counts["decode"] / 5, 1.0)
        return outcome(served, counts["prefill"] + counts["decode"])


def test_the_constant_in_hindsight_is_the_least_of_each_pool() -> None:
    pool = SimpleNamespace(spec=SimpleNamespace(max_replicas=32))
    stage = SimpleNamespace(need={"prefill": 1.5, "decode": 3.2}, cluster=SimpleNamespace(pools={}))
    stage.cluster.pools = {"prefill": pool, "decode": pool}
    trials = Trials(cast(Any, None), cast(Any, stage), 0.99, np.ones(1, bool))
    assert trials.constant().gpu_hours == 8
    assert trials.tried <= 10


@dataclass
class FakeSource:
    path: Path
    long_prompt: float = 4000.0
    duration_s: float = 86_400.0


class FakeEngine(Engine):
    def __init__(self, name: str, *, fast: bool, aggregates: bool) -> None:
        self.path, self.targets, self.fast, self.aggregates = Path(name), Targets(30, 60, (1, 2, 3)), fast, aggregates

    def requests_per_s(self, source: Any, replicas: float) -> float:
        return replicas * (20.0 if self.fast and source.path.name == "short" else 1.0)

    def fits(self, source: Any, *, aggregated: bool) -> bool:
        return self.aggregates or not aggregated


def test_a_draw_is_balanced_and_the_same_each_time_and_can_be_run() -> None:
    sources: Any = [FakeSource(Path(name)) for name in ("short", "long", "day", "week")]
    engines: Any = [FakeEngine(str(n), fast=n % 2 == 0, aggregates=n > 2) for n in range(8)]
    drawn = draw(24, sources, engines)
    assert drawn == draw(24, sources, engines)
    for column, values in (("mean", NEEDS), ("startup_s", STARTUPS_S), ("profile", engines), ("trace", sources)):
        assert set(Counter(getattr(window, column) for window in drawn).values()) == {24 // len(values)}
    assert sum(window.aggregated for window in drawn) == 24 * sum(MODES) // len(MODES)
    assert not any(window.aggregated and int(window.profile.name) <= 2 for window in drawn)
    heavy = [w for w in drawn if w.trace.name == "short" and int(w.profile.name) % 2 == 0 and w.mean > 8]
    assert not heavy  # 16 * 20 requests/s * 6 h are 6.9 million
    assert all(window.seconds == 21_600 and window.at_s + window.seconds <= 86_400 for window in drawn)


def test_patterns_stand_between_bars() -> None:
    assert matches("HPA, hindsight", "Sla*|HPA*") and not matches("KPA", "Sla*|HPA*")


def test_the_targets_are_those_of_the_rule() -> None:
    """Of the profiles of the package, and of all where they lie beside the repository."""
    assert set(PROFILES) < set(TABLE)
    beside = {name for name in TABLE if (SHARED / "profiles" / name).exists()}
    packaged = set(bundled_profiles()) & set(TABLE)
    assert len(packaged) == 2
    for name in beside | packaged:
        profile = Profile.load(SHARED / "profiles" / name) if name in beside else Profile.bundled(name)
        assert by_rule(profile) == TABLE[name]
