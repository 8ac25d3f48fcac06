"""What :class:`~dynamo_planner.policies.knobs.KnobPolicy` remembers: what it saw, what it tries, and what failed."""

from __future__ import annotations

from dynamo_planner.core.values import Frozen, KnobValue
from dynamo_planner.policies.knobs.trial import Window

MOST_FAILURES = 32


class Trial(Frozen):
    """A value that is being tried, since when, and what was measured before: cost, its standard error, the standard
    deviation of its windows, and the load. ``gain`` is the share of the replicas that it should save.

    ``settled_s`` is when the last replica that was changing was seen to be; what is measured counts from there. ``set``
    says that the value has been seen.
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


class Failure(Frozen):
    """A value that was not better, and the load per replica under which it was not."""

    pool: str | None
    knob: str
    value: float
    load: float


class KnobMemory(Frozen):
    """Of the service: the windows since its knobs and replicas were last changed, the value that is tried, those that
    failed, how often in a row, and from when on another may be tried. ``undo`` is a value that is still to be taken
    back: it is asked for until it is seen."""

    windows: tuple[Window, ...] = ()
    shape: tuple[tuple[str, int], ...] = ()
    trial: Trial | None = None
    undo: Trial | None = None
    failures: tuple[Failure, ...] = ()
    in_a_row: int = 0
    not_before_s: float | None = None

    def failed(self, *failures: Failure) -> KnobMemory:
        """With these failures, and without the oldest where they become too many."""
        return self.replace(failures=(*self.failures, *failures)[-MOST_FAILURES:])


def plain_number(value: KnobValue | None) -> float | None:
    """The value of a knob that can be turned, or ``None``."""
    return None if isinstance(value, bool | str) or value is None else value
