"""Health that is watched for as long as a worker lives, and who goes first when a pool is lowered."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dynamo_planner import ScaleTo
from dynamo_planner.executors.circus.health import HealthCheck, HealthChecks
from dynamo_planner.executors.circus.lifecycle import WorkerObservation, advance, drain_first
from dynamo_planner.executors.circus.records import Process, WorkerRecord

if TYPE_CHECKING:
    from dynamo_planner.executors.circus.health import Answer
    from dynamo_planner.executors.circus.records import Phase
    from tests.support.circus.place import Place


def worker(name: str = "w", phase: Phase = "ready", **fields: object) -> WorkerRecord:
    given = {"pool": "decode", "token": "t", "since_s": 0.0, "command": ("serve",), "working_dir": "/"}
    return WorkerRecord.model_validate({**given, "name": name, "phase": phase, "graceful_timeout_s": 1.0, **fields})


def test_errors_count_at_once_and_silence_the_second_time_and_three_times_as_long(place: Place) -> None:
    """With the default of 10 s: an error kills after 10 s, silence after 30 s, and an answer mends both."""
    pool, process = place.pool(), Process(pid=1, started_ticks=1, boot_id="b")

    def after(record: WorkerRecord, health: Answer | None, at_s: float) -> WorkerRecord:
        return advance(record, WorkerObservation(process, True, health, "log"), pool, at_s)

    ill = after(worker(), "error", 100.0)
    assert (ill.phase, ill.unhealthy) == ("ready", True)
    assert after(ill, "error", 109.9).phase == "ready"
    dead = after(ill, "error", 110.0)
    assert (dead.phase, dead.retry_at_s, dead.crashes) == ("failed", 111.0 - 0.7, 1)
    assert after(dead.replace(phase="ready"), "error", 111.0).crashes == 1
    mute = after(worker(), "silent", 100.0)
    assert not mute.unhealthy
    mute = after(after(mute, None, 102.0), "silent", 105.0)
    assert mute.unhealthy
    assert after(mute, "silent", 129.9).phase == "ready"
    assert after(mute, "silent", 130.0).phase == "failed"
    well = after(mute, "ok", 129.0)
    assert (well.unhealthy, well.unanswered_since_s, well.serves) == (False, None, True)


def test_an_answer_that_comes_byte_by_byte_is_silence() -> None:
    """Each byte comes in time, and the status line never ends."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def trickle() -> None:
            connection, _ = server.accept()
            with connection, suppress(OSError):
                for _ in range(50):
                    connection.sendall(b"H")
                    time.sleep(0.2)

        threading.Thread(target=trickle, daemon=True).start()
        began_s = time.monotonic()
        checks = {"w": HealthCheck(server.getsockname()[1], "/health", 0.0)}
        assert HealthChecks().answers(checks) == {"w": "silent"}
        assert time.monotonic() - began_s < 5.0


def test_a_ready_worker_stays_while_another_would_do_and_the_least_busy_of_them_goes_first() -> None:
    workers = (
        worker("idle"),
        worker("crashed", "failed"),
        worker("busy"),
        worker("ill", unhealthy=True),
        worker("unknown"),
        worker("starts", "starting"),
        worker("starts later", "starting"),
    )
    order = [each.name for each in drain_first(workers, 9, {"idle": 1.0, "busy": 30.0})]
    assert order == ["crashed", "ill", "starts later", "starts", "idle", "busy", "unknown"]


@pytest.mark.parametrize("how", ["503", "silent"])
def test_a_dead_engine_in_a_living_process_is_out_of_service_and_replaced(place: Place, how: str) -> None:
    ill = place.tmp / "ill"
    pool = place.pool(replicas=2, ill=ill, unhealthy_after_s=2.0, command=place.command(ill=ill))
    with place.executor(pools={"decode": pool}) as executor:
        place.settled(executor, decode=2)
        first, second = executor.workers()
        Path(ill).write_text(how)
        place.until(lambda: executor.observe()["decode"] == place.replicas(ready=0, failed=2), within_s=20)
        assert executor.endpoints() == {"decode": {}}
        assert "health check" in executor.workers()[0].message
        assert {reason.code for reason in executor.troubles} <= {"Unhealthy", "Crashing"}
        place.until(lambda: executor.observe() and {first.pid, second.pid}.isdisjoint(place.worker_pids()), within_s=20)
        place.until(lambda: executor.observe() and [reason.code for reason in executor.troubles] == ["Crashing"])
        ill.unlink()
        place.settled(executor, decode=2)
        assert executor.troubles == ()


def test_a_scale_down_ends_the_worker_that_starts_again_and_then_the_least_busy(place: Place) -> None:
    with place.executor(pools={"decode": place.pool(replicas=3)}) as executor:
        place.settled(executor, decode=3)
        names = [info.name for info in executor.workers()]
        executor.consider({"decode": dict(zip(names, (2.0, 1.0, 5.0), strict=True))})
        executor.apply([ScaleTo(pool="decode", replicas=2, expected=3)])
        place.settled(executor, decode=2)
        assert [info.name for info in executor.workers()] == [names[0], names[2]]
