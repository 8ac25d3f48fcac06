"""Trials of knob values: settling, measuring, judging, and reverting what is no gain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from dynamo_planner.core.decision import Proposal, Reason
from dynamo_planner.core.snapshot import Snapshot
from dynamo_planner.core.values import FrozenMap
from dynamo_planner.engines import Knob
from dynamo_planner.policies.knobs.observations import (
    Shape,
    Window,
    better,
    close_to,
    interval_s,
    measured,
    pools_of,
    ready_of,
)
from dynamo_planner.policies.knobs.state import WINDOWS_FACTOR, Failure, KnobMemory, Trial, saying

MIN_GAIN = 0.02
"""A gain of less than this share is none."""

MAX_BACK_OFF = 5
"""The wait between trials doubles with each failure in a row, up to this many."""

MAX_UNSEEN_INTERVALS = 3.0
"""A value under trial whose effect is not observed for this many intervals is taken back."""

BREACH_SPREADS = 3.0
"""A target is breached where the cost exceeds that before the trial by this many standard deviations of its windows."""

BREACH_MARGIN, WORSE_MARGIN = 0.1, 0.25
"""The least share by which the cost must exceed that before, for a target that was met before, and for one that was
not."""

PATIENCE = 2.0
"""A trial lasts at most this many times as long as its windows and its settling take."""

RESTART_PATIENCE = 3.0
"""The time for a restart of all workers, as a multiple of their start-up times one after the other."""


class Rules(NamedTuple):
    """What a trial is judged by: as the fields of :class:`~dynamo_planner.policies.knobs.KnobPolicy`."""

    windows: int
    min_requests: float
    sure: float
    same_load: float


class TrialTick(NamedTuple):
    """One tick of a trial: the snapshot, its window and its replicas, and the knob where it is still known."""

    rules: Rules
    snapshot: Snapshot
    window: Window | None
    shape: Shape | None
    knob: Knob | None

    @property
    def every_s(self) -> float:
        """The interval between windows, in seconds."""
        return interval_s(self.snapshot)

    @property
    def settles_s(self) -> float:
        """Seconds after a change from which on windows count."""
        return (self.knob.settles_s if self.knob else 0.0) + self.every_s

    @property
    def restarts(self) -> bool:
        """Whether the knob takes effect by a restart of workers."""
        return self.knob is not None and self.knob.applied == "restart"


TrialStep = tuple[Proposal, KnobMemory]
"""What a tick proposes, and the memory after it."""


def advanced(tick: TrialTick, memory: KnobMemory, trial: Trial) -> TrialStep:
    """One tick of a trial."""
    present = trial.present_value(tick.snapshot)
    if tick.knob is None or present not in {trial.before, trial.value}:
        message = f"{trial.knob} was set to {present} by something else"
        return reverting(tick, memory, trial, "KnobTaken", message, undo=False)
    if trial.set and present == trial.before:
        return reverting(tick, memory, trial, "KnobRolledBack", "the engines did not take it", failed=True)
    memory, trial = settling(tick, memory, trial, present)
    if (trouble := _trouble(tick, memory, trial)) is not None:
        code, why = trouble
        return reverting(tick, memory, trial, code, why, failed=code == "KnobReverted")
    memory = measuring(tick, memory, trial)
    if len(memory.windows) >= tick.rules.windows:
        return judging(tick, memory, trial)
    return _going_on(memory, trial, tick.rules.windows)


def settling(tick: TrialTick, memory: KnobMemory, trial: Trial, present: float | None) -> tuple[KnobMemory, Trial]:
    """Start the measurement anew where replicas changed or the value is not set yet.

    A value that saves replicas is judged by its targets, whatever the replicas.
    """
    trial = trial.replace(set=present == trial.value)
    saves = trial.gain > MIN_GAIN and trial.set
    if not saves and (tick.shape is None or tick.shape != memory.shape or not trial.set):
        trial = trial.replace(settled_s=tick.snapshot.at_s)
        memory = memory.replace(windows=(), shape=tick.shape or ())
    return memory.replace(trial=trial), trial


def measuring(tick: TrialTick, memory: KnobMemory, trial: Trial) -> KnobMemory:
    """The memory with the window of this tick, once all has settled."""
    counts = tick.shape is not None or not tick.restarts
    if tick.window is None or not counts or tick.snapshot.at_s - trial.settled_s < tick.settles_s:
        return memory
    return memory.with_window(tick.window, tick.every_s, tick.rules.windows)


def judging(tick: TrialTick, memory: KnobMemory, trial: Trial) -> TrialStep:
    """Keep the value where it is a gain beyond doubt, measure longer where it may be one, else revert it."""
    rules, after = tick.rules, measured(memory.windows)
    before = after._replace(cost=trial.cost, error=trial.error, load=trial.load)
    if after.requests < rules.min_requests:
        return _going_on(memory, trial, rules.windows)
    values = {"before": before.cost, "after": after.cost, "load": after.load}
    lighter = max(1 - after.load / trial.load, 0.0)  # a lighter load would have done some good by itself
    keeps = trial.gain > MIN_GAIN and after.cost + rules.sure * after.error < 1
    if not keeps and not close_to(trial.load, after.load, rules.same_load):
        return reverting(tick, memory, trial, "LoadChanged", "the load is not what it was before")
    if not keeps and not better(before, after, rules.sure, MIN_GAIN + lighter):
        longest = WINDOWS_FACTOR * rules.windows
        if better(before, after, 0.0, MIN_GAIN + lighter) and len(memory.windows) < longest:
            return _going_on(memory, trial, longest)
        return reverting(tick, memory, trial, "KnobReverted", "no gain beyond doubt", failed=True, values=values)
    why = "keeps the targets with less work" if keeps else "is better"
    message = f"{trial.knob} stays at {trial.value:g}, which {why} than {trial.before:g}"
    worse = Failure(pool=trial.pool, knob=trial.knob, value=trial.before, load=trial.load)
    memory = memory.failed(worse).replace(trial=None, windows=(), in_a_row=0)
    return saying(Reason(code="KnobKept", pool=trial.pool, message=message, values=values)), memory


def reverting(
    tick: TrialTick,
    memory: KnobMemory,
    trial: Trial,
    code: str,
    why: str,
    *,
    undo: bool = True,
    failed: bool = False,
    values: Mapping[str, float] | None = None,
) -> TrialStep:
    """Take the value back, and wait before the next trial."""
    if failed:
        memory = memory.failed(Failure(pool=trial.pool, knob=trial.knob, value=trial.value, load=trial.load))
    waits_s = tick.rules.windows * tick.every_s * 2 ** min(memory.in_a_row, MAX_BACK_OFF)
    memory = memory.replace(
        trial=None,
        undo=trial if undo and trial.present_value(tick.snapshot) == trial.value else None,
        windows=(),
        in_a_row=memory.in_a_row + 1,
        not_before_s=tick.snapshot.at_s + waits_s,
    )
    message = f"{trial.knob} goes back to {trial.before:g}: {why}" if undo else why
    reason = Reason(code=code, pool=trial.pool, message=message, values=FrozenMap(values or {}))
    return (trial.setting(trial.before, reason) if undo else saying(reason)), memory


def _trouble(tick: TrialTick, memory: KnobMemory, trial: Trial) -> tuple[str, str] | None:
    """The code and the reason to end a trial before it is judged, where there is one."""
    at_s, rules = tick.snapshot.at_s, tick.rules
    if tick.window is None:
        unseen_s = at_s - (memory.windows[-1].at_s if memory.windows else trial.settled_s)
        if unseen_s > tick.settles_s + MAX_UNSEEN_INTERVALS * tick.every_s:
            return "KnobUnseen", "its effect cannot be observed"
    elif tick.window.at_s > trial.since_s and _breached(tick.window, trial, settled=trial.settled_s < at_s):
        return "KnobReverted", "a target is breached"
    longest_s = WINDOWS_FACTOR * rules.windows * tick.every_s
    if at_s - trial.since_s > PATIENCE * (longest_s + 2 * tick.settles_s) + _restart_s(tick, trial):
        return "KnobUnsettled", "it could not be measured in time"
    return None


def _breached(window: Window, trial: Trial, *, settled: bool) -> bool:
    """Whether a target is missed that was met before or, once all has settled, missed by far more than before."""
    margin = BREACH_MARGIN if trial.cost <= 1 else WORSE_MARGIN
    limit = trial.cost + max(BREACH_SPREADS * trial.spread, margin * trial.cost)
    return window.cost > max(1.0, limit) if trial.cost <= 1 else settled and window.cost > limit


def _restart_s(tick: TrialTick, trial: Trial) -> float:
    """How long a restart of all workers may take, in seconds."""
    if not tick.restarts:
        return 0.0
    each_s = (pool.spec.startup_s * max(ready_of(pool), 1) for pool in pools_of(tick.snapshot, trial.pool))
    return RESTART_PATIENCE * max(each_s, default=0.0)


def _going_on(memory: KnobMemory, trial: Trial, windows: int) -> TrialStep:
    values = {"before": trial.before, "value": trial.value, "seen": len(memory.windows), "of": windows}
    reason = Reason(code="KnobTrial", pool=trial.pool, message=f"{trial.knob} is being measured", values=values)
    return trial.setting(trial.value, reason), memory
