"""The vocabulary: what goes in, what comes out, and what is refused."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from dynamo_planner import Dist, PoolSpec, PoolStatus, Replicas, Sla, Snapshot, Traffic

DECODE = PoolSpec(role="decode", startup_s=60)
NUMBERS = st.one_of(st.none(), st.floats(min_value=0), st.just(math.nan), st.integers(0, 10**6))


@pytest.mark.parametrize("value", [math.nan, math.inf, np.float64("nan"), None])
def test_what_is_not_a_number_is_unknown(value: Any) -> None:
    traffic = Traffic(requests_per_s=value, isl=value, osl={"mean": value})
    assert (traffic.requests_per_s, traffic.isl, traffic.osl) == (None, None, None)


def test_a_bare_number_stands_for_a_mean_and_for_ready_replicas() -> None:
    pool = PoolStatus(spec=DECODE, replicas=np.int64(3), traffic=Traffic(isl=np.float64(800)))
    assert pool.replicas == Replicas(ready=3, target=3)
    assert pool.traffic is not None
    assert pool.traffic.isl == Dist(mean=800)


def test_the_target_left_out_is_everything_that_was_launched() -> None:
    assert Replicas(ready=2, starting=1, failed=1, draining=4).target == 4


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Replicas(ready=1, starting=2, starting_since_s=(5.0,)), "1 entries for 2 starting"),
        (lambda: Replicas(ready=1, starting=2, starting_since_s=(5.0, 4.0)), "oldest first"),
        (lambda: PoolSpec(role="decode", min_replicas=4, max_replicas=3), r"max_replicas \(3\) must be at least"),
        (lambda: PoolSpec(role="decoding"), "'prefill', 'decode' or 'aggregated'"),
        (lambda: Traffic(requests_per_s=-1), "requests_per_s"),
        (lambda: PoolStatus(spec=DECODE, kv_usage=1.5), "kv_usage"),
        (lambda: Traffic.model_validate({"request_per_s": 1}), "Extra inputs"),
        (lambda: Sla(ttft_ms=0, itl_ms=25), "ttft_ms"),
        (lambda: Sla(ttft_ms=500, itl_ms=25, attainment=99), "attainment"),
        (lambda: Snapshot(at_s=math.nan), "at_s"),
        (lambda: Dist(mean=math.nan), "mean"),
    ],
)
def test_bad_values_are_refused_by_name(build: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        build()


def test_values_are_read_only_and_can_be_copied_hashed_and_pickled() -> None:
    snapshot = Snapshot(at_s=0, pools={"decode": PoolStatus(spec=DECODE, replicas=1)}, knobs={"chunk": 2048})
    with pytest.raises(ValidationError, match="frozen"):
        snapshot.at_s = 1.0  # type: ignore[misc]
    with pytest.raises(TypeError):
        snapshot.pools["prefill"] = snapshot.pools["decode"]  # type: ignore[index]
    assert pickle.loads(pickle.dumps(snapshot)) == copy.deepcopy(snapshot) == snapshot
    assert hash(snapshot) == hash(copy.deepcopy(snapshot))


def test_a_mapping_given_is_not_shared() -> None:
    knobs: dict[str, Any] = {"chunk": 2048}
    snapshot = Snapshot(at_s=0, knobs=knobs)
    knobs["chunk"] = 1
    assert snapshot.knobs["chunk"] == 2048


def test_a_time_left_out_is_now_and_one_given_as_none_is_unknown() -> None:
    left_out = Snapshot(at_s=50, traffic=Traffic(requests_per_s=1), pools={"d": PoolStatus(spec=DECODE)})
    assert left_out.age_s(left_out.traffic.observed_at_s) == left_out.age_s(left_out.pools["d"].observed_at_s) == 0
    unknown = Snapshot(at_s=50, traffic=Traffic(observed_at_s=None))
    assert unknown.age_s(unknown.traffic.observed_at_s) == math.inf
    assert Snapshot.model_validate_json(unknown.model_dump_json()).traffic.observed_at_s is None


def test_a_start_older_than_three_startup_times_is_no_longer_coming() -> None:
    replicas = Replicas(ready=1, starting=3, starting_since_s=(0.0, 10.0, 200.0))
    pool = PoolStatus(spec=DECODE, replicas=replicas)
    assert (pool.coming(180), pool.stuck(180)) == (3, 0)
    assert (pool.coming(181), pool.stuck(181)) == (2, 1)
    assert PoolStatus(spec=DECODE, replicas=Replicas(ready=0, starting=2)).coming(1e9) == 2  # ages unknown


def test_gpus_are_held_by_whatever_is_larger_of_target_and_present_and_by_draining_ones() -> None:
    spec = PoolSpec(role="decode", gpus=4)
    assert PoolStatus(spec=spec, replicas=Replicas(ready=3, draining=1, target=2)).gpus_held() == 16
    assert PoolStatus(spec=spec, replicas=Replicas(ready=1, target=5)).gpus_held() == 20
    assert PoolStatus(spec=spec).gpus_held() is None


@given(rate=NUMBERS, isl=NUMBERS, p90=st.floats(0, 1e9), kv=st.one_of(st.none(), st.floats(0, 1)))
def test_a_snapshot_survives_json(rate: Any, isl: Any, p90: float, kv: float | None) -> None:
    traffic = Traffic(requests_per_s=rate, isl=isl, ttft_ms=Dist(mean=1, quantiles={0.9: p90}))
    snapshot = Snapshot(
        at_s=1.5, traffic=traffic, pools={"d": PoolStatus(spec=DECODE, kv_usage=kv)}, missing={"a": "b"}
    )
    assert Snapshot.model_validate_json(snapshot.model_dump_json()) == snapshot
