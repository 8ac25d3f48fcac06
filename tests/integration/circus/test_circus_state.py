"""The state file: private, whole or refused, and what must not get into it."""

from __future__ import annotations

import json
import os
import resource
from typing import TYPE_CHECKING

import pytest

from dynamo_planner import Observation, Planner, ScaleTo, Traffic
from dynamo_planner.executors import ExecutorError
from dynamo_planner.executors.circus.inspection import inspect

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.circus.place import Place


def test_it_is_private_says_how_workers_were_started_and_goes_with_them(place: Place) -> None:
    neighbour = place.state_dir / "other.json"
    with place.executor(pools={"decode": place.pool(replicas=2, gpus=1)}, gpus=[4, 5]) as executor:
        neighbour.write_text("somebody else's")
        place.settled(executor, decode=2)
        assert place.file.stat().st_mode & 0o777 == 0o600
        assert {path.stat().st_mode & 0o777 for path in place.state_dir.rglob("*") if path.is_dir()} == {0o700}
        first, second = json.loads(place.file.read_text())["workers"]
        assert (first["name"], first["gpus"]) == (f"{place.namespace}_decode", [4])
        assert (second["process"]["pid"], second["phase"]) == (executor.workers()[1].pid, "ready")
        assert f"port={second['port']}" in second["command"]
    assert not place.file.exists()
    assert neighbour.read_text() == "somebody else's"


def test_dyn_local_state_dir_is_where_it_is_unless_told_otherwise(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DYN_LOCAL_STATE_DIR", str(tmp_path / "from-environment"))
    with place.executor(pools={"decode": place.pool(replicas=0)}, state_dir=None):
        assert (tmp_path / "from-environment" / f"{place.namespace}.json").exists()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("", "is not a state file: it was cut off or edited"),
        ('{"version": 1, "namesp', "is not a state file: it was cut off or edited"),
        ("[]", "is not a state file"),
        ('{"version": 2}', "has version 2, and this planner reads version 1"),
        ('{"version": 1}', "is not a state file: namespace: Field required"),
        ('{"version": 1, "namespace": "somebody"}', "belongs to the namespace 'somebody'"),
    ],
)
def test_a_file_that_cannot_be_trusted_is_refused_and_kept(place: Place, content: str, why: str) -> None:
    place.state_dir.mkdir(mode=0o700)
    place.file.write_text(content)
    place.file.chmod(0o600)
    with pytest.raises(ExecutorError, match=why) as caught:
        place.executor(pools={"decode": place.pool()}).start()
    assert str(place.file) in str(caught.value)
    assert place.file.read_text() == content
    assert place.processes() == {}


def test_a_file_that_somebody_else_could_have_written_is_refused(place: Place) -> None:
    executor = place.executor(pools={"decode": place.pool()}).start()
    executor.detach()
    place.file.chmod(0o660)
    with pytest.raises(ExecutorError, match=f"can be written by others: chmod go-w {place.file}"):
        executor.start()
    place.file.chmod(0o600)
    if os.geteuid() == 0:
        os.chown(place.file, 12345, -1)
        with pytest.raises(ExecutorError, match=r"belongs to uid 12345, not to you \(uid 0\)"):
            executor.start()
        os.chown(place.file, 0, -1)
    executor.start().close()


def test_a_directory_that_cannot_be_written_is_refused_before_anything_starts(place: Place) -> None:
    with pytest.raises(ExecutorError, match=r"state_dir: /proc/no/state cannot be written .*: make it writable"):
        place.executor(pools={"decode": place.pool()}, state_dir="/proc/no/state").start()
    assert place.processes() == {}


def test_a_full_disk_means_that_nothing_is_begun(place: Place) -> None:
    with place.executor(pools={"decode": place.pool(replicas=2)}) as executor:
        place.settled(executor, decode=2)
        pids, content = place.worker_pids(), place.file.read_text()
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))  # what is written beyond is refused, as on a full disk
        try:
            up, down = (executor.apply([ScaleTo(pool="decode", replicas=count)])[0] for count in (3, 1))
            observed = executor.observe()["decode"]
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        for outcome in (up, down):
            assert outcome.status == "failed"
            assert outcome.message == f"nothing was begun: state file {place.file} cannot be written (File too large)"
        assert observed == place.replicas(ready=2)
        assert place.worker_pids() == pids
        assert place.file.read_text() == content
        assert executor.apply([ScaleTo(pool="decode", replicas=1)])[0].status == "applied"


def test_the_second_planner_of_a_namespace_is_refused_with_the_pid_of_the_first(place: Place) -> None:
    with place.executor(pools={"decode": place.pool()}) as executor:
        second = place.executor(pools={"decode": place.pool()})
        with pytest.raises(ExecutorError, match=rf"has a planner already \(pid {os.getpid()}, .*stop that one first"):
            second.start()
        place.settled(executor, decode=1)
        assert len(place.worker_pids()) == 1


def test_no_secret_of_the_planner_reaches_workers_state_logs_or_the_arbiter(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = {"AWS_SECRET_ACCESS_KEY": "s3cr3t-aws", "HF_TOKEN": "s3cr3t-hf", "CONFIGURED": "s3cr3t-own"}
    for name in ("AWS_SECRET_ACCESS_KEY", "HF_TOKEN"):
        monkeypatch.setenv(name, secrets[name])
    pool = place.pool(inherit_env=("HF_TOKEN",), env={"CONFIGURED": secrets["CONFIGURED"], "ME": "{name} at {port}"})
    with place.executor(pools={"decode": pool}) as executor:
        place.settled(executor, decode=1)
        info = executor.workers()[0]
        pairs = (item.partition("=") for item in place.environ(info.pid or 0))
        environment = {name: value for name, _, value in pairs}
        assert environment["HF_TOKEN"] == secrets["HF_TOKEN"]
        assert environment["CONFIGURED"] == secrets["CONFIGURED"]
        assert environment["ME"] == f"{info.name} at {info.port}"
        allowed = {"PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH"}
        ours = {"HF_TOKEN", "CONFIGURED", "ME", "CUDA_VISIBLE_DEVICES", "DYN_PLANNER_WORKER"}
        assert set(environment) <= allowed | ours
        assert not any("s3cr3t" in item for item in place.environ(place.arbiter_pid()))
        written = [path.read_text() for path in place.state_dir.rglob("*") if path.is_file()]
        assert not any("s3cr3t" in text for text in written)


def test_status_shows_a_state_file_of_the_planner_that_cannot_be_written(place: Place, tmp_path: Path) -> None:
    class Idle:
        def observe(self, at_s: float) -> Observation:
            return Observation(traffic=Traffic(requests_per_s=0))

    kept = tmp_path / "kept" / "policy.json"
    kept.parent.mkdir()
    with place.executor(pools={"decode": place.pool()}) as executor:
        place.settled(executor, decode=1)
        planner = Planner(lambda _: {"decode": 1}, Idle(), executor, state_file=kept)
        planner.step()
        assert inspect(place.namespace, place.state_dir).disagreements == ()
        kept.unlink()
        kept.mkdir()  # a directory in the way
        planner.step()
        (problem,) = inspect(place.namespace, place.state_dir).disagreements
        assert problem.startswith(f"{kept} could not be written")
        kept.rmdir()
        planner.step()
        assert inspect(place.namespace, place.state_dir).disagreements == ()
