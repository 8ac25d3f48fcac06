"""Proposals, decisions, actions and reasons: the output of a policy, on its way through the guards and final.

>>> Proposal(pools={"decode": Want(3, load=2.4), "prefill": Hold("traffic.isl is unknown")}).pools["decode"].load
2.4
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from math import isfinite
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer
from pydantic.dataclasses import dataclass

from dynamo_planner.core.snapshot import Snapshot
from dynamo_planner.core.values import Count, Frozen, FrozenMap, KnobValue, Known, ReadOnly, Unit, known, plain


class ScaleTo(Frozen):
    """An action: set the replicas of a pool. It is absolute: applying it twice changes nothing more.

    Args:
        pool: The name of the pool.
        replicas: The target.
        expected: The target that the pool had when this was decided; an executor that finds another one refuses.
    """

    kind: Literal["scale_to"] = Field(default="scale_to", repr=False)
    pool: str
    replicas: Count
    expected: Annotated[int, Field(ge=0)] | None = None


class SetKnob(Frozen):
    """An action: set an engine knob. It is absolute, as :class:`ScaleTo` is.

    Args:
        knob: The name of the knob.
        value: The value to set.
        pool: The name of the pool; ``None`` for a knob of the whole service.
        expected: The value that was there when this was decided.
    """

    kind: Literal["set_knob"] = Field(default="set_knob", repr=False)
    knob: str
    value: KnobValue
    pool: str | None = None
    expected: KnobValue | None = None


Action = Annotated[ScaleTo | SetKnob, Field(discriminator="kind")]


class Outcome(Frozen):
    """The result of an action.

    Args:
        action: The action.
        status: ``refused`` where something else owns the target, or where it is not what was expected.
        message: Why, for people.
    """

    action: Action
    status: Literal["applied", "unchanged", "refused", "failed"]
    message: str = ""


class Reason(Frozen):
    """One step in the explanation of a number.

    Args:
        code: CamelCase and, where the Kubernetes HPA has a code for it, the HPA's.
        message: A sentence that can be read at night.
        pool: The name of the pool; ``None`` where it concerns the service.
        values: The numbers in the message, for machines.
    """

    code: str = Field(pattern=r"^[A-Z][A-Za-z0-9]*$")
    message: str
    pool: str | None = None
    values: ReadOnly[str, Annotated[KnobValue | None, BeforeValidator(known)]] = Field(default_factory=FrozenMap)

    def __str__(self) -> str:
        numbers = ", ".join(f"{name}={_short(value)}" for name, value in self.values.items())
        return f"{self.code}: {self.message}" + (f" ({numbers})" if numbers else "")


FOUR_DIGITS = 1e3


def _short(value: Any) -> str:
    """A number with four digits, or all those before the decimal point."""
    if not isinstance(value, float):
        return str(value)
    return f"{value:.0f}" if abs(value) >= FOUR_DIGITS and isfinite(value) else f"{value:.4g}"


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Want:
    """A proposed target of a pool.

    Args:
        replicas: The target.
        load: The load in fractional replicas, by which guards share scarce GPUs; ``None`` where it is unknown.
    """

    replicas: Count
    load: Known = None

    @classmethod
    def unchecked(cls, replicas: int, load: float | None = None) -> Self:
        """A target of what is known to be right: no validator runs."""
        made = object.__new__(cls)
        made.__dict__.update(replicas=replicas, load=load)
        return made


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Hold:
    """A proposal to leave a pool as it is.

    Args:
        reason: Why, for people.
        code: As in :class:`Reason`. Default ``Held``.
        firm: Not even brought inside the bounds of the spec: a hard guard has the last word. Default false.
    """

    reason: str
    code: str = "Held"
    firm: bool = False


def _want_or_hold(value: Any) -> Any:
    value = plain(value)
    if value is None:
        return Hold("the policy returned None for this pool")
    return Want(value) if isinstance(value, int) else value


Weights = ReadOnly[str, Unit]
"""The share of the requests for each pool."""

Rates = ReadOnly[str, Annotated[float, Field(ge=0)]]
"""Requests per second of each class."""


class _BesideReplicas(Frozen):
    """A value that is shown and written without what it says to routers and gateways, where that is nothing."""

    beside: ClassVar[frozenset[str]] = frozenset({"routing_weights", "release_rates"})

    @model_serializer(mode="wrap")
    def _without_empty(self, fields: SerializerFunctionWrapHandler) -> dict[str, Any]:
        data: dict[str, Any] = fields(self)
        return {name: value for name, value in data.items() if value or name not in self.beside}

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        return [(name, value) for name, value in super().__repr_args__() if value or name not in self.beside]


class Proposal(_BesideReplicas):
    """Proposed targets and knobs, from a policy and through its guards.

    Args:
        pools: Per pool a :class:`Want` or a :class:`Hold`. A bare number of replicas stands for ``Want(number)`` and
            ``None`` for a hold; a pool that is left out is one that the policy has no opinion on.
        knobs: The knobs to set; ``expected`` is filled in when the proposal becomes a decision.
        reasons: Why, in order.
        routing_weights: As in :class:`Decision`.
        release_rates: As in :class:`Decision`.
    """

    pools: ReadOnly[str, Annotated[Want | Hold, BeforeValidator(_want_or_hold)]] = Field(default_factory=FrozenMap)
    knobs: tuple[SetKnob, ...] = ()
    reasons: tuple[Reason, ...] = ()
    routing_weights: Weights = Field(default_factory=FrozenMap)
    release_rates: Rates = Field(default_factory=FrozenMap)

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
    """The memory of a policy or guard between two decisions: opaque to everyone but the node that it belongs to.

    It holds observations and recommendations, never that an action happened.

    Args:
        kind: The kind of the node.
        version: The version of its state; another one is reset.
        data: Its own value.
        name: The name of the node, where it has one; left out of JSON where it has none.
    """

    kind: str
    version: int
    data: Any = None
    name: str | None = None

    @model_serializer(mode="wrap")
    def _without_no_name(self, fields: SerializerFunctionWrapHandler) -> dict[str, Any]:
        data: dict[str, Any] = fields(self)
        if self.name is None:
            del data["name"]
        return data


class Decision(_BesideReplicas):
    """A scaling decision, with its reasons.

    Args:
        at_s: The time of the snapshot, in Unix seconds.
        targets: The replicas of every pool that is not held, also where nothing changes.
        knobs: The knobs that are meant, also where they are set already.
        actions: What differs from the snapshot, reductions first.
        reasons: Why, in order.
        state: The memory to hand back with the next snapshot.
        routing_weights: The share of the requests of a role that a router is to send to each pool. Default empty: the
            policy says nothing of it.
        release_rates: Requests per second of each deferrable class that a gateway is to release; what is not in it is
            held back. Default empty.
    """

    at_s: float
    targets: ReadOnly[str, int] = Field(default_factory=FrozenMap)
    knobs: tuple[SetKnob, ...] = ()
    actions: tuple[Action, ...] = ()
    reasons: tuple[Reason, ...] = ()
    state: State | None = Field(default=None, repr=False)
    routing_weights: Weights = Field(default_factory=FrozenMap)
    release_rates: Rates = Field(default_factory=FrozenMap)

    def explain(self) -> str:
        """The decision in a few lines for the person on call: per pool the change, then each rule behind it, in order.

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

    def _repr_html_(self) -> str:
        return f"<pre>{escape(self.explain())}</pre>"
