"""The loop turning: on schedule, until it is told to end, and through a restart."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from dynamo_planner.runtime.decision_log import Step
from dynamo_planner.runtime.planner import Planner
from tests.support.loop_parts import Climbing, Clock, Cluster, Metrics, per_ten


class Slow(Metrics):
    """Takes time to answer: the given seconds at each turn, then the loop is told to end."""

    def __init__(self, clock: Clock, takes_s: list[float], stop: threading.Event) -> None:
        super().__init__()
        self.clock, self.takes_s, self.stop = clock, takes_s, stop

    def observe(self, at_s: float):  # type: ignore[no-untyped-def]
        self.clock.now_s += self.takes_s[len(self.asked_s)]
        if len(self.asked_s) + 1 == len(self.takes_s):
            self.stop.set()
        return super().observe(at_s)


@pytest.mark.parametrize(
    ("takes_s", "at_s"),
    [
        ([1, 2, 3, 0], [1000, 1010, 1020, 1030]),
        ([9.999, 0, 0], [1000, 1010, 1020]),
        ([10, 0, 0], [1000, 1010, 1020]),
        ([25, 1, 0], [1000, 1030, 1040]),
        ([0, -3, 0, 0], [1000, 1010, 1017, 1027]),
        ([0, -500, 0, 0], [1000, 1010, 520, 530]),
        ([0, 86_400, 0, 0], [1000, 1010, 87_410, 87_420]),
    ],
    ids=["no drift", "just in time", "just too late", "missed", "back a little", "back far", "far ahead"],
)
def test_schedule(takes_s: list[float], at_s: list[float], clock: Clock, cluster: Cluster) -> None:
    stop = threading.Event()
    metrics = Slow(clock, takes_s, stop)
    Planner(Climbing(), metrics, cluster, interval_s=10, clock=clock, sleep=clock.sleep).run(stop)
    assert metrics.asked_s == pytest.approx(at_s)
    assert max(clock.slept, default=0) <= 0.1, "so that whoever asks for the end is heard"


def test_a_clock_set_back_during_the_sleep_does_not_stop_the_loop(metrics: Metrics, cluster: Cluster) -> None:
    clock, stop = Clock(), threading.Event()

    def sleep(seconds: float) -> None:
        clock.sleep(seconds)
        if len(clock.slept) == 50:
            clock.now_s -= 7200

    def after(step: Step) -> None:
        if len(metrics.asked_s) == 3:
            stop.set()

    Planner(Climbing(), metrics, cluster, interval_s=10, clock=clock, sleep=sleep).run(stop, after=after)
    assert metrics.asked_s == pytest.approx([1000, 1000 + 5 - 7200 + 10, 1000 + 5 - 7200 + 20])


def test_the_loop_outlives_whatever_fails(clock: Clock, metrics: Metrics, cluster: Cluster, tmp_path: Path) -> None:
    stop = threading.Event()
    planner = Planner(per_ten, metrics, cluster, clock=clock, sleep=clock.sleep, log="/dev/full")

    def after(step: Step) -> None:
        metrics.error = ValueError("bad") if len(metrics.asked_s) % 2 else None
        cluster.observe_error = OSError("worse") if len(metrics.asked_s) % 3 else None
        metrics.requests_per_s = None if len(metrics.asked_s) % 5 else 30
        if len(metrics.asked_s) == 30:
            stop.set()

    planner.run(stop, after=after)
    assert len(metrics.asked_s) == 30


def test_stop_is_heard_in_another_thread(metrics: Metrics, cluster: Cluster) -> None:
    stop = threading.Event()
    planner = Planner(per_ten, metrics, cluster, interval_s=3600)
    thread = threading.Thread(target=planner.run, args=(stop,))
    thread.start()
    while not metrics.asked_s:
        time.sleep(0.01)
    stop.set()
    thread.join(timeout=5)
    assert not thread.is_alive()


def test_handlers_are_put_back(metrics: Metrics, cluster: Cluster) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    during = []
    stop = threading.Event()

    def after(step: Step) -> None:
        during.append(signal.getsignal(signal.SIGTERM))
        stop.set()

    Planner(per_ten, metrics, cluster).run(stop, after=after)
    assert during[0] is not before[0]
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


def test_a_signal_to_this_process_ends_the_loop_between_steps(metrics: Metrics, cluster: Cluster) -> None:
    def after(step: Step) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    Planner(per_ten, metrics, cluster, interval_s=3600).run(after=after)
    assert len(metrics.asked_s) == 1


def test_asyncio(metrics: Metrics, cluster: Cluster) -> None:
    async def steps() -> list[Step]:
        planner = Planner(Climbing(), metrics, cluster)
        return await asyncio.gather(*(asyncio.to_thread(planner.step) for _ in range(5)))

    wanted = [step.decision.targets["workers"] for step in asyncio.run(steps())]
    assert sorted(wanted) == sorted(set(wanted)), "steps follow one another"
