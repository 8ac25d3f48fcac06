"""What a scrape and a probe see of a loop, over HTTP."""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dynamo_planner import Planner
from dynamo_planner.runtime.health import Health
from dynamo_planner.runtime.status_page import Monitor, page
from dynamo_planner.sources import SourceError
from tests.support.loop_parts import Clock, Cluster, Metrics, per_ten


class Loop:
    """A planner with a page, and what stands on it."""

    def __init__(self, state_file: Path) -> None:
        self.clock, self.metrics, self.cluster = Clock(), Metrics(requests_per_s=50.0), Cluster(replicas=2)
        self.leads = True
        self.monitor = Monitor(10, lambda: self.leads)
        self.monitor.health = Health(10, lambda: self.leads, clock=self.clock)
        self.planner = Planner(per_ten, self.metrics, self.cluster, clock=self.clock, state_file=state_file)
        self.url = ""

    def step(self, after_s: float = 10.0) -> None:
        self.clock.now_s += after_s
        self.monitor.record(self.planner.step())

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(self.url + path, timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def probe(self, path: str) -> tuple[int, Any]:
        status, text = self.get(path)
        return status, json.loads(text)

    def value(self, sample: str) -> float | None:
        lines = [line.rpartition(" ") for line in self.get("/metrics")[1].splitlines() if line.startswith(sample + " ")]
        return float(lines[0][2]) if lines else None


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[Loop]:
    here = Loop(tmp_path / "state")
    with page("127.0.0.1", 0, here.monitor) as url:
        here.url = url
        yield here


def test_decisions_outcomes_and_replicas(loop: Loop) -> None:
    loop.step()
    loop.step()
    assert loop.value('dynamo_planner_decisions_total{change="up",pool="workers"}') == 1
    assert loop.value('dynamo_planner_decisions_total{change="none",pool="workers"}') == 1
    assert loop.value('dynamo_planner_outcomes_total{kind="scale_to",pool="workers",status="applied"}') == 1
    assert loop.value('dynamo_planner_wanted_replicas{pool="workers"}') == 5
    assert loop.value('dynamo_planner_replicas{pool="workers",state="ready"}') == 5
    assert loop.value("dynamo_planner_step_duration_seconds_count") == 2
    assert loop.value("dynamo_planner_last_step_timestamp_seconds") == 1020
    assert loop.value("dynamo_planner_leader") == 1
    loop.metrics.requests_per_s = 10.0
    loop.step()
    assert loop.value('dynamo_planner_decisions_total{change="down",pool="workers"}') == 1


def test_what_is_held_or_unknown_is_absent_and_told_by_its_code(loop: Loop) -> None:
    loop.step()
    loop.metrics.error = RuntimeError("gone")
    loop.step()
    assert loop.value('dynamo_planner_holds_total{code="SourceFailed",pool="workers"}') == 1
    assert loop.value('dynamo_planner_wanted_replicas{pool="workers"}') is None
    assert loop.value('dynamo_planner_replicas{pool="workers",state="target"}') == 5
    loop.cluster.observe_error = RuntimeError("gone too")
    loop.step()
    assert loop.value('dynamo_planner_holds_total{code="ReplicasUnknown",pool="workers"}') == 1
    assert loop.value('dynamo_planner_replicas{pool="workers",state="target"}') is None


def test_it_is_ready_while_steps_succeed_and_alive_while_they_end(loop: Loop) -> None:
    assert loop.probe("/healthz")[0] == 200
    status, told = loop.probe("/readyz")
    assert (status, told["message"], told["last_step_age_s"]) == (503, "no step has succeeded yet", None)
    loop.step()
    assert loop.probe("/readyz") == (
        200,
        {
            "ok": True,
            "message": "steps succeed",
            "leader": True,
            "last_step_age_s": 0.0,
            "last_successful_step_age_s": 0.0,
        },
    )
    loop.metrics.error = RuntimeError("gone")
    for _ in range(6):
        loop.step()
        assert loop.probe("/readyz")[0] == 200, "one scrape that failed is no reason to be unready"
    loop.step()
    status, told = loop.probe("/readyz")
    assert (status, told["message"]) == (
        503,
        "no step has succeeded for 70 s: the source could not be read (SourceFailed); the log says more",
    )
    assert loop.probe("/healthz")[0] == 200, "a restart would bring no metrics back"
    loop.clock.now_s += 61
    assert loop.probe("/healthz")[0] == 503


def test_actions_that_all_fail_are_no_success(loop: Loop) -> None:
    loop.cluster.apply_error = RuntimeError("forbidden")
    loop.step()
    assert "ActionsFailed" in loop.probe("/readyz")[1]["message"]


def test_one_that_stands_by_is_ready_by_the_same_rule_and_says_that_it_does_not_lead(loop: Loop) -> None:
    loop.leads = False
    assert loop.probe("/readyz")[0] == 503
    loop.step()
    status, told = loop.probe("/readyz")
    assert (status, told["leader"]) == (200, False)
    assert loop.value("dynamo_planner_leader") == 0


def test_other_paths_are_refused_and_a_taken_port_is_told(loop: Loop) -> None:
    assert loop.get("/nothing") == (404, "there are /, /metrics, /healthz and /readyz\n")
    port = int(loop.url.rpartition(":")[2])
    with (
        pytest.raises(OSError, match=f"cannot listen on 127.0.0.1 port {port}: Address already in use"),
        page("127.0.0.1", port, loop.monitor),
    ):
        pass


def test_a_client_that_says_nothing_holds_nobody_up(loop: Loop) -> None:
    with socket.create_connection(("127.0.0.1", int(loop.url.rpartition(":")[2])), timeout=5):
        assert loop.probe("/healthz")[0] == 200


def test_a_state_file_that_cannot_be_written_is_counted_and_in_the_end_not_ready(loop: Loop, tmp_path: Path) -> None:
    loop.step()
    (tmp_path / "state").unlink()
    (tmp_path / "state").mkdir()
    loop.step()
    counted = 'dynamo_planner_reasons_total{code="StateFileFailed",pool=""}'
    why = "the state file could not be written (StateFileFailed)"
    assert loop.value(counted) == 1
    status, told = loop.probe("/readyz")
    assert (status, told["message"]) == (200, f"the last step had trouble: {why}; the log says more")
    loop.step(after_s=65)
    assert loop.value(counted) == 2
    status, told = loop.probe("/readyz")
    assert (status, told["message"]) == (503, f"no step has succeeded for 75 s: {why}; the log says more")
    assert loop.probe("/healthz")[0] == 200, "a restart would lose what the policy remembers"
    (tmp_path / "state").rmdir()
    loop.step()
    assert loop.value(counted) == 2
    assert loop.probe("/readyz")[0] == 200


def test_the_page_for_people_shows_pools_reasons_and_history_and_runs_nothing(loop: Loop) -> None:
    assert "No step has been made yet." in loop.get("/")[1]
    loop.step()
    loop.metrics.error = SourceError("<script>alert(1)</script>")
    loop.step()
    status, text = loop.get("/")
    assert status == 200
    assert "<td>workers</td><td class='words'>aggregated</td><td>held</td><td>5</td>" in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "<script" not in text
    assert "http-equiv" in text
    assert text.count("<svg") == 2, "arrivals and one pool; no policy here promises a share"
