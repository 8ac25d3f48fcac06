"""What a policy says: proposals on the way through the guards, and the decision that comes out.

>>> Proposal(pools={"decode": Want(3, load=2.4), "prefill": Hold("traffic.isl is unknown")}).pools["decode"].load
2.4
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass

from dynamo_planner.core.snapshot import Snapshot
from dynamo_planner.core.values import Count, Frozen, FrozenMap, KnobValue, Known, ReadOnly, known, plain


class ScaleTo(Frozen):
    """Give a pool this many replicas. Absolute: applying it twice changes nothing more.

    ``expected`` is the target that the pool had when this was decided; an executor that finds another one refuses.
    """

    kind: Literal["scale_to"] = Field(default="scale_to", repr=False)
    pool: str
    replicas: Count
    expected: Annotated[int, Field(ge=0)] | None = None


class SetKnob(Frozen):
    """Set an engine knob of a pool, or of the service where ``pool`` is ``None``; otherwise as :class:`ScaleTo`."""

    kind: Literal["set_knob"] = Field(default="set_knob", repr=False)
    knob: str
    value: KnobValue
    pool: str | None = None
    expected: KnobValue | None = None


Action = Annotated[ScaleTo | SetKnob, Field(discriminator="kind")]


class Outcome(Frozen):
    """What became of an action. ``refused``: somebody else owns the target, or it is not what was expected."""

    action: Action
    status: Literal["applied", "unchanged", "refused", "failed"]
    message: str = ""


class Reason(Frozen):
    """One step of how a number came to be.

    ``code`` is CamelCase and, where the Kubernetes HPA has a code for it, the HPA's. ``message`` is a sentence that
    can be read at night; ``values`` are the numbers in it, for machines.
    """

    code: str = Field(pattern=r"^[A-Z][A-Za-z0-9]*$")
    message: str
    pool: str | None = None
    values: ReadOnly[str, Annotated[KnobValue | None, BeforeValidator(known)]] = Field(default_factory=FrozenMap)

    def __str__(self) -> str:
        numbers = ", ".join(f"{name}={_short(value)}" for name, value in self.values.items())
        return f"{self.code}: {self.message}" + (f" ({numbers})" if numbers else "")


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Want:
    """A pool should have this many replicas. ``load`` is the fractional need in replicas, which guards use to share."""

    replicas: Count
    load: Known = None


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Hold:
    """A pool should stay as it is, because of this; ``code`` as in :class:`Reason`.

    A ``firm`` one is not brought inside the bounds of the spec either: a hard guard has the last word.
    """

    reason: str
    code: str = "Held"
    firm: bool = False


def _want_or_hold(value: Any) -> Any:
    value = plain(value)
    if value is None:
        return Hold("the policy returned None for this pool")
    return Want(value) if isinstance(value, int) else value


class Proposal(Frozen):
    """What a policy would have, per pool and for knobs, and what guards make of it.

    A bare number of replicas stands for ``Want(number)`` and ``None`` for a hold. A pool that is left out is one that
    the policy has no opinion on. ``expected`` of a knob is filled in when the proposal becomes a decision.
    """

    pools: ReadOnly[str, Annotated[Want | Hold, BeforeValidator(_want_or_hold)]] = Field(default_factory=FrozenMap)
    knobs: tuple[SetKnob, ...] = ()
    reasons: tuple[Reason, ...] = ()

    @classmethod
    def hold(cls, pools: Iterable[str], reason: str, code: str = "Held") -> Self:
        """Hold all of these pools for one reason."""
        return cls(pools=dict.fromkeys(pools, Hold(reason, code)))

    def because(self, *reasons: Reason) -> Self:
        """The same proposal with these reasons added."""
        return self.replace(reasons=self.reasons + reasons) if reasons else self

    def with_pools(self, changes: Mapping[str, Want | Hold], reasons: Sequence[Reason] = ()) -> Self:
        """The same proposal with these pools changed and these reasons added."""
        if not changes:
            return self.because(*reasons)
        pools = FrozenMap({**self.pools, **changes})
        return self.replace(pools=pools, reasons=(*self.reasons, *reasons))

    def wanted(self, snapshot: Snapshot, pool: str) -> int | None:
        """The target that the pool would get: the wanted one, or the present one where it is held or not spoken of.

        ``None`` where a pool is to stay and what it has could not be read.
        """
        entry = self.pools.get(pool)
        if isinstance(entry, Want):
            return entry.replicas
        replicas = snapshot.pools[pool].replicas
        return replicas.target if replicas else None


class State(Frozen):
    """What a policy or guard remembers between two decisions: opaque to everyone but the node of that kind and version.

    It holds observations and recommendations, never that an action happened.
    """

    kind: str
    version: int
    data: Any = None


class Decision(Frozen):
    """What is to be done, and why.

    ``targets`` has the replicas of every pool that is not held, also where nothing changes; ``actions`` only what
    differs from the snapshot, reductions first. Hand ``state`` back with the next snapshot.
    """

    at_s: float
    targets: ReadOnly[str, int] = Field(default_factory=FrozenMap)
    knobs: tuple[SetKnob, ...] = ()
    actions: tuple[Action, ...] = ()
    reasons: tuple[Reason, ...] = ()
    state: State | None = Field(default=None, repr=False)

    def explain(self) -> str:
        """A few lines for the person on call: per pool what changes, then each rule that bore on it, in order.

        >>> print(Decision(
        ...     at_s=0,
        ...     targets={"decode": 4},
        ...     actions=(ScaleTo(pool="decode", replicas=4, expected=3),),
        ...     reasons=(
        ...         Reason(code="KvUsageHigh", pool="decode", message="KV usage is over the threshold",
        ...                values={"kv_usage": 0.9312, "threshold": 0.9}),
        ...         Reason(code="MetricUnknown", pool="prefill", message="queued is unknown: no worker answered"),
        ...     ),
        ... ).explain())
        decode: 3 -> 4 replicas
          KvUsageHigh: KV usage is over the threshold (kv_usage=0.9312, threshold=0.9)
        prefill: held
          MetricUnknown: queued is unknown: no worker answered
        """
        scaled = {action.pool: action for action in self.actions if isinstance(action, ScaleTo)}
        named = dict.fromkeys([*self.targets, *(reason.pool for reason in self.reasons if reason.pool)])
        lines = [str(reason) for reason in self.reasons if reason.pool is None]
        for pool in named:
            if pool in scaled:
                lines.append(f"{pool}: {scaled[pool].expected} -> {scaled[pool].replicas} replicas")
            else:
                lines.append(f"{pool}: stays at {self.targets[pool]}" if pool in self.targets else f"{pool}: held")
            lines.extend(f"  {reason}" for reason in self.reasons if reason.pool == pool)
        for action in self.actions:
            if isinstance(action, SetKnob):
                lines.append(f"{action.pool or 'service'}: {action.knob} {action.expected} -> {action.value}")
        return "\n".join(lines)
