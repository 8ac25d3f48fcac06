"""GpuBudget: a limit on the GPUs of all pools, kept even on the way from one number of replicas to another.

>>> from dynamo_planner import PoolSpec, PoolStatus, Snapshot
>>> snapshot = Snapshot(
...     at_s=0,
...     pools={
...         "prefill": PoolStatus(spec=PoolSpec(role="prefill", gpus=2), replicas=2),
...         "decode": PoolStatus(spec=PoolSpec(role="decode", gpus=2), replicas=2),
...     },
... )
>>> policy = (lambda snapshot: {"prefill": 3, "decode": 8}) | GpuBudget(max_gpus=16)
>>> print(policy.decide(snapshot).explain())
prefill: stays at 2
  GpuBudgetLimit: max_gpus leaves it 2 of 3 wanted replicas (wanted=3, granted=2, load=3, gpus_held=8, max_gpus=16)
decode: 2 -> 6 replicas
  GpuBudgetLimit: max_gpus leaves it 6 of 8 wanted replicas (wanted=8, granted=6, load=8, gpus_held=8, max_gpus=16)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, model_validator

from dynamo_planner.core.decision import Hold, Proposal, Reason, Want
from dynamo_planner.core.policy import Guard
from dynamo_planner.core.snapshot import PoolSpec, PoolStatus, Replicas, Snapshot
from dynamo_planner.core.values import Count
from dynamo_planner.guards._common import within_service
from dynamo_planner.guards.fair_share import Claim, Counts, filled_up, least_gpus, peak, share, step

UNBOUNDED_REPLICAS = 1_000_000
"""The replicas that a pool without ``max_replicas`` may be raised to."""


class GpuBudget(Guard, kind="gpu_budget"):
    """Keeps the GPUs that the pools hold within ``max_gpus``, counted at the peak of a move.

    A pool counts with ``gpus * (max(what is there, wanted) + draining)`` (:meth:`PoolStatus.gpus_held`): what is being
    removed is counted until it is gone, so a rise waits until the GPUs for it are free.

    - Nothing is raised beyond the proposal, and while the pools hold more than ``max_gpus`` nothing is raised at all.
    - Where the budget binds it is shared by load per replica (:mod:`~dynamo_planner.guards.fair_share`); a load that is
      unknown counts as the wanted replicas. A pool that is wanted above zero keeps ``min_replicas``, and at least 1.
    - A pool may be lowered for one that needs its GPUs more, by a clear margin: the fall now, the rise once the GPUs
      are free. A held pool is lowered only where the pools hold too much and lowering the others is not enough.
    - Where the least that the pools must have does not fit, pools at zero stay there; where that is not enough
      nothing is raised (``GpuBudgetTooSmall``).
    - Where the replicas of a pool could not be read the GPUs in use are unknown, and nothing is raised.

    - With ``min_gpus`` the pools also keep a total: falls below it are undone, and then the pools that are most loaded
      are raised (:func:`~dynamo_planner.guards.fair_share.filled_up`), so that GPUs are only redistributed. Held pools
      keep what they have.

    Put it last.

    Args:
        max_gpus: GPUs that the pools may hold together, 0 to 1,000,000.
        min_gpus: GPUs that the pools keep together, where their ``max_replicas`` allow it. Default 0.
    """

    max_gpus: Annotated[Count, Field(le=1_000_000)]
    min_gpus: Count = 0

    rank: ClassVar[int] = 2

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min_gpus > self.max_gpus:
            raise ValueError(f"min_gpus ({self.min_gpus}) is above max_gpus ({self.max_gpus}): lower it")
        return self

    def gpu_limit(self, snapshot: Snapshot) -> int:
        return self.max_gpus

    def limit(self, snapshot: Snapshot, proposal: Proposal, state: Any) -> tuple[Proposal, Any]:
        proposal = self._filled_up(snapshot, within_service(snapshot, proposal))
        requested = _claims(snapshot, proposal)
        unread = [name for name, pool in snapshot.pools.items() if pool.replicas is None and pool.spec.gpus > 0]
        ways = list(_ways(snapshot, requested))[2 if unread else 0 :]
        claims = next((way for way in ways if least_gpus(way) <= self.max_gpus), ways[-1])
        goal = share(claims, self.max_gpus)
        granted = _stages_together(snapshot, claims, step(claims, goal, self.max_gpus))

        reasons = [] if claims is ways[0] else [self._too_small(ways[0])]
        changes: dict[str, Want | Hold] = {}
        held_gpus = peak(requested, {claim.name: claim.present for claim in requested})
        for claim in requested:
            name, replicas = claim.name, granted[claim.name]
            if replicas == claim.wanted:
                continue
            reason = self._reason(claim, replicas, goal[name], held_gpus, unread)
            if replicas < _fewest(snapshot.pools[name].spec, claim.wanted):
                changes[name] = Hold(reason.message, reason.code, firm=True)
            else:
                entry = proposal.pools[name]
                changes[name] = Want(replicas, entry.load if isinstance(entry, Want) else None)
                reasons.append(reason)
        return proposal.with_pools(changes, reasons), state

    def _filled_up(self, snapshot: Snapshot, proposal: Proposal) -> Proposal:
        """The proposal raised to ``min_gpus``."""
        claims = _claims(snapshot, proposal) if self.min_gpus else []
        most = {
            claim.name: _most(snapshot.pools[claim.name].spec, proposal.pools[claim.name], claim) for claim in claims
        }
        counts = filled_up(claims, most, self.min_gpus)
        changes, reasons = {}, []
        for claim in claims:
            if counts[claim.name] != claim.wanted:
                changes[claim.name] = Want(counts[claim.name], claim.load)
                values = {"wanted": claim.wanted, "replicas": counts[claim.name], "min_gpus": self.min_gpus}
                message = "the pools keep min_gpus together"
                reasons.append(Reason(code="MinGpusKept", pool=claim.name, message=message, values=values))
        return proposal.with_pools(changes, reasons)

    def _too_small(self, claims: Sequence[Claim]) -> Reason:
        return Reason(
            code="GpuBudgetTooSmall",
            message="the least that the pools must have, and what is held, does not fit: "
            "raise max_gpus or lower min_replicas",
            values={"least_gpus": least_gpus(claims), "max_gpus": self.max_gpus},
        )

    def _reason(self, claim: Claim, granted: int, goal: int, held_gpus: int, unread: Sequence[str]) -> Reason:
        if granted > claim.wanted:
            code, message = "ZeroTogether", "keeps a replica until another pool of its stage has one"
        elif unread and granted >= claim.present:
            who = ", ".join(map(repr, unread))
            code, message = "GpusUnknown", f"no rise, because the replicas of {who} could not be read"
        elif goal > granted:
            code, message = "GpuBudgetWait", f"waits for GPUs that are still held, {claim.wanted} replicas are wanted"
        else:
            code, message = "GpuBudgetLimit", f"max_gpus leaves it {granted} of {claim.wanted} wanted replicas"
        return Reason(
            code=code,
            pool=claim.name,
            message=message,
            values={
                "wanted": claim.wanted,
                "granted": granted,
                "load": claim.load,
                "gpus_held": held_gpus,
                "max_gpus": self.max_gpus,
            },
        )


def _claims(snapshot: Snapshot, proposal: Proposal) -> list[Claim]:
    """The claims of the pools whose replicas could be read."""
    return [
        _claim(name, pool, pool.replicas, proposal.pools[name])
        for name, pool in snapshot.pools.items()
        if pool.replicas is not None
    ]


def _most(spec: PoolSpec, entry: Want | Hold, claim: Claim) -> int:
    """The replicas that a pool may be raised to; a held one stays."""
    if isinstance(entry, Hold):
        return claim.wanted
    return UNBOUNDED_REPLICAS if spec.max_replicas is None else max(spec.max_replicas, claim.wanted)


def _claim(name: str, pool: PoolStatus, replicas: Replicas, entry: Want | Hold) -> Claim:
    """The claim of a pool; a held one must have what it has."""
    wanted = entry.replicas if isinstance(entry, Want) else replicas.target
    load = entry.load if isinstance(entry, Want) else None
    return Claim(
        name=name,
        gpus=pool.spec.gpus,
        present=replicas.target,
        there=max(replicas.target, replicas.ready + replicas.starting),
        draining=replicas.draining,
        least=_fewest(pool.spec, wanted) if isinstance(entry, Want) else wanted,
        wanted=wanted,
        load=wanted if load is None else load,
    )


def _fewest(spec: PoolSpec, wanted: int) -> int:
    """The replicas that a pool keeps however scarce GPUs are: its minimum, and one where any are wanted."""
    return min(wanted, max(spec.min_replicas, 1))


def _ways(snapshot: Snapshot, requested: Sequence[Claim]) -> Iterator[Sequence[Claim]]:
    """The claims, and ever smaller ones for tighter budgets; the first whose least fits is served."""
    specs = {claim.name: snapshot.pools[claim.name].spec for claim in requested}
    yield requested
    yield [
        claim._replace(least=0, wanted=0) if claim.present == 0 and specs[claim.name].min_replicas == 0 else claim
        for claim in requested
    ]
    unraised = [
        claim._replace(least=min(claim.least, claim.present), wanted=min(claim.wanted, claim.present))
        for claim in requested
    ]
    yield unraised
    yield [claim._replace(least=_fewest(specs[claim.name], claim.wanted)) for claim in unraised]


def _stages_together(snapshot: Snapshot, claims: Sequence[Claim], counts: Counts) -> Counts:
    """The counts with prefill and decode at zero together.

    A stage does not wake up before the other can, and does not lose its last replica before the other does, as could
    happen where one of its pools is to take over from another and has to wait for GPUs.
    """
    stages = [
        [claim for claim in claims if claim.name in pools and pools[claim.name].spec.max_replicas != 0]
        for pools in (snapshot.with_role("prefill"), snapshot.with_role("decode"))
    ]
    empty, other = sorted(stages, key=lambda stage: sum(counts[claim.name] for claim in stage))
    if any(counts[claim.name] for claim in empty) or not empty:
        return counts
    together = {**counts, **{claim.name: 0 for claim in other if claim.present == 0}}
    last = min((claim.name for claim in empty if claim.present > 0), default=None)
    if last is not None and any(together[claim.name] for claim in other):
        together[last] = 1
    return together
