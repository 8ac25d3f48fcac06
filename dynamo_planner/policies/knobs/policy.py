"""KnobPolicy: engine knobs, tried one at a time and kept where they are measured to be better.

See :class:`KnobPolicy`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, ClassVar

from pydantic import Field, ValidationInfo, model_validator

from dynamo_planner.core.decision import Proposal, Reason
from dynamo_planner.core.policy import Policy
from dynamo_planner.core.snapshot import Sla, Snapshot
from dynamo_planner.core.values import FrozenMap
from dynamo_planner.engines import Catalogue, Knob, catalogue
from dynamo_planner.engines.named import WorkerEngine, with_custom_knobs
from dynamo_planner.policies.knobs.candidates import Candidate, Wishes, candidates, over_the_gap
from dynamo_planner.policies.knobs.looking import interval_s, pools_of, present_value, ready, ready_of, shape_of
from dynamo_planner.policies.knobs.memory import Failure, KnobMemory, Trial
from dynamo_planner.policies.knobs.saying import measuring, taking_back, telling, wanting, within_the_gap
from dynamo_planner.policies.knobs.trial import Window, better, close_to, measured, window_of
from dynamo_planner.profiles import NamedProfile

LEAST_GAIN = 0.02
"""A gain of less than this share is none."""

MOST_WINDOWS = 3
"""Windows are kept for so many times as many as a comparison needs, and a trial that looks good lasts as long."""

UNSURE = 0.25
"""A mean whose error may be more than this share of it is measured for longer before anything is tried."""

MOST_BACK_OFF = 5
"""After so many failures in a row the wait between trials grows no more."""

BLIND_WINDOWS = 3.0
"""A value under trial of which nothing is seen for so many intervals is taken back."""


class KnobPolicy(Policy, kind="knobs"):
    """Tunes the knobs of engines, and has no opinion on replicas: ``together(KnobPolicy(...), SlaPolicy(...))``.

    **What is tried.** Of the knobs whose values the snapshot tells, one at a time: first the analytic value (from the
    ``profile``: the largest chunk that keeps ITL under its target at the batch and context that are seen; the batch at
    which ITL meets its target within the KV cache, where requests wait before full batches; the prompt length up to
    which a local prefill takes less than queueing and transfer), then a notch towards the target that binds. Never
    while replicas are changing or unknown, not where metrics are older than their window, so that a trial could not be
    taken back in time, and not where the cost is under ``worth``: with so much room nothing is to be gained. A knob
    that restarts workers is tried only where the share of work that it should save, for as long as a load ``lasts_s``,
    outweighs the start-up times of the restart.

    **What is kept.** The cost of a window is the larger of TTFT and ITL over their targets (percentiles where they are
    told; where an engine tells no TTFT, a queue as long as what is running stands for a TTFT at its target). A trial is
    compared with ``windows`` windows before it or more, if their mean is not sure enough, with ``min_requests`` at
    least, at a load per replica within ``same_load``: it is kept where the gain is over 2 % with ``sure`` standard
    errors to spare. A value that saves replicas, as profiled, shows its gain in fewer replicas and not in latencies: it
    is kept where the targets are, as surely. Otherwise a value is taken back, after three times as many windows where
    it looks like a gain; and at once where a target is breached that was not before, where nothing can be seen for a
    while, or where the load has changed.

    **What is remembered.** Values that failed, and those within ``same_load`` of them, are not tried again at a load
    within ``same_load`` of that at which they did; after each failure in a row the next trial waits twice as long. So
    under a constant load knobs settle: there are finitely many values, and none is tried twice.

    ``gap_ms`` bounds the longest step, for services that promise the worst gap between tokens, not the mean: a chunk
    whose steps would be longer, as profiled, is lowered at once and without a trial. ``engine``
    names the catalogue, and ``more`` adds to it. Only what ``knobs`` names is turned; left out, all that is known.

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
    def _wishes(self) -> Wishes:
        return Wishes(self.profile, self.sla, self.gap_ms, self.kv_transfer_ms)

    def propose(self, snapshot: Snapshot, state: KnobMemory | None) -> tuple[Proposal, KnobMemory]:
        memory = state or KnobMemory()
        shape = shape_of(snapshot)
        if memory.undo is not None:
            memory = memory if present_value(snapshot, memory.undo) == memory.undo.value else memory.replace(undo=None)
        if memory.trial is not None:
            return self._trying(snapshot, memory, memory.trial, shape)
        if shape is None or shape != memory.shape:
            memory = memory.replace(windows=(), shape=shape or ())
        if memory.undo is not None:
            return taking_back(memory.undo), memory
        if shape is None:
            return telling(
                Reason(code="ReplicasChanging", message="knobs wait until replicas are as they should be")
            ), memory
        window = self._window(snapshot)
        if window is None:
            return Proposal(), memory
        memory = self._seen(snapshot, memory, window)
        if (bound := over_the_gap(snapshot, self.catalogue, self._wishes)) is not None:
            return within_the_gap(bound), memory.replace(windows=())
        late_s = snapshot.at_s - window.at_s
        if late_s > interval_s(snapshot):
            message = "metrics come too late to take a trial back in time"
            return telling(Reason(code="MetricsLate", message=message, values={"late_s": late_s})), memory
        ready_s = memory.not_before_s
        if len(memory.windows) < self.windows or (ready_s is not None and snapshot.at_s < ready_s):
            return Proposal(), memory
        return self._chosen(snapshot, memory)

    # Choosing a value

    def _chosen(self, snapshot: Snapshot, memory: KnobMemory) -> tuple[Proposal, KnobMemory]:
        before = measured(memory.windows)
        more = len(memory.windows) < MOST_WINDOWS * self.windows
        if before.requests < self.min_requests or (more and self.sure * before.error > UNSURE * before.cost):
            return Proposal(), memory
        if before.cost < self.worth:
            values = {"cost": before.cost, "worth": self.worth}
            message = "so far from its targets it needs no knobs"
            return telling(Reason(code="RoomEnough", message=message, values=values)), memory
        waits: list[Reason] = []
        for candidate in candidates(snapshot, self.catalogue, self._wishes):
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
            return wanting(trial, trial.value, reason), memory.replace(windows=(), trial=trial)
        settled = Reason(code="KnobsSettled", message="no knob helps at this load: the rest is for replicas")
        return telling(*waits, settled), memory

    def _barred(self, candidate: Candidate, memory: KnobMemory, load: float) -> bool:
        return any(
            (failure.pool, failure.knob) == (candidate.pool, candidate.knob.name)
            and (failure.value == candidate.value or close_to(failure.value, candidate.value, self.same_load))
            and close_to(failure.load, load, self.same_load)
            for failure in memory.failures
        )

    def _worth_it(self, snapshot: Snapshot, candidate: Candidate) -> bool:
        if candidate.knob.applied != "restart":
            return True
        startup_s = max((pool.spec.startup_s for pool in pools_of(snapshot, candidate.pool)), default=0.0)
        return candidate.gain * self.lasts_s > startup_s

    # Trying it

    def _trying(
        self, snapshot: Snapshot, memory: KnobMemory, trial: Trial, shape: tuple[tuple[str, int], ...] | None
    ) -> tuple[Proposal, KnobMemory]:
        knob, present = self.catalogue.get(trial.knob), present_value(snapshot, trial)
        every_s = interval_s(snapshot)
        settles_s = (knob.settles_s if knob else 0.0) + every_s
        if knob is None or present not in {trial.before, trial.value}:
            message = f"{trial.knob} was set to {present} by somebody else"
            return self._given_up(snapshot, memory, trial, "KnobTaken", message, undo=False)
        if trial.set and present == trial.before:
            message = "the engines did not take it"
            return self._given_up(snapshot, memory, trial, "KnobRolledBack", message, failed=True)
        trial = trial.replace(set=present == trial.value)
        counts = shape is not None or knob.applied != "restart"
        saves = trial.gain > LEAST_GAIN and present == trial.value  # is judged by its targets, whatever the replicas
        if not saves and (shape is None or shape != memory.shape or present != trial.value):
            trial = trial.replace(settled_s=snapshot.at_s)
            memory = memory.replace(windows=(), shape=shape or ())
        memory = memory.replace(trial=trial)
        window = self._window(snapshot)
        if window is None:
            silent_s = snapshot.at_s - (memory.windows[-1].at_s if memory.windows else trial.settled_s)
            if silent_s > settles_s + BLIND_WINDOWS * every_s:
                return self._given_up(snapshot, memory, trial, "KnobUnseen", "its effect cannot be seen")
        elif window.at_s > trial.since_s and self._breached(window, trial, settled=trial.settled_s < snapshot.at_s):
            return self._given_up(snapshot, memory, trial, "KnobReverted", "a target is breached", failed=True)
        patience_s = 2 * (MOST_WINDOWS * self.windows * every_s + 2 * settles_s) + self._restart_s(snapshot, trial)
        if snapshot.at_s - trial.since_s > patience_s:
            return self._given_up(snapshot, memory, trial, "KnobUnsettled", "it could not be measured in time")
        if window is not None and counts and snapshot.at_s - trial.settled_s >= settles_s:
            memory = self._seen(snapshot, memory, window)
        if len(memory.windows) >= self.windows:
            return self._judged(snapshot, memory, trial)
        return wanting(trial, trial.value, measuring(trial, memory, self.windows)), memory

    def _judged(self, snapshot: Snapshot, memory: KnobMemory, trial: Trial) -> tuple[Proposal, KnobMemory]:
        after = measured(memory.windows)
        before = after._replace(cost=trial.cost, error=trial.error, load=trial.load)
        if after.requests < self.min_requests:
            return wanting(trial, trial.value, measuring(trial, memory, self.windows)), memory
        values = {"before": before.cost, "after": after.cost, "load": after.load}
        lighter = max(1 - after.load / trial.load, 0.0)  # a lighter load would have done some good by itself
        keeps = trial.gain > LEAST_GAIN and after.cost + self.sure * after.error < 1
        if not keeps and not close_to(trial.load, after.load, self.same_load):
            return self._given_up(snapshot, memory, trial, "LoadChanged", "the load is not what it was before")
        if not keeps and not better(before, after, self.sure, LEAST_GAIN + lighter):
            if better(before, after, 0.0, LEAST_GAIN + lighter) and len(memory.windows) < MOST_WINDOWS * self.windows:
                return wanting(trial, trial.value, measuring(trial, memory, MOST_WINDOWS * self.windows)), memory
            message = "no gain that is sure"
            return self._given_up(snapshot, memory, trial, "KnobReverted", message, failed=True, values=values)
        why = "keeps the targets and saves work" if keeps else "is better"
        message = f"{trial.knob} stays at {trial.value:g}, which {why} than {trial.before:g}"
        worse = Failure(pool=trial.pool, knob=trial.knob, value=trial.before, load=trial.load)
        memory = memory.failed(worse).replace(trial=None, windows=(), in_a_row=0)
        return telling(Reason(code="KnobKept", pool=trial.pool, message=message, values=values)), memory

    def _breached(self, window: Window, trial: Trial, *, settled: bool) -> bool:
        """Whether a target is missed that was met before; or, once all is as it should be, by far more than before."""
        if trial.cost <= 1:
            return window.cost > max(1.0, trial.cost + max(3 * trial.spread, 0.1 * trial.cost))
        return settled and window.cost > trial.cost + max(3 * trial.spread, 0.25 * trial.cost)

    def _given_up(
        self,
        snapshot: Snapshot,
        memory: KnobMemory,
        trial: Trial,
        code: str,
        why: str,
        *,
        undo: bool = True,
        failed: bool = False,
        values: Mapping[str, float] | None = None,
    ) -> tuple[Proposal, KnobMemory]:
        """Take a value back, and wait before the next."""
        if failed:
            memory = memory.failed(Failure(pool=trial.pool, knob=trial.knob, value=trial.value, load=trial.load))
        waits_s = self.windows * interval_s(snapshot) * 2 ** min(memory.in_a_row, MOST_BACK_OFF)
        memory = memory.replace(
            trial=None,
            undo=trial if undo and present_value(snapshot, trial) == trial.value else None,
            windows=(),
            in_a_row=memory.in_a_row + 1,
            not_before_s=snapshot.at_s + waits_s,
        )
        message = f"{trial.knob} goes back to {trial.before:g}: {why}" if undo else why
        reason = Reason(code=code, pool=trial.pool, message=message, values=FrozenMap(values or {}))
        return (wanting(trial, trial.before, reason) if undo else telling(reason)), memory

    # Seeing

    def _window(self, snapshot: Snapshot) -> Window | None:
        return window_of(snapshot, self.sla, ready(snapshot), self.max_age_s)

    def _seen(self, snapshot: Snapshot, memory: KnobMemory, window: Window) -> KnobMemory:
        """With one window more, if it does not overlap the last."""
        last_s = memory.windows[-1].at_s if memory.windows else None
        if last_s is not None and window.at_s - last_s < interval_s(snapshot) * 0.999:
            return memory
        return memory.replace(windows=(*memory.windows, window)[-MOST_WINDOWS * self.windows :])

    def _restart_s(self, snapshot: Snapshot, trial: Trial) -> float:
        """How long a restart of all workers may take."""
        knob = self.catalogue[trial.knob]
        if knob.applied != "restart":
            return 0.0
        each_s = (pool.spec.startup_s * max(ready_of(pool), 1) for pool in pools_of(snapshot, trial.pool))
        return 3 * max(each_s, default=0.0)
