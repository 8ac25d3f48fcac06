"""Keeping the promise: an account of missed requests says how careful the sizing has to be.

Each role has a budget of misses ``e``: what the promise allows, less what the other role has missed lately, and at
least an even part. Where misses were never observed, the other role misses what its sizing expects: whole replicas
keep more in time than was asked. Its account has a balance, in promise windows::

    A <- clip(A + (1 - m / e) n / N - leak, -DEBT, CREDIT)

======  ==============================================================================================================
``A``   balance: 1 after a promise window without a miss; it stays where it is while misses are as many as allowed
``m``   share of the attainable requests of a window that missed the SLA because of the role
``n``   requests of this window
``N``   requests of a promise window, ``promise_window_s`` at its mean rate
======  ==============================================================================================================

With a budget of 0.5 %, 1,000 requests of 36,000 in a promise window, 5 % of them missed, move the balance by
``(1 - 10) / 36 = -0.25``.

The balance becomes the **caution** of the role, in log-odds: ``-EASE A`` where there is credit, down to
``-MAX_EASE``, and ``-TIGHTEN A`` where there is debt. The sizing is asked for the share ``logit(1 - e) + caution``. The
plan raises its rate where the caution is above 0, and lowers its quantile of the forecast where it is below. With a
balance of 0.25 and ``EASE`` of 4, 99.5 % become 98.7 %.

**What is guaranteed.** The balance is the integral of the error of a conformal controller, the error being the miss,
with saturation (Gibbs and Candes 2021, adaptive conformal inference, proposition 4.1; Angelopoulos, Candes and
Tibshirani 2023, conformal PID control, proposition 1). Summing up its steps, over any stretch of ``T`` promise
windows, whatever the traffic and however wrong the model::

    mean of m <= e (1 + (CREDIT + DEBT) / T + DEBT ln 2 / LEAK_HALF_LIFE)

as long as the balance is not cut off at ``-DEBT``. This assumes that the most careful sizing is good enough: that at
``-DEBT`` a role misses no more than ``e``. No sizing can do that while a burst outruns a start; such misses beyond
``DEBT`` windows of budget are forgiven, so that one bad hour is not paid for all day. What is cut off at ``CREDIT``
makes the mean smaller. The budgets of two roles add up to what the promise allows, and a request that misses both
targets counts twice, so the bound holds for both together.

**What is not counted.** Requests that miss a target even when served alone: the share that the sizing says, and at most
the least that was missed for :data:`RECENT_HALF_LIFE_S`. Windows in which a pool has fewer replicas than were proposed,
as at ``max_replicas``: no share helps there. While replicas that are required start, or what waited meanwhile is
drained, the plan has answered already: the caution does not rise above what it was, and misses count up to a debt of
``EXPLAINED_DEBT``. What they cost is a reason to keep replicas for longer
(:mod:`~dynamo_planner.policies.sla.regret`), and none to size each load for more. That ends :data:`LATE_WINDOWS`
windows of traffic later, since a latency is observed when the wait is over.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

from pydantic import Field

from dynamo_planner.core.decision import Reason
from dynamo_planner.core.snapshot import Role, Sla
from dynamo_planner.core.values import Frozen, FrozenMap, ReadOnly
from dynamo_planner.forecasting.experts.base import decayed
from dynamo_planner.policies.sla.attainment import AskedShares, Attainment, PoolActivity, PromiseEvidence
from dynamo_planner.policies.sla.misses import MissMemory, missed_by_role
from dynamo_planner.policies.sla.regret import LATE_WINDOWS

CREDIT, DEBT = 1.0, 1.5
"""The bounds of a balance, in promise windows."""

EXPLAINED_DEBT = 0.25
"""The debt, in promise windows, beyond which misses do not count while required replicas are starting."""

EASE, TIGHTEN = 4.0, 3.0
"""Log-odds of caution per promise window of credit, and of debt."""

MAX_EASE = 2.0
"""The least caution, in log-odds: what half a window of credit makes for."""

FIRST_BALANCE = -0.25
"""The balance that an account begins with: until the promise was kept for this part of a window, more is asked than
was promised."""

CAUTION_STEP, BUDGET_STEP = 0.5, 0.35
"""Caution and the logarithm of a budget are rounded to these steps, so that one sizing serves for many ticks."""

LEAK_HALF_LIFE = 24.0
"""A balance goes half of the way to 0 in this many promise windows."""

RECENT_HALF_LIFE_S = 600.0
"""Half-life in seconds of the mean of recent misses, the least of which bounds what counts as unattainable."""

LEAST_HALF_LIFE_S = 21_600.0
"""The least share that was missed goes half of the way to the recent one in this time, in seconds."""


class RoleAccount(NamedTuple):
    """The account of one role.

    Args:
        balance: Its balance, in promise windows.
        missed: The share of attainable requests that it missed, the mean of about a promise window.
        recent: The share of all requests that it missed, the mean of some minutes; ``None`` before there were any.
        least: The least of that.
        caution: The caution at the tick before, in log-odds.
        answered_s: When misses last had their answer in a start or a backlog, in Unix seconds; ``None`` for never.
    """

    balance: float = FIRST_BALANCE
    missed: float = 0.0
    recent: float | None = None
    least: float = 1.0
    caution: float = -TIGHTEN * FIRST_BALANCE
    answered_s: float | None = None


class PromiseMemory(Frozen):
    """What is kept of the promise.

    Args:
        sla: The SLA that the accounts are for; with another one they begin anew.
        requests: Requests of about a promise window, fading.
        seconds: The seconds in which they came, fading alike.
        judged_s: Seconds of traffic whose share in time was known, ever.
        misses: What tells missed requests apart.
        roles: The accounts.
    """

    sla: Sla
    requests: float = 0.0
    seconds: float = 0.0
    judged_s: float = 0.0
    misses: MissMemory = MissMemory()
    roles: ReadOnly[Role, RoleAccount] = Field(default_factory=FrozenMap)


class KeptPromise(Attainment, kind="kept_promise"):
    """The share that keeps the promise, by an account of what was missed
    (:mod:`~dynamo_planner.policies.sla.promise`).

    It begins careful, asks for more than the promise where requests were missed, and for less where none were.
    Where the share in time is unknown, it asks what the SLA says.

    Args:
        promise_window_s: Seconds over which the promise is to hold. Within less, misses may come together; the longer
            it is, the more of them a burst may cause before the sizing changes. Default 3600.
    """

    promise_window_s: float = Field(default=3600.0, gt=0)

    state_type: ClassVar[Any] = PromiseMemory

    def ask(self, state: PromiseMemory | None, evidence: PromiseEvidence) -> tuple[AskedShares, PromiseMemory]:
        memory = state if state is not None and state.sla == evidence.sla else PromiseMemory(sla=evidence.sla)
        late_s = 0.0
        if evidence.arrivals.elapsed_s:
            memory, late_s = self._counted(memory, evidence)
        present = dict.fromkeys([pool.tick.pool.spec.role for pool in evidence.pools])
        roles = dict(memory.roles)
        shares: dict[Role, float] = {}
        cautions: dict[Role, float] = {}
        for role in present:
            account = _with_answers(roles.get(role) or _fresh(memory.sla, len(present)), role, evidence)
            caution = _caution(account, answered=_is_answered(account, evidence)) if memory.judged_s else 0.0
            roles[role] = account._replace(caution=caution)
            cautions[role] = CAUTION_STEP * round(caution / CAUTION_STEP)
            left = _budget(memory, role, len(present)) if memory.judged_s else _expected_budget(role, evidence)
            budget = min(math.exp(BUDGET_STEP * round(math.log(left) / BUDGET_STEP)), 1 - memory.sla.attainment)
            shares[role] = (1 - budget) / (1 - budget + budget * math.exp(-cautions[role]))
        reasons = self._reasons(memory, roles, shares)
        return AskedShares(shares, reasons, cautions, late_s), memory.replace(roles=FrozenMap(roles))

    def _counted(self, memory: PromiseMemory, evidence: PromiseEvidence) -> tuple[PromiseMemory, float]:
        """The memory after a window that was not counted before, and the seconds of traffic in it that were late."""
        arrivals, pools = evidence.arrivals, evidence.pools
        expected = {pool.tick.pool.spec.role: 1 - pool.last.attained for pool in pools if pool.last is not None}
        missed, misses = missed_by_role(memory.misses, evidence.snapshot, evidence.sla, arrivals, expected)
        span_s = min(arrivals.elapsed_s, arrivals.window_s)
        keep = decayed(arrivals.elapsed_s, self.promise_window_s)
        memory = memory.replace(
            misses=misses,
            requests=keep * memory.requests + arrivals.new_requests,
            seconds=keep * memory.seconds + span_s,
            judged_s=memory.judged_s + (0.0 if missed is None else span_s),
        )
        if missed is None:
            return memory, 0.0
        part = arrivals.new_requests / max(memory.requests / memory.seconds * self.promise_window_s, 1.0)
        leak = 1 - decayed(arrivals.elapsed_s, LEAK_HALF_LIFE * self.promise_window_s)
        roles, late_s = dict(memory.roles), 0.0
        for role, share in missed.items():
            own = [pool for pool in pools if pool.tick.pool.spec.role == role]
            account = _with_answers(roles.get(role) or _fresh(memory.sla, len(missed)), role, evidence)
            account = _with_least(account, share, arrivals.elapsed_s)
            late = _of_attainable(share, account, own)
            late_s += late * min(arrivals.elapsed_s, arrivals.window_s)
            if own and not any(map(_kept_short, own)):
                gain = (1 - late / _budget(memory, role, len(missed))) * part
                least = min(account.balance, -EXPLAINED_DEBT) if _is_answered(account, evidence) else -DEBT
                account = account._replace(
                    balance=min(max((1 - leak) * account.balance + gain, least), CREDIT),
                    missed=account.missed + (1 - math.exp(-part)) * (late - account.missed),
                )
            roles[role] = account
        return memory.replace(roles=FrozenMap(roles)), min(late_s, arrivals.elapsed_s)

    def _reasons(
        self, memory: PromiseMemory, roles: dict[Role, RoleAccount], shares: dict[Role, float]
    ) -> tuple[Reason, ...]:
        """What was promised and kept, and what is asked of each role."""
        if not memory.judged_s:
            message = "the share of requests in time is unknown: sized for what is promised"
            return (Reason.unchecked(code="PromiseUnknown", message=message),)
        promised, attained = memory.sla.attainment, 1 - min(sum(roles[role].missed for role in shares), 1.0)
        asked = ", ".join(f"{share:.2%} of {role}" for role, share in sorted(shares.items()))
        reasons = [
            Reason.unchecked(
                code="PromiseKept" if attained >= promised else "PromiseMissed",
                pool=None,
                message=f"{attained:.2%} of the attainable requests were in time, {promised:.2%} are promised; {asked} "
                "are asked for",
                values=FrozenMap({"promised": promised, "attained": attained}),
            )
        ]
        if memory.judged_s < self.promise_window_s:
            left_s = self.promise_window_s - memory.judged_s
            message = f"the promise is observed for {memory.judged_s:.0f} s, and learned for {left_s:.0f} s more"
            reasons.append(Reason.unchecked(code="PromiseLearned", pool=None, message=message, values=FrozenMap()))
        return tuple(reasons)


def _fresh(sla: Sla, count: int) -> RoleAccount:
    """A new account, as if an even part of what is allowed had been missed."""
    return RoleAccount(missed=(1 - sla.attainment) / count)


def _caution(account: RoleAccount, *, answered: bool) -> float:
    """The caution of a role; while its misses have their answer, no more than it was."""
    caution = -min(EASE * account.balance, MAX_EASE) if account.balance > 0 else -TIGHTEN * account.balance
    return min(caution, max(account.caution, 0.0)) if answered else caution


def _budget(memory: PromiseMemory, role: Role, count: int) -> float:
    """The share of requests that a role may miss: what the others leave, and at least an even part."""
    allowed = 1 - memory.sla.attainment
    if not memory.roles:
        return allowed / count
    others = sum(account.missed for name, account in memory.roles.items() if name != role)
    return min(max(allowed - others, allowed / count), allowed)


def _expected_budget(role: Role, evidence: PromiseEvidence) -> float:
    """The share of requests that a role may miss by what the sizing expects of the others, and at least an even part.

    Of 1 %, of which decode is expected to miss 0.05 %, prefill may miss 0.95 %.
    """
    allowed = 1 - evidence.sla.attainment
    count = len({pool.tick.pool.spec.role for pool in evidence.pools})
    others = [pool.last for pool in evidence.pools if pool.tick.pool.spec.role != role]
    missed = sum([allowed if last is None else 1 - last.attained for last in others])
    return min(max(allowed - missed, allowed / count), allowed)


def _with_least(account: RoleAccount, share: float, elapsed_s: float) -> RoleAccount:
    """The account with the recent misses, and the least of them."""
    before = share if account.recent is None else account.recent
    recent = share + decayed(elapsed_s, RECENT_HALF_LIFE_S) * (before - share)
    least = recent + decayed(elapsed_s, LEAST_HALF_LIFE_S) * (account.least - recent)
    return account._replace(recent=recent, least=min(recent, least))


def _of_attainable(share: float, account: RoleAccount, pools: Sequence[PoolActivity]) -> float:
    """The share of attainable requests that were missed: 5 % of all, of which 3 % are unattainable, are 2.06 %."""
    said = max((pool.last.unattainable for pool in pools if pool.last is not None), default=0.0)
    unattainable = min(said, account.least)
    return max(share - unattainable, 0.0) / (1 - unattainable) if unattainable < 1 else 0.0


def _kept_short(pool: PoolActivity) -> bool:
    """Whether a pool has fewer replicas than were proposed for it."""
    return pool.last is None or pool.tick.replicas.target < pool.last.target


def _with_answers(account: RoleAccount, role: Role, evidence: PromiseEvidence) -> RoleAccount:
    """The account with this tick, where replicas that are required start, or requests wait for longer than they may."""
    target_s, rate = evidence.sla.ttft_ms / 1000, evidence.arrivals.requests_per_s
    for pool in evidence.pools:
        tick = pool.tick
        starts = tick.replicas.starting and pool.last is not None and tick.replicas.ready < pool.last.required
        if tick.pool.spec.role == role and (starts or (pool.queue.requests or 0.0) > rate * tick.share * target_s):
            return account._replace(answered_s=evidence.snapshot.at_s)
    return account


def _is_answered(account: RoleAccount, evidence: PromiseEvidence) -> bool:
    """Whether what is late now may be what a start or a backlog left."""
    late_s = LATE_WINDOWS * evidence.arrivals.window_s
    return account.answered_s is not None and evidence.snapshot.at_s - account.answered_s <= late_s
