"""The loop: observe, decide, apply, record.

It holds no rules of its own: a source and an executor say what is, a policy says what should be, and the loop keeps
going whatever becomes of them. Whoever has a loop already calls :meth:`Planner.step` from it; under asyncio, as
``await asyncio.to_thread(planner.step)``.

>>> from dynamo_planner.executors.dry_run import DryRunExecutor
>>> from dynamo_planner.core.snapshot import Observation, PoolSpec, Traffic
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
from typing import Any

from dynamo_planner.core.decision import Action, Decision, Outcome, Proposal, Reason, State
from dynamo_planner.core.policy import Guarded, PlainFunction, Policy, as_policy
from dynamo_planner.core.snapshot import PoolSpec, Replicas, Snapshot
from dynamo_planner.core.values import KnobValue
from dynamo_planner.executors import Executor, ExecutorError, RecordsDecisions, ReportsKnobs, ReportsUnknown
from dynamo_planner.runtime.decision_log import DecisionLog, Step
from dynamo_planner.runtime.files import PlannerFiles
from dynamo_planner.runtime.snapshot_builder import blind, merge
from dynamo_planner.runtime.state_file import DamagedStateError
from dynamo_planner.runtime.ticker import Ticks, noting_signals
from dynamo_planner.sources import Source, SourceError

logger = logging.getLogger(__name__)

CLOCK_BACK_S = 60.0
"""A clock that was set back by more than this has the policy start anew; by less, time stands still until it is made
up for."""

LONGEST_MESSAGE = 500


class Planner:
    """Every ``interval_s``: observe the source and the executor, let the policy decide, apply, record.

    - ``log`` takes a line for each step (see :class:`DecisionLog`), ``state_file`` what the policy remembers, so that
      a restart goes on from there. One that cannot be written is logged, and the loop goes on.
    - ``advisory`` decides and records without acting.
    - ``clock`` gives Unix seconds, ``sleep`` waits; ``name`` stands in the records and log lines.

    What goes wrong is a hold with a reason and a log line, never the end of the loop:

    - ``SourceFailed``, ``ExecutorFailed``: one of them could not be read. The policy is not asked and every pool is
      held; the guards that were put on it with ``|`` still have their say, so that a pin or a bound holds on a night
      without metrics. What the policy remembers stays as it was.
    - ``PolicyFailed``: the policy or a guard raised. Nothing is done.
    - ``StateReset``: the state file was damaged (it is set aside under another name), or the clock was set back.
    - ``StateFileFailed``, ``LogFailed``: what the policy remembers could not be written in this step, or the decision
      log in the step before. The loop goes on; a planner that is started again would go on from an older state.

    An executor that raises while it acts makes the outcome of each action ``failed``.
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
        self.interval_s = interval_s
        self.advisory = advisory
        self.name = name
        self._clock = clock
        self._sleep = sleep
        self._files = PlannerFiles(name, log, state_file)
        self._stepping = threading.Lock()
        self._state: State | None = None
        self._at_s: float | None = None
        self._to_tell: list[Reason] = []
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
        """One turn of the loop, now. Steps called at once from several threads follow one another."""
        with self._stepping:
            began_s = float(self._clock())
            at_s = self._onward(began_s)
            snapshot, troubles = self._look(at_s)
            decision = self._decide(snapshot, troubles)
            outcomes = self._act(decision.actions)
            self._at_s, self._state = at_s, decision.state
            decision = _because(decision, self._files.save(at_s, decision.state))
            self._tell(decision, outcomes)
            step = Step(
                at_s=at_s,
                name=self.name,
                snapshot=snapshot,
                decision=decision,
                outcomes=outcomes,
                advisory=self.advisory,
                took_s=max(0.0, float(self._clock()) - began_s),
            )
            self._to_tell.extend(self._files.log(step))
            return step

    def run(self, stop: threading.Event | None = None, *, after: Callable[[Step], None] | None = None) -> None:
        """Step every ``interval_s`` until ``stop`` is set, or SIGTERM or SIGINT comes (in the main thread).

        The step in progress is finished; a second signal does what it would do without the planner. ``after`` is
        called with each step, between it and the next: to show it, or to set another policy.
        """
        with noting_signals() as signalled:

            def ended() -> bool:
                return signalled() or (stop is not None and stop.is_set())

            ticks = Ticks(self.interval_s, self._clock, self._sleep)
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
            self._to_tell.append(Reason(code="StateReset", message=f"{error}; the policy starts anew"))
        else:
            self._at_s, self._state = (saved.at_s, saved.state) if saved else (None, None)

    def _onward(self, now_s: float) -> float:
        """The clock, or the time of the last step where that is a little later: time goes one way for a policy."""
        last_s = self._at_s
        if last_s is None or now_s >= last_s:
            return now_s
        back = f"the clock was set back by {last_s - now_s:.3f} s"
        if last_s - now_s <= CLOCK_BACK_S:
            logger.warning("%s: %s: time stands still until that is made up for", self.name, back)
            return last_s
        reason = Reason(
            code="StateReset", message=f"{back}: what the policy remembers is of the future; it starts anew"
        )
        logger.warning("%s: %s", self.name, reason)
        self._to_tell.append(reason)
        self._state = None
        return now_s

    def _look(self, at_s: float) -> tuple[Snapshot, tuple[Reason, ...]]:
        """What there is to be seen, and what went wrong. The source is asked even where the executor failed, so that
        its windows have no gap."""
        troubles: list[Reason] = []
        specs: Mapping[str, PoolSpec] = {}
        replicas: Mapping[str, Replicas | None] = {}
        unknown: Mapping[str, str] = {}
        knobs: Mapping[str | None, Mapping[str, KnobValue]] = {}
        try:
            specs = _mapping("pools", self.executor.pools, PoolSpec)
            replicas = _mapping("observe()", self.executor.observe(), Replicas, type(None))
            if isinstance(self.executor, ReportsUnknown):
                unknown = _mapping("unknown", self.executor.unknown, str)
            if isinstance(self.executor, ReportsKnobs):
                knobs = self.executor.knobs
        except Exception as error:
            troubles.append(self._trouble("ExecutorFailed", "the executor could not be read", error))
        try:
            snapshot = merge(at_s, specs, replicas, self.source.observe(at_s), unknown, knobs)
        except Exception as error:
            trouble = self._trouble("SourceFailed", "the source could not be read", error)
            snapshot = blind(at_s, specs, replicas, trouble.message, unknown)
            troubles.append(trouble)
        return snapshot, tuple(troubles)

    def _decide(self, snapshot: Snapshot, troubles: tuple[Reason, ...]) -> Decision:
        state, policy = self._state, self._policy
        try:
            if troubles:
                decision = _without_policy(policy, troubles).decide(snapshot)
                decision = decision.replace(state=state)
            else:
                decision = _decision(policy.decide(snapshot, state))
        except Exception as error:
            trouble = self._trouble("PolicyFailed", "the policy could not decide", error)
            holds = (trouble.replace(pool=pool) for pool in snapshot.pools)
            decision = Decision(at_s=snapshot.at_s, reasons=(*troubles, trouble, *holds), state=state)
        told, self._to_tell = tuple(self._to_tell), []
        return _because(decision, told)

    def _act(self, actions: Sequence[Action]) -> tuple[Outcome, ...]:
        if self.advisory or not actions:
            for action in actions:
                logger.info("%s: advisory, so not applied: %r", self.name, action)
            return ()
        try:
            outcomes = tuple(self.executor.apply(actions))
            strangers = [outcome for outcome in outcomes if not isinstance(outcome, Outcome)]
            if strangers:
                raise TypeError(f"apply returned {strangers[0]!r}, which is no Outcome")
        except Exception as error:
            trouble = self._trouble("ExecutorFailed", "the executor could not act", error)
            outcomes = tuple(Outcome(action=action, status="failed", message=trouble.message) for action in actions)
        for outcome in outcomes:
            level = logging.INFO if outcome.status in {"applied", "unchanged"} else logging.WARNING
            logger.log(level, "%s: %s: %r %s", self.name, outcome.status, outcome.action, outcome.message)
        return outcomes

    def _tell(self, decision: Decision, outcomes: tuple[Outcome, ...]) -> None:
        if isinstance(self.executor, RecordsDecisions):
            try:
                self.executor.tell(decision, outcomes)
            except Exception:
                logger.exception("%s: the executor could not tell why it acted", self.name)

    def _trouble(self, code: str, what: str, error: Exception) -> Reason:
        """A reason for what was raised, which is logged: with its traceback where it is no documented error."""
        expected = isinstance(error, SourceError | ExecutorError)
        said = str(error) if expected else f"{type(error).__name__}: {error}"
        said = said if len(said) <= LONGEST_MESSAGE else f"{said[:LONGEST_MESSAGE]}..."
        logger.error("%s: %s: %s", self.name, what, said, exc_info=None if expected else error)
        return Reason(code=code, message=f"{what}: {said}")


