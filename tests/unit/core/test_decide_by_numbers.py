"""A first decision from plain numbers."""

from __future__ import annotations

from functools import partial

import pytest

from dynamo_planner import HpaLaw, Snapshot, decide


def by_tokens(snapshot: Snapshot) -> dict[str, int | None]:
    traffic = snapshot.traffic
    assert traffic.requests_per_s is not None
    assert traffic.isl is not None
    return dict.fromkeys(snapshot.pools, round(traffic.requests_per_s * traffic.isl.mean / 1000))


def test_of_both_kinds_of_service() -> None:
    load = partial(decide, by_tokens, requests_per_s=4.0, isl=2000, osl=100)
    assert dict(load(prefill=1, decode=1).targets) == {"prefill": 8, "decode": 8}
    assert dict(load(aggregated=2).targets) == {"workers": 8}


@pytest.mark.parametrize(
    ("replicas", "found"),
    [
        ({}, "none"),
        ({"prefill": 1}, "prefill"),
        ({"prefill": 1, "decode": 1, "aggregated": 1}, "prefill, decode, aggre"),
    ],
)
def test_replicas_of_one_kind_of_service_are_given(replicas: dict[str, int], found: str) -> None:
    with pytest.raises(ValueError, match=f"replicas of {found}"):
        decide(HpaLaw(), requests_per_s=1, isl=10, osl=10, **replicas)
