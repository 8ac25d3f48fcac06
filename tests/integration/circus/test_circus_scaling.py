"""Scaling pools of real processes under a real arbiter."""

from __future__ import annotations

import http.client
import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from dynamo_planner import Outcome, PoolSpec, ScaleTo, SetKnob
from dynamo_planner.executors import ExecutorError

if TYPE_CHECKING:
    from dynamo_planner.executors.circus import CircusExecutor
    from tests.support.circus.place import Place


def apply(executor: CircusExecutor, pool: str, replicas: int, expected: int | None = None) -> Outcome:
    (outcome,) = executor.apply([ScaleTo(pool=pool, replicas=replicas, expected=expected)])
    return outcome


def test_workers_are_watchers_of_their_own_and_answer_at_their_endpoints(place: Place) -> None:
    pools = {"decode": place.pool(replicas=3), "prefill": place.pool(replicas=1, component="PrefillWorker")}
    with place.executor(pools=pools) as executor:
        place.settled(executor, decode=3, prefill=1)
        n = place.namespace
        endpoints = executor.endpoints()
        assert list(endpoints["decode"]) == [f"{n}_decode", f"{n}_decode_1", f"{n}_decode_2"]
        assert list(endpoints["prefill"]) == [f"{n}_PrefillWorker"]
        for url in (url for pool in endpoints.values() for url in pool.values()):
            connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=2)
            connection.request("GET", "/v1/anything")
            assert connection.getresponse().status == 200
            connection.close()
        infos = executor.workers()
        assert [info.pid for info in sorted(infos, key=lambda info: info.pid or 0)] == place.worker_pids()
        assert {info.state for info in infos} == {"ready"}
        assert all("arguments" in info.log.read_text() for info in infos)
    assert place.processes() == {}
    assert not place.file.exists()


def test_up_is_seen_as_starting_until_the_worker_answers(place: Place) -> None:
    gate = place.tmp / "gate"
    with place.executor(
        pools={"decode": place.pool(gate=gate)}, clock=lambda: 1000.0, steady=lambda: 1000.0
    ) as executor:
        assert executor.observe()["decode"] == place.replicas(ready=0, starting=1, starting_since_s=(1000.0,), target=1)
        assert executor.endpoints() == {"decode": {}}
        outcome = apply(executor, "decode", 2, expected=1)
        assert (outcome.status, outcome.message) == ("applied", "decode: 1 -> 2 replicas")
        assert executor.observe()["decode"] == place.replicas(
            ready=0, starting=2, starting_since_s=(1000.0, 1000.0), target=2
        )
        gate.touch()
        place.settled(executor, decode=2)


def test_without_a_health_path_a_worker_is_ready_once_it_has_lived_for_a_while(place: Place) -> None:
    now = [1000.0]
    pool = place.pool(health=None, ready_after_s=60, command=("sleep", "1000"))
    with place.executor(pools={"decode": pool}, clock=lambda: now[0], steady=lambda: now[0]) as executor:
        now[0] += 59
        assert executor.observe()["decode"] == place.replicas(ready=0, starting=1, starting_since_s=(1000.0,), target=1)
        now[0] += 1
        assert executor.observe()["decode"] == place.replicas(ready=1)
        assert executor.endpoints() == {"decode": {}}
        assert executor.workers()[0].port is None


def test_down_takes_the_newest_and_goes_on_with_other_pools_meanwhile(place: Place) -> None:
    pools = {"decode": place.pool(replicas=3, drain_s=1.5), "prefill": place.pool(replicas=1)}
    with place.executor(pools=pools) as executor:
        place.settled(executor, decode=3, prefill=1)
        n = place.namespace
        down, up = executor.apply(
            [ScaleTo(pool="decode", replicas=1, expected=3), ScaleTo(pool="prefill", replicas=2, expected=1)]
        )
        assert (down.status, up.status) == ("applied", "applied")
        assert executor.observe()["decode"] == place.replicas(ready=1, draining=2)
        assert list(executor.endpoints()["decode"]) == [f"{n}_decode"]
        assert {info.name for info in executor.workers() if info.state == "draining"} == {
            f"{n}_decode_1",
            f"{n}_decode_2",
        }
        place.settled(executor, prefill=2)
        assert executor.observe()["decode"] == place.replicas(ready=1, draining=2), "prefill did not wait for the drain"
        assert apply(executor, "decode", 2, expected=1).status == "applied"
        names = [info.name for info in executor.workers() if info.pool == "decode" and info.state != "draining"]
        assert names == [f"{n}_decode", f"{n}_decode_3"], "a draining worker is not called back"
        place.settled(executor, decode=2)
        log = next(info.log for info in executor.workers()).with_name(f"{n}_decode_2.log").read_text()
        assert log.splitlines()[-2:] == ["draining", "bye"]
        assert apply(executor, "decode", 3, expected=2).status == "applied"
        assert executor.workers()[-1].name == f"{n}_decode_1", "names are used again"


