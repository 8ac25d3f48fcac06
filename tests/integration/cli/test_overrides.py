"""Overrides in a file of their own, the page, and the gauge: ``dynamo-planner run`` as it runs in a pod."""

from __future__ import annotations

import json
import signal
import socket
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from dynamo_planner import Bounds, GpuBudget, LoadPolicy, Override, StepLimit
from dynamo_planner.config.overrides import load_overrides, with_overrides
from dynamo_planner.config.problems import ConfigError
from dynamo_planner.core.policy import Guarded
from dynamo_planner.guards.override import Floor, Pin
from tests.support.cli import running, until

LATER = "2100-01-01T00:00:00Z"
LATER_S = 4_102_444_800.0


def written(directory: Path, text: str) -> Path:
    file = directory / "overrides.yaml"
    file.write_text(text)
    return file


def test_a_file_has_the_fields_of_the_guard_and_dates_as_people_write_them(tmp_path: Path) -> None:
    floor = f"floors: [{{pool: decode, replicas: 6, until_s: {LATER}, reason: launch}}]"
    floors = (Floor(pool="decode", replicas=6, until_s=LATER_S, reason="launch"),)
    assert load_overrides(written(tmp_path, floor), ["decode"]) == Override(floors=floors)
    assert load_overrides(written(tmp_path, ""), ["decode"]) == Override()
    (tmp_path / "overrides.json").write_text(json.dumps({"pauses": [{"until_s": LATER, "reason": "look"}]}))
    assert load_overrides(tmp_path / "overrides.json", []).pauses[0].until_s == LATER_S


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            f"pins: [{{pool: dec, replicas: 1, until_s: {LATER}, reason: x}}]",
            "pins[0].pool: 'dec' is not a pool, did you mean 'decode'? there are decode",
        ),
        (
            f"pauses: [{{pools: [pre], until_s: {LATER}, reason: x}}]",
            "pauses[0].pools: 'pre' is not a pool; there are decode",
        ),
        ("pins: [{pool: decode, replicas: 1, until_s: 5}]", "pins[0].reason: Field required"),
        ("pin: []", "pin: unknown field, did you mean 'pins'? allowed: floors, name, pauses, pins"),
        ("pins: [{pool: decode, replicas: 1, until_s: 2100-01-01 00:00:00, reason: x}]", "has no time zone"),
        ("pins: [{pool: decode, replicas: 1, until_s: tomorrow, reason: x}]", "is no date and time"),
        ("pins: [", "not YAML"),
        ("- decode", "Input should be"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_overrides(written(tmp_path, text), ["decode"])
    assert problem in str(error.value)
    assert "overrides.yaml: " in str(error.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.yaml: cannot be read: No such file"):
        load_overrides(tmp_path / "gone.yaml", ["decode"])


def test_hard_guards_keep_the_last_word() -> None:
    pinned = Override(pins=(Pin(pool="decode", replicas=3, until_s=LATER_S, reason="x"),))
    for policy in (
        LoadPolicy(),
        LoadPolicy() | StepLimit(up_replicas=1),
        LoadPolicy() | Bounds(),
        LoadPolicy() | StepLimit(up_replicas=1) | Bounds(),
        Guarded(policy=LoadPolicy() | StepLimit(up_replicas=1) | Bounds(), guards=(GpuBudget(max_gpus=4),)),
    ):
        overridden = Guarded.model_validate(with_overrides(policy, pinned).model_copy().__dict__)
        ranks = [guard.rank for guard in _guards(overridden)]
        kinds = [guard.kind for guard in _guards(overridden) if guard.rank == 0]
        assert ranks == sorted(ranks)
        assert kinds[-1] == "override"
    assert with_overrides(LoadPolicy(), None) == LoadPolicy()


def _guards(policy: Any) -> tuple[Any, ...]:
    return (*_guards(policy.policy), *policy.guards) if isinstance(policy, Guarded) else ()


class Mount:
    """A directory that is mounted from a ConfigMap: names lead through ``..data``, which is swapped at once."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.version = 0

    def put(self, **files: str) -> None:
        self.version += 1
        version = self.directory / f"..{self.version}"
        version.mkdir(parents=True)
        for name, text in files.items():
            (version / f"{name}.yaml").write_text(text)
        fresh = self.directory / "..data_tmp"
        fresh.symlink_to(version.name)
        fresh.replace(self.directory / "..data")
        for name in files:
            link = self.directory / f"{name}.yaml"
            if not link.is_symlink():
                link.symlink_to(f"..data/{name}.yaml")


class Page:
    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def status(self, path: str) -> int | None:
        try:
            with urllib.request.urlopen(self.url + path, timeout=5) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return None

    def value(self, sample: str) -> float | None:
        with urllib.request.urlopen(self.url + "/metrics", timeout=5) as answer:
            lines = [line.rpartition(" ") for line in answer.read().decode().splitlines()]
        return next((float(value) for name, _, value in lines if name == sample), None)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


WANTED = 'dynamo_planner_desired_replicas{namespace="llm",pool="workers",target="llama"}'
OVERRIDES_GOOD = 'dynamo_planner_reload_successful{file="overrides"}'


def planner_yaml(directory: Path, port: int) -> str:
    workers = {"role": "aggregated", "max_replicas": 8}
    there = {"kind": "dry_run", "pools": {"workers": workers}, "replicas": {"workers": 2}}
    return json.dumps(
        {
            "policy": [{"kind": "load", "adjustment_interval_s": 3600}, {"kind": "bounds"}],
            "executor": {"kind": "gauge", "namespace": "llm", "target": "llama", "observes": there},
            "source": {"workers": {"workers": {}}},
            "interval_s": 0.2,
            "overrides": str(directory / "overrides.yaml"),
            "monitoring": {"port": port},
        }
    )


def test_overrides_change_with_their_config_map_and_bad_ones_leave_the_last_good(tmp_path: Path) -> None:
    port = free_port()
    page, mount = Page(port), Mount(tmp_path / "mounted")
    config = planner_yaml(mount.directory, port)
    mount.put(planner=config, overrides="")

    def put(overrides: str) -> None:
        mount.put(planner=config, overrides=overrides)

    with running(mount.directory / "planner.yaml") as process:
        until(lambda: page.status("/readyz") == 200, "ready")
        assert page.value(WANTED) == 2
        put(f"pins: [{{pool: workers, replicas: 5, until_s: {LATER}, reason: a launch}}]")
        until(lambda: page.value(WANTED) == 5, "the pin")
        put(f"pins: [{{pool: worker, replicas: 7, until_s: {LATER}, reason: a slip}}]")
        until(lambda: page.value(OVERRIDES_GOOD) == 0, "the refusal")
        time.sleep(0.5)
        assert page.value(WANTED) == 5
        put(f"floors: [{{pool: workers, replicas: 20, until_s: {LATER}, reason: more than there may be}}]")
        until(lambda: page.value(WANTED) == 8, "the floor, within the bounds")
        assert page.value(OVERRIDES_GOOD) == 1
        assert page.value('dynamo_planner_reload_successful{file="config"}') == 1
        assert page.status("/healthz") == 200
        process.send_signal(signal.SIGTERM)
        _, told = process.communicate(timeout=30)
    assert process.returncode == 0, told
    assert told.count("overrides not reloaded, the last good one stays") == 1
    assert "pins[0].pool: 'worker' is not a pool, did you mean 'workers'? there are workers" in told
    assert "config not reloaded" not in told
    assert page.status("/healthz") is None


def test_overrides_that_are_bad_at_the_start_and_a_gauge_that_nobody_could_read_are_wrong_input(tmp_path: Path) -> None:
    config = tmp_path / "planner.json"
    data = json.loads(planner_yaml(tmp_path, 0))
    cases = [
        (data, "overrides.yaml: cannot be read: No such file"),
        ({**data, "monitoring": None}, "read from the page of 'monitoring', which is not there"),
        ({**data, "interval_s": 60}, "executor.valid_s (60) must be longer than interval_s (60)"),
    ]
    for wrong, problem in cases:
        config.write_text(json.dumps(wrong))
        with running(config) as process:
            _, told = process.communicate(timeout=60)
        assert process.returncode == 2
        assert problem in told
        assert "Traceback" not in told
