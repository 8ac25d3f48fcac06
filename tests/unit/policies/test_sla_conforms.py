"""SlaPolicy keeps the laws of every policy in every mode: whatever is missing, old or absurd."""

from __future__ import annotations

import pytest

from dynamo_planner import Profile, Sla, SlaPolicy
from dynamo_planner.conformance import check_policy
from dynamo_planner.conformance.strategies import Mode
from dynamo_planner.policies.sla import Classic, EvenSplit
from tests.support.laws import scaled

pytestmark = pytest.mark.slow  # a search

SLA = Sla(ttft_ms=1000, itl_ms=40)
MEASURED = SlaPolicy(sla=SLA, profile=Profile.bundled("llama31-8b_h100_vllm_tp1"))
LEARNED = SlaPolicy(sla=SLA)
CLASSIC = MEASURED.replace(sizing=Classic(), attainment=EvenSplit())


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("policy", "mode"),
    [
        (MEASURED, "aggregated"),
        (MEASURED, "disaggregated"),
        (LEARNED, "aggregated"),
        (LEARNED, "disaggregated"),
        (CLASSIC, "disaggregated"),
    ],
    ids=["aggregated", "disaggregated", "learned_aggregated", "learned_disaggregated", "classic"],
)
def test_it_keeps_the_laws(policy: SlaPolicy, mode: Mode) -> None:
    check_policy(policy, modes=mode, examples=scaled(2))
