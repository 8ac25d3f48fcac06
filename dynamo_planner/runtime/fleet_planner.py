"""The loop of several models: observe all, decide together, apply each.

>>> from dynamo_planner import PoolSpec, Traffic
>>> from dynamo_planner.core.snapshot import Observation
>>> from dynamo_planner.executors.dry_run import DryRunExecutor
>>> from dynamo_planner.fleet import Budget, Member
>>> class Busy:
...     def observe(self, at_s):
...         return Observation(traffic=Traffic(requests_per_s=30))
>>> def policy(snapshot):
...     return {"workers": round(snapshot.traffic.requests_per_s / 10)}
>>> members = {"chat": Member(policy=policy, priority=1), "batch": Member(policy=policy)}
>>> planners = {
...     name: Planner(policy, Busy(), DryRunExecutor({"workers": PoolSpec(role="aggregated")}), clock=lambda: 0.0)
...     for name in members
... }
>>> fleet = Fleet(models=members, budgets={"gpu": Budget(total=4)})
>>> steps = FleetPlanner(fleet, planners, clock=lambda: 0.0).step()
>>> {name: dict(step.decision.targets) for name, step in steps.items()}
{'chat': {'workers': 3}, 'batch': {'workers': 1}}
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from dynamo_planner.core.decision import Decision, Reason, State
from dynamo_planner.fleet import Fleet, FleetDecision
from dynamo_planner.runtime.decision_log import Step
from dynamo_planner.runtime.files import PlannerFiles
from dynamo_planner.runtime.holding import without_policy
from dynamo_planner.runtime.planner import CLOCK_BACK_S, Observed, Planner, because
from dynamo_planner.runtime.signals import stop_signals
from dynamo_planner.runtime.state_file import DamagedStateError
from dynamo_planner.runtime.ticker import TickSchedule

logger = logging.getLogger(__name__)

MAX_THREADS = 16
"""Models that are observed, or acted on, at the same time."""


class FleetPlanner:
    """Every ``interval_s``: observe the models side by side, let the fleet decide, apply each decision, record.

    Each model has a :class:`Planner` of its own for its source, executor and decision log. Its policy is not asked: the
    fleet's member of the same name is. What fails for one model holds that model, as it does for one alone, and its
    replicas stay counted; the others go on.

    Args:
        fleet: Decides.
        planners: The planner of each model, by name.
        interval_s: Seconds from one step to the next (10).
        clock: Gives Unix seconds.
        sleep: Waits for a number of seconds.
        state_file: Keeps the fleet's state, so that a restart goes on from there (``None``: in memory only).
    """

    def __init__(
        self,
        fleet: Fleet,
        planners: Mapping[str, Planner],
        *,
        interval_s: float = 10.0,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
        state_file: str | Path | None = None,
    ) -> None:
        self.interval_s = interval_s
        self._clock, self._sleep = clock, sleep
        self._files = PlannerFiles("fleet", None, state_file)
        self._stepping = threading.Lock()
        self._state: State | None = None
        self._at_s: float | None = None
        self._pending: list[Reason] = []
        self._continue_from_file()
        self.set_models(fleet, planners)

    def set_models(self, fleet: Fleet, planners: Mapping[str, Planner]) -> None:
        """Other models or budgets, between two steps; models that stay go on from their states."""
        if fleet.models.keys() != planners.keys():
            raise ValueError(f"the fleet has {sorted(fleet.models)}, and there are planners for {sorted(planners)}")
        self.fleet, self.planners = fleet, dict(planners)
        for planner in self.planners.values():
            if self._at_s is not None:
                planner.resume(self._at_s)

    def step(self) -> dict[str, Step]:
        """One turn of the loop, now: the step of each model. Calls from several threads run one after the other."""
        with self._stepping, ThreadPoolExecutor(min(max(len(self.planners), 1), MAX_THREADS)) as threads:
            names, now_s = list(self.planners), float(self._clock())
            found = threads.map(lambda name: self.planners[name].observe(now_s), names)
            observed = dict(zip(names, found, strict=True))
            at_s = max((own.snapshot.at_s for own in observed.values()), default=now_s)
            if self._at_s is not None and at_s < self._at_s - CLOCK_BACK_S:
                self._state = None
            decided = self._decide(observed)
            self._at_s, self._state = at_s, decided.state
            reasons = (*decided.reasons, *self._pending, *self._files.save(at_s, decided.state))
            self._pending = []

            def apply(name: str) -> Step:
                planner, own = self.planners[name], observed[name]
                decision = because(decided.decisions[name], reasons)
                return planner.apply(own, planner.with_pending(decision, own.snapshot))

            return dict(zip(names, threads.map(apply, names), strict=True))

    def run(
        self,
        stop: threading.Event | None = None,
        *,
        after: Callable[[dict[str, Step]], None] | None = None,
        reload: Callable[[], None] | None = None,
    ) -> None:
        """Step every ``interval_s`` until ``stop`` is set or a signal comes; as :meth:`Planner.run`."""
        with stop_signals(reload) as signalled:

            def ended() -> bool:
                return signalled() or (stop is not None and stop.is_set())

            ticks = TickSchedule(self.interval_s, self._clock, self._sleep)
            while not ended():
                steps = self.step()
                if after is not None:
                    after(steps)
                ticks.wait(ended)

    def _decide(self, observed: Mapping[str, Observed]) -> FleetDecision:
        """The fleet's decision; a model that could not be observed is held under its guards."""
        members = self.fleet.models
        instead = {
            name: without_policy(members[name].policy, own.failures) for name, own in observed.items() if own.failures
        }
        snapshots = {name: own.snapshot for name, own in observed.items()}
        try:
            return self.fleet.decide(snapshots, self._state, instead=instead)
        except Exception as error:
            logger.exception("fleet: no decision")
            message = f"the fleet could not decide: {type(error).__name__}: {error}"
            reason = Reason(code="PolicyFailed", message=message)
            held = {name: Decision(at_s=own.snapshot.at_s, reasons=(reason,)) for name, own in observed.items()}
            return FleetDecision(decisions=held, state=self._state)

    def _continue_from_file(self) -> None:
        try:
            saved = self._files.load()
        except DamagedStateError as error:
            logger.error("fleet: %s", error)  # noqa: TRY400  # the cause is in the message
            self._pending.append(Reason(code="StateReset", message=f"{error}; the policies start anew"))
        else:
            self._at_s, self._state = (saved.at_s, saved.state) if saved else (None, None)
