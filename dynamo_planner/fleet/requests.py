"""What each model of a fleet requests: its proposal as a claim on the budgets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, NamedTuple

from pydantic import Field, PlainSerializer

from dynamo_planner.core.decision import Proposal, Reason, State, Want
from dynamo_planner.core.policy import AnyPolicy, Policy, proposed
from dynamo_planner.core.snapshot import PoolSpec, PoolStatus, Replicas, Snapshot
from dynamo_planner.core.values import Frozen, FrozenMap, ReadOnly
from dynamo_planner.fleet.capacity import TOLERANCE, amounts, limits, per_replica, total
from dynamo_planner.fleet.claims import UNBOUNDED_REPLICAS, Budget, Claim, Grant, Option, PoolClaim
from dynamo_planner.fleet.worth import PoolRange, options

Amounts = ReadOnly[str, Annotated[float, Field(ge=0)]]

NestedAmounts = Annotated[ReadOnly[str, Amounts], PlainSerializer(lambda outer: {k: dict(v) for k, v in outer.items()})]

COST = "cost"
"""The budget that :attr:`~dynamo_planner.PoolSpec.cost` counts for."""


class Member(Frozen):
    """A model of a fleet.

    Args:
        policy: Its policy with its guards.
        weight: What its work is worth beside that of others. Default 1.
        priority: Models of a higher one are served first, whatever others lose. Default 0.
        floor: What it may always have, by budget. Default nothing.
        gpus: The budget that its GPUs come out of, or those by pool. Default ``gpu``.
        uses: What a replica of a pool holds of further budgets, such as watts. Default none.
    """

    policy: AnyPolicy
    weight: Annotated[float, Field(gt=0)] = 1.0
    priority: int = 0
    floor: Amounts = Field(default_factory=FrozenMap)
    gpus: str | ReadOnly[str, str] = "gpu"
    uses: NestedAmounts = Field(default_factory=FrozenMap)

    def kinds(self) -> set[str]:
        """The budgets that it names for its pools."""
        named = {self.gpus} if isinstance(self.gpus, str) else set(self.gpus.values())
        return named | {budget for uses in self.uses.values() for budget in uses}

    def used_by(self, pool: str, spec: PoolSpec, budgets: Mapping[str, Budget]) -> FrozenMap[str, float]:
        """What a replica of a pool holds of each budget."""
        found = dict(self.uses.get(pool, {}))
        kind = self.gpus if isinstance(self.gpus, str) else self.gpus.get(pool)
        if kind is not None and spec.gpus:
            found[kind] = float(spec.gpus)
        if COST in budgets and COST not in found:
            found[COST] = float(spec.gpus) if spec.cost is None else spec.cost
        return FrozenMap({budget: amount for budget, amount in found.items() if budget in budgets and amount})


class HeldPool(Frozen):
    """What a pool held at most when it was last read: its replicas, and what each uses of the budgets."""

    replicas: int
    uses: ReadOnly[str, float]


HeldPools = Annotated[
    ReadOnly[str, ReadOnly[str, HeldPool]], PlainSerializer(lambda outer: {k: dict(v) for k, v in outer.items()})
]
"""What pools hold, by model and name."""


class ModelRequest(NamedTuple):
    """What one model requests.

    Args:
        model: Its name.
        member: Its entry in the fleet.
        snapshot: Its snapshot; ``None`` where there is none.
        proposal: The proposal of its policy and guards.
        state: The state of its policy.
        held: What its pools held when they were last read.
    """

    model: str
    member: Member
    snapshot: Snapshot | None
    proposal: Proposal
    state: State | None
    held: Mapping[str, HeldPool]


def requested(
    model: str,
    member: Member,
    snapshot: Snapshot | None,
    state: State | None,
    held: Mapping[str, HeldPool],
    instead: Policy | None = None,
) -> ModelRequest:
    """The proposal of a model, or of the policy ``instead`` of its own. A policy that raises holds, and keeps its
    state."""
    if snapshot is None:
        return ModelRequest(model, member, None, Proposal(), state, held)
    try:
        if instead is not None:
            return ModelRequest(model, member, snapshot, proposed(instead, snapshot)[0], state, held)
        proposal, after = proposed(member.policy, snapshot, state)
    except Exception as error:  # another model's decision must not depend on it
        message = f"the policy could not decide: {type(error).__name__}: {error}"
        reason = Reason(code="PolicyFailed", message=message)
        proposal, after = Proposal.hold(snapshot.pools, message, "PolicyFailed").because(reason), state
    return ModelRequest(model, member, snapshot, proposal, after, held)


def claims_of(requests: Mapping[str, ModelRequest], budgets: Mapping[str, Budget]) -> list[Claim]:
    """The claims of the models. Where what a model holds is not known at all, nothing rises on its budgets."""
    unknown = {budget for request in requests.values() for budget in _unknown(request, budgets)}
    ranges = {name: _ranges(request, budgets, unknown) for name, request in requests.items()}
    plain = [_claim(request, ranges[name]) for name, request in requests.items()]
    over = _exceeded(plain, budgets)
    return [
        claim._replace(options=_options(requests[claim.model], ranges[claim.model]))
        if not claim.fixed and any(claim.used(claim.wanted, budget) for budget in over)
        else claim
        for claim in plain
    ]


def _unknown(request: ModelRequest, budgets: Mapping[str, Budget]) -> set[str]:
    """The budgets of which a model may hold any amount."""
    if request.snapshot is None or not request.snapshot.pools:
        return set() if request.held else request.member.kinds()
    return {
        budget
        for name, pool in request.snapshot.pools.items()
        if pool.replicas is None and name not in request.held
        for budget in request.member.used_by(name, pool.spec, budgets)
    }


def _exceeded(claims: list[Claim], budgets: Mapping[str, Budget]) -> set[str]:
    """The budgets that do not suffice for all that is wanted."""
    rows = limits(budgets, amounts(claims))
    used = total([claim.wanted for claim in claims], [per_replica(claim, rows) for claim in claims], rows)
    return {row.budget for row, own in zip(rows, used, strict=True) if own > row.amount * (1 + TOLERANCE)}


Ranges = list[tuple[PoolClaim, PoolRange]]
"""The pools of a model, with the replicas that each may be given."""


def _ranges(request: ModelRequest, budgets: Mapping[str, Budget], unknown: set[str]) -> Ranges:
    """The pools of a model: those that were read, and those that were read before."""
    status = request.snapshot.pools if request.snapshot else {}
    entries = [
        _known_pool(request, name, status[name], replicas, budgets, unknown)
        for name in status
        if (replicas := status[name].replicas) is not None
    ]
    read = {pool.name for pool, _ in entries}
    return entries + [_unread_pool(name, own) for name, own in request.held.items() if name not in read]


def _claim(request: ModelRequest, ranges: Ranges) -> Claim:
    """The claim of a model that need not share: the least and what it wants."""
    member, own = request.member, [each for _, each in ranges]
    ends = dict.fromkeys([tuple(each.least for each in own), tuple(each.wanted for each in own)])
    found = tuple(Option(counts, float(n)) for n, counts in enumerate(ends))
    fixed = all(each.held for each in own)
    pools = tuple(pool for pool, _ in ranges)
    return Claim(request.model, pools, found, member.weight, member.priority, member.floor, fixed)


def _options(request: ModelRequest, ranges: Ranges) -> tuple[Option, ...]:
    """What a model may be given, and what it is worth."""
    own, snapshot = tuple([each for _, each in ranges]), request.snapshot
    counts = {each.name: each.counts() for each in own if not each.held}
    in_time = {} if snapshot is None else request.member.policy.in_time(snapshot, request.state, counts)
    return options(own, tuple([None if (shares := in_time.get(each.name)) is None else tuple(shares) for each in own]))


def _unread_pool(name: str, own: HeldPool) -> tuple[PoolClaim, PoolRange]:
    """A pool that could not be read: it keeps what it held at most."""
    count = own.replicas
    pool = PoolClaim(name, own.uses, count, most=count)
    return pool, PoolRange(name, "aggregated", own.uses, count, count, count, 0.0, held=True)


def _known_pool(
    request: ModelRequest,
    name: str,
    status: PoolStatus,
    replicas: Replicas,
    budgets: Mapping[str, Budget],
    unknown: set[str],
) -> tuple[PoolClaim, PoolRange]:
    """A pool and the replicas that it may be given: a held one stays, and nothing rises on an unknown budget."""
    spec, entry, present = status.spec, request.proposal.pools.get(name), replicas.target
    uses = request.member.used_by(name, spec, budgets)
    held = not isinstance(entry, Want)
    wanted = entry.replicas if isinstance(entry, Want) else present
    if uses.keys() & unknown:
        wanted = min(wanted, present)
    least = wanted if held else min(wanted, spec.min_replicas or (0 if _wakeable(request.snapshot) else 1))
    load = entry.load if isinstance(entry, Want) and entry.load is not None else float(wanted)
    most = UNBOUNDED_REPLICAS if spec.max_replicas is None else max(spec.max_replicas, wanted)
    launched = replicas.ready + replicas.starting
    if uses.keys() & unknown or held:
        most = wanted
    pool = PoolClaim(name, uses, present, launched, replicas.draining, most, load, spec.role)
    return pool, PoolRange(name, spec.role, uses, least, wanted, min(present, wanted), load, spec.gpus, held)


def _wakeable(snapshot: Snapshot | None) -> bool:
    """Whether a model at zero would be seen to be needed."""
    return snapshot is not None and not (snapshot.traffic.requests_per_s is None and snapshot.traffic.queued is None)


def held_after(claim: Claim, grant: Grant) -> Mapping[str, HeldPool]:
    """What the pools of a model hold at most once its grant is applied."""
    return FrozenMap(
        {
            pool.name: HeldPool.unchecked(replicas=pool.held(count), uses=FrozenMap(pool.uses))
            for pool, count in zip(claim.pools, grant.now, strict=True)
        }
    )
