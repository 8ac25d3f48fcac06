"""How a run stands at one moment: what the live table and the plain lines show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dynamo_planner.core.snapshot import PoolStatus, Replicas
from dynamo_planner.demo.record import Recording
from dynamo_planner.demo.summary import Latency
from dynamo_planner.runtime.decision_log import Step

RECENT_S = 5.0


@dataclass(frozen=True)
class RunStatus:
    """One moment; ``reasons`` has the last reason of each pool in the planner's last decision.

    Latencies are of the last :data:`RECENT_S` seconds: TTFT by first token, ITL by last token.
    """

    at_s: float
    requests_per_s: float
    sent: int
    answered: int
    lost: int
    in_flight: int
    held: int
    ttft_ms: Latency
    itl_ms: Latency
    replicas: Mapping[str, Replicas]
    status: Mapping[str, PoolStatus]
    reasons: Mapping[str, str]
    changes: tuple[str, ...]


def run_status(recording: Recording, step: Step | None, at_s: float) -> RunStatus:
    """How the run stands, ``at_s`` seconds after it began; ``step`` is the planner's last one."""
    since_s = at_s - RECENT_S
    recent = [request for request in recording.requests if request.done_s > since_s]
    lost = sum(request.lost is not None for request in recording.requests)
    last = recording.samples[-1] if recording.samples else None
    return RunStatus(
        at_s=at_s,
        requests_per_s=sum(since_s < due_s <= at_s for due_s in recording.due_s) / RECENT_S,
        sent=sum(due_s <= at_s for due_s in recording.due_s),
        answered=len(recording.requests) - lost,
        lost=lost,
        in_flight=last.in_flight if last else 0,
        held=last.held if last else 0,
        ttft_ms=Latency.of(ttft_ms for first_s, ttft_ms in recording.first_tokens if first_s > since_s),
        itl_ms=Latency.of(request.itl_ms for request in recent),
        replicas=last.pools if last else {},
        status=step.snapshot.pools if step else {},
        reasons={reason.pool: str(reason) for reason in step.decision.reasons if reason.pool} if step else {},
        changes=tuple(move.line() for move in recording.moves),
    )
