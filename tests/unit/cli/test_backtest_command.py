"""The command `backtest`, from the files of a user to the page of HTML."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dynamo_planner import Snapshot, Traffic
from dynamo_planner.cli.app import app
from dynamo_planner.workloads.generators import poisson

PROFILE = "llama31-8b_h100_vllm_tp1"
RUNNER = CliRunner()


@pytest.fixture
def files(tmp_path: Path) -> Path:
    poisson(4, 60, seed=1).save(tmp_path / "trace.npz")
    (tmp_path / "static.json").write_text('{"kind": "static", "replicas": {"prefill": 1, "decode": 1, "workers": 1}}')
    (tmp_path / "load.json").write_text('{"kind": "load", "adjustment_interval_s": 30}')
    return tmp_path


@pytest.mark.slow
def test_policies_are_compared_and_reported(files: Path) -> None:
    arguments = ["backtest", "--profile", PROFILE, "--trace", str(files / "trace.npz"), "--processes", "1"]
    arguments += ["--policy", str(files / "static.json"), "--policy", str(files / "load.json"), "--oracle", "1"]
    result = RUNNER.invoke(app, [*arguments, "--report", str(files / "out.html")])
    assert result.exit_code == 0, result.output
    assert "| static" in result.output and "| load" in result.output and "bound: 0.0" in result.output
    assert "<svg" in (files / "out.html").read_text()


@pytest.mark.slow
def test_a_history_is_a_trace_too(files: Path) -> None:
    seen = [Snapshot(at_s=30 * n, traffic=Traffic(requests_per_s=3, isl=500, osl=50)) for n in range(4)]
    (files / "history.jsonl").write_text("".join(snapshot.model_dump_json() + "\n" for snapshot in seen))
    arguments = ["backtest", "-r", PROFILE, "--history", str(files / "history.jsonl"), "-p", str(files / "static.json")]
    result = RUNNER.invoke(app, [*arguments, "--mode", "aggregated", "--workers", "1", "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["scores"]["static"]["requests"] == 270


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-r", PROFILE], "give one of the two"),
        (
            ["-r", "no-such-profile", "--trace", "trace.npz"],
            "--profile: no-such-profile: there is no such file",
        ),
        (["-r", PROFILE, "--trace", "missing.npz"], "missing.npz"),
        (["-r", PROFILE, "--trace", "trace.npz", "--from-s", "1000"], "no request from 1000"),
        (["-r", PROFILE, "--trace", "trace.npz", "--trace-format", "azure"], "trace.npz: not an Azure CSV"),
        (["-r", PROFILE, "--trace", "trace.npz", "--trace-format", "x:Y"], "a kind of your own, which is not allowed"),
    ],
)
def test_what_is_wrong_is_told(
    files: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(files)
    result = RUNNER.invoke(app, ["backtest", "-p", "static.json", *arguments])
    assert result.exit_code != 0
    assert message in result.output
