"""LoadPolicy: the rules of the original, worked by hand, and how it is built."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from dynamo_planner import PoolSpec, Snapshot, load_policy
from dynamo_planner.policies import LoadPolicy
from tests.support.timeline import POLICY, Timeline, decode, interval, prefill


def test_prefill_goes_up_on_a_queue_and_decode_on_kv_usage_in_one_adjustment() -> None:
    timeline = Timeline()
    timeline.expect(0, {}, prefill=prefill(1, 2), decode=decode(1, 0.92))
    timeline.expect(10, {}, prefill=prefill(1, 6), decode=decode(1, 0.95))
    timeline.expect(20, {}, prefill=prefill(1, 8), decode=decode(1, 0.90))
    assert timeline.codes("prefill") == ["Collecting"]
    # queue: (2 + 6 + 8 + 10) / 4 = 6.5 > 5, trend 10 + 3 * (10 - 2) = 34 > 5; KV: (.92 + .95 + .90 + .95) / 4 = .93
    timeline.expect(30, {"prefill": 2, "decode": 2}, prefill=prefill(1, 10), decode=decode(1, 0.95))
    assert list(timeline.decision.targets) == ["prefill", "decode"]
    means = {reason.pool: reason.values["load"] for reason in timeline.decision.reasons}
    assert means == {"prefill": 6.5, "decode": pytest.approx(0.93)}


def test_waiting_requests_weigh_into_kv_usage() -> None:
    timeline = Timeline()
    interval(timeline, 0, {"decode": 2}, decode=decode(2, 0.85, queued=4))  # .85 + .02 * 4 / 2 = .89
    interval(timeline, 30, {"decode": 3}, decode=decode(2, 0.85, queued=6))  # .85 + .02 * 6 / 2 = .91


def test_a_queue_that_is_falling_is_waited_for() -> None:
    timeline = Timeline()
    for at_s, queued in ((0, 20.0), (10, 14.0), (20, 8.0)):
        timeline.expect(at_s, {}, prefill=prefill(1, queued))
    # mean 11 > 5, but 2 + 3 * (2 - 20) < 5
    timeline.expect(30, {"prefill": 1}, prefill=prefill(1, 2))
    assert timeline.codes("prefill") == ["QueueFalling"]
    for at_s, queued in ((40, 20.0), (50, 19.5), (60, 19.0)):
        timeline.see(at_s, prefill=prefill(1, queued))
    assert timeline.decision.targets == {"prefill": 2}  # 19 + 3 * (19 - 20) = 16 > 5


def test_the_queue_counts_per_ready_replica() -> None:
    timeline = Timeline()
    interval(timeline, 0, {"prefill": 3}, prefill=prefill(3, 15))  # 5 each, not over 5
    interval(timeline, 30, {"prefill": 4}, prefill=prefill(3, 15.3))


def test_both_go_down_when_little_is_going_on() -> None:
    timeline = Timeline()
    low = {"prefill": prefill(2, 0.1), "decode": decode(3, 0.4)}  # .4 * 3 / 2 = .6 < .9
    interval(timeline, 0, {"prefill": 1, "decode": 2}, **low)


def test_prefill_may_go_down_while_decode_goes_up() -> None:
    interval(Timeline(), 0, {"prefill": 1, "decode": 2}, prefill=prefill(2, 0), decode=decode(1, 0.95))


def test_between_the_thresholds_nothing_changes_and_the_need_is_told() -> None:
    proposal, state = POLICY.propose(Snapshot(at_s=0, pools={"d": decode(3, 0.6), "p": prefill(2, 4, running=1)}), None)
    proposal, _ = POLICY.propose(Snapshot(at_s=30, pools={"d": decode(3, 0.6), "p": prefill(2, 4, running=1)}), state)
    loads = {name: want.load for name, want in proposal.pools.items()}  # type: ignore[union-attr]
    # decode: 3 * .6 / .9; prefill: 2 * 2 / 5 = .8 by its queue, but 2 * (4 + 1) / 2 requests keep both replicas busy
    assert loads == {"d": pytest.approx(2.0), "p": 2.0}


def test_the_minimum_is_kept() -> None:
    timeline = Timeline()
    two = PoolSpec(role="decode", min_replicas=2)
    interval(timeline, 0, {"decode": 2}, decode=decode(2, 0.1, spec=two))
    assert timeline.codes("decode") == ["AtMinimum"]


def test_means_are_over_the_workers_that_were_seen() -> None:
    timeline = Timeline()
    half = prefill(4, 11, coverage=0.5)  # 11 waiting at two of four: 5.5 each
    interval(timeline, 0, {"prefill": 5}, prefill=half)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"prefill_queue_up": -1}, r"prefill_queue_up\n.*greater than or equal to 0.*-1"),
        ({"decode_kv_up": 90}, r"decode_kv_up\n.*less than or equal to 1.*90"),
        ({"adjustment_interval_s": 0}, r"adjustment_interval_s\n.*greater than 0"),
        ({"decode_grace_intervals": -1}, "decode_grace_intervals"),
        ({"kv_per_waiting": float("nan")}, "kv_per_waiting"),
        (
            {"decode_kv_up": 0.4},
            r"decode_kv_up \(0.4\) must be above decode_kv_down \(0.5\).*: raise decode_kv_up or lower decode_kv_down",
        ),
        ({"prefill_queue_down": 5}, r"prefill_queue_up \(5.0\) must be above prefill_queue_down \(5.0\)"),
        ({"kv_up": 0.8}, "kv_up"),
    ],
)
def test_what_cannot_work_is_refused_by_name(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        LoadPolicy(**fields)


def test_it_is_data() -> None:
    data = {"kind": "load", "decode_kv_up": 0.8, "decode_kv_down": 0.3}
    policy = load_policy(data)
    assert policy == LoadPolicy(decode_kv_up=0.8, decode_kv_down=0.3)
    assert load_policy(policy.model_dump()) == policy
