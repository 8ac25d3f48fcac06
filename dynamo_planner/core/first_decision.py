"""A first decision without a snapshot: what a policy does at a load, given in plain numbers."""

from __future__ import annotations

from dynamo_planner.core.decision import Decision
from dynamo_planner.core.metrics import Traffic
from dynamo_planner.core.policy import PlainFunction, Policy, as_policy
from dynamo_planner.core.snapshot import PoolSpec, PoolStatus, Role, Snapshot


def decide(
    policy: Policy | PlainFunction,
    *,
    requests_per_s: float,
    isl: float,
    osl: float,
    prefill: int | None = None,
    decode: int | None = None,
    aggregated: int | None = None,
    startup_s: float = 60.0,
    gpus: int = 1,
) -> Decision:
    """The first decision of a policy at a steady load, with this many ready replicas and nothing waiting.

    For a controller, which has metrics and decides again and again, make a :class:`~dynamo_planner.Snapshot` and call
    ``policy.decide``.

    Args:
        policy: The policy.
        requests_per_s: Requests that arrive per second.
        isl: Mean prompt tokens (input sequence length).
        osl: Mean output tokens (output sequence length).
        prefill: Ready prefill replicas of a disaggregated service.
        decode: Its ready decode replicas.
        aggregated: Ready replicas of an aggregated service; give these, or ``prefill`` and ``decode``.
        startup_s: Seconds that a replica takes to start. Default 60.
        gpus: GPUs per replica. Default 1.

    Raises ``ValueError`` where the replicas are of neither or of both kinds of service.

    >>> from dynamo_planner import SlaPolicy
    >>> policy = SlaPolicy(sla={"ttft_ms": 500, "itl_ms": 25}, profile="llama31-8b_h100_vllm_tp1")
    >>> decision = decide(policy, requests_per_s=40, isl=3000, osl=250, prefill=1, decode=1)
    >>> sorted(decision.targets)
    ['decode', 'prefill']
    """
    counts: dict[Role, int | None] = {"prefill": prefill, "decode": decode, "aggregated": aggregated}
    given = {role: count for role, count in counts.items() if count is not None}
    if set(given) not in ({"prefill", "decode"}, {"aggregated"}):
        found = ", ".join(given) or "none"
        raise ValueError(f"replicas of {found} are given: give aggregated=1, or prefill=1 and decode=1")
    pools = {
        ("workers" if role == "aggregated" else role): PoolStatus(
            spec=PoolSpec(role=role, startup_s=startup_s, gpus=gpus), replicas=count, queued=0
        )
        for role, count in given.items()
    }
    traffic = Traffic(requests_per_s=requests_per_s, isl=isl, osl=osl, queued=0)
    return as_policy(policy).decide(Snapshot(at_s=0, traffic=traffic, pools=pools))
