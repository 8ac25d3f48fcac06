"""Invariants of every decision: the bounds of the specs, and the rules about zero replicas."""

from __future__ import annotations

from dynamo_planner.core.decision import Hold, Proposal, Reason, Want
from dynamo_planner.core.pool_names import no_such_pool
from dynamo_planner.core.snapshot import PoolSpec, Snapshot
from dynamo_planner.core.values import FrozenMap


def within_specs(snapshot: Snapshot, proposal: Proposal) -> Proposal:
    """The proposal with every pool of the snapshot either held or wanted within its spec.

    - A pool whose replicas could not be read is held, and so is one that the proposal leaves out.
    - Counts are clamped to ``min_replicas`` and ``max_replicas``; so is the present target of a held pool, as the
      Kubernetes HPA does for a metric it cannot read.
    - To zero only where arrivals or a queue are known at the frontend, since nothing else could wake the pool up.
    - Prefill and decode go to zero together, and wake up together.

    A firm hold, by which a hard guard keeps a pool below its minimum, is left alone.
    """
    changes: dict[str, Want | Hold] = {}
    known = {name: entry for name, entry in proposal.pools.items() if name in snapshot.pools}
    reasons = [
        Reason(code="UnknownPool", message=no_such_pool(name, snapshot.pools))
        for name in proposal.pools
        if name not in snapshot.pools
    ]
    for name, pool in snapshot.pools.items():
        entry = proposal.pools.get(name)
        if pool.replicas is None:
            changes[name] = Hold("the number of its replicas could not be read", "ReplicasUnknown")
            continue
        if entry is None:
            entry = changes[name] = Hold("the policy has no opinion on this pool", "NoOpinion")
        if isinstance(entry, Hold) and entry.firm:
            continue
        bounded, reason = _bounded(snapshot, name, pool.spec, pool.replicas.target, entry)
        if reason is not None:
            changes[name] = Want(bounded, entry.load if isinstance(entry, Want) else None)
            reasons.append(reason)
    if len(known) < len(proposal.pools):
        proposal = proposal.replace(pools=FrozenMap(known))
    return _zero_together(snapshot, proposal.with_pools(changes, reasons))


def _bounded(
    snapshot: Snapshot, name: str, spec: PoolSpec, present: int, entry: Want | Hold
) -> tuple[int, Reason | None]:
    wanted = entry.replicas if isinstance(entry, Want) else present
    lowest, highest = spec.min_replicas, spec.max_replicas
    values = {"wanted": wanted, "min_replicas": lowest, "max_replicas": highest}
    if wanted < lowest:
        return lowest, Reason(code="TooFewReplicas", pool=name, message="below min_replicas", values=values)
    if highest is not None and wanted > highest:
        return highest, Reason(code="TooManyReplicas", pool=name, message="above max_replicas", values=values)
    unwakeable = snapshot.traffic.requests_per_s is None and snapshot.traffic.queued is None
    if wanted == 0 < present and highest != 0 and unwakeable:
        return 1, Reason(
            code="ScaleToZeroRefused",
            pool=name,
            message="neither arrivals nor a queue are known at the frontend, so nothing could wake it up again",
        )
    return wanted, None


def _zero_together(snapshot: Snapshot, proposal: Proposal) -> Proposal:
    """Give a stage that would have no replica one, where the other stage has some."""
    if all(proposal.wanted(snapshot, name) for name in snapshot.pools):
        return proposal
    stages = {role: snapshot.with_role(role) for role in ("prefill", "decode")}
    if any(pool.replicas is None for pools in stages.values() for pool in pools.values()):
        return proposal
    totals = {
        role: sum(proposal.wanted(snapshot, name) or 0 for name in pools) for role, pools in stages.items() if pools
    }
    if len(totals) < 2 or all(totals.values()) or not any(totals.values()):
        return proposal
    empty, other = ("prefill", "decode") if totals["prefill"] == 0 else ("decode", "prefill")
    for name, pool in stages[empty].items():
        entry = proposal.pools[name]
        if isinstance(entry, Hold) and entry.firm:
            return proposal
        if pool.spec.max_replicas != 0:
            message = f"prefill and decode go to zero together, and {other} has replicas"
            reason = Reason(
                code="ZeroTogether", pool=name, message=message, values={f"{other}_replicas": totals[other]}
            )
            return proposal.with_pools({name: Want(1, entry.load if isinstance(entry, Want) else None)}, [reason])
    return proposal
