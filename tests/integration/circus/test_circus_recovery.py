"""Whatever is killed when: the next start ends with exactly the wanted workers, and nothing else."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest

from dynamo_planner import ScaleTo
from dynamo_planner.executors import ExecutorError
from tests.support.circus.crash import POINTS
from tests.support.circus.recovery import ALLOWED, GPUS, check_is_whole, pools_of, run_planner

if TYPE_CHECKING:
    from tests.support.circus.place import Place


def killed_planner(place: Place, steps: Any) -> list[Any]:
    """Run a planner through the steps, kill it in the last of them, and return what it had said."""
    planner = run_planner(place, steps)
    assert planner.stdout is not None
    said = [json.loads(planner.stdout.readline()) for _ in steps]
    if steps[-1] == "stay":
        time.sleep(0.1)
    planner.kill()
    planner.communicate()
    return said


@pytest.mark.parametrize("passed", [1, 4])
@pytest.mark.parametrize("where", POINTS)
def test_after_a_kill_of_the_planner_at_any_point(place: Place, where: str, passed: int) -> None:
    planner = run_planner(place, crash_at=f"{where}:{passed}")
    said, _ = planner.communicate(timeout=60)
    last = json.loads(said.splitlines()[-1])
    assert planner.returncode == -signal.SIGKILL
    with place.executor(pools=pools_of(place), gpus=GPUS) as executor:
        assert check_is_whole(place, executor) in ALLOWED[last if isinstance(last, str) else json.dumps(last)]
    assert place.processes() == {}
    assert not place.file.exists()


def test_living_workers_are_taken_over_as_they_are(place: Place) -> None:
    killed_planner(place, ["start", {"decode": 2}, "stay"])
    before, arbiter = place.worker_pids(), place.arbiter_pid()
    with place.executor(pools=pools_of(place), gpus=GPUS) as executor:
        assert executor.observe()["decode"] == place.replicas(ready=2)
        assert (place.worker_pids(), place.arbiter_pid()) == (before, arbiter)
        assert executor.apply([ScaleTo(pool="decode", replicas=1, expected=2)])[0].status == "applied"
        assert check_is_whole(place, executor) == {"decode": 1, "prefill": 1}


def test_after_a_kill_of_planner_and_arbiter_the_workers_are_still_the_wanted_ones(place: Place) -> None:
    killed_planner(place, ["start", {"decode": 3}, "stay"])
    os.kill(place.arbiter_pid(), signal.SIGKILL)
    victim, *others = place.worker_pids()
    os.kill(victim, signal.SIGKILL)
    with place.executor(pools=pools_of(place), gpus=GPUS) as executor:
        assert check_is_whole(place, executor) == {"decode": 3, "prefill": 1}
        assert set(others) < set(place.worker_pids())
        executor.apply([ScaleTo(pool="decode", replicas=1)])
        assert check_is_whole(place, executor) == {"decode": 1, "prefill": 1}


def test_a_drain_that_was_begun_goes_on_and_ends_at_its_time(place: Place) -> None:
    pools = {"decode": place.pool(replicas=0, ignore_term=1, graceful_timeout_s=2.0)}
    executor = place.executor(pools=pools).start()
    executor.apply([ScaleTo(pool="decode", replicas=1)])
    place.settled(executor, decode=1)
    began = time.monotonic()
    executor.apply([ScaleTo(pool="decode", replicas=0)])
    executor.detach()
    with place.executor(pools=pools) as executor:
        assert executor.observe()["decode"] == place.replicas(ready=0, draining=1)
        place.settled(executor, decode=0)
        assert 1.5 < time.monotonic() - began < 5.0


def test_after_a_kill_of_the_arbiter_workers_live_on_and_scaling_goes_on(place: Place) -> None:
    with place.executor(pools={"decode": place.pool(replicas=2, spam=50)}) as executor:
        place.settled(executor, decode=2)
        first, before = place.arbiter_pid(), place.worker_pids()
        os.kill(first, signal.SIGKILL)
        size = executor.workers()[0].log.stat().st_size
        place.until(lambda: executor.workers()[0].log.stat().st_size > size + 1000)
        assert executor.observe()["decode"] == place.replicas(ready=2)
        up = executor.apply([ScaleTo(pool="decode", replicas=3)])[0]
        assert up.status == "applied"
        place.settled(executor, decode=3)
        assert set(before) < set(place.worker_pids())
        assert place.arbiter_pid() != first
        executor.apply([ScaleTo(pool="decode", replicas=0)])
        place.settled(executor, decode=0)
        assert list(place.processes()) == [place.arbiter_pid()]


def test_a_record_whose_pid_has_another_process_by_now_is_not_believed(place: Place) -> None:
    executor = place.executor(pools={"decode": place.pool(replicas=2)}).start()
    place.settled(executor, decode=2)
    executor.detach()
    stranger = subprocess.Popen(["sleep", "100"])
    content = json.loads(place.file.read_text())
    victim = content["workers"][0]["process"]["pid"]
    content["workers"][0]["process"]["pid"] = stranger.pid
    content["workers"][1]["process"]["boot_id"] = "a boot long ago"
    place.file.write_text(json.dumps(content))
    for pid in place.worker_pids():
        os.kill(pid, signal.SIGKILL)
    try:
        with place.executor(pools={"decode": place.pool(replicas=2)}) as executor:
            place.settled(executor, decode=2)
            assert victim not in place.worker_pids()
        assert stranger.poll() is None, "a stranger was signalled"
    finally:
        stranger.kill()
        stranger.wait()


def test_workers_of_a_pool_that_is_gone_are_drained_and_minimums_are_kept(place: Place) -> None:
    executor = place.executor(pools=pools_of(place), gpus=GPUS).start()
    place.settled(executor, decode=1, prefill=1)
    executor.detach()
    with place.executor(pools={"decode": place.pool(replicas=2, gpus=2)}, gpus=GPUS) as executor:
        place.settled(executor, decode=2)
        place.until(lambda: executor.observe() and len(executor.workers()) == 2)
        assert {info.pool for info in executor.workers()} == {"decode"}
    with place.executor(pools={}) as executor:
        assert executor.workers() == ()


def test_an_arbiter_that_hangs_is_replaced_at_the_start(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dynamo_planner.executors.circus.arbiter.STARTS_WITHIN_S", 1.5)
    executor = place.executor(pools={"decode": place.pool()}).start()
    place.settled(executor, decode=1)
    executor.detach()
    hanging, before = place.arbiter_pid(), place.worker_pids()
    os.kill(hanging, signal.SIGSTOP)
    with place.executor(pools={"decode": place.pool()}) as executor:
        assert executor.observe()["decode"] == place.replicas(ready=1)
        assert (place.arbiter_pid() != hanging, place.worker_pids()) == (True, before)


def test_a_start_that_fails_leaves_nothing_behind(place: Place) -> None:
    pools = {"decode": place.pool(), "prefill": place.pool(gpus=1)}
    with place.executor("-other", pools={"all": place.pool(gpus=2)}, gpus=[0, 1]) as other:
        executor = place.executor(pools=pools, gpus=[0, 1])
        with pytest.raises(ExecutorError, match="no GPU is free for 1 of 1 new replicas"):
            executor.start()
        assert not place.file.exists()
        assert len(place.worker_pids()) == len(other.workers())
