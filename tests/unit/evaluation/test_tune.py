"""Tuning: the choice, how sure it is, and the command."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from dynamo_planner import Sla, load_policy
from dynamo_planner.cli.app import app
from dynamo_planner.evaluation.score import Score
from dynamo_planner.evaluation.tuned import Trial, judged
from dynamo_planner.workloads.generators import poisson

SLA = Sla(ttft_ms=1000, itl_ms=50, attainment=0.9)


def trial(name: str, costs: list[float], attained: list[float]) -> Trial:
    counts = dict.fromkeys(("requests", "unfinished", "unattainable", "starts"), 0)
    shares = dict.fromkeys(("ttft_attainment", "itl_attainment", "violation_share", "worst_5_min", "recovery_s"), 1.0)
    unknown = dict.fromkeys(("attainment_possible", "goodput_per_gpu_hour"))
    score = Score.model_validate(
        {**counts, **shares, **unknown, "ttft_ms": {}, "itl_ms": {}, "gpu_hours": sum(costs)}
        | {"attainment": float(np.mean(attained))}
    )
    return Trial(name, name, [{"kind": "sla"}], np.array(costs), np.array(attained), score)


def test_a_saving_in_every_held_out_block_is_taken() -> None:
    tuned = judged(SLA, (trial("default", [10, 10, 20], [1, 1, 1]), trial("bold", [9, 8, 16], [0.95, 1, 0.95])), 3)
    # Whichever block is held out, bold is cheaper on the others: 10, 20 and 20 % are saved, 16.7 +- 3.3 %.
    assert tuned.saving == pytest.approx(0.1667, abs=1e-4) and tuned.error == pytest.approx(0.0333, abs=1e-4)
    assert tuned.recommended.name == "bold" and not tuned.default_is_as_good
    assert tuned.says().startswith("Take bold: on held-out blocks it saves 16.7% ± 3.3%")


def test_a_saving_by_chance_is_not() -> None:
    tuned = judged(SLA, (trial("default", [10, 10, 20], [1, 1, 1]), trial("other", [5, 11, 21], [1, 1, 1])), 3)
    # With the first block held out, the default is cheaper on the others; with another one, it loses 10 and 5 %.
    assert tuned.saving == pytest.approx((0 - 0.1 - 0.05) / 3)
    assert tuned.best == "other" and tuned.default_is_as_good and tuned.recommended.name == "default"
    assert "The default settings are as good" in tuned.says()


def test_what_misses_the_promise_is_not_chosen_for_its_price() -> None:
    tuned = judged(SLA, (trial("default", [10, 10], [1, 1]), trial("late", [1, 1], [0.8, 0.95])), 2)
    assert tuned.best == "default"
    assert tuned.says() == "The default settings are the cheapest that keep the promise: default."


def test_a_default_that_misses_gives_way_to_what_keeps_more() -> None:
    tuned = judged(SLA, (trial("default", [10, 10], [0.5, 0.5]), trial("careful", [12, 12], [1, 1])), 2)
    assert tuned.recommended.name == "careful"


@pytest.mark.slow
def test_the_command_prints_a_table_and_a_policy_that_loads(tmp_path: Path) -> None:
    poisson(4, 120, seed=1).save(tmp_path / "trace.npz")
    arguments = [
        "tune",
        "--profile",
        "llama31-8b_h100_vllm_tp1",
        "--trace",
        str(tmp_path / "trace.npz"),
        "--blocks",
        "2",
    ]
    arguments += ["--fleets", "disaggregated", "--processes", "1", "--picture", str(tmp_path / "pareto.png")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "| disaggregated, default" in result.output and "| disaggregated, a spare replica" in result.output
    text = result.output[result.output.index("policy:") :].split("# picture")[0]
    (tmp_path / "policy.yaml").write_text(yaml.safe_dump(yaml.safe_load(text)["policy"]))
    assert load_policy(tmp_path / "policy.yaml")
    assert (tmp_path / "pareto.png").exists()
