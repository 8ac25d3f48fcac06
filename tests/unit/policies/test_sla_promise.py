"""The attainment part: an account of missed requests moves what is asked of each role. Numbers are worked by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from dynamo_planner import PoolSpec, PoolStatus, Replicas, Sla, Snapshot, State, Traffic
from dynamo_planner.core.metrics import Dist
from dynamo_planner.policies.sla import KeptPromise
from dynamo_planner.policies.sla.arrivals import ArrivalWindow
from dynamo_planner.policies.sla.attainment import AskedShares, PoolActivity, PromiseEvidence
from dynamo_planner.policies.sla.misses import MissMemory, Waits, missed_by_role
from dynamo_planner.policies.sla.promise import DEBT, LEAK_HALF_LIFE, PromiseMemory, RoleAccount
from dynamo_planner.policies.sla.state import LastPlan
from dynamo_planner.policies.sla.tick import Engine, Queue, Tick
from tests.support.sla_service import Service

SLA = Sla(ttft_ms=500, itl_ms=25, attainment=0.99)
PART = KeptPromise(promise_window_s=1000)
TICK_S = 10.0
RATE = 10.0


def evidence(
    late: float | None = 0.0, slow: float = 0.0, *, sla: Sla = SLA, roles: tuple[str, ...] = ("prefill", "decode"),
    replicas: dict[str, Any] | None = None, last: dict[str, Any] | None = None, queued: dict[str, float] | None = None,
    at_s: float = 1000.0, waiting: float = 0.0,
) -> PromiseEvidence:  # fmt: skip
    """A window of 100 requests, of which these shares missed TTFT and ITL."""
    traffic = Traffic(
        window_s=TICK_S, requests_per_s=RATE, queued=0,
        ttft_ms=None if late is None else Dist(mean=100, count=100, buckets={500: 1 - late}),
        itl_ms=Dist(mean=10, count=100, buckets={25: 1 - slow}),
    )  # fmt: skip
    held = Replicas(**{"ready": 4, **(replicas or {})})
    specs = {role: PoolSpec.model_validate({"role": role}) for role in roles}
    pools = {
        role: PoolStatus(spec=spec, replicas=held, queued=(queued or {}).get(role, 0)) for role, spec in specs.items()
    }
    snapshot = Snapshot(at_s=at_s, traffic=traffic, pools=pools)
    plan = LastPlan(**{"target": 4, "required": 4, "load": 3.0, **(last or {})})
    activity = tuple(
        PoolActivity(Tick(name, pool, held, snapshot, 1.0, Engine(), 60), Queue(waiting), plan)
        for name, pool in pools.items()
    )
    return PromiseEvidence(snapshot, sla, ArrivalWindow(at_s, RATE, TICK_S, TICK_S), activity)


def account(balance: float, **more: float) -> PromiseMemory:
    """A memory whose roles have this balance, as if a promise window of 10 requests/s were behind it."""
    roles = dict.fromkeys(("prefill", "decode"), RoleAccount(balance=balance, **more))
    return PromiseMemory(sla=SLA, requests=1e4, seconds=1e3, judged_s=1e3, roles=roles)


def asked(state: PromiseMemory | None, *windows: PromiseEvidence) -> tuple[AskedShares, PromiseMemory]:
    for each in windows:
        shares, state = PART.ask(state, each)
    assert state is not None
    return shares, state


def test_a_window_moves_the_balance_by_its_part_of_a_promise_window() -> None:
    """100 of 10,000 requests: +0.01 without a miss, and (1 - 10) * 0.01 with 5 % of a budget of 0.5 %."""
    _, good = asked(account(0.0), evidence())
    assert good.roles["prefill"].balance == pytest.approx(0.01, rel=0.02)
    _, bad = asked(account(0.0, missed=0.005), evidence(late=0.05))
    assert bad.roles["prefill"].balance == pytest.approx(-0.09, rel=0.02)
    assert bad.roles["decode"].balance == pytest.approx(0.01, rel=0.02)


def test_the_account_of_a_window_number_by_number() -> None:
    """100 requests in 10 s of 10,000 in 1000 s, of which 5 % missed TTFT and 2 % ITL. Each role may miss 0.6 %."""
    before = RoleAccount(balance=0.3, missed=0.004, recent=0.002, least=0.0015)
    state = account(0.0).replace(roles=dict.fromkeys(("prefill", "decode"), before))
    shares, after = asked(state, evidence(late=0.05, slow=0.02))
    kept = 2 ** (-10 / 1000)
    assert [after.requests, after.seconds, after.judged_s] == pytest.approx([kept * 1e4 + 100, kept * 1e3 + 10, 1010])
    assert shares.late_s == pytest.approx(0.7)
    leaked = 0.3 * 2 ** (-10 / 24_000)
    for role, late in (("prefill", 0.05), ("decode", 0.02)):
        found = after.roles[role]  # type: ignore[index]
        recent = late + 2 ** (-10 / 600) * (0.002 - late)
        assert found.balance == pytest.approx(leaked + (1 - late / 0.006) * 0.01)
        assert found.missed == pytest.approx(0.004 + (1 - math.exp(-0.01)) * (late - 0.004))
        assert [found.recent, found.least] == pytest.approx([recent, recent + 2 ** (-10 / 21_600) * (0.0015 - recent)])
        assert found.caution == pytest.approx(-4 * found.balance)
    assert shares.caution == {"prefill": -1.0, "decode": -1.0}  # balances of 0.227 and 0.277 are 0.91 and 1.11
    # decode leaves 1 - 0.42 % and prefill 1 - 0.45 %: in steps of 0.35 both are exp(-5.25), 0.525 %; an odds ratio of e
    budget = math.exp(-0.35 * 15)
    odds = (1 - budget) / budget / math.e
    assert shares.by_role == {role: pytest.approx(odds / (1 + odds)) for role in ("prefill", "decode")}


def test_misses_that_are_unattainable_are_taken_out_up_to_the_least_that_was_missed() -> None:
    """3 % are said to be, and never less than 2 % were missed: (5 % - 2 %) / 98 %."""
    before = RoleAccount(balance=0.3, missed=0.004, recent=0.02, least=0.02)
    state = account(0.0).replace(roles=dict.fromkeys(("prefill", "decode"), before))
    _, after = asked(state, evidence(late=0.05, last={"unattainable": 0.03}))
    recent = 0.05 + 2 ** (-10 / 600) * (0.02 - 0.05)
    least = recent + 2 ** (-10 / 21_600) * (0.02 - recent)
    late = (0.05 - least) / (1 - least)
    assert after.roles["prefill"].missed == pytest.approx(0.004 + (1 - math.exp(-0.01)) * (late - 0.004))


def test_misses_that_have_their_answer_make_no_more_caution_than_there_is() -> None:
    """Half of the requests are late: a debt of 0.1 - 0.82, but 0.25 at most while a required replica starts."""
    before = RoleAccount(balance=-0.1, missed=0.004, caution=0.2)
    state = account(0.0).replace(roles=dict.fromkeys(("prefill", "decode"), before))
    _, open_ = asked(state, evidence(late=0.5))
    leaked = -0.1 * 2 ** (-10 / 24_000)
    assert open_.roles["prefill"].balance == pytest.approx(leaked + (1 - 0.5 / 0.006) * 0.01)
    assert open_.roles["prefill"].caution == pytest.approx(-3 * open_.roles["prefill"].balance)
    _, starts = asked(state, evidence(late=0.5, replicas={"ready": 3, "starting": 1}))
    _, waits = asked(state, evidence(late=0.5, waiting=5.1))  # over 10/s * 0.5 s
    for found in (starts, waits):
        assert (found.roles["prefill"].balance, found.roles["prefill"].caution) == (-0.25, 0.2)
    _, few = asked(state, evidence(late=0.5, waiting=5.0))
    assert few.roles["prefill"].balance < -0.25


def test_what_the_other_is_expected_to_miss_is_taken_in_steps() -> None:
    """Of 1 %, of which the other misses 0.3 %, 0.7 %: exp(-0.35 * 14) is 0.745 %."""
    left, _ = asked(None, evidence(late=None, last={"attained": 0.997}))
    assert left.by_role["prefill"] == pytest.approx(1 - math.exp(-4.9))


def test_credit_asks_for_less_and_debt_for_more() -> None:
    """99.5 % are log-odds of 5.29; a balance of 0.25 takes 1 of them, 98.66 %, and one of -0.5 adds 1.5, 99.89 %. From
    0.5 on 2 are taken, 96.4 %."""
    for balance, share in ((0.25, 0.9866), (0.5, 0.964), (1.0, 0.964)):
        even = account(balance, missed=0.005)
        assert asked(even, evidence())[0].by_role["prefill"] == pytest.approx(share, abs=0.002)
    assert asked(account(-0.5, missed=0.005), evidence())[0].by_role["prefill"] == pytest.approx(0.9989, abs=0.0001)


def test_a_role_gets_the_budget_that_the_other_leaves() -> None:
    """Decode misses nothing, so prefill may miss all of 1 %; were it 0.5 %, half of it."""
    assert asked(account(0.0), evidence())[0].by_role["prefill"] == pytest.approx(0.99, abs=0.001)
    assert asked(account(0.0, missed=0.005), evidence())[0].by_role["prefill"] == pytest.approx(0.995, abs=0.0006)


def test_a_cold_start_is_careful_and_says_how_long_it_learns() -> None:
    shares, _ = asked(None, evidence())
    assert min(shares.by_role.values()) > 0.99
    assert "learned for 990 s more" in shares.reasons[-1].message


def test_where_misses_are_unknown_a_role_may_miss_what_the_sizing_of_the_other_does_not() -> None:
    """Of 1 %: half of it while the other is expected to miss as much, nearly all while it is to miss 0.05 %."""
    even, _ = asked(None, evidence(late=None, last={"attained": 0.995}))
    assert even.by_role["prefill"] == pytest.approx(0.995, abs=0.0006)
    left, _ = asked(None, evidence(late=None, last={"attained": 0.9995}))
    assert left.by_role["prefill"] == pytest.approx(0.99)
    assert [reason.code for reason in left.reasons] == ["PromiseUnknown"]


def test_what_a_bound_or_an_unattainable_prompt_explains_is_not_learned_from() -> None:
    bound = evidence(late=0.3, last={"target": 9})
    assert asked(account(0.3), bound)[1].roles["prefill"].balance == 0.3
    _, hopeless = asked(account(0.3), *[evidence(late=0.03, last={"unattainable": 0.03})] * 5)
    assert hopeless.roles["prefill"].balance > 0.3
    _, learned = asked(None, *[evidence()] * 90, evidence(late=0.03, last={"unattainable": 0.03}))
    assert learned.roles["prefill"].balance < 0.65  # 0.25 short of 0.9, less 2 % of a window: the model was wrong


def test_while_starts_are_the_answer_already_the_caution_does_not_rise() -> None:
    """Half of the requests of three windows, budget 0.5 %: 3 * 0.99 windows of debt, of which 0.25 count."""
    starting = evidence(late=0.5, replicas={"ready": 2, "starting": 2})
    shares, state = asked(account(0.0, caution=0.0, missed=0.005), *[starting] * 3)
    assert shares.caution["prefill"] == 0
    assert state.roles["prefill"].balance == -0.25
    assert asked(state, evidence(at_s=1020))[0].caution["prefill"] == 0  # what is late two windows on is still theirs
    assert asked(state, evidence(at_s=1030))[0].caution["prefill"] == 0.5  # 3 * 0.24, in steps of 0.5
    assert asked(account(-1.0), starting)[1].roles["prefill"].balance == -1


def test_what_waited_meanwhile_is_no_reason_for_caution_either() -> None:
    """At 10 requests/s and 500 ms more than 5 that wait are late; they are drained."""
    for waiting, caution in ((6.0, 0), (4.0, 4.5)):
        backlog = evidence(late=0.5, waiting=waiting)
        assert asked(account(0.0, caution=0.0, missed=0.005), *[backlog] * 3)[0].caution["prefill"] == caution


def test_another_sla_begins_anew_and_a_state_survives_json() -> None:
    _, state = asked(None, *[evidence(late=0.2)] * 20)
    assert PromiseMemory.model_validate_json(state.model_dump_json()) == state
    other, fresh = SLA.replace(attainment=0.9), asked(None, evidence())[1]
    assert PART.ask(state, evidence(sla=other))[1].roles["prefill"].balance == fresh.roles["prefill"].balance


def missed_in_the_end(plant: Callable[[float], float], promise_windows: int) -> tuple[float, float]:
    """The mean of what prefill missed, and the last share that was asked, where a share misses so many."""
    state, missed, share = None, [], 0.99
    for _ in range(100 * promise_windows):
        missed.append(plant(share))
        shares, state = PART.ask(state, evidence(late=missed[-1]))
        share = shares.by_role["prefill"]
    return sum(missed) / len(missed), share


@pytest.mark.parametrize("wrong", [-4.0, 0.0, 2.5])
def test_the_promise_holds_in_the_long_run_however_wrong_the_model_is(wrong: float) -> None:
    """A sizing that is off by so many log-odds: 1 + (1 + 1.5) / 6 + 1.5 ln 2 / 24 times the budget at most."""

    def plant(share: float) -> float:
        return 1 / (1 + math.exp(math.log(share / (1 - share)) - wrong))

    mean, share = missed_in_the_end(plant, 6)
    assert mean <= 0.01 * (1 + (1 + DEBT) / 6 + DEBT * math.log(2) / LEAK_HALF_LIFE)
    assert wrong > -2 or share < 0.95  # a model that is far too careful is asked for less


def missed(snapshot: Snapshot, memory: MissMemory | None = None, **expected: float) -> dict[str, float] | None:
    roles: Any = expected
    window = ArrivalWindow(snapshot.at_s, snapshot.traffic.requests_per_s or 0.0, 30, 10)
    return missed_by_role(memory or MissMemory(), snapshot, SLA, window, roles)[0]  # type: ignore[return-value]


def test_a_late_first_token_is_charged_to_the_pool_that_requests_wait_for() -> None:
    """91 wait for decode at 10/s, 9.1 s: 0.97 of what is late is the fault of decode."""
    found = missed(evidence(late=0.2, queued={"decode": 91}).snapshot)
    assert found is not None
    assert found["decode"] / sum(found.values()) == pytest.approx(9.1 / 9.35)


@pytest.mark.parametrize(
    ("dist", "share"),
    [
        (Dist(mean=20, buckets={22: 0.8, 28: 1.0}), 0.0),  # none beyond 28 ms: the tail ends below the target
        (Dist(mean=26, buckets={22: 0.8, 28: 1.0}), 0.1),  # the mean is above the target: half of the bucket
        (Dist(mean=20, buckets={22: 0.8, 28: 0.98}), 0.0590),  # 0.2 ** 0.47 * 0.02 ** 0.53, at 25 of 22 to 28
        (Dist(mean=20, quantiles={0.9: 18}), 0.004),  # above 18 ms are 10 %, and the sizing expects 0.4 %
        (Dist(mean=20, quantiles={0.9: 30}), 0.25),  # 10 % above 30 ms, and a sixth of the others in 25 of 0 to 30
    ],
)
def test_the_share_above_a_target_between_two_bounds(dist: Dist, share: float) -> None:
    snapshot = evidence().snapshot
    snapshot = snapshot.replace(traffic=snapshot.traffic.replace(itl_ms=dist))
    found = missed(snapshot, decode=0.004)
    assert found is not None
    assert found["decode"] == pytest.approx(share, abs=0.003)
    assert Waits(0, 0) == MissMemory().waits


def test_seconds_of_traffic_that_were_late_are_told_to_the_plan() -> None:
    """Half of the last 10 s by prefill and a tenth by decode; never more than there were."""
    assert asked(None, evidence(late=0.5, slow=0.1))[0].late_s == pytest.approx(6.0)
    assert asked(None, evidence(late=0.7, slow=0.7))[0].late_s == 10.0
    assert asked(None, evidence(late=None))[0].late_s == 0


def test_a_queue_over_hardly_any_arrivals_survives_json() -> None:
    """5 requests that wait at the smallest rate that there is would wait for ever, and JSON has no infinity."""
    service = Service()
    service.see(5e-324, pools={"prefill": {"queued": 5}, "decode": {"queued": 5}})
    assert service.state is not None
    service.state = State.model_validate_json(service.state.model_dump_json())
    service.see(1)
    assert "StateReset" not in [reason.code for reason in service.decision.reasons]
