"""Fleet: several models, each with its policy and guards, decided together on shared budgets.

>>> from dynamo_planner import PoolSpec, PoolStatus, Traffic
>>> def model(replicas, rate):
...     pool = PoolStatus(spec=PoolSpec(role="aggregated", gpus=1), replicas=replicas)
...     return Snapshot(at_s=0, traffic=Traffic(requests_per_s=rate), pools={"workers": pool})
>>> def policy(snapshot):
...     return {"workers": max(round(snapshot.traffic.requests_per_s / 10), 1)}
>>> fleet = Fleet(
...     models={"chat": Member(policy=policy), "batch": Member(policy=policy, floor={"gpu": 4})},
...     budgets={"gpu": Budget(total=8)},
... )
>>> print(fleet.decide({"chat": model(4, 60), "batch": model(2, 20)}).explain())
batch:
  FloorLent: 2 gpu lent to chat until batch needs them (lent=2, floor=4)
  workers: stays at 2
chat:
  FloorBorrowed: 2 gpu lent by batch until batch needs them (borrowed=2, floor=0)
  workers: 4 -> 6 replicas
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, model_validator

from dynamo_planner.core.conclude import conclude
from dynamo_planner.core.decision import Decision, Proposal, Reason, State, Want
from dynamo_planner.core.node import Node, as_state
from dynamo_planner.core.policy import Policy
from dynamo_planner.core.snapshot import Snapshot
from dynamo_planner.core.values import Frozen, FrozenMap, ReadOnly
from dynamo_planner.fleet.claims import Budget, Claim, Grant
from dynamo_planner.fleet.explain import Explained, reasons_of
from dynamo_planner.fleet.requests import HeldPools, Member, claims_of, held_after, requested
from dynamo_planner.fleet.sharing import REBALANCE_MARGIN, share
from dynamo_planner.sizing.memo import Memo


class FleetMemory(Frozen):
    """The memory of a fleet.

    Args:
        models: The state of each model's policy.
        held: What each pool of each model held at most when it was last read.
    """

    models: ReadOnly[str, State | None] = Field(default_factory=FrozenMap)
    held: HeldPools = Field(default_factory=FrozenMap)


class FleetDecision(Frozen):
    """The decisions of several models.

    Args:
        decisions: The decision of each model, by name; without states.
        reasons: What concerns no model.
        state: The memory to hand back with the next snapshots.
    """

    decisions: ReadOnly[str, Decision] = Field(default_factory=FrozenMap)
    reasons: tuple[Reason, ...] = ()
    state: State | None = Field(default=None, repr=False)

    def explain(self) -> str:
        """The decisions in a few lines for each model."""
        lines = [str(reason) for reason in self.reasons]
        for name in sorted(self.decisions):
            lines.append(f"{name}:")
            lines.extend(f"  {line}" for line in self.decisions[name].explain().splitlines())
        return "\n".join(lines)


class Fleet(Frozen):
    """Several models on shared budgets.

    Each model's policy and guards propose, as alone; what does not fit the budgets is shared
    (:func:`~dynamo_planner.fleet.share`). A model of which a metric is missing keeps what it has, and so does one that
    could not be read at all or whose policy raises: for the others it is as if the budgets were smaller by what it
    holds.

    Args:
        models: The models by name.
        budgets: The budgets by name: kinds of GPUs, and ``cost`` (of :class:`~dynamo_planner.PoolSpec`) or others that
            ``Member.uses`` names.
        margin: By how much more than its worth a replica counts for the model that has it. Default 0.5.
    """

    models: ReadOnly[str, Member]
    budgets: ReadOnly[str, Budget]
    margin: Annotated[float, Field(ge=0)] = REBALANCE_MARGIN

    @model_validator(mode="after")
    def _floors_fit(self) -> Self:
        for name, member in self.models.items():
            for missing in sorted({*member.floor, *member.kinds()} - self.budgets.keys()):
                raise ValueError(f"models.{name}: there is no budget {missing!r}: give it one, or name another")
        for name, budget in self.budgets.items():
            floors = sum(member.floor.get(name, 0.0) for member in self.models.values())
            if floors > budget.amount:
                raise ValueError(f"the floors on {name!r} are {floors:g} together, and it has {budget.amount:g}")
        return self

    def decide(
        self,
        snapshots: Mapping[str, Snapshot],
        state: State | Mapping[str, Any] | None = None,
        free: Mapping[str, Sequence[int]] | None = None,
        instead: Mapping[str, Policy] | None = None,
    ) -> FleetDecision:
        """The decisions for a snapshot of each model, given the ``state`` of those before (or its JSON form).

        Args:
            snapshots: By model. A model without one keeps what it has, and gets no decision.
            state: The memory of the decisions before; a model that is new in it starts anew.
            free: The free GPUs of each node, by budget, where they were observed.
            instead: Policies that decide in place of a model's own, whose state stays as it is.
        """
        given, reset = as_state(state)
        memory, not_mine = _NODE.recall(given)
        memory = memory or FleetMemory()
        requests = {
            name: requested(
                name,
                member,
                snapshots.get(name),
                memory.models.get(name),
                memory.held.get(name, {}),
                (instead or {}).get(name),
            )
            for name, member in self.models.items()
        }
        claims = [claim for claim in claims_of(requests, self.budgets) if claim.pools]
        on_nodes = FrozenMap({name: tuple(nodes) for name, nodes in (free or {}).items()})
        grants = self._granted.get((tuple(claims), on_nodes), lambda: self.grants(claims, on_nodes))
        explained = reasons_of(claims, grants, self.budgets)
        by_model = {claim.model: claim for claim in claims}
        decisions = {
            name: _concluded(own.snapshot, own.proposal, by_model.get(name), grants, explained)
            for name, own in requests.items()
            if own.snapshot is not None
        }
        after = FleetMemory.unchecked(
            models=FrozenMap({name: own.state for name, own in requests.items()}),
            held=FrozenMap({claim.model: held_after(claim, grants[claim.model]) for claim in claims}),
        )
        strangers = [
            Reason(code="UnknownModel", message=f"{name!r} is no model of this fleet, and is left alone")
            for name in sorted(snapshots.keys() - self.models.keys())
        ]
        return FleetDecision.unchecked(
            decisions=FrozenMap(decisions),
            reasons=(*reset, *not_mine, *strangers),
            state=_NODE.remember(after),
        )

    @cached_property
    def _granted(self) -> Memo[Mapping[str, Grant]]:
        """The grants of the tick before, which hold for as long as no model claims anything else."""
        return Memo(1)

    def grants(self, claims: Sequence[Claim], free: Mapping[str, Sequence[int]]) -> Mapping[str, Grant]:
        """What each model is given; another rule than :func:`~dynamo_planner.fleet.share` replaces this."""
        return share(claims, self.budgets, free, self.margin)


class _FleetNode(Node, kind="fleet"):
    state_type: ClassVar[Any] = FleetMemory


_NODE = _FleetNode()


def _concluded(
    snapshot: Snapshot, proposal: Proposal, claim: Claim | None, grants: Mapping[str, Grant], explained: Explained
) -> Decision:
    """The decision of a model with what it was granted."""
    if claim is None:
        return conclude(snapshot, proposal, None)
    changes = {}
    for pool, count in zip(claim.pools, grants[claim.model].now, strict=True):
        entry = proposal.pools.get(pool.name)
        if isinstance(entry, Want) and entry.replicas != count:
            changes[pool.name] = Want(count, entry.load)
    return conclude(snapshot, proposal.with_pools(changes, explained[claim.model]), None)
