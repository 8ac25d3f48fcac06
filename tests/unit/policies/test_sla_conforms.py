"""SlaPolicy keeps the laws of every policy."""

from __future__ import annotations

import pytest

from dynamo_planner import Profile, Sla, SlaPolicy
from dynamo_planner.conformance import check_policy
from tests.support.laws import scaled

pytestmark = pytest.mark.slow  # a search

PROFILE = Profile.bundled("llama31-8b_h100_vllm_tp1")


def test_it_keeps_the_laws_in_both_modes() -> None:
    check_policy(SlaPolicy(sla=Sla(ttft_ms=1000, itl_ms=40), profile=PROFILE), examples=scaled(2))


def test_it_keeps_them_without_a_profile() -> None:
    check_policy(SlaPolicy(sla=Sla(ttft_ms=1000, itl_ms=40)), examples=scaled(2))
