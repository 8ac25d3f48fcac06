"""Several planners of the same pools: one leads, and it stops before another starts."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from dynamo_planner import ScaleTo
from dynamo_planner.executors.kubernetes import ApiError, Election
from dynamo_planner.runtime.decision_log import read_log
from tests.support.kubernetes.cluster import Place
from tests.support.kubernetes.faulty_proxy import Fault, Proxy
from tests.support.kubernetes.objects import api_of, executor_of, graph, pod_of, replicas_of, scaled, settle

LEASES = ("coordination.k8s.io/v1", "Lease")
UP = ScaleTo(pool="decode", replicas=4, expected=2)


@pytest.fixture
def llama(kubernetes: Place) -> Place:
    """A graph with two ready decode workers."""
    kubernetes.create(graph(Decode=2))
    settle(kubernetes, Decode=2)
    kubernetes.create(pod_of("Decode", 0))
    return kubernetes


def candidate(place: Place, who: str, *, lease_s: int = 3, url: str | None = None) -> Election:
    """A planner that campaigns for the lease of the namespace."""
    return Election(api_of(place, url=url), place.namespace, "dynamo-planner", lease_s=lease_s, identity=who)


@contextmanager
def campaigning(*candidates: Election) -> Iterator[None]:
    """Start these candidates in order, and end them."""
    try:
        for each in candidates:
            each.start()
        yield
    finally:
        for each in candidates:
            each.close()


def test_only_the_leader_acts_and_gives_the_lease_back_at_the_end(llama: Place) -> None:
    first, second = candidate(llama, "first"), candidate(llama, "second")
    pools = {"decode": scaled(name="llama")}
    leading, standing_by = (executor_of(llama, pools, election=each) for each in (first, second))
    with leading:
        standing_by.start()
        outcome = standing_by.apply([UP])[0]
        assert (outcome.status, outcome.message) == ("refused", "this planner does not lead: first does")
        assert standing_by.observe()["decode"] is not None
        assert leading.apply([UP])[0].status == "applied"
        lease = llama.get(*LEASES, "dynamo-planner")["spec"]
        assert (lease["holderIdentity"], lease["leaseDurationSeconds"], lease["leaseTransitions"]) == ("first", 3, 1)
    began_s = time.monotonic()
    llama.until(lambda: second.time_left_s() > 0)
    assert time.monotonic() - began_s < 1.5
    settle(llama, Decode=2)
    standing_by.observe()  # what the leader before has written is nobody's edit
    assert standing_by.apply([ScaleTo(pool="decode", replicas=3, expected=4)])[0].status == "applied"
    standing_by.close()
    assert llama.get(*LEASES, "dynamo-planner")["spec"]["holderIdentity"] == ""


def test_a_leader_that_is_cut_off_stops_before_another_starts(llama: Place, proxy: Proxy) -> None:
    cut_off, other = candidate(llama, "cut-off", url=proxy.url), candidate(llama, "other")
    executor = executor_of(llama, {"decode": scaled(name="llama")}, election=cut_off)
    with campaigning(cut_off, other):
        executor.observe()
        proxy.rule = lambda method, path: Fault(503) if "/leases" in path else None
        began_s = time.monotonic()
        while other.time_left_s() == 0:
            assert time.monotonic() - began_s < 10
            time.sleep(0.005)
        assert cut_off.time_left_s() == 0
        assert executor.apply([UP])[0].status == "refused"
        assert time.monotonic() - began_s <= 3.5
        proxy.rule = lambda method, path: None
        llama.until(lambda: cut_off.leader == "other")
        assert cut_off.time_left_s() == 0


def test_a_write_that_outlasts_the_lease_is_given_up(llama: Place, proxy: Proxy) -> None:
    cut_off = candidate(llama, "cut-off", url=proxy.url)
    pools = {"decode": scaled(name="llama")}
    executor = executor_of(llama, pools, url=proxy.url, election=cut_off, patience_s=30.0)
    with campaigning(cut_off):
        executor.observe()

        def rule(method: str, path: str) -> Fault | None:
            return Fault(503) if "/leases" in path else Fault(503, delay_s=5.0) if method == "PATCH" else None

        proxy.rule = rule
        began_s = time.monotonic()
        outcome = executor.apply([UP])[0]
        assert (outcome.status, time.monotonic() - began_s < 3.0) == ("refused", True)
        assert replicas_of(llama, "Decode") == 2


def test_two_candidates_at_once_make_one_leader(llama: Place) -> None:
    candidates = [candidate(llama, f"candidate-{number}", lease_s=9) for number in range(4)]
    with campaigning(*candidates):
        for _ in range(20):
            assert sum(each.time_left_s() > 0 for each in candidates) == 1
            time.sleep(0.05)


def test_a_lease_that_may_not_be_read_is_told_at_the_start(llama: Place, proxy: Proxy) -> None:
    proxy.times(10, Fault(403), part="/leases")
    with pytest.raises(ApiError, match=r"GET /apis/coordination.k8s.io/v1/namespaces/.*/leases/dynamo-planner: 403"):
        candidate(llama, "nobody", url=proxy.url).start()


SEESAW = """
from dynamo_planner import Policy, Proposal