def _mapping(what: str, value: Any, *types: type) -> Any:
    """What an executor has returned, if it is a mapping from names to values of these types."""
    for name, entry in value.items():
        if not isinstance(name, str) or not isinstance(entry, types):
            raise TypeError(f"{what} of the executor has {name!r}: {entry!r}, which is no {types[0].__name__}")
    return value


def _because(decision: Decision, reasons: Sequence[Reason]) -> Decision:
    """The decision with these reasons first."""
    return decision.replace(reasons=(*reasons, *decision.reasons)) if reasons else decision


def _decision(value: Any) -> Decision:
    if not isinstance(value, Decision):
        raise TypeError(f"decide returned {value!r}, which is no Decision")
    return value


class _Unasked(Policy, kind="unasked"):
    """Stands in for a policy that cannot be asked, since there is nothing to ask it about: holds every pool."""

    troubles: tuple[Reason, ...]

    def propose(self, snapshot: Snapshot, state: Any) -> tuple[Proposal, Any]:
        why = "it could not be seen, so the policy was not asked"
        return Proposal.hold(snapshot.pools, why, self.troubles[0].code).because(*self.troubles), state


def _without_policy(policy: Policy, troubles: tuple[Reason, ...]) -> Policy:
    """The guards of a policy around one that holds every pool."""
    unasked = _Unasked(troubles=troubles)
    return Guarded(policy=unasked, guards=policy.guards) if isinstance(policy, Guarded) else unasked
