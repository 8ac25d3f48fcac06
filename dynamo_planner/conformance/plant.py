"""A closed-form model of a service under constant load: the snapshot that follows from its replicas.

It is no simulator. There is no randomness and no transient, only the steady state of the ready replicas, and replicas
that take their ``startup_s`` to start. That is enough to find what a policy settles on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from math import sqrt
from typing import Any, NamedTuple

from pydantic import Field

from dynamo_planner.core.decision import Decision, SetKnob, State
from dynamo_planner.core.metrics import Dist, Traffic
from dynamo_planner.core.snapshot import PoolStatus, Replicas, Role, Snapshot
from dynamo_planner.core.values import Frozen, FrozenMap, KnobValue

BACKLOG_S = 60.0
"""Where more arrives than is served, the queue is the backlog of this time, in seconds."""

MAX_UTILISATION = 0.97
"""The utilisation from which on a queue is a backlog; below, it is that of a stable queue."""

MAX_PREFILL_SHARE = 0.9
"""The largest share of an aggregated replica's time that prompts take away from decode."""


class StageMetrics(NamedTuple):
    """The metrics of all replicas of one role; ``prompt_s`` is the time that a prompt takes once it is its turn."""

    queued: float
    running: float
    kv_usage: float
    prompt_s: float = 0.0
    itl_s: float = 0.0


class Plant(Frozen):
    """The capacity of a replica, and the constant load on all of them.

    - Prefill is ``requests_per_s * isl / prefill_tokens_per_s`` replicas' worth of work. The queue is Sakasegawa's
      approximation (1977) for n servers of utilisation u, ``u ** sqrt(2 (n + 1)) / (1 - u)``, and from u = 0.97 on a
      backlog.
    - Decode: with a batch of b requests a token takes ``itl_ms + itl_ms_per_request * b``, and by Little's law b is a
      replica's share of the token rate times that. What does not fit into the KV cache, at a context of ISL and half
      the OSL, waits.
    - Aggregated is both on one replica: prefill takes its share of the time away from decode.

    Args:
        requests_per_s: Arrivals. Default 5.
        isl: Prompt tokens. Default 1000.
        osl: Output tokens. Default 200.
        prefill_tokens_per_s: Prompt tokens that a replica computes per second. Default 8000.
        itl_ms: The ITL of a batch of none, in milliseconds. Default 20.
        itl_ms_per_request: What each request of the batch adds, in milliseconds. Default 0.05.
        kv_capacity_tokens: Tokens that the KV cache of a replica holds. Default 100,000.
    """

    requests_per_s: float = Field(default=5.0, ge=0)
    isl: float = Field(default=1000.0, gt=0)
    osl: float = Field(default=200.0, gt=0)
    prefill_tokens_per_s: float = Field(default=8000.0, gt=0)
    itl_ms: float = Field(default=20.0, gt=0)
    itl_ms_per_request: float = Field(default=0.05, ge=0)
    kv_capacity_tokens: float = Field(default=100_000.0, gt=0)

    def times(self, factor: float) -> Plant:
        """The same under another load."""
        return self.replace(requests_per_s=self.requests_per_s * factor)

    def snapshot(self, service: Snapshot, at_s: float, window_s: float, replicas: Mapping[str, Replicas]) -> Snapshot:
        """The snapshot at a time. Specs and knobs are those of ``service``; pools of one role share its load."""
        ready: dict[Role, int] = {}
        for name, pool in service.pools.items():
            ready[pool.spec.role] = ready.get(pool.spec.role, 0) + replicas[name].ready
        stages = {role: self._stage(role, count) for role, count in ready.items() if count}
        pools = {}
        for name, pool in service.pools.items():
            role = pool.spec.role
            pools[name] = self._pool(pool, replicas[name], stages.get(role), replicas[name].ready / max(ready[role], 1))
        traffic = self._traffic(stages.values(), window_s, serves=len(stages) == len(ready))
        return Snapshot(at_s=at_s, traffic=traffic, pools=pools, knobs=service.knobs)

    def _traffic(self, stages: Iterable[StageMetrics], window_s: float, *, serves: bool) -> Traffic:
        rate = self.requests_per_s
        means: dict[str, float] = {}
        if serves and rate:
            ttft_s = sum(stage.prompt_s + stage.queued / rate for stage in stages)
            itl_s = sum(stage.itl_s for stage in stages)
            means = {"isl": self.isl, "osl": self.osl, "ttft_ms": 1000 * ttft_s, "itl_ms": 1000 * itl_s}
            means["request_duration_s"] = ttft_s + self.osl * itl_s
        dists: dict[str, Any] = {name: Dist(mean=mean, count=rate * window_s) for name, mean in means.items()}
        queued = 0.0 if serves else rate * BACKLOG_S
        return Traffic(window_s=window_s, requests_per_s=rate, queued=queued, **dists)

    def _pool(self, pool: PoolStatus, replicas: Replicas, stage: StageMetrics | None, share: float) -> PoolStatus:
        own = stage if stage and share else StageMetrics(0.0, 0.0, 0.0)
        return PoolStatus(
            spec=pool.spec,
            knobs=pool.knobs,
            replicas=replicas,
            coverage=1.0,
            queued=own.queued * share,
            running=own.running * share,
            kv_usage=own.kv_usage,
            kv_capacity_tokens=self.kv_capacity_tokens,
        )

    def _stage(self, role: Role, ready: int) -> StageMetrics:
        prompt_s = self.isl / self.prefill_tokens_per_s
        busy = 0.0 if role == "decode" else self.requests_per_s * prompt_s
        queued = _queue(busy, ready, self.requests_per_s)
        if role == "prefill":
            return StageMetrics(queued, min(busy, ready), min(busy / ready, 1.0), prompt_s)
        batch, itl_s, waiting = self._decode(ready, left=1 - min(busy / ready, MAX_PREFILL_SHARE))
        usage = min(batch * self._context() / self.kv_capacity_tokens, 1.0)
        return StageMetrics(queued + waiting, batch * ready, usage, prompt_s if role == "aggregated" else 0.0, itl_s)

    def _context(self) -> float:
        """Tokens of KV cache that a request holds on average."""
        return self.isl + self.osl / 2

    def _decode(self, ready: int, left: float) -> tuple[float, float, float]:
        """Batch and ITL of a replica that has this share of its time for decode, and the requests waiting for all."""
        tokens_per_s = self.requests_per_s * self.osl / ready
        alone_s, more_s = self.itl_ms / 1000 / left, self.itl_ms_per_request / 1000 / left
        most = self.kv_capacity_tokens / self._context()
        slack = 1 - tokens_per_s * more_s
        if slack > 0 and tokens_per_s * alone_s <= most * slack:
            batch = tokens_per_s * alone_s / slack
            return batch, alone_s + more_s * batch, 0.0
        itl_s = alone_s + more_s * most
        return most, itl_s, (tokens_per_s - most / itl_s) * ready / self.osl * BACKLOG_S


