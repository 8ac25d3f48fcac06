"""Watching a replay, turn by turn: let the planner decide when it is due, note the replicas, show how it stands."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dynamo_planner.core.decision import Reason, ScaleTo
from dynamo_planner.core.snapshot import Replicas
from dynamo_planner.demo.load import LoadClient
from dynamo_planner.demo.record import ForecastPoint, Move, Recording, Sample
from dynamo_planner.demo.router import Router
from dynamo_planner.demo.run_status import run_status
from dynamo_planner.demo.screen import Screen
from dynamo_planner.executors import Executor
from dynamo_planner.runtime.decision_log import Step
from dynamo_planner.runtime.planner import Planner

TURN_S = 0.5
"""How often the replicas are noted and the screen is drawn."""

SETTLED_TURNS = 4

RULES = frozenset({"Sized", "ScaleDownWaits", "Saturated", "BacklogDrained"})
"""The reasons of ``SlaPolicy`` that set a target; what they were worked out from is in the decision log."""


@dataclass
class Watch:
    """The parts of a running demo, and the planner's last step."""

    recording: Recording
    executor: Executor
    planner: Planner
    router: Router
    client: LoadClient
    screen: Screen
    step: Step | None = None
    decides_at_s: float = 0.0

    async def turn(self) -> None:
        """One turn, which takes :data:`TURN_S`, or as long as the planner needs."""
        over_s = self.client.now_s() + TURN_S
        self._note(await asyncio.to_thread(self.executor.observe))
        if self.client.now_s() >= self.decides_at_s:
            self.decides_at_s += self.planner.interval_s
            self.step = await asyncio.to_thread(self.planner.step)
            self.recording.moves += moves(self.step, self.client.now_s())
            self.recording.forecast_points += forecast_points(self.step, self.client.now_s())
        self.screen.show(run_status(self.recording, self.step, self.client.now_s()))
        await asyncio.sleep(over_s - self.client.now_s())

    def settled(self) -> bool:
        """Whether every pool has been at its minimum, with nothing on its way, for the last few turns."""
        specs, last = self.executor.pools, self.recording.samples[-SETTLED_TURNS:]
        return all(
            (replicas.ready, replicas.starting, replicas.draining) == (specs[name].min_replicas, 0, 0)
            for sample in last
            for name, replicas in sample.pools.items()
        )

    def _note(self, pools: Mapping[str, Replicas | None]) -> None:
        known = {name: replicas for name, replicas in pools.items() if replicas is not None}
        at_s = self.client.now_s()
        self.recording.samples.append(Sample(at_s, known, self.router.in_flight, self.router.held))


def moves(step: Step, at_s: float) -> list[Move]:
    """The changes of targets that were carried out in a step, each with the rule that it came from."""
    done = [
        outcome.action
        for outcome in step.outcomes
        if outcome.status == "applied" and isinstance(outcome.action, ScaleTo)
    ]
    return [
        Move(
            at_s=at_s,
            pool=action.pool,
            before=action.expected or 0,
            after=action.replicas,
            why=_why([reason for reason in step.decision.reasons if reason.pool == action.pool]),
        )
        for action in done
    ]


def _why(reasons: Sequence[Reason]) -> str:
    return "; ".join(reason.message for reason in reasons if reason.code in RULES) or "; ".join(map(str, reasons))


def forecast_points(step: Step, at_s: float) -> list[ForecastPoint]:
    """What the decision of a step expects of arrivals, where its policy forecasts them: of one pool, since all have the
    same."""
    for reason in step.decision.reasons:
        if reason.code == "DemandForecast":
            lead_s, expected, planned = (float(reason.values[name] or 0) for name in ("lead_s", "expected", "planned"))
            return [ForecastPoint(at_s + lead_s, expected, planned)]
    return []
