"""Arbiters that somebody else started, and what they do to those who talk to them."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

from dynamo_planner import ScaleTo
from dynamo_planner.executors import ExecutorError
from dynamo_planner.executors.circus.client import ArbiterSilentError

if TYPE_CHECKING:
    from dynamo_planner.executors.circus import CircusExecutor
    from tests.support.circus.place import Place
    from tests.support.circus.theirs import Theirs


def up(executor: CircusExecutor, replicas: int) -> tuple[str, str]:
    (outcome,) = executor.apply([ScaleTo(pool="decode", replicas=replicas)])
    return outcome.status, outcome.message


def test_what_is_not_ours_stays_as_it_is(place: Place, theirs: Theirs) -> None:
    n = place.namespace
    theirs.add(f"{n}_decode_1", "sleep 600")
    theirs.add("somebody", "sleep 600")
    with place.executor(pools={"decode": place.pool()}, endpoint=theirs.endpoint) as executor:
        assert up(executor, 2)[0] == "applied"
        place.settled(executor, decode=2)
        assert [info.name for info in executor.workers()] == [f"{n}_decode", f"{n}_decode_2"]
        assert up(executor, 1)[0] == "applied"
        place.settled(executor, decode=1)
        assert theirs.client.call("list")["watchers"] == sorted(["somebody", f"{n}_decode", f"{n}_decode_1"])
    assert theirs.client.call("list")["watchers"] == sorted(["somebody", f"{n}_decode_1"])
    assert theirs.process.poll() is None
    for name in ("somebody", f"{n}_decode_1"):
        theirs.client.call("rm", name=name, waiting=True)


def test_sighup_restarts_no_worker(place: Place) -> None:
    """circusd would restart all of them at once."""
    with place.executor(pools={"decode": place.pool(replicas=2)}) as executor:
        place.settled(executor, decode=2)
        before = place.worker_pids()
        os.kill(place.arbiter_pid(), signal.SIGHUP)
        time.sleep(2.0)
        place.settled(executor, decode=2)
        assert place.worker_pids() == before


def test_one_that_cannot_be_reached_is_an_error_before_anything_starts(place: Place) -> None:
    executor = place.executor(pools={"decode": place.pool()}, endpoint=f"ipc://{place.tmp}/nobody")
    with pytest.raises(ExecutorError, match=r"no arbiter listens at ipc://.*/nobody: start circusd"):
        executor.start()
    with pytest.raises(ValueError, match=r"endpoint 'tcp://10\.0\.0\.1:5555' must be ipc:///path"):
        place.executor(pools={"decode": place.pool()}, endpoint="tcp://10.0.0.1:5555")
    assert not place.file.exists()


def test_a_conflict_is_tried_again_and_then_told(place: Place, theirs: Theirs, monkeypatch: pytest.MonkeyPatch) -> None:
    with place.executor(pools={"decode": place.pool()}, endpoint=theirs.endpoint) as executor:
        place.settled(executor, decode=1)
        stubborn = f"{sys.executable} -c 'import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)'"
        for busy_s in (1.0, 2.5):
            theirs.add(f"stubborn{busy_s}", stubborn, graceful_timeout=busy_s)
        time.sleep(0.3)  # for the handlers of both
        theirs.client.call("rm", name="stubborn1.0", waiting=False)
        assert up(executor, 2) == ("applied", "decode: 1 -> 2 replicas")
        monkeypatch.setattr(executor._arbiter.client, "conflict_s", 0.3)
        theirs.client.call("rm", name="stubborn2.5", waiting=False)
        status, message = up(executor, 3)
        assert (status, "already running arbiter_rm_watcher" in message) == ("failed", True)
        assert executor.observe()["decode"] is not None
        assert up(executor, 1)[0] == "applied", "a drain needs no arbiter"
        monkeypatch.setattr(executor._arbiter.client, "conflict_s", 5.0)
        place.settled(executor, decode=1)
        assert up(executor, 2)[0] == "applied"
        assert len(place.worker_pids()) == 2


def test_a_silent_one_is_told_and_what_it_does_late_is_undone(
    place: Place, theirs: Theirs, monkeypatch: pytest.MonkeyPatch
) -> None:
    with place.executor(pools={"decode": place.pool()}, endpoint=theirs.endpoint) as executor:
        place.settled(executor, decode=1)
        monkeypatch.setattr(executor._arbiter.client, "timeout_s", 0.4)
        names = executor._arbiter.names()
        theirs.process.send_signal(signal.SIGSTOP)
        status, message = up(executor, 2)
        assert (status, "did not answer 'list' within 0.4 s" in message) == ("failed", True)
        monkeypatch.setattr(executor._arbiter, "names", lambda: names)  # as if it fell silent only now
        status, message = up(executor, 2)
        assert (status, "did not answer 'add' within 0.4 s" in message) == ("failed", True)
        assert executor.observe()["decode"] == place.replicas(ready=1)
        monkeypatch.undo()
        theirs.process.send_signal(signal.SIGCONT)
        time.sleep(0.5)
        assert len(place.worker_pids()) == 1, "a start that was given up never comes about"
        assert up(executor, 2)[0] == "applied"
        place.settled(executor, decode=2)
        names = {info.name for info in executor.workers()}
        place.until(lambda: executor.observe() and executor._arbiter.names() == names)


def test_one_that_is_started_again_gets_new_workers_and_the_old_ones_stay(place: Place, theirs: Theirs) -> None:
    with place.executor(pools={"decode": place.pool()}, endpoint=theirs.endpoint) as executor:
        place.settled(executor, decode=1)
        before = place.worker_pids()
        theirs.kill()
        theirs.start()
        assert up(executor, 2)[0] == "applied"
        place.settled(executor, decode=2)
        assert set(before) < set(place.worker_pids())
        assert up(executor, 0)[0] == "applied"
        place.settled(executor, decode=0)
        assert theirs.client.call("list")["watchers"] == []


def test_who_changes_over_to_another_one_leaves_none_of_his_own_behind(place: Place, theirs: Theirs) -> None:
    executor = place.executor(pools={"decode": place.pool()}).start()
    place.settled(executor, decode=1)
    before = place.worker_pids()
    executor.detach()
    with place.executor(pools={"decode": place.pool()}, endpoint=theirs.endpoint) as executor:
        assert up(executor, 2)[0] == "applied"
        place.settled(executor, decode=2)
        assert set(before) < set(place.worker_pids())
        assert place.arbiter_pid() == theirs.process.pid
    assert list(place.processes()) == [theirs.process.pid]


def test_one_that_is_told_to_quit_takes_its_workers_along_and_they_come_back(place: Place) -> None:
    with place.executor(pools={"decode": place.pool(replicas=2)}) as executor:
        place.settled(executor, decode=2)
        os.kill(place.arbiter_pid(), signal.SIGTERM)
        place.until(lambda: not place.processes())
        place.settled(executor, decode=2)
        assert len(place.worker_pids()) == 2


def test_an_answer_that_comes_too_late_is_not_taken_for_the_next_one(theirs: Theirs) -> None:
    theirs.process.send_signal(signal.SIGSTOP)
    with pytest.raises(ArbiterSilentError):
        theirs.client.call("list", timeout_s=0.2)
    theirs.process.send_signal(signal.SIGCONT)
    assert "numprocesses" in theirs.client.call("numprocesses")


def test_it_can_be_used_from_many_threads(place: Place) -> None:
    with place.executor(pools={"decode": place.pool(), "prefill": place.pool()}) as executor:

        def work(pool: str) -> None:
            for replicas in (2, 1, 3):
                statuses.append(executor.apply([ScaleTo(pool=pool, replicas=replicas)])[0].status)
                executor.observe()
                executor.endpoints()

        statuses: list[str] = []
        threads = [threading.Thread(target=work, args=(pool,)) for pool in ("decode", "prefill")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert statuses == ["applied"] * 6
        place.settled(executor, decode=3, prefill=3)
        assert len(place.worker_pids()) == 6
