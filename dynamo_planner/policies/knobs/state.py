"""The state of :class:`~dynamo_planner.policies.knobs.KnobPolicy`: windows, the trial, and what failed, as a value."""

from __future__ import annotations

from dynamo_planner.core.decision import Proposal, Reason, SetKnob
from dynamo_planner.core.snapshot import Snapshot
from dynamo_planner.core.values import Frozen
from dynamo_planner.policies.knobs.observations import Shape, Window, knob_number

WINDOWS_FACTOR = 3
"""Windows are kept for this many times as many as a comparison takes, and a trial that looks good lasts as long."""

MAX_FAILURES = 32
"""Failures that are remembered."""

SAME_WINDOW_SHARE = 0.999
"""Windows closer than this share of an interval overlap, and one of them is dropped."""


class Trial(Frozen):
    """A value that is being tried, and what was measured before it.

    Args:
        pool: The pool of the knob; ``None`` for a knob of the service.
        knob: The name of the knob.
        before: Its value before.
        value: The value that is tried.
        since_s: When the trial began, in Unix seconds.
        settled_s: When a replica was last observed to be changing, in Unix seconds; windows count from there.
        cost: The mean cost before.
        error: Its standard error.
        spread: The standard deviation of the windows before.
        load: The load of a replica before.
        gain: The share of the replicas that the value should save, as profiled.
        set: Whether the value was ever observed to be set.
    """

    pool: str | None
    knob: str
    before: float
    value: float
    since_s: float
    settled_s: float
    cost: float
    error: float
    spread: float
    load: float
    gain: float
    set: bool = False

    def present_value(self, snapshot: Snapshot) -> float | None:
        """What the knob is set to in a snapshot."""
        return knob_number(snapshot, self.pool, self.knob)

    def setting(self, value: float, reason: Reason) -> Proposal:
        """The proposal to set the knob."""
        return setting(self.pool, self.knob, value, reason)


class Failure(Frozen):
    """A value that was no gain, and the load of a replica under which it was not."""

    pool: str | None
    knob: str
    value: float
    load: float


class KnobMemory(Frozen):
    """The state of :class:`~dynamo_planner.policies.knobs.KnobPolicy`.

    Args:
        windows: The windows since knobs and replicas last changed.
        shape: The replicas of each pool then.
        trial: The value that is being tried.
        undo: A value that is still to be taken back: the former one is proposed until it is observed.
        failures: Values that were no gain, oldest first.
        in_a_row: Failures since a value was last kept.
        not_before_s: From when on the next value may be tried, in Unix seconds.
    """

    windows: tuple[Window, ...] = ()
    shape: Shape = ()
    trial: Trial | None = None
    undo: Trial | None = None
    failures: tuple[Failure, ...] = ()
    in_a_row: int = 0
    not_before_s: float | None = None

    def failed(self, *failures: Failure) -> KnobMemory:
        """The memory with these failures, and without the oldest where they become too many."""
        return self.replace(failures=(*self.failures, *failures)[-MAX_FAILURES:])

    def with_window(self, window: Window, every_s: float, windows: int) -> KnobMemory:
        """The memory with one window more, unless it overlaps the last; ``windows`` is what a comparison takes."""
        last_s = self.windows[-1].at_s if self.windows else None
        if last_s is not None and window.at_s - last_s < every_s * SAME_WINDOW_SHARE:
            return self
        return self.replace(windows=(*self.windows, window)[-WINDOWS_FACTOR * windows :])


def setting(pool: str | None, knob: str, value: float, reason: Reason) -> Proposal:
    """The proposal to set one knob."""
    number = int(value) if float(value).is_integer() else value
    return Proposal(knobs=(SetKnob(knob=knob, value=number, pool=pool),), reasons=(reason,))


def saying(*reasons: Reason) -> Proposal:
    """The proposal to change nothing, for these reasons."""
    return Proposal(reasons=reasons)
