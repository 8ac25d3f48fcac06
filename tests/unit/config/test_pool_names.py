"""Names of pools are checked, keys are not repeated, and the effective configuration can be shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from dynamo_planner import ConfigError
from dynamo_planner.config.effective import effective_config
from dynamo_planner.config.remarks import remarks
from dynamo_planner.config.run import load_config

CONFIG = """\
policy:
  - {kind: highest, policies: [{kind: schedule, plan: {decode: [[0, 2]]}}, [{kind: load}]]}
  - {kind: override, pauses: [{pools: [decode], until_s: 2030-01-01T00:00:00Z, reason: look}]}
  - {kind: bounds, pools: {decode: {min_replicas: 1}}}
executor: {kind: dry_run, pools: {decode: {role: decode}}, replicas: {decode: 2}}
source:
  workers: {decode: {w0: "http://127.0.0.1:9"}}
"""


def written(directory: Path, text: str) -> Path:
    path = directory / "planner.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("old", "new", "where"),
    [
        ("plan: {decode:", "plan: {decod:", "policy[0].policies[0].plan"),
        ("pools: [decode]", "pools: [decod]", "policy[1].pauses[0].pools"),
        ("bounds, pools: {decode:", "bounds, pools: {decod:", "policy[2].pools"),
        ("replicas: {decode: 2}", "replicas: {decod: 2}", "executor.replicas"),
        ("workers: {decode:", "workers: {decod:", "source.workers"),
    ],
)
def test_a_name_that_is_no_pool_is_refused_with_the_nearest_one(tmp_path: Path, old: str, new: str, where: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_config(written(tmp_path, CONFIG.replace(old, new)))
    (problem,) = error.value.problems
    assert (
        problem == f"{tmp_path}/planner.yaml: {where}: 'decod' is not a pool, did you mean 'decode'? there are decode"
    )


def test_a_repeated_key_is_refused_and_a_merged_one_may_be_overridden(tmp_path: Path) -> None:
    twice = CONFIG.replace(
        "pools: {decode: {role: decode}}", "pools: {decode: {role: decode}, decode: {role: prefill}}"
    )
    with pytest.raises(ConfigError, match=r"line 5: the key 'decode' is given already in line 5"):
        load_config(written(tmp_path, twice))
    merged = CONFIG.replace("{role: decode}", "{<<: {role: prefill, gpus: 2}, role: decode}")
    assert load_config(written(tmp_path, merged)).executor.specs["decode"].gpus == 2
    (tmp_path / "planner.json").write_text('{"policy": {"kind": "load"}, "policy": {"kind": "static"}}')
    with pytest.raises(ConfigError, match="the key 'policy' is given 2 times"):
        load_config(tmp_path / "planner.json")


def test_a_budget_below_the_minimums_is_worth_a_remark(tmp_path: Path) -> None:
    """A minimum of 2 replicas of 4 GPUs each needs 8."""
    text = CONFIG.replace("decode: {role: decode}", "decode: {role: decode, gpus: 4, min_replicas: 2}")
    path = written(tmp_path, text.replace("executor:", "  - {kind: gpu_budget, max_gpus: 7}\nexecutor:"))
    (remark,) = remarks(load_config(path))
    assert "need 8 GPUs, and 'gpu_budget' allows 7" in remark
    assert not list(remarks(load_config(written(tmp_path, path.read_text().replace("max_gpus: 7", "max_gpus: 8")))))


def test_the_effective_configuration_reads_back_and_says_where_each_value_comes_from(tmp_path: Path) -> None:
    path = written(tmp_path, CONFIG)
    text = effective_config(path)
    origins = {line.split(":")[0].strip(): line.split("  # ")[1] for line in text.splitlines() if "  # " in line}
    assert origins["interval_s"] == "default"
    assert origins["w0"] == "planner.yaml:7"
    assert load_config(path) == load_config(written(tmp_path, text))
