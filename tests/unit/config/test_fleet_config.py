"""Several models in one configuration: what is refused, what runs, and what a reload changes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from typer.testing import CliRunner

from dynamo_planner.cli.app import app
from dynamo_planner.config import ConfigError
from dynamo_planner.config.fleet import fleet_config
from dynamo_planner.config.fleet_service import running_fleet
from dynamo_planner.runtime import read_log

WORKERS = {"workers": {"role": "aggregated", "gpus": 2}}


def model(replicas: int, **more: Any) -> dict[str, Any]:
    return {
        "policy": {"kind": "static", "replicas": {"workers": replicas}},
        "executor": {"kind": "dry_run", "pools": WORKERS},
        **more,
    }


def written(path: Path, total: float = 12, **models: Any) -> Path:
    data = {"models": models, "budgets": {"gpu": {"total": total}}, "log": str(path.parent / "log.jsonl")}
    path.write_text(json.dumps(data))
    os.utime(path, ns=(1, path.stat().st_mtime_ns + 1))
    return path


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return written(tmp_path / "fleet.json", chat=model(5, priority=1), batch=model(4, floor={"gpu": 4}))


def test_models_share_a_budget_and_a_log(config: Path) -> None:
    """Of 6 replicas batch's floor is 2, and chat has the other 4 of the 5 that it wants."""
    result = CliRunner().invoke(app, ["run", str(config), "--once"])
    assert "chat:\n  workers: 1 -> 4 replicas" in result.output
    steps = list(read_log(config.parent / "log.jsonl"))
    assert {step.name: dict(step.decision.targets) for step in steps} == {
        "chat": {"workers": 4},
        "batch": {"workers": 2},
    }


def test_a_reload_adds_and_removes_models_and_leaves_the_others(config: Path) -> None:
    data = json.loads(config.read_text())
    with running_fleet(config, fleet_config(data, config), always_advisory=False) as service:
        chat = service.planner.planners["chat"]
        written(config, chat=model(5, priority=1), extra=model(3))
        service.reload()
        assert set(service.planner.planners) == {"chat", "extra"}
        assert service.planner.planners["chat"] is chat
        written(config, chat={**model(5), "executor": {"kind": "dry_run", "pools": {}}}, extra=model(3))
        service.reload()  # refused: another executor takes a restart
        written(config, total=2, chat=model(5, floor={"gpu": 8}))
        service.reload()  # refused: the floor does not fit
        assert set(service.planner.step()) == {"chat", "extra"}


@pytest.mark.parametrize(
    ("models", "problem"),
    [
        ({"chat": model(1, gpus="h100")}, "no budget 'h100'"),
        ({"chat": model(1, priorty=1)}, "models.chat.priorty: unknown field, did you mean 'priority'?"),
        (
            {"chat": {**model(1), "policy": {"kind": "static", "replicas": {"decode": 1}}}},
            "models.chat.policy.replicas: 'decode' is not a pool; there are workers",
        ),
    ],
)
def test_what_is_wrong_is_named(config: Path, models: dict[str, Any], problem: str) -> None:
    data = json.loads(written(config, **models).read_text())
    with pytest.raises(ConfigError, match=problem.replace("?", "[?]")):
        fleet_config(data, config)
    assert problem in CliRunner().invoke(app, ["validate", str(config)]).output


def test_the_schema_describes_what_is_accepted_and_overrides_are_checked(config: Path) -> None:
    printed = CliRunner().invoke(app, ["schema", "fleet"]).output
    accepts = jsonschema.Draft202012Validator(json.loads(printed)).is_valid
    data = json.loads(config.read_text())
    assert accepts(data)
    assert not accepts({**data, "models": {"chat": model(1, priorty=1)}})
    overrides = config.parent / "pins.json"
    pin = {"pool": "decode", "replicas": 1, "until_s": "2030-01-01T00:00:00Z", "reason": "a test"}
    overrides.write_text(json.dumps({"pins": [pin]}))
    written(config, chat=model(1, overrides=str(overrides)))
    assert "'decode' is not a pool" in CliRunner().invoke(app, ["validate", str(config)]).output
