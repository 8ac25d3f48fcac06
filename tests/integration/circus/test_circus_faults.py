"""Faults that last: whatever a pool or the arbiter does, the others go on, and a stop leaves nothing behind."""

from __future__ import annotations

import os
import resource
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from dynamo_planner import ScaleTo
from dynamo_planner.executors import ExecutorError

if TYPE_CHECKING:
    from collections.abc import Callable

    from dynamo_planner.executors.circus import CircusExecutor
    from tests.support.circus.place import Place
    from tests.support.circus.theirs import Theirs

TICK_S = 4.0
"""The most that acting may take: workers in start-up are asked for a second, twice; the rest is for a busy machine."""


def scale(executor: CircusExecutor, pool: str, replicas: int) -> tuple[str, str]:
    (outcome,) = executor.apply([ScaleTo(pool=pool, replicas=replicas)])
    return outcome.status, outcome.message


@pytest.mark.parametrize(
    "behaviour",
    [
        {"hang": 1, "ignore_term": 1, "graceful_timeout_s": 3.0},
        {"ignore_term": 1, "graceful_timeout_s": 3.0},
        {"drain_s": 2.5},
        {"die_after_s": 0.3, "child": 1, "restart_backoff_s": 0.2},
        {"spam": 5000, "log_max_bytes": 10_000},
    ],
    ids=lambda behaviour: next(iter(behaviour)),
)
def test_other_pools_keep_scaling_meanwhile(place: Place, behaviour: dict[str, Any]) -> None:
    pools = {"bad": place.pool(replicas=2, gpus=1, **behaviour), "good": place.pool(gpus=1)}
    with place.executor(pools=pools, gpus=range(6)) as executor:
        place.settled(executor, good=1)
        for bad, good in ((0, 3), (2, 1), (1, 2)):
            began = time.monotonic()
            _, outcome = executor.apply([ScaleTo(pool="bad", replicas=bad), ScaleTo(pool="good", replicas=good)])
            assert outcome.status == "applied"
            assert time.monotonic() - began < TICK_S
            place.settled(executor, good=good)
            gpus = [gpu for info in executor.workers() for gpu in info.gpus]
            assert len(gpus) == len(set(gpus))
    assert place.processes() == {}


@pytest.mark.parametrize("behaviour", [{"ready_after_s": 60}, {"hang": 1}, {"ignore_term": 1, "graceful_timeout_s": 1}])
def test_a_close_right_after_the_start_ends_all_that_was_begun(place: Place, behaviour: dict[str, Any]) -> None:
    executor = place.executor(pools={"decode": place.pool(replicas=3, **behaviour)}).start()
    began = time.monotonic()
    executor.close()
    assert time.monotonic() - began < 10.0
    assert place.processes() == {}
    assert not place.file.exists()


@pytest.mark.parametrize("seen", ["circus.circusd", "tiny_worker.py"])
def test_a_start_that_is_interrupted_leaves_nothing_behind(place: Place, seen: str) -> None:
    executor = place.executor(pools={"decode": place.pool(replicas=8, ready_after_s=60)})

    def interrupt() -> None:
        place.until(lambda: any(seen in command for command in place.processes().values()))
        os.kill(os.getpid(), signal.SIGINT)

    interrupting = threading.Thread(target=interrupt)
    interrupting.start()
    with pytest.raises(KeyboardInterrupt):
        executor.start()
        time.sleep(5)
    interrupting.join()
    assert place.processes() == {}
    assert not place.file.exists()
    with place.executor(pools={"decode": place.pool()}) as again:
        place.settled(again, decode=1)


def test_an_interrupt_just_as_the_arbiter_begins_leaves_none_behind(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("dynamo_planner.executors.circus.arbiter.identify", interrupted)
    with pytest.raises(KeyboardInterrupt):
        place.executor(pools={"decode": place.pool()}).start()
    assert place.processes() == {}
    assert not place.file.exists()


def test_an_arbiter_that_was_told_to_quit_is_not_waited_for(place: Place) -> None:
    executor = place.executor(pools={"decode": place.pool(replicas=0)}).start()
    executor._arbiter.client.call("quit", waiting=True)
    executor.detach()
    began = time.monotonic()
    with place.executor(pools={"decode": place.pool()}) as again:
        assert time.monotonic() - began < 6.0, "it ends within a second or two, and answers no more"
        place.settled(again, decode=1)


def later(after_s: float, action: Callable[[], object]) -> None:
    threading.Timer(after_s, action).start()


def test_a_slow_arbiter_is_waited_for(place: Place, theirs: Theirs) -> None:
    with place.executor(pools={"decode": place.pool()}, endpoint=theirs.endpoint) as executor:
        place.settled(executor, decode=1)
        for replicas in (2, 3):
            theirs.process.send_signal(signal.SIGSTOP)
            later(1.5, lambda: theirs.process.send_signal(signal.SIGCONT))
            assert scale(executor, "decode", replicas)[0] == "applied"
        place.settled(executor, decode=3)
        assert len(place.worker_pids()) == 3


def test_an_arbiter_that_is_busy_for_long_holds_up_only_starts(
    place: Place, theirs: Theirs, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pools = {name: place.pool(replicas=2, env={"TOKEN": "s3cr3t"}) for name in ("decode", "prefill")}
    with place.executor(pools=pools, endpoint=theirs.endpoint) as executor:
        place.settled(executor, decode=2, prefill=2)
        deaf = place.state_dir / "deaf"
        code = f'import os, signal, time; signal.signal(15, signal.SIG_IGN); os.mkdir("{deaf}"); time.sleep(600)'
        theirs.add("stubborn", f"{sys.executable} -c '{code}'", graceful_timeout=8.0)
        place.until(deaf.exists)
        monkeypatch.setattr(executor._arbiter.client, "conflict_s", 1.0)
        theirs.client.call("rm", name="stubborn", waiting=False)
        busy_until = time.monotonic() + 8.0
        status, message = scale(executor, "decode", 3)
        assert (status, "already running" in message) == ("failed", True)
        assert scale(executor, "prefill", 1)[0] == "applied", "a drain needs no arbiter"
        place.until(lambda: executor.observe()["prefill"] == place.replicas(ready=1), within_s=5.0)
        assert executor.observe()["decode"] == place.replicas(ready=2)
        assert time.monotonic() < busy_until, "it was busy all the while"
        place.until(lambda: scale(executor, "decode", 3)[0] == "applied")
        place.settled(executor, decode=3, prefill=1)
        assert "s3cr3t" not in message + caplog.text


def test_a_full_disk_at_the_start_means_that_nothing_is_begun(place: Place) -> None:
    executor = place.executor(pools={"decode": place.pool()})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))  # what is written beyond is refused, as on a full disk
    try:
        with pytest.raises(ExecutorError, match=f"{place.state_dir}.* cannot be written"):
            executor.start()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert place.processes() == {}
    assert not place.file.exists()
    executor.start()
    place.settled(executor, decode=1)
