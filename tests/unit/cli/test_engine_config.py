"""An engine that nobody has thought of is a mapping in the configuration; a frontend is a few lines."""

from __future__ import annotations

from pathlib import Path

import pytest

from dynamo_planner.config.assemble import running_service
from dynamo_planner.config.problems import ConfigError
from dynamo_planner.config.run import config_schema, load_config
from dynamo_planner.core.snapshot import Snapshot
from tests.support.sources import engine_pages as pages
from tests.support.sources.farm import Farm, farm

__all__ = ["farm"]

CONFIG = """
policy: {{kind: load}}
executor:
  kind: dry_run
  pools:
    workers: {{role: aggregated}}
source:
  workers:
    workers: {{w0: "{worker}"}}
  engine:
    engine: Acme
    pages: [/acme, /state]
    quantities:
      running: {{kind: gauge, names: acme_busy, where: {{lane: fast}}}}
      waiting: {{kind: gauge, names: [acme_queue, acme_backlog], plus: [acme_parked]}}
      kv_usage:
        kind: ratio
        part: {{names: "/state:cache.used"}}
        whole: {{names: "/state:cache.size"}}
      completions: {{kind: counter, names: acme_done_total}}
      isl:
        - {{kind: histogram, names: acme_prompt_tokens}}
        - {{kind: mean, total: {{names: acme_prompt_tokens_total}}, count: {{names: acme_done_total}}}}
    cannot_tell:
      ttft_ms: Acme has no clock
  model: tiny
  frontend:
    urls: ["{frontend}"]
"""


def snapshots(path: Path, farm: Farm, turns: list[dict[str, str]]) -> list[Snapshot]:
    seen = []
    with running_service(load_config(path)) as service:
        for turn in turns:
            farm.pages = dict(turn)
            seen.append(service.planner.step().snapshot)
    return seen


def acme(busy: float, queue: float, done: float) -> str:
    lanes = "".join(f'acme_busy{{lane="{lane}"}} {busy * times}\n' for lane, times in (("fast", 1), ("slow", 10)))
    return (
        f"{lanes}acme_backlog {queue}\nacme_parked 2\nacme_done_total {done}\nacme_prompt_tokens_total {300 * done}\n"
    )


def test_an_engine_of_ones_own_and_a_frontend(tmp_path: Path, farm: Farm) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(CONFIG.format(worker=farm.url("w0"), frontend=farm.url("front")))
    state = '{"cache": {"used": 30, "size": 120}}'
    (first, second) = snapshots(
        path,
        farm,
        [
            {"w0/acme": acme(1, 0, 5), "w0/state": state, "front": pages.dynamo(10, 5, 3, 0, (0.2,), ())},
            {"w0/acme": acme(4, 3, 9), "w0/state": state, "front": pages.dynamo(30, 9, 12, 1, (0.2, 0.4), ())},
        ],
    )
    pool = second.pools["workers"]
    assert (pool.running, pool.queued, pool.kv_usage, pool.coverage) == (4, 5, 0.25, 1)
    assert pool.traffic is not None
    assert pool.traffic.isl is not None
    assert (pool.traffic.isl.mean, pool.traffic.isl.count) == (300, 4)
    assert second.missing["pools.workers.traffic.ttft_ms"] == "Acme has no clock (w0)"
    assert second.traffic.window_s is not None
    assert second.traffic.requests_per_s == pytest.approx(30 / (second.at_s - first.at_s), rel=0.01)
    assert second.traffic.queued == 2
    assert second.traffic.ttft_ms is not None
    assert second.traffic.ttft_ms.mean == pytest.approx(400)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("kind: counter, names: acme_done_total", "kind: gauge, names: acme_done_total", "a gauge cannot give it"),
        ("names: acme_busy, ", "", "source.*running.*names"),
        ("      running:", "      runing:", r"quantities\.runing: there is no such quantity, did you mean 'running'"),
        ("kind: ratio", "kind: rate", "kv_usage.*: no kind 'rate'; allowed: gauge, counter, histogram"),
        ("kind: counter, names: acme_done_total", "names: x", "completions.*: its kind is missing; allowed: gauge, "),
        ("pages: [/acme, /state]", "pages: [acme]", "source.*pages"),
        ("cannot_tell", "can_not_tell", "can_not_tell"),
        ('urls: ["{frontend}"]', "urls: []", "source.frontend.urls"),
    ],
)
def test_a_wrong_one_is_refused_by_field(old: str, new: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    assert old in CONFIG
    path.write_text(CONFIG.replace(old, new).format(worker="http://127.0.0.1:1", frontend="http://127.0.0.1:2"))
    with pytest.raises(ConfigError, match=message):
        load_config(path)


def test_an_engine_by_name(tmp_path: Path, farm: Farm) -> None:
    path = tmp_path / "run.yaml"
    head, _, _ = CONFIG.partition("  engine:")
    path.write_text(head.format(worker=farm.url("w0")) + "  engine: sglang\n")
    (seen,) = snapshots(path, farm, [{"w0": pages.sglang(3, 2, 0.2, 10, 1000, 1, ())}])
    assert (seen.pools["workers"].running, seen.pools["workers"].queued) == (3, 2)
    path.write_text(head.format(worker=farm.url("w0")) + "  engine: vllm\n")
    (seen,) = snapshots(path, farm, [{"w0": pages.sglang(3, 2, 0.2, 10, 1000, 1, ())}])
    assert seen.pools["workers"].coverage in (0, None)
    assert "none of the metrics of vLLM" in " ".join(seen.missing.values())


def test_the_schema_knows_vocabularies() -> None:
    assert "Vocabulary" in config_schema()["$defs"]
