"""The loop: observe, decide, apply, record.

It has no rules of its own: a source and an executor report what is, a policy decides what should be, and the loop goes
on when one of them fails. A program with a loop of its own calls :meth:`Planner.step` from it; under asyncio, as
``await asyncio.to_thread(planner.step)``.

>>> from dynamo_planner.executors.dry_run import DryRunExecutor
>>> from dynamo_planner.core.metrics import Traffic
>>> from dynamo_planner.core.snapshot import Observation, PoolSpec
>>> class Busy:
...     def observe(self, at_s):
...         return Observation(traffic=Traffic(requests_per_s=30))
>>> executor = DryRunExecutor({"workers": PoolSpec(role="aggregated")})
>>> policy = lambda snapshot: {"workers": round(snapshot.traffic.requests_per_s / 10)}
>>> step = Planner(policy, Busy(), executor, clock=lambda: 0.0).step()
>>> print(step.decision.explain())
workers: 1 -> 3 replicas
>>> step.outcomes[0].message
'dry run: would scale workers from 1 to 3 replicas'
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from dynamo_planner.core.decision import Action, Decision, Outcome, Reason, State
from dynamo_planner.core.policy import PlainFunction, Policy, as_policy
from dynamo_planner.core.snapshot import PoolSpec, Replicas, Snapshot
from dynamo_planner.core.values import KnobValue
from dynamo_planner.executors import (
    ConsidersLoad,
    Executor,
    ExecutorError,
    RecordsDecisions,
    ReportsKnobs,
    ReportsTroubles,
    ReportsUnknown,
)
from dynamo_planner.runtime.checked import checked_decision, checked_mapping, checked_outcomes, checked_troubles
from dynamo_planner.runtime.decision_log import DecisionLog, Step
from dynamo_planner.runtime.files import PlannerFiles
from dynamo_planner.runtime.hold_watch import HoldWatch
from dynamo_planner.runtime.holding import without_policy
from dynamo_planner.runtime.pool_check import PoolNameCheck
from dynamo_planner.runtime.signals import stop_signals
from dynamo_planner.runtime.snapshot_builder import merge, requests_by_worker, without_metrics
from dynamo_planner.runtime.state_file import DamagedStateError
from dynamo_planner.runtime.ticker import TickSchedule
from dynamo_planner.sources import Source, SourceError

logger = logging.getLogger(__name__)

CLOCK_BACK_S = 60.0
"""A clock that is set back by more resets the policy's state; by less, time stands still until the clock catches up."""

LONGEST_MESSAGE = 500


class Observed(NamedTuple):
    """What a step found.

    Args:
        began_s: When it began, in Unix seconds.
        snapshot: The snapshot.
        failures: Why it is not complete.
    """

    began_s: float
    snapshot: Snapshot
    failures: tuple[Reason, ...]


