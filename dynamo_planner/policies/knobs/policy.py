"""KnobPolicy: tuning of engine knobs, tried one at a time and kept where they are measured to be better."""

from __future__ import annotations

from functools import cached_property
from typing import Any, ClassVar

from pydantic import Field, ValidationInfo, model_validator

from dynamo_planner.core.decision import Proposal, Reason
from dynamo_planner.core.policy import Policy
from dynamo_planner.core.snapshot import Sla, Snapshot
from dynamo_planner.core.values import FrozenMap
from dynamo_planner.engines import Catalogue, Knob, catalogue
from dynamo_planner.engines.named import WorkerEngine, with_custom_knobs
from dynamo_planner.policies.knobs.candidates import Candidate, TuningGoals, candidates, over_the_gap
from dynamo_planner.policies.knobs.observations import (
    close_to,
    interval_s,
    measured,
    pools_of,
    ready,
    shape_of,
    window_of,
)
from dynamo_planner.policies.knobs.state import WINDOWS_FACTOR, KnobMemory, Trial, saying, setting
from dynamo_planner.policies.knobs.trial import Rules, TrialTick, advanced
from dynamo_planner.profiles import NamedProfile

MAX_RELATIVE_ERROR = 0.25
"""A mean cost whose error may be more than this share of it is measured for longer before anything is tried."""