def test_who_removes_the_last_worker_can_add_it_again(place: Place) -> None:
    with place.executor(pools={"decode": place.pool()}) as executor:
        place.settled(executor, decode=1)
        for _ in range(2):
            assert apply(executor, "decode", 0, expected=1).status == "applied"
            place.settled(executor, decode=0)
            assert apply(executor, "decode", 1, expected=0).status == "applied"
            place.settled(executor, decode=1)
            assert executor.workers()[0].name == f"{place.namespace}_decode"


def test_a_target_that_is_not_what_was_expected_is_refused_and_twice_is_once(place: Place) -> None:
    with place.executor(pools={"decode": place.pool()}) as executor:
        refused = apply(executor, "decode", 3, expected=2)
        assert (refused.status, "has a target of 1 and not of 2" in refused.message) == ("refused", True)
        assert apply(executor, "decode", 2, expected=1).status == "applied"
        assert apply(executor, "decode", 2, expected=1).status == "unchanged"
        one, two = executor.apply([ScaleTo(pool="decode", replicas=3), ScaleTo(pool="decode", replicas=1, expected=2)])
        assert (one.status, two.status) == ("applied", "refused")
        assert len(place.worker_pids()) == 3


def test_what_cannot_be_done_is_refused_and_the_rest_is_done(place: Place) -> None:
    with place.executor(pools={"decode": place.pool()}) as executor:
        knob, unknown, up = executor.apply(
            [
                SetKnob(knob="max_num_seqs", value=64),
                ScaleTo(pool="decoed", replicas=2),
                ScaleTo(pool="decode", replicas=2),
            ]
        )
        assert (knob.status, "there is no pool None with knobs" in knob.message) == ("refused", True)
        assert (unknown.status, unknown.message) == ("refused", "there is no pool 'decoed'; there are decode")
        assert up.status == "applied"


def test_no_more_than_the_pool_may_have(place: Place) -> None:
    spec = PoolSpec(role="decode", gpus=0, min_replicas=0, max_replicas=2)
    with place.executor(pools={"decode": place.pool(spec=spec)}) as executor:
        outcome = apply(executor, "decode", 1_000_000)
        assert outcome.status == "refused"
        assert outcome.message == "decode may have 2 replicas at most (max_replicas), and not 1000000"
        assert place.worker_pids() == []


def test_before_the_start_it_says_so(place: Place) -> None:
    executor = place.executor(pools={"decode": place.pool()})
    with pytest.raises(ExecutorError, match="not started"):
        executor.observe()
    assert executor.pools["decode"].role == "decode"
    assert (executor.endpoints(), executor.workers()) == ({"decode": {}}, ())
    executor.close()
    assert not place.state_dir.exists()


def test_a_stop_in_the_middle_of_a_start(place: Place) -> None:
    with place.executor(pools={"decode": place.pool(replicas=0, ready_after_s=60)}) as executor:
        assert apply(executor, "decode", 2).status == "applied"
        assert apply(executor, "decode", 0).status == "applied"
        place.settled(executor, decode=0)
        assert place.worker_pids() == []


def test_one_that_does_not_answer_holds_nobody_up_for_long(place: Place) -> None:
    with place.executor(pools={"decode": place.pool(hang=1), "other": place.pool(replicas=0)}) as executor:
        time.sleep(0.3)  # for it to listen
        executor.observe()
        began = time.monotonic()
        for replicas in (1, 0, 1):
            assert executor.apply([ScaleTo(pool="other", replicas=replicas)])[0].status == "applied"
            executor.observe()
        assert time.monotonic() - began < 3.0, "each of the nine looks would have waited a second"
        executor.apply([ScaleTo(pool="decode", replicas=0)])