def _queue(busy: float, servers: int, rate: float) -> float:
    """Requests waiting for ``servers`` servers, of which ``busy`` would be just enough."""
    if not busy:
        return 0.0
    share = min(busy / servers, MAX_UTILISATION)
    backlog = rate * BACKLOG_S * max(1 - MAX_UTILISATION * servers / busy, 0.0)
    return float(share ** sqrt(2 * (servers + 1)) / (1 - share) + backlog)


class LoopStep(NamedTuple):
    """One tick of a run: the snapshot and the decision."""

    snapshot: Snapshot
    decision: Decision

    def wanted(self, pool: str) -> int:
        """The target of a pool after the decision."""
        replicas = self.snapshot.pools[pool].replicas
        return self.decision.targets.get(pool, replicas.target if replicas else 0)


def run(
    decide: Callable[[Snapshot, State | None], Decision],
    plants: Iterable[tuple[float, Plant]],
    service: Snapshot,
    start: Mapping[str, int],
) -> Iterator[LoopStep]:
    """A closed loop, with a tick for each ``(tick_s, plant)``: what is decided is what starts, stops and is set.

    It begins with ``start`` ready replicas. A replica is ready ``startup_s`` after it was decided on; the newest go
    first, and at once. Knobs are set at once, and change nothing of the load.
    """
    at_s, state = service.at_s, None
    replicas = {name: Replicas(ready=count) for name, count in start.items()}
    for tick_s, plant in plants:
        snapshot = plant.snapshot(service, at_s, tick_s, replicas)
        decision = decide(snapshot, state)
        yield LoopStep(snapshot, decision)
        for name, pool in service.pools.items():
            target = decision.targets.get(name, replicas[name].target)
            replicas[name] = _moved(replicas[name], target, at_s, at_s + tick_s - pool.spec.startup_s)
        service = _set(service, [action for action in decision.actions if isinstance(action, SetKnob)])
        at_s, state = at_s + tick_s, decision.state


def _set(service: Snapshot, actions: Sequence[SetKnob]) -> Snapshot:
    """The service with these knobs set."""
    if not actions:
        return service

    def knobs(present: Mapping[str, KnobValue], pool: str | None) -> FrozenMap[str, KnobValue]:
        return FrozenMap({**present, **{action.knob: action.value for action in actions if action.pool == pool}})

    pools = {name: pool.replace(knobs=knobs(pool.knobs, name)) for name, pool in service.pools.items()}
    return service.replace(pools=FrozenMap(pools), knobs=knobs(service.knobs, None))


def _moved(replicas: Replicas, target: int, decided_s: float, ready_since_s: float) -> Replicas:
    """The replicas at the next tick: what was launched at ``ready_since_s`` or before is ready by then."""
    kept = min(replicas.ready, target)
    since = [*(replicas.starting_since_s or ()), *[decided_s] * (target - replicas.target)][: target - kept]
    started = sum(since_s <= ready_since_s for since_s in since)
    waiting = tuple(since[started:])
    return Replicas(ready=kept + started, starting=len(waiting), starting_since_s=waiting, target=target)
