"""The demo's table: SlaPolicy keeps its promise on the generated day, for less than the constant of the peak."""

from __future__ import annotations

import pytest

from dynamo_planner.demo.comparison import Outcome, Simulation
from dynamo_planner.demo.record import Recording
from dynamo_planner.demo.scenario import generated
from dynamo_planner.demo.simulated import simulated_stage
from dynamo_planner.demo.summary import measured_outcome, summarize, summary_text


@pytest.mark.slow
@pytest.mark.parametrize("disaggregated", [False, True])
def test_sla_policy_keeps_its_promise_and_costs_less_than_the_constant_of_the_peak(disaggregated: bool) -> None:
    scenario = generated(0)
    stage = simulated_stage(scenario.requests, 6, disaggregated=disaggregated)
    sla, load, mean, peak = Simulation(stage, scenario.length_s).outcomes()
    assert sla.attainment >= 0.99 > max(load.attainment, mean.attainment)
    assert peak.attainment >= 0.99
    assert sla.worker_s <= 0.92 * peak.worker_s


def test_the_table_says_what_was_measured_and_what_was_simulated(short_run: Recording) -> None:
    measured = measured_outcome("sla", short_run, length_s=20.0)
    # prefill: 1 for 6 s, 2 for 9 s, 2 for 5 s; decode: 1 for 20 s
    assert measured.worker_s == 6 + 2 * 3 + 2 * 6 + 2 * 5 + 20
    assert measured.attainment == 36 / 40  # three are too late, and one is lost
    other = Outcome(policy="2 workers all along", attainment=0.25, worker_s=180)
    text = summary_text(summarize(short_run, outcomes=(measured, other)))
    assert text.splitlines()[-2:] == [
        "sla, measured                     90.0%              54",
        "2 workers all along, simulated    25.0%             180",
    ]
