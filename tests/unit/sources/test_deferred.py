"""What waits of deferrable classes, by a user's own queries to Prometheus."""

from __future__ import annotations

from typing import Any

import pytest

from dynamo_planner import Deferred
from dynamo_planner.core.snapshot import Observation
from dynamo_planner.sources.prometheus.config import PrometheusConfig
from tests.support.sources.asked import observed
from tests.support.sources.small_prometheus import Store

AT_S = 1_000_600.0

WAITING = 'sum by (due_s) (gateway_waiting{class="batch"})'


def seen(series: dict[tuple[str, str], float], **queries: Any) -> Observation:
    """What is observed where a gateway reports these numbers, by name and deadline."""
    store = Store()
    for (name, due_s), value in series.items():
        labels = {"class": "batch"} | ({"due_s": due_s} if due_s else {})
        for at_s in (AT_S - 15, AT_S):
            store.add(name, labels, at_s, value)
    store.add("up", {"instance": "a:8000"}, AT_S, 1.0)
    data = {"kind": "prometheus", "url": "http://127.0.0.1:1", "deferred": {"batch": {"waiting": WAITING, **queries}}}
    return observed(PrometheusConfig.model_validate(data).build({"chat": "aggregated"}), store, AT_S)


def test_what_waits_is_read_by_deadline() -> None:
    series = {
        ("gateway_waiting", "1004200"): 200.0,
        ("gateway_waiting", "1007800"): 50.0,
        ("gateway_running", ""): 7.0,
        ("gateway_isl", ""): 900.0,
    }
    batch = seen(series, running="sum(gateway_running)", isl="max(gateway_isl)", osl=300).deferred["batch"]
    assert dict(batch.due) == {1_004_200.0: 200.0, 1_007_800.0: 50.0}
    assert batch == Deferred(due=dict(batch.due), running=7, isl=900, osl=300, observed_at_s=AT_S)


def test_without_deadlines_it_is_due_within_a_time() -> None:
    series = {("gateway_waiting", ""): 40.0}
    assert dict(seen(series, within_s=600).deferred["batch"].due) == {AT_S + 600: 40.0}
    unknown = seen(series)
    assert not unknown.deferred
    assert unknown.missing["deferred.batch"] == "40 requests wait with due_s='', which is no time in Unix seconds"


@pytest.mark.parametrize("due", ["NaN", "+Inf", "tomorrow"])
def test_a_deadline_that_is_no_time_makes_the_class_unknown_and_not_the_observation(due: str) -> None:
    found = seen({("gateway_waiting", due): 5.0})
    assert not found.deferred
    assert found.missing["deferred.batch"] == f"5 requests wait with due_s='{due}', which is no time in Unix seconds"


def test_no_series_is_unknown_and_a_zero_is_not() -> None:
    assert "or vector(0)" in seen({}).missing["deferred.batch"]
    found = seen({("gateway_waiting", ""): 0.0})
    assert found.deferred["batch"].waiting == 0
    assert found.missing["deferred.batch.isl"] == "no query of it is configured"