class Planner:
    """Every ``interval_s``: observe the source and the executor, let the policy decide, apply, record.

    A failure is a hold with a reason and a log line, never the end of the loop:

    - ``SourceFailed``, ``ExecutorFailed``: one of them could not be read. The policy does not decide and every pool is
      held; the guards that were put on it with ``|`` still apply, so that a pin or a bound holds on a night without
      metrics. The policy's state stays as it was.
    - ``PolicyFailed``: the policy or a guard raised. No action is taken.
    - ``StateReset``: the state file was damaged (it is set aside under another name), or the clock was set back.
    - ``ClockSetBack``: by less than a minute; time stands still until that is made up for.
    - ``UnknownPool``: the policy or a guard names a pool that the executor does not have.
    - ``HoldLasts``: a pool has been held for a quarter of an hour, by what is in the message.
    - ``StateFileFailed``, ``LogFailed``: the policy's state could not be written in this step, or the decision log in
      the step before. The loop goes on; a planner that is restarted would go on from an older state.

    An executor that raises while it acts makes the outcome of each action ``failed``.

    Args:
        policy: Decides; a plain function of a snapshot will do.
        source: Observes the metrics.
        executor: Observes the replicas and acts.
        interval_s: Seconds from one step to the next (10).
        clock: Gives Unix seconds.
        sleep: Waits for a number of seconds.
        log: Takes a line for each step, see :class:`DecisionLog` (``None``: no log).
        state_file: Keeps the policy's state, so that a restart goes on from there (``None``: in memory only).
        advisory: Decide and record without acting (false).
        name: Stands in the records and log lines.
    """

    def __init__(
        self,
        policy: Policy | PlainFunction,
        source: Source,
        executor: Executor,
        *,
        interval_s: float = 10.0,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
        log: str | Path | DecisionLog | None = None,
        state_file: str | Path | None = None,
        advisory: bool = False,
        name: str = "planner",
    ) -> None:
        if not (math.isfinite(interval_s) and interval_s > 0):
            raise ValueError(f"interval_s must be a positive number of seconds, got {interval_s}")
        self._policy = as_policy(policy)
        self.source = source
        self.executor = executor
        # asked once: a check against a protocol tries each of its members, and steps are many in a backtest
        self._reports_unknown = executor if isinstance(executor, ReportsUnknown) else None
        self._reports_knobs = executor if isinstance(executor, ReportsKnobs) else None
        self._considers_load = executor if isinstance(executor, ConsidersLoad) else None
        self._reports_troubles = executor if isinstance(executor, ReportsTroubles) else None
        self._records_decisions = executor if isinstance(executor, RecordsDecisions) else None
        self.interval_s = interval_s
        self.advisory = advisory
        self.name = name
        self._clock = clock
        self._sleep = sleep
        self._files = PlannerFiles(name, log, state_file)
        self._stepping = threading.Lock()
        self._state: State | None = None
        self._at_s: float | None = None
        self._pending_reasons: list[Reason] = []
        self._pool_names, self._holds = PoolNameCheck(name), HoldWatch(name)
        self._continue_from_file()

    @property
    def policy(self) -> Policy:
        """The policy. A new one, set between two steps, goes on from the state of the old one, node by node.

        A node that was not there before starts anew.
        """
        return self._policy

    @policy.setter
    def policy(self, policy: Policy | PlainFunction) -> None:
        self._policy = as_policy(policy)

    def step(self) -> Step:
        """One turn of the loop, now. Calls from several threads run one after the other."""
        with self._stepping:
            observed = self.observe()
            return self.apply(observed, self._decide(observed.snapshot, observed.failures))

    def resume(self, at_s: float) -> None:
        """Go on from a time: no step is earlier."""
        self._at_s = at_s

    def observe(self, began_s: float | None = None) -> Observed:
        """The first half of a step, for a loop that decides on several planners together and gives them its time."""
        began_s = float(self._clock()) if began_s is None else began_s
        return Observed(began_s, *self._observe(self._monotonic(began_s)))

    def apply(self, observed: Observed, decision: Decision) -> Step:
        """The second half of a step: act on a decision, and record it."""
        at_s, snapshot = observed.snapshot.at_s, observed.snapshot
        outcomes = self._act(decision.actions, snapshot)
        self._at_s, self._state = at_s, decision.state
        decision = because(decision, self._files.save(at_s, decision.state))
        self._record_decision(decision, outcomes)
        step = Step(
            at_s=at_s,
            name=self.name,
            snapshot=snapshot,
            decision=decision,
            outcomes=outcomes,
            advisory=self.advisory,
            took_s=max(0.0, float(self._clock()) - observed.began_s),
        )
        self._pending_reasons.extend(self._files.log(step))
        return step

    def with_pending(self, decision: Decision, snapshot: Snapshot) -> Decision:
        """The decision with what happened beside it since the last one, and what lasts."""
        pending, self._pending_reasons = tuple(self._pending_reasons), []
        pending += (*self._pool_names.unknown(self._policy, snapshot.pools),)
        return because(decision, (*pending, *self._holds.lasting(decision, snapshot.pools)))

    def run(
        self,
        stop: threading.Event | None = None,
        *,
        after: Callable[[Step], None] | None = None,
        reload: Callable[[], None] | None = None,
    ) -> None:
        """Step every ``interval_s`` until ``stop`` is set, or SIGTERM, SIGINT or SIGHUP comes (in the main thread).

        The step in progress is finished; a second signal does what it would do without the planner. ``after`` is
        called with each step, between it and the next: to show it, or to set another policy. With ``reload``, SIGHUP
        calls that between two steps, and ends the loop only where the terminal was closed.
        """
        with stop_signals(reload) as signalled:

            def ended() -> bool:
                return signalled() or (stop is not None and stop.is_set())

            ticks = TickSchedule(self.interval_s, self._clock, self._sleep)
            while not ended():
                step = self.step()
                if after is not None:
                    after(step)
                ticks.wait(ended)

    def _continue_from_file(self) -> None:
        try:
            saved = self._files.load()
        except DamagedStateError as error:
            logger.error("%s: %s", self.name, error)  # noqa: TRY400  # the cause is in the message
            self._pending_reasons.append(Reason(code="StateReset", message=f"{error}; the policy starts anew"))
        else:
            self._at_s, self._state = (saved.at_s, saved.state) if saved else (None, None)

    def _monotonic(self, now_s: float) -> float:
        """The clock, or the time of the last step where that is a little later: no policy sees time go back."""
        last_s = self._at_s
        if last_s is None or now_s >= last_s:
            return now_s
        back = f"the clock was set back by {last_s - now_s:.3f} s"
        if stands_still := last_s - now_s <= CLOCK_BACK_S:
            message = f"{back}: time stands still, and the decision stays, until that is made up for"
            reason = Reason(code="ClockSetBack", message=message)
        else:
            reason = Reason(code="StateReset", message=f"{back}: the policy's state is of the future; it starts anew")
            self._state = None
        logger.warning("%s: %s", self.name, reason)
        self._pending_reasons.append(reason)
        return last_s if stands_still else now_s

    def _observe(self, at_s: float) -> tuple[Snapshot, tuple[Reason, ...]]:
        """The snapshot, and the failures. The source is observed even if the executor failed, so that its windows have
        no gap."""
        failures: list[Reason] = []
        specs: Mapping[str, PoolSpec] = {}
        replicas: Mapping[str, Replicas | None] = {}
        unknown: Mapping[str, str] = {}
        knobs: Mapping[str | None, Mapping[str, KnobValue]] = {}
        try:
            specs = checked_mapping("pools", self.executor.pools, PoolSpec)
            replicas = checked_mapping("observe()", self.executor.observe(), Replicas, type(None))
            if self._reports_unknown is not None:
                unknown = checked_mapping("unknown", self._reports_unknown.unknown, str)
            if self._reports_knobs is not None:
                knobs = self._reports_knobs.knobs
        except Exception as error:
            failures.append(self._failure("ExecutorFailed", "the executor could not be read", error))
        if self._reports_troubles is not None:
            self._pending_reasons.extend(checked_troubles(self._reports_troubles))
        try:
            snapshot = merge(at_s, specs, replicas, self.source.observe(at_s), unknown, knobs)
        except Exception as error:
            failure = self._failure("SourceFailed", "the source could not be read", error)
            snapshot = without_metrics(at_s, specs, replicas, failure.message, unknown)
            failures.append(failure)
        return snapshot, tuple(failures)

    def _decide(self, snapshot: Snapshot, failures: tuple[Reason, ...]) -> Decision:
        state, policy = self._state, self._policy
        try:
            if failures:
                decision = without_policy(policy, failures).decide(snapshot)
                decision = decision.replace(state=state)
            else:
                decision = checked_decision(policy.decide(snapshot, state))
        except Exception as error:
            failure = self._failure("PolicyFailed", "the policy could not decide", error)
            holds = (failure.replace(pool=pool) for pool in snapshot.pools)
            decision = Decision(at_s=snapshot.at_s, reasons=(*failures, failure, *holds), state=state)
        return self.with_pending(decision, snapshot)

    def _act(self, actions: Sequence[Action], snapshot: Snapshot) -> tuple[Outcome, ...]:
        if self.advisory or not actions:
            for action in actions:
                logger.info("%s: advisory, so not applied: %r", self.name, action)
            return ()
        try:
            if self._considers_load is not None:
                self._considers_load.consider(requests_by_worker(snapshot))
            outcomes = checked_outcomes(self.executor.apply(actions))
        except Exception as error:
            failure = self._failure("ExecutorFailed", "the executor could not act", error)
            outcomes = tuple(Outcome(action=action, status="failed", message=failure.message) for action in actions)
        for outcome in outcomes:
            level = logging.INFO if outcome.status in {"applied", "unchanged"} else logging.WARNING
            logger.log(level, "%s: %s: %r %s", self.name, outcome.status, outcome.action, outcome.message)
        return outcomes

    def _record_decision(self, decision: Decision, outcomes: tuple[Outcome, ...]) -> None:
        if self._records_decisions is not None:
            try:
                self._records_decisions.tell(decision, outcomes)
            except Exception:
                logger.exception("%s: the executor could not record the decision", self.name)

    def _failure(self, code: str, what: str, error: Exception) -> Reason:
        """The reason for an exception, which is logged: with its traceback unless it is a documented error."""
        expected = isinstance(error, SourceError | ExecutorError)
        detail = str(error) if expected else f"{type(error).__name__}: {error}"
        detail = detail if len(detail) <= LONGEST_MESSAGE else f"{detail[:LONGEST_MESSAGE]}..."
        logger.error("%s: %s: %s", self.name, what, detail, exc_info=None if expected else error)
        return Reason(code=code, message=f"{what}: {detail}")


def because(decision: Decision, reasons: Sequence[Reason]) -> Decision:
    """The decision with these reasons first."""
    return decision.replace(reasons=(*reasons, *decision.reasons)) if reasons else decision
