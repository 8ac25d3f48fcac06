"""Reloading a configuration between two steps."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import model_validator

from dynamo_planner import LoadPolicy, Policy, Proposal, Snapshot
from dynamo_planner.config.assemble import Service, running_service
from dynamo_planner.config.reload import Reloader
from dynamo_planner.config.run import load_config

CONFIG = """
allow_custom_kinds: true
policy: {{kind: load, decode_kv_up: {level}}}
executor: {{kind: dry_run, pools: {{workers: {{role: aggregated}}}}}}
source: {{workers: {{workers: {{w0: "http://127.0.0.1:9"}}}}}}
"""


class Faulty(Policy, kind="faulty"):
    """A policy whose own code has a fault."""

    @model_validator(mode="after")
    def _fault(self) -> Faulty:
        raise TypeError("a fault")

    def propose(self, snapshot: Snapshot, state: Any) -> tuple[Proposal, Any]:
        return Proposal(), state


def publish(directory: Path, level: float) -> None:
    """Publish a version as a ConfigMap is: in a directory of its own, to which a link is swapped at once."""
    version = directory / f"..{level}"
    version.mkdir()
    (version / "planner.yaml").write_text(CONFIG.format(level=level))
    fresh = directory / "..fresh"
    fresh.symlink_to(version.name)
    fresh.replace(directory / "..data")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    publish(tmp_path, 0.7)
    (tmp_path / "planner.yaml").symlink_to("..data/planner.yaml")
    return tmp_path / "planner.yaml"


@pytest.fixture
def service(path: Path) -> Iterator[Service]:
    with running_service(load_config(path)) as service:
        yield service


@pytest.fixture
def reloader(path: Path, service: Service) -> Reloader:
    return Reloader(path, load_config(path), service, always_advisory=False)


def level(service: Service) -> float | None:
    policy = service.planner.policy
    assert isinstance(policy, LoadPolicy)
    return policy.decode_kv_up


def test_the_swap_of_a_config_map_is_noticed(path: Path, service: Service, reloader: Reloader) -> None:
    reloader.poll()
    assert level(service) == 0.7
    publish(path.parent, 0.9)
    reloader.poll()
    assert level(service) == 0.9


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("kind: load, decode_kv_up: 0.7", "kind: lod", "policy.kind: 'lod' is no kind of policy"),
        ("kind: load, decode_kv_up: 0.7", "kind: faulty", "TypeError: a fault"),
        ("role: aggregated", "role: decode", "executor: takes a restart to change"),
    ],
)
def test_the_last_good_one_stays(
    old: str,
    new: str,
    message: str,
    path: Path,
    service: Service,
    reloader: Reloader,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path.write_text(path.read_text().replace(old, new))
    with caplog.at_level(logging.ERROR):
        reloader.poll()
        reloader.poll()
    assert caplog.text.count("config not reloaded, the last good one stays") == 1
    assert message in caplog.text
    assert level(service) == 0.7
