"""A made-up service whose pools lag behind their targets, under a load that rises, bursts, goes missing and falls."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from dynamo_planner import (
    Decision,
    Dist,
    Policy,
    PoolSpec,
    PoolStatus,
    Replicas,
    ScaleTo,
    SetKnob,
    Snapshot,
    State,
    Traffic,
)
from tests.golden.plain import digest, plain

START_S = 1_700_000_000.0
TICK_S = 15.0
STARTUP_S = 40.0

SPECS: dict[str, dict[str, PoolSpec]] = {
    "aggregated": {"workers": PoolSpec(role="aggregated", min_replicas=1, max_replicas=16, startup_s=STARTUP_S)},
    "disaggregated": {
        "prefill": PoolSpec(role="prefill", min_replicas=1, max_replicas=12, startup_s=STARTUP_S),
        "decode": PoolSpec(role="decode", gpus=2, min_replicas=0, max_replicas=12, startup_s=STARTUP_S),
    },
}


def rates(level: float = 10.0) -> list[float]:
    """Requests per second: steady, rising, bursty, falling, none, and back."""
    steady = [level] * 4
    rising = [level * (1 + step / 2) for step in range(1, 10)]
    bursty = [level * factor for factor in (5.5, 2.0, 9.0, 1.5, 5.0, 5.0, 5.0, 5.0)]
    falling = [level * 5 * 0.7**step for step in range(1, 10)]
    return [*steady, *rising, *bursty, *falling, 0.0, 0.0, 0.0, 2 * level, 2 * level, 2 * level]


@dataclass
class Pool:
    """A pool that reaches its target after the start-up time; what leaves drains for a tick."""

    spec: PoolSpec
    ready: int
    target: int
    starts: list[float] = field(default_factory=list)
    draining: int = 0
    knobs: dict[str, Any] = field(default_factory=dict)

    def advance(self, at_s: float) -> None:
        self.draining = 0
        self.ready += sum(at_s - start_s >= self.spec.startup_s for start_s in self.starts)
        self.starts = [start_s for start_s in self.starts if at_s - start_s < self.spec.startup_s]

    def scale(self, replicas: int, at_s: float) -> None:
        self.target = replicas
        while self.ready + len(self.starts) < replicas:
            self.starts.append(at_s)
        while self.starts and self.ready + len(self.starts) > replicas:
            self.starts.pop()
        self.draining = max(self.ready - replicas, 0)
        self.ready -= self.draining

    def replicas(self) -> Replicas:
        return Replicas(
            ready=self.ready,
            starting=len(self.starts),
            starting_since_s=tuple(self.starts),
            draining=self.draining,
            target=self.target,
        )


class Service:
    """Pools that follow decisions, and the snapshots that are taken of them."""

    def __init__(self, kind: str, replicas: int = 2, knobs: Mapping[str, Any] | None = None) -> None:
        self.pools = {
            name: Pool(spec, replicas, replicas, knobs=dict(knobs or {})) for name, spec in SPECS[kind].items()
        }

    def snapshot(self, tick: int, rate: float, tick_s: float, *, faults: bool) -> Snapshot:
        """What is seen at a tick; with ``faults`` some ticks lack some of it."""
        at_s = START_S + tick * tick_s
        for pool in self.pools.values():
            pool.advance(at_s)
        busy = max(self._pressure(pool, rate) for pool in self.pools.values())
        chunk = max(float(pool.knobs.get("max_num_batched_tokens", 2048)) for pool in self.pools.values())
        ttft_ms = 400 * busy**3 * (2048 / chunk) ** 0.5
        traffic: dict[str, Any] = {
            "requests_per_s": rate,
            "window_s": tick_s,
            "isl": Dist(mean=900 + 40 * (tick % 5), cv2=1.2),
            "osl": Dist(mean=180 + 10 * (tick % 3), quantiles={0.5: 140, 0.9: 420}),
            "ttft_ms": Dist(mean=120 + ttft_ms, quantiles={0.5: 100 + ttft_ms / 2, 0.99: 300 + 2 * ttft_ms}),
            "itl_ms": Dist(mean=8 + 12 * busy, quantiles={0.5: 8 + 11 * busy, 0.99: 12 + 20 * busy}),
            "queued": 3 * max(busy - 1, 0),
            "prefix_hit_rate": 0.1,
        }
        if rate == 0:
            traffic = {"requests_per_s": 0.0, "window_s": tick_s, "queued": 0}
        if faults and tick in {15, 16}:
            traffic |= {"requests_per_s": None, "isl": None, "ttft_ms": float("nan")}
        if faults and tick == 18:
            traffic["observed_at_s"] = at_s - 200
        missing = {"traffic.requests_per_s": "the frontend is silent"} if faults and tick in {15, 16} else {}
        pools = {name: self._status(pool, tick, rate, at_s, faults=faults) for name, pool in self.pools.items()}
        return Snapshot(at_s=at_s, traffic=Traffic(**traffic), pools=pools, missing=missing)

    def apply(self, decision: Decision) -> None:
        """Let pools follow what was decided."""
        for action in decision.actions:
            if isinstance(action, ScaleTo):
                self.pools[action.pool].scale(action.replicas, decision.at_s)
            elif isinstance(action, SetKnob) and action.pool is not None:
                self.pools[action.pool].knobs[action.knob] = action.value

    def _pressure(self, pool: Pool, rate: float) -> float:
        seqs = float(pool.knobs.get("max_num_seqs", 64))
        return rate / (8.0 * float(min(seqs / 64, 1.5) ** 0.5) * max(pool.ready, 0.5))

    def _status(self, pool: Pool, tick: int, rate: float, at_s: float, *, faults: bool) -> PoolStatus:
        pressure = self._pressure(pool, rate)
        seen: dict[str, Any] = {
            "queued": math.floor(20 * max(pressure - 0.8, 0)),
            "running": math.floor(min(rate * 2.5, 64 * pool.ready)),
            "kv_usage": min(0.6 * pressure, 1.0),
            "kv_capacity_tokens": 400_000,
            "coverage": 1.0,
        }
        replicas: Replicas | None = pool.replicas()
        if faults and tick == 14:
            seen["coverage"] = 0.5
        if faults and tick == 17:
            seen |= {"queued": None, "kv_usage": None}
        if faults and tick == 19:
            seen["observed_at_s"] = at_s - 120
        if faults and tick == 20 and pool.spec.role != "prefill":
            replicas = None
        return PoolStatus(spec=pool.spec, replicas=replicas, knobs=pool.knobs, **seen)


def told(decision: Decision) -> dict[str, Any]:
    """A decision as a line: what is not there is left out, and messages are, which may be reworded."""
    reasons = [
        " ".join(
            [
                reason.code + (f"@{reason.pool}" if reason.pool else ""),
                *(f"{name}={plain(value, 7)}" for name, value in reason.values.items()),
            ]
        )
        for reason in decision.reasons
    ]
    actions = [action.model_dump(exclude_none=True) for action in decision.actions]
    knobs = [f"{knob.pool}.{knob.knob}={plain(knob.value)}" for knob in decision.knobs]
    line = {
        "targets": dict(decision.targets),
        "actions": [list(action.values()) for action in plain(actions)],
        "knobs": knobs,
        "reasons": reasons,
    }
    state = _without_prose(decision.state.model_dump(mode="json")) if decision.state else None
    return {name: value for name, value in line.items() if value} | {"state": digest(state)}


def _without_prose(value: Any) -> Any:
    """A state without the texts of reasons and holds, which may be reworded."""
    if isinstance(value, dict):
        return {name: _without_prose(entry) for name, entry in value.items() if name not in {"message", "reason"}}
    return [_without_prose(entry) for entry in value] if isinstance(value, list) else value


def timeline(
    policy: Policy,
    kind: str,
    *,
    load: list[float] | None = None,
    tick_s: float = TICK_S,
    faults: bool = True,
    knobs: Mapping[str, Any] | None = None,
    replicas: int = 2,
) -> Iterator[Decision]:
    """The decisions of a policy on the service, whose pools follow them."""
    service, state = Service(kind, replicas, knobs), None
    decision: Decision
    for tick, rate in enumerate(rates() if load is None else load):
        snapshot = service.snapshot(tick, rate, tick_s, faults=faults)
        decision = policy.decide(snapshot, _through_json(state) if tick % 7 == 3 else state)
        service.apply(decision)
        state = decision.state
        yield decision


def _through_json(state: State | None) -> State | None:
    return None if state is None else State.model_validate_json(state.model_dump_json())
