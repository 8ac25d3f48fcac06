"""check_capacity: the laws of whatever learns how fast engines are, on engines whose speed is known."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import numpy as np
from pydantic import TypeAdapter

from dynamo_planner.conformance.laws import ConformanceError
from dynamo_planner.core.metrics import Dist, StageTimes, Traffic
from dynamo_planner.core.snapshot import PoolSpec, PoolStatus, Replicas, Role, Snapshot
from dynamo_planner.policies.sla.arrivals import ArrivalWindow
from dynamo_planner.policies.sla.capacity import Capacity, EngineEstimate, EngineEvidence
from dynamo_planner.policies.sla.correction import PromptQueue
from dynamo_planner.policies.sla.tick import Engine, Tick
from dynamo_planner.profiles import Profile
from dynamo_planner.sizing import Load
from dynamo_planner.sizing.decode import context_in_flight

TICK_S, TICKS = 30.0, 120
"""The interval of ticks in seconds, and how many: an hour."""

UTILISATION, REPLICAS, BATCH = 0.4, 4, 16.0
"""What the engines are doing."""

MAX_ERROR = 0.1
"""The largest error of what is learned."""

ISL, OSL = Dist(mean=1500, cv2=0.5), Dist(mean=200, cv2=0.5)
"""The requests."""

SLOWNESS = (0.7, 1.0, 1.4)
OFFSETS_MS = (5.0, 60.0)


class Truth(NamedTuple):
    """Engines whose speed and offset are known; ``queued`` requests wait on each for ``wait_s`` seconds."""

    slowness: float
    offset_ms: float
    queued: float = 0.0
    wait_s: float = 0.0


def check_capacity(capacity: Capacity, profile: Profile | None = None) -> None:
    """Look for a case in which a capacity breaks a law. Raises :class:`ConformanceError`.

    ================  ===============================================================================================
    unlearned         before the first tick the engines are as fast as profiled
    speed             after an hour of stage times, the speed of prefill and decode is known within 10 %
    offset            and so is the time between prefill and first token
    overload          an hour with a queue of 50 on each replica teaches nothing
    other-profile     what was learned relative to a profile says nothing about another one; curves of one's own do
    state-json        the state goes through JSON
    ================  ===============================================================================================
    """
    profile = profile or Profile.bundled("llama31-8b_h100_vllm_tp1")
    roles: tuple[Role, ...] = ("prefill", "decode")
    for role in roles:
        start = capacity.estimate(None, _evidence(role, profile, Truth(1.0, 5.0), 0).tick, 0.0, profile)
        if start.slowness != 1:
            raise ConformanceError("unlearned", capacity, f"{role} is {start.slowness:g} times slower, out of nothing")
        for slowness in SLOWNESS:
            for offset_ms in OFFSETS_MS:
                _check_learned(capacity, role, profile, Truth(slowness, offset_ms))
        _, found = _learned(capacity, role, profile, Truth(1.0, 5.0, queued=50.0, wait_s=20.0))
        if found.slowness != 1:
            raise ConformanceError("overload", capacity, f"{role} is {found.slowness:g} times slower, out of a queue")


def _check_learned(capacity: Capacity, role: Role, profile: Profile, truth: Truth) -> None:
    state, found = _learned(capacity, role, profile, truth)
    slowness = _slowness(found, role, profile)
    about = f"{role} that takes {truth.slowness:g} times as long, with {truth.offset_ms:g} ms to the first token"
    if not abs(slowness / truth.slowness - 1) <= MAX_ERROR:
        raise ConformanceError("speed", capacity, f"{about}: {slowness:.3g} times as long")
    if role == "prefill" and not abs(found.offset_ms / truth.offset_ms - 1) <= MAX_ERROR:
        raise ConformanceError("offset", capacity, f"{about}: {found.offset_ms:.3g} ms")
    adapter = TypeAdapter[Any](capacity.state_type)
    tick = _evidence(role, profile, truth, TICKS).tick
    read = adapter.validate_python(json.loads(adapter.dump_json(state)))
    if capacity.estimate(read, tick, 0.0, profile)[:2] != found[:2]:
        raise ConformanceError("state-json", capacity, f"{about}: it is forgotten on a trip through JSON")
    if found.profile is not None:
        return
    points = profile.prefill_points
    slower = points.replace(ttft_ms=tuple([2 * value for value in points.ttft_ms]))
    if capacity.estimate(read, tick, 0.0, profile.replace(prefill_points=slower)).slowness != 1:
        raise ConformanceError("other-profile", capacity, f"{about}: it is kept when the profile is another one")


def _slowness(found: EngineEstimate, role: Role, profile: Profile) -> float:
    """How much longer the work takes than profiled, by the curves that the capacity draws where it draws its own."""
    curves, load = found.profile or profile, Load.of(1.0, ISL, OSL)
    if role == "prefill":
        times = [float(np.mean(each.prefill.ttft_ms(load.computed.values))) for each in (curves, profile)]
    else:
        context = context_in_flight(load.isl, load.osl)[0]
        times = [float(each.step_ms(0.0, BATCH, BATCH * context)) for each in (curves, profile)]
    return found.slowness * times[0] / times[1]


def _learned(capacity: Capacity, role: Role, profile: Profile, truth: Truth) -> tuple[Any, EngineEstimate]:
    """The state and the estimate after an hour."""
    state: Any = None
    for number in range(TICKS):
        evidence = _evidence(role, profile, truth, number)
        state = capacity.learn(state, evidence)
    return state, capacity.estimate(state, evidence.tick, evidence.queued, profile)


def _evidence(role: Role, profile: Profile, truth: Truth, number: int) -> EngineEvidence:
    """One tick of engines under a constant load."""
    at_s = 1e9 + TICK_S * number
    load = Load.of(1.0, ISL, OSL)
    service_s = float(np.mean(profile.prefill.ttft_ms(load.computed.values))) / 1000
    rate = UTILISATION * REPLICAS * profile.prefill_points.ranks / (truth.slowness * service_s)
    load = Load.of(rate, ISL, OSL)
    alone_ms = 1000 * truth.slowness * service_s
    queue = PromptQueue(service_s, load.isl.cv2 + 1, rate, REPLICAS * profile.prefill_points.ranks)
    ttft_ms = 1000 * (queue.ttft_s(truth.slowness) + truth.wait_s) + truth.offset_ms
    context = context_in_flight(load.isl, load.osl)[0]
    itl_ms = truth.slowness * float(profile.step_ms(0.0, BATCH, BATCH * context))
    count = rate * TICK_S
    stages: dict[Role, StageTimes] = {
        "prefill": StageTimes(
            prefill_ms=Dist(mean=alone_ms, count=count), queue_ms=Dist(mean=1000 * truth.wait_s, count=count)
        ),
        "decode": StageTimes(first_token_ms=Dist(mean=truth.offset_ms, count=count)),
    }
    pools = {
        each: PoolStatus(
            spec=PoolSpec(role=each),
            replicas=Replicas(ready=REPLICAS),
            queued=truth.queued * REPLICAS,
            running=BATCH * REPLICAS,
            kv_usage=0.3,
            stages=stages[each],
        )
        for each in stages
    }
    traffic = Traffic(
        window_s=TICK_S,
        requests_per_s=rate,
        isl=ISL,
        osl=OSL,
        ttft_ms=Dist(mean=ttft_ms, count=count),
        itl_ms=Dist(mean=itl_ms, count=count),
    )
    snapshot = Snapshot(at_s=at_s, traffic=traffic, pools=pools)
    tick = Tick(role, snapshot.pools[role], Replicas(ready=REPLICAS), snapshot, 1.0, Engine(), 60.0)
    return EngineEvidence(tick, truth.queued * REPLICAS, ArrivalWindow(at_s, rate, TICK_S, TICK_S), load, profile)
