"""Workers that end, by themselves or when asked to, and those that would rather not."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dynamo_planner import Outcome, ScaleTo
from dynamo_planner.executors import ExecutorError
from dynamo_planner.executors.circus.processes import identify

if TYPE_CHECKING:
    from dynamo_planner.executors.circus import CircusExecutor
    from tests.support.circus.place import Place


def apply(executor: CircusExecutor, replicas: int) -> Outcome:
    (outcome,) = executor.apply([ScaleTo(pool="decode", replicas=replicas)])
    return outcome


def test_one_that_ignores_sigterm_is_killed_after_its_graceful_timeout(place: Place) -> None:
    pool = place.pool(gpus=1, ignore_term=1, graceful_timeout_s=1.0)
    with place.executor(pools={"decode": pool}, gpus=[0]) as executor:
        place.settled(executor, decode=1)
        began = time.monotonic()
        assert apply(executor, 0).status == "applied"
        assert time.monotonic() - began < 0.8, "a scale-down waits for no drain"
        assert executor.observe()["decode"] == place.replicas(ready=0, draining=1)
        place.settled(executor, decode=0)
        assert time.monotonic() - began >= 1.0


@pytest.mark.parametrize("how", ["child", "daemon"])
def test_children_that_outlive_their_worker_hold_its_gpu_until_they_are_gone_too(place: Place, how: str) -> None:
    pool = place.pool(gpus=1, **{how: 1})
    with place.executor(pools={"decode": pool}, gpus=[0]) as executor:
        place.settled(executor, decode=1)
        assert len(place.processes()) == 3, "circusd, the worker and its child"
        worker = executor.workers()[0].pid
        assert apply(executor, 0).status == "applied"
        place.until(lambda: worker not in place.processes())
        assert apply(executor, 1).status == "failed" or len(place.processes()) == 2
        place.settled(executor, decode=0)
        assert list(place.processes()) == [place.arbiter_pid()]


@pytest.mark.parametrize("end", ["drained", "killed"])
def test_a_child_that_left_the_session_and_its_environment_ends_with_its_worker(place: Place, end: str) -> None:
    with place.executor(pools={"decode": place.pool(gpus=1, stranger=1, restart_backoff_s=60)}, gpus=[0]) as executor:
        place.settled(executor, decode=1)
        (info,) = executor.workers()
        stranger = int(Path(info.log).read_text().split("stranger ")[1].split()[0])
        if end == "killed":
            os.kill(info.pid or 0, signal.SIGKILL)
            place.until(lambda: executor.observe()["decode"] == place.replicas(ready=0, failed=1))
        assert apply(executor, 0).status == "applied"
        place.until(lambda: executor.observe()["decode"] == place.replicas(ready=0))
        place.until(lambda: identify(stranger) is None)


def test_one_that_dies_at_once_is_a_failed_outcome_with_its_last_words(place: Place) -> None:
    last_words = ("python3", "-c", "import sys; sys.exit('no weights at /models/{pool}')")
    pool = place.pool(replicas=0, command=last_words, health=None, restart_backoff_s=60)
    with place.executor(pools={"decode": pool}) as executor:
        outcome = apply(executor, 1)
        assert outcome.status == "failed"
        assert "ended before it was ready" in outcome.message
        assert "no weights at /models/decode" in outcome.message
        assert executor.observe()["decode"] == place.replicas(ready=0, failed=1)
        assert "no weights" in executor.workers()[0].message
        assert apply(executor, 0).status == "applied"
        place.settled(executor, decode=0)


def test_one_that_keeps_crashing_is_started_again_ever_more_seldom(place: Place) -> None:
    now = [0.0]
    pool = place.pool(die_after_s=0.0, restart_backoff_s=10, restart_backoff_max_s=35)
    with place.executor(
        pools={"decode": pool, "other": place.pool()}, clock=lambda: now[0], steady=lambda: now[0]
    ) as executor:

        def is_failed() -> bool:
            return executor.observe()["decode"] == place.replicas(ready=0, failed=1)

        waits = []
        for _ in range(4):
            place.until(is_failed)
            failed_at_s = now[0]
            while is_failed():
                now[0] += 5
            waits.append(now[0] - failed_at_s)
        assert waits == [10, 20, 35, 35]
        assert apply(executor, 1).status == "unchanged"
        place.settled(executor, other=1)


def test_one_that_crashes_after_a_while_is_replaced(place: Place) -> None:
    with place.executor(pools={"decode": place.pool(replicas=2, gpus=1)}, gpus=[0, 1]) as executor:
        place.settled(executor, decode=2)
        before = executor.workers()
        os.kill(before[0].pid or 0, signal.SIGKILL)
        seen = place.until(lambda: (found := executor.observe()["decode"]) and found.failed == 1 and found)
        assert seen == place.replicas(ready=1, failed=1)
        assert list(executor.endpoints()["decode"]) == [before[1].name]
        place.settled(executor, decode=2)
        after = executor.workers()
        assert [(info.name, info.gpus) for info in after] == [(info.name, info.gpus) for info in before]
        assert (after[0].pid != before[0].pid, after[1].pid) == (True, before[1].pid)


def test_a_crash_is_mended_only_when_its_children_are_gone(place: Place) -> None:
    with place.executor(pools={"decode": place.pool(gpus=1, child=1, daemon=1)}, gpus=[0]) as executor:
        place.settled(executor, decode=1)
        worker = executor.workers()[0].pid or 0
        children = set(place.processes()) - {worker, place.arbiter_pid()}
        assert len(children) == 2
        os.kill(worker, signal.SIGKILL)
        place.until(lambda: executor.observe()["decode"] == place.replicas(ready=0, failed=1))
        place.settled(executor, decode=1)
        assert children.isdisjoint(place.processes())


def test_one_that_hangs_in_start_up_is_killed_and_started_again(place: Place) -> None:
    now = [0.0]
    pool = place.pool(hang=1, startup_timeout_s=60, ignore_term=1)
    with place.executor(pools={"decode": pool}, clock=lambda: now[0], steady=lambda: now[0]) as executor:
        pid = executor.workers()[0].pid
        now[0] = 59.0
        assert executor.observe()["decode"] == place.replicas(ready=0, starting=1, starting_since_s=(0.0,))
        now[0] = 60.0
        assert executor.observe()["decode"] == place.replicas(ready=0, failed=1)
        assert executor.workers()[0].message.startswith("not ready within startup_timeout_s (60 s)")
        now[0] = 61.0
        place.until(lambda: (found := executor.observe()["decode"]) and found.starting == 1)
        assert executor.workers()[0].pid != pid
        executor.apply([ScaleTo(pool="decode", replicas=0)])
        now[0] = 999.0


@pytest.mark.parametrize(
    "command", [("no-such-program", "{port}"), ("./no-such-file", "{port}"), ("/etc/passwd", "{port}")]
)
def test_a_command_that_does_not_exist_is_refused_before_anything_starts(
    place: Place, command: tuple[str, ...]
) -> None:
    executor = place.executor(pools={"good": place.pool(), "bad": place.pool(command=command)})
    with pytest.raises(ExecutorError, match=rf"pools.bad.command: there is no program '{command[0]}'"):
        executor.start()
    assert place.processes() == {}
    assert not place.file.exists()


def test_a_command_that_goes_away_is_a_failed_outcome(place: Place) -> None:
    program = place.tmp / "worker"
    program.symlink_to("/bin/sleep")
    pool = place.pool(command=(str(program), "600"), health=None, ready_after_s=0)
    with place.executor(pools={"decode": pool}) as executor:
        place.settled(executor, decode=1)
        running = Path(f"/proc/{executor.workers()[0].pid}/exe")
        place.until(lambda: running.resolve().samefile("/bin/sleep"))
        program.unlink()
        outcome = apply(executor, 2)
        assert (outcome.status, f"no program '{program}'" in outcome.message) == ("failed", True)
        assert executor.observe()["decode"] == place.replicas(ready=1)


def test_logs_stay_within_their_size_and_the_worker_goes_on(place: Place) -> None:
    with place.executor(pools={"decode": place.pool(spam=2000, log_max_bytes=20_000)}) as executor:
        log = executor.workers()[0].log

        def sizes() -> list[int]:
            executor.observe()
            return [path.stat().st_size for path in sorted(log.parent.glob(f"{log.name}*"))]

        place.until(lambda: len(sizes()) == 3)
        for _ in range(5):
            found = sizes()
            assert max(found[1:]) <= 20_000
            assert found[0] < 100_000, "it begins anew at every housekeeping"
            time.sleep(0.05)
        place.settled(executor, decode=1)
        assert {path.stat().st_mode & 0o777 for path in log.parent.iterdir()} == {0o600}
