"""What a demo records while it runs: every request as its client saw it, the replicas over time, and each move."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from dynamo_planner.core.snapshot import Replicas, Sla


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """One request as its client saw it; ``lost`` says what went wrong.

    Times are seconds since the replay began. ``ttft_ms`` counts from ``due_s``, when the trace has the request
    arrive, so that waiting for a worker, and a client that is late, count as well. ``itl_ms`` is
    (last token - first token) / (output tokens - 1), and ``None`` for a single token.
    """

    due_s: float
    done_s: float
    tokens: int
    ttft_ms: float | None = None
    itl_ms: float | None = None
    lost: str | None = None

    def meets(self, sla: Sla) -> bool:
        """Whether it was answered in full, within both targets."""
        if self.lost is not None or self.ttft_ms is None:
            return False
        return self.ttft_ms <= sla.ttft_ms and (self.itl_ms is None or self.itl_ms <= sla.itl_ms)


@dataclass(frozen=True, slots=True)
class Sample:
    """The replicas of each pool, and what the router had, at one moment."""

    at_s: float
    pools: Mapping[str, Replicas]
    in_flight: int
    held: int


@dataclass(frozen=True, slots=True)
class Move:
    """A change of a pool's target that was carried out, and why."""

    at_s: float
    pool: str
    before: int
    after: int
    why: str

    def line(self) -> str:
        """The move in one line.

        >>> Move(at_s=12.3, pool="decode", before=1, after=2, why="KvUsageHigh: over the threshold").line()
        '12 s  decode 1 -> 2  KvUsageHigh: over the threshold'
        """
        return f"{self.at_s:.0f} s  {self.pool} {self.before} -> {self.after}  {self.why}"


@dataclass(frozen=True, slots=True)
class ForecastPoint:
    """What a policy expected the arrival rate to be at a time, and what it planned for."""

    at_s: float
    expected_per_s: float
    planned_per_s: float


@dataclass
class Recording:
    """A whole run: ``due_s`` holds the arrivals of the trace, and ``sent_late_ms`` how late the client sent each."""

    title: str
    sla: Sla
    due_s: tuple[float, ...]
    requests: list[RequestRecord] = field(default_factory=list)
    sent_late_ms: list[float] = field(default_factory=list)
    first_tokens: list[tuple[float, float]] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    moves: list[Move] = field(default_factory=list)
    forecast_points: list[ForecastPoint] = field(default_factory=list)