class Seesaw(Policy, kind="tests.seesaw"):
    def propose(self, snapshot, state):
        return Proposal(pools={"workers": 3 if int(snapshot.at_s * 4) % 2 else 2}), None
"""


@contextmanager
def planners(
    place: Place, tmp: Path, count: int, **executor: Any
) -> Iterator[list[tuple[subprocess.Popen[bytes], Path]]]:
    """Real planners in processes of their own, which want to write all the time, and their decision logs."""
    (tmp / "seesaw.py").write_text(SEESAW)
    running = []
    try:
        for number in range(count):
            log, config = tmp / f"decisions-{number}.jsonl", tmp / f"planner-{number}.yaml"
            settings = {
                "policy": {"kind": "seesaw:Seesaw"},
                "allow_custom_kinds": True,
                "executor": {"kind": "kubernetes", "kubeconfig": str(place.kubeconfig()), **executor},
                "source": {"kind": "scrape", "workers": {"workers": {}}},
                "interval_s": 0.25,
                "log": str(log),
            }
            config.write_text(yaml.safe_dump(settings))
            command = [str(Path(sys.executable).with_name("dynamo-planner")), "run", str(config)]
            running.append((subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(tmp)}), log))
        yield running
    finally:
        for process, _ in running:
            process.kill()
            process.wait()


def writes(log: Path) -> list[float]:
    """When a planner wrote."""
    steps = list(read_log(log)) if log.exists() else []
    return [step.at_s for step in steps if any(outcome.status == "applied" for outcome in step.outcomes)]


def test_a_leader_that_is_killed_is_replaced_within_its_lease_and_never_are_there_two_writers(
    kubernetes: Place, tmp_path: Path
) -> None:
    lease_s = 6
    kubernetes.create(
        {
            "apiVersion": "serving.example.com/v1",
            "kind": "Engine",
            "metadata": {"name": "mine"},
            "spec": {"fleet": {"size": 2}},
            "status": {"size": 2, "readyReplicas": 2, "selector": "engine=mine"},
        }
    )
    target = {"kind": "Engine", "group": "serving.example.com", "version": "v1", "plural": "engines", "name": "mine"}
    pools = {"workers": {"spec": {"role": "aggregated", "gpus": 1}, "target": target}}
    with planners(kubernetes, tmp_path, 2, pools=pools, lease={"seconds": lease_s}) as running:

        def writers() -> list[int]:
            return [number for number, (_, log) in enumerate(running) if writes(log)]

        kubernetes.until(writers, within_s=60)
        kubernetes.until(lambda: all(log.exists() for _, log in running), within_s=60)
        (leader,) = writers()
        time.sleep(lease_s)
        assert writers() == [leader]
        process, log = running[leader]
        killed_s = time.time()
        process.kill()
        process.wait()
        other = running[1 - leader][1]
        kubernetes.until(lambda: writes(other), within_s=30)
        acquired = kubernetes.get(*LEASES, "dynamo-planner")["spec"]["acquireTime"]
        assert datetime.fromisoformat(acquired).timestamp() - killed_s <= lease_s
        assert max(writes(log)) <= killed_s < min(writes(other))