class KnobPolicy(Policy, kind="knobs"):
    """Tuning of engine knobs, without an opinion on replicas: ``together(KnobPolicy(...), SlaPolicy(...))``.

    **What is tried.** Of the knobs whose values the snapshot has, one at a time: first the analytic value (from the
    ``profile``: the largest chunk that keeps ITL under its target at the present batch and context; the batch at
    which ITL meets its target within the KV cache, where requests wait before full batches; the prompt length up to
    which a local prefill takes less than queueing and transfer), then a notch towards the target that binds. Never
    while replicas are changing or unknown, not where metrics are older than their window, so that a trial could not be
    taken back in time, and not where the cost is under ``worth``, where nothing is to be gained. A knob
    that restarts workers is tried only where the share of work that it should save, for as long as a load ``lasts_s``,
    outweighs the start-up times of the restart.

    **What is kept.** The cost of a window is the larger of TTFT and ITL over their targets (percentiles where they are
    reported; where an engine reports no TTFT, a queue as long as what is running stands for a TTFT at its target). A
    trial is compared with ``windows`` windows before it or more, if their mean is not certain enough, with
    ``min_requests`` at least, at a load per replica within ``same_load``: it is kept where the gain is over 2 % with
    ``sure`` standard errors to spare. A value that saves replicas, as profiled, shows its gain in fewer replicas and
    not in latencies: it is kept where the targets are, as surely. Otherwise a value is taken back, after three times as
    many windows where it looks like a gain; and at once where a target is breached that was not before, where nothing
    can be observed for a while, or where the load has changed.

    **What is remembered.** Values that failed, and those within ``same_load`` of them, are not tried again at a load
    within ``same_load`` of that at which they did; after each failure in a row the next trial waits twice as long. So
    under a constant load knobs settle: there are finitely many values, and none is tried twice.

    Args:
        sla: The targets.
        profile: Measured performance, for analytic values. Default ``None``: notches only.
        engine: The engine whose catalogue of knobs is used. Default ``vllm``.
        more: Knobs beside those of the catalogue.
        knobs: The names of the knobs that may be turned. Default ``None``, all that are known.
        gap_ms: The longest step in milliseconds, for services that promise the worst gap between tokens, not the mean:
            a chunk whose steps would be longer, as profiled, is lowered at once and without a trial. Default ``None``.
        kv_transfer_ms: Milliseconds to hand a KV cache over. Default 0.
        windows: Windows before and during a trial that are compared, 2 to 32. Default 4.
        min_requests: Requests that a comparison takes. Default 100.
        sure: Standard errors that a gain has to spare. Default 2.
        same_load: The share by which loads, or values, may differ and count as the same. Default 0.2.
        worth: The cost (the larger of TTFT and ITL over their targets) below which nothing is tried. Default 0.3.
        lasts_s: Seconds for which a load is expected to last. Default 1800.
        max_age_s: The age of metrics in seconds from which on they are unknown. Default 90.

    >>> from dynamo_planner import Dist, PoolSpec, PoolStatus, Replicas, Traffic
    >>> spec = PoolSpec(role="aggregated", startup_s=30)
    >>> def seen(at_s):
    ...     pool = PoolStatus(spec=spec, replicas=Replicas(ready=2), running=16, queued=9, knobs={"max_num_seqs": 8})
    ...     traffic = Traffic(requests_per_s=4, window_s=30, isl=500, osl=200, ttft_ms=900, itl_ms=9)
    ...     return Snapshot(at_s=at_s, traffic=traffic, pools={"workers": pool})
    >>> policy = KnobPolicy(sla=Sla(ttft_ms=1000, itl_ms=25), profile="llama31-8b_h100_vllm_tp1")
    >>> for decision in policy.replay(map(seen, (0, 30, 60, 90))):
    ...     print(decision.actions)
    ()
    ()
    ()
    (SetKnob(knob='max_num_seqs', value=32, pool='workers', expected=8),)
    """

    sla: Sla
    profile: NamedProfile | None = None
    engine: WorkerEngine | None = "vllm"
    more: tuple[Knob, ...] = ()
    knobs: tuple[str, ...] | None = None
    gap_ms: float | None = Field(default=None, gt=0)
    kv_transfer_ms: float = Field(default=0.0, ge=0)
    windows: int = Field(default=4, ge=2, le=32)
    min_requests: float = Field(default=100.0, ge=0)
    sure: float = Field(default=2.0, ge=0)
    same_load: float = Field(default=0.2, gt=0, lt=1)
    worth: float = Field(default=0.3, ge=0)
    lasts_s: float = Field(default=1800.0, ge=0)
    max_age_s: float = Field(default=90.0, gt=0)

    state_type: ClassVar[Any] = KnobMemory

    @model_validator(mode="before")
    @classmethod
    def _engine_of_another_package(cls, data: Any, info: ValidationInfo) -> Any:
        return with_custom_knobs(data, info.context, "more")

    @cached_property
    def catalogue(self) -> Catalogue:
        """The knobs that may be turned, by name."""
        known = catalogue(self.engine, (*catalogue("dynamo").values(), *self.more))
        return FrozenMap({name: knob for name, knob in known.items() if self.knobs is None or name in self.knobs})

    @cached_property
    def _goals(self) -> TuningGoals:
        return TuningGoals(self.profile, self.sla, self.gap_ms, self.kv_transfer_ms)

    @cached_property
    def _rules(self) -> Rules:
        return Rules(self.windows, self.min_requests, self.sure, self.same_load)

    def propose(self, snapshot: Snapshot, state: KnobMemory | None) -> tuple[Proposal, KnobMemory]:
        memory = state or KnobMemory()
        shape = shape_of(snapshot)
        window = window_of(snapshot, self.sla, ready(snapshot), self.max_age_s)
        undo, trial = memory.undo, memory.trial
        if undo is not None and undo.present_value(snapshot) != undo.value:
            memory, undo = memory.replace(undo=None), None
        if trial is not None:
            tick = TrialTick(self._rules, snapshot, window, shape, self.catalogue.get(trial.knob))
            return advanced(tick, memory, trial)
        if shape is None or shape != memory.shape:
            memory = memory.replace(windows=(), shape=shape or ())
        if undo is not None:
            message = f"{undo.knob} is to go back to {undo.before:g}"
            return undo.setting(undo.before, Reason(code="KnobReverted", pool=undo.pool, message=message)), memory
        if shape is None:
            message = "knobs wait until replicas are at their targets"
            return saying(Reason(code="ReplicasChanging", message=message)), memory
        if window is None:
            return Proposal(), memory
        memory = memory.with_window(window, interval_s(snapshot), self.windows)
        if (bound := over_the_gap(snapshot, self.catalogue, self._goals)) is not None:
            message = f"{bound.knob.name} {bound.before:g} -> {bound.value:g}: its steps are as long as gap_ms allows"
            reason = Reason(code="GapBound", pool=bound.pool, message=message)
            return setting(bound.pool, bound.knob.name, bound.value, reason), memory.replace(windows=())
        late_s = snapshot.at_s - window.at_s
        if late_s > interval_s(snapshot):
            message = "metrics come too late to take a trial back in time"
            return saying(Reason(code="MetricsLate", message=message, values={"late_s": late_s})), memory
        next_s = memory.not_before_s
        if len(memory.windows) < self.windows or (next_s is not None and snapshot.at_s < next_s):
            return Proposal(), memory
        return self._chosen(snapshot, memory)

    def _chosen(self, snapshot: Snapshot, memory: KnobMemory) -> tuple[Proposal, KnobMemory]:
        """The start of a trial of the most promising value, where there is one."""
        before = measured(memory.windows)
        more = len(memory.windows) < WINDOWS_FACTOR * self.windows
        if before.requests < self.min_requests or (
            more and self.sure * before.error > MAX_RELATIVE_ERROR * before.cost
        ):
            return Proposal(), memory
        if before.cost < self.worth:
            values = {"cost": before.cost, "worth": self.worth}
            message = "latencies are so far below their targets that no knob is tried"
            return saying(Reason(code="RoomEnough", message=message, values=values)), memory
        waits: list[Reason] = []
        for candidate in candidates(snapshot, self.catalogue, self._goals):
            if self._barred(candidate, memory, before.load):
                continue
            if not self._worth_it(snapshot, candidate):
                message = f"{candidate.knob.name} {candidate.before:g} -> {candidate.value:g} is not worth a restart"
                values = {"gain": candidate.gain, "lasts_s": self.lasts_s}
                waits.append(Reason(code="RestartCosts", pool=candidate.pool, message=message, values=values))
                continue
            trial = Trial(
                pool=candidate.pool,
                knob=candidate.knob.name,
                before=candidate.before,
                value=candidate.value,
                since_s=snapshot.at_s,
                settled_s=snapshot.at_s,
                cost=before.cost,
                error=before.error,
                spread=before.spread,
                load=before.load,
                gain=candidate.gain,
            )
            message = f"{trial.knob} {trial.before:g} -> {trial.value:g}: {candidate.why}"
            reason = Reason(code="KnobTrial", message=message, values={"cost": before.cost, "load": trial.load})
            return trial.setting(trial.value, reason), memory.replace(windows=(), trial=trial)
        settled = Reason(code="KnobsSettled", message="no knob helps at this load: the rest is for replicas")
        return saying(*waits, settled), memory

    def _barred(self, candidate: Candidate, memory: KnobMemory, load: float) -> bool:
        """Whether about this value failed at about this load."""
        return any(
            (failure.pool, failure.knob) == (candidate.pool, candidate.knob.name)
            and (failure.value == candidate.value or close_to(failure.value, candidate.value, self.same_load))
            and close_to(failure.load, load, self.same_load)
            for failure in memory.failures
        )

    def _worth_it(self, snapshot: Snapshot, candidate: Candidate) -> bool:
        """Whether the work that a value should save outweighs the restart that it takes."""
        if candidate.knob.applied != "restart":
            return True
        startup_s = max((pool.spec.startup_s for pool in pools_of(snapshot, candidate.pool)), default=0.0)
        return candidate.gain * self.lasts_s > startup_s
