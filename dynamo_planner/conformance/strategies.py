"""Hypothesis strategies for snapshots: any values in any combination, which a policy must be able to bear."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Literal

from dynamo_planner.core.extras import needs_extra
from dynamo_planner.core.metrics import Dist, InTime, StageTimes, Traffic
from dynamo_planner.core.snapshot import PoolSpec, PoolStatus, Replicas, Role, Snapshot
from dynamo_planner.core.values import FrozenMap

with needs_extra("testing"):
    from hypothesis import strategies as st

Mode = Literal["aggregated", "disaggregated"]

Pools = Mapping[str, PoolSpec] | Snapshot | Mode
"""A service: the specs of its pools by name, or a snapshot (specs and knobs are taken), or a mode."""

At = Callable[[float], Replicas]
"""Replicas at a time, which is when their ages count from."""

POOLS: Mapping[Mode, Mapping[str, Role]] = {
    "aggregated": {"workers": "aggregated"},
    "disaggregated": {"prefill": "prefill", "decode": "decode"},
}

MEASURED_TRAFFIC = (
    "requests_per_s",
    "queued",
    "isl",
    "osl",
    "ttft_ms",
    "itl_ms",
    "request_duration_s",
    "observed_at_s",
)
MEASURED_POOL = ("queued", "running", "kv_usage", "kv_capacity_tokens", "observed_at_s", "replicas")
"""Measurements: a decision that needs one which is unknown is a hold."""

QUALIFYING_TRAFFIC = (
    "window_s",
    "prefix_hit_rate",
    "arrival_dispersion",
    "rejected_per_s",
    "aborted_per_s",
    "preemptions_per_s",
    "queued_tokens",
    "prefill_tokens",
    "token_gap_ms",
    "in_time",
)
QUALIFYING_POOL = ("coverage", "asleep", "queued_tokens", "kv_usage_max", "traffic")
"""Qualifiers of a measurement. Many sources never have them, and what they count as then is up to the policy."""

FRESH_S = 60.0
"""Observations of this age, in seconds, are fresh. Ages are drawn well below and far above it, for there is no one
limit."""


def as_service(pools: Mapping[str, PoolSpec] | Snapshot) -> Snapshot:
    """A snapshot of the pools and their knobs, and nothing else."""
    if isinstance(pools, Snapshot):
        known = {name: PoolStatus(spec=pool.spec, knobs=pool.knobs) for name, pool in pools.pools.items()}
        return Snapshot(at_s=0, pools=known, knobs=pools.knobs)
    return Snapshot(at_s=0, pools={name: PoolStatus(spec=spec) for name, spec in pools.items()})


def services(pools: Pools) -> st.SearchStrategy[Snapshot]:
    """The pools of a service as they are given, or those of a mode with specs of any kind."""
    if not isinstance(pools, str):
        return st.just(as_service(pools))
    roles = POOLS[pools]
    specs = st.tuples(*map(_specs, roles.values()))
    return specs.map(lambda drawn: as_service(dict(zip(roles, drawn, strict=True))))


def pool_names(pools: Pools) -> tuple[str, ...]:
    """The names of the pools of a service."""
    if isinstance(pools, Snapshot):
        return tuple(pools.pools)
    return tuple(POOLS[pools] if isinstance(pools, str) else pools)


def snapshots(pools: Pools = "disaggregated", *, unknown: bool = True) -> st.SearchStrategy[Snapshot]:
    """Snapshots of a service, for tests of your own.

    ``pools`` are its specs by name, or a snapshot of it (specs and knobs are taken), or a mode, for pools with specs of
    any kind. ``unknown=False`` leaves no measurement unknown.
    """
    return timelines(pools, ticks=1, unknown=unknown).map(lambda timeline: timeline[0])


def timelines(
    pools: Pools = "disaggregated", *, ticks: int = 6, unknown: bool = True
) -> st.SearchStrategy[tuple[Snapshot, ...]]:
    """One to ``ticks`` snapshots of a service in the order of time; otherwise as :func:`snapshots`.

    The replicas mostly stay, everything else changes.
    """
    names = pool_names(pools)
    replicas = st.fixed_dictionaries(dict.fromkeys(names, _REPLICAS))
    tick = st.fixed_dictionaries(
        {
            "traffic": _TRAFFIC,
            "pools": st.fixed_dictionaries(dict.fromkeys(names, _POOL)),
            "replicas": st.one_of(*[st.none()] * 4, replicas),
            "missing": st.sampled_from([{}, {}, {"traffic.requests_per_s.at_least": "clients give up"}]),
            "lost": st.frozensets(_FIELDS) if unknown else st.just(frozenset()),
        }
    )
    return st.builds(_timeline, services(pools), _STARTS, _STEPS, replicas, st.lists(tick, min_size=1, max_size=ticks))


def measured(service: Snapshot, among: Collection[str] | None = None) -> tuple[str, ...]:
    """The paths of the measurements in a snapshot of this service, or of those among some."""
    of_pools = [f"pools.{name}.{field}" for name in service.pools for field in MEASURED_POOL]
    paths = [*(f"traffic.{field}" for field in MEASURED_TRAFFIC), *of_pools]
    return tuple(path for path in paths if among is None or path in among)


def without(snapshot: Snapshot, paths: Collection[str]) -> Snapshot:
    """The snapshot with these fields unknown, and said to be missing."""
    hidden: dict[str, dict[str, None]] = {}
    for path in paths:
        place, _, field = path.rpartition(".")
        hidden.setdefault(place, {})[field] = None
    pools = {name: pool.replace(**hidden.get(f"pools.{name}", {})) for name, pool in snapshot.pools.items()}
    traffic = snapshot.traffic.replace(**hidden.get("traffic", {}))
    missing = FrozenMap({**snapshot.missing, **dict.fromkeys(sorted(paths), "hidden by the check")})
    return snapshot.replace(traffic=traffic, pools=FrozenMap(pools), missing=missing)


def some_fields(pools: Pools) -> st.SearchStrategy[frozenset[str]]:
    """Paths of some fields that a snapshot of this service may have."""
    of_traffic = [f"traffic.{field}" for field in (*MEASURED_TRAFFIC, *QUALIFYING_TRAFFIC)]
    of_pools = [f"pools.{name}.{field}" for name in pool_names(pools) for field in (*MEASURED_POOL, *QUALIFYING_POOL)]
    return st.frozensets(st.sampled_from([*of_traffic, *of_pools]))


def _timeline(
    service: Snapshot, start_s: float, step_s: float, settled: Mapping[str, At], ticks: Sequence[Mapping[str, Any]]
) -> tuple[Snapshot, ...]:
    return tuple(_snapshot(service, start_s + step_s * n, settled, tick) for n, tick in enumerate(ticks))


def _snapshot(service: Snapshot, at_s: float, settled: Mapping[str, At], tick: Mapping[str, Any]) -> Snapshot:
    """A snapshot from drawn values; times are drawn as ages."""
    lost = dict.fromkeys(tick["lost"])

    def observed(values: Mapping[str, Any]) -> dict[str, Any]:
        known = {**values, "observed_at_s": at_s - values["observed_at_s"]}
        return {**known, **{field: None for field in lost if field in known}}

    replicas = tick["replicas"] or settled
    pools = {
        name: PoolStatus(
            spec=pool.spec,
            knobs=pool.knobs,
            replicas=None if "replicas" in lost else replicas[name](at_s),
            **observed(tick["pools"][name]),
        )
        for name, pool in service.pools.items()
    }
    traffic = Traffic(**observed(tick["traffic"]))
    return Snapshot(at_s=at_s, traffic=traffic, pools=pools, knobs=service.knobs, missing=tick["missing"])


def _numbers(*typical: float, most: float) -> st.SearchStrategy[float]:
    return st.sampled_from(typical) | st.floats(0, most)


def _dists(*typical: float) -> st.SearchStrategy[Dist]:
    def dist(mean: float, count: float | None, cv2: float | None, spread: float | None) -> Dist:
        quantiles = {} if spread is None else {0.5: mean, 0.9: mean * spread, 0.99: mean * spread**2}
        buckets = {value: share for share, value in quantiles.items()}
        return Dist(mean=mean, count=count, cv2=cv2, quantiles=quantiles, buckets=buckets)

    more = st.sampled_from([(None, None, None), (900.0, 1.0, 2.0), (0.0, 0.0, None), (1.0, 8.0, 1.0)])
    return st.builds(lambda mean, known: dist(mean, *known), _numbers(*typical, 0.0, most=1e5), more)


def _specs(role: Role) -> st.SearchStrategy[PoolSpec]:
    def spec(least: int, room: int | None, gpus: int, startup_s: float) -> PoolSpec:
        most = None if room is None else least + room
        return PoolSpec(role=role, min_replicas=least, max_replicas=most, gpus=gpus, startup_s=startup_s)

    least, room, gpus = st.sampled_from([1, 0, 2]), st.sampled_from([None, 0, 3, 12]), st.sampled_from([1, 2, 4])
    return st.builds(spec, least, room, gpus, st.sampled_from([120.0, 0.0, 30.0]))


def _settled(ready: int) -> At:
    return lambda at_s: Replicas(ready=ready)


def _moving(ready: int, ages_s: list[float] | None, failed: int, draining: int, target: int | None) -> At:
    """Replicas of which some are starting, at the given ages, or one at an unknown age."""
    starting = 1 if ages_s is None else len(ages_s)

    def at(at_s: float) -> Replicas:
        since = None if ages_s is None else tuple(at_s - age_s for age_s in sorted(ages_s, reverse=True))
        counts = {"ready": ready, "starting": starting, "failed": failed, "draining": draining, "target": target}
        return Replicas.model_validate({**counts, "starting_since_s": since})

    return at


_AGES = st.sampled_from([0.0, 0.0, 0.0, 5.0, 1e4])
_COUNTS, _RARE_COUNTS = st.integers(0, 6), st.sampled_from([0, 0, 1, 3])
_STARTS, _STEPS = st.sampled_from([1.7e9, 0.0, 1e5]), st.sampled_from([200.0, 10.0, 60.0, 1000.0])
_START_AGES = st.none() | st.lists(st.sampled_from([1e4, 400.0, 30.0]), max_size=3)
_REPLICAS = st.one_of(
    _COUNTS.map(_settled),
    _COUNTS.map(_settled),
    st.builds(_moving, _COUNTS, _START_AGES, _RARE_COUNTS, _RARE_COUNTS, st.none() | _COUNTS),
)
_STAGES = st.sampled_from(
    [
        StageTimes(),
        StageTimes(queue_ms=0.0, prefill_ms=200.0, decode_ms=Dist(mean=4000.0, count=900)),
        StageTimes(queue_ms=9000.0, prefill_ms=0.0, transfer_ms=50.0, first_token_ms=60.0, decode_ms=0.0),
    ]
)
_TRAFFIC = st.fixed_dictionaries(
    {
        "observed_at_s": _AGES,
        "requests_per_s": _numbers(0.0, 0.1, 2.0, 10.0, 100.0, most=1e4),
        "queued": _numbers(0.0, 0.0, 5.0, most=1e5),
        "isl": _dists(1000.0, 8000.0, 50.0),
        "osl": _dists(200.0, 1.0, 4000.0),
        "ttft_ms": _dists(200.0, 5000.0),
        "itl_ms": _dists(15.0, 100.0),
        "request_duration_s": _dists(4.0, 100.0),
        "window_s": st.sampled_from([60.0, None, 0.0, 1000.0]),
        "prefix_hit_rate": st.sampled_from([None, 0.0, 0.5, 1.0]),
        "arrival_dispersion": st.sampled_from([None, 0.0, 1.0, 20.0]),
        "rejected_per_s": st.sampled_from([None, 0.0, 3.0]),
        "aborted_per_s": st.sampled_from([None, 0.0, 3.0]),
        "preemptions_per_s": st.sampled_from([None, 0.0, 0.5]),
        "queued_tokens": st.sampled_from([None, 0.0, 1e5]),
        "prefill_tokens": st.sampled_from([None, 0.0, 1e5]),
        "token_gap_ms": st.sampled_from([None, Dist(mean=15.0), Dist(mean=100.0, buckets={25.0: 0.5, 200.0: 1.0})]),
        "in_time": st.sampled_from([None, InTime(ttft_ms=500, itl_ms=25, share=0.5)]),
    }
)
_POOL = st.fixed_dictionaries(
    {
        "observed_at_s": _AGES,
        "queued": _numbers(0.0, 0.0, 1.0, 30.0, most=1e5),
        "running": _numbers(0.0, 1.0, 40.0, most=1e5),
        "kv_usage": _numbers(0.0, 0.1, 0.45, 0.7, 0.95, 1.0, most=1.0),
        "kv_capacity_tokens": _numbers(1e5, most=1e7),
        "coverage": st.sampled_from([1.0, None, 0.5, 0.0]),
        "asleep": st.sampled_from([None, 0.0, 1.0, 6.0]),
        "queued_tokens": st.sampled_from([None, 0.0, 1e5]),
        "kv_usage_max": st.sampled_from([None, 0.5, 1.0]),
        "stages": _STAGES,
        "traffic": st.sampled_from([None, Traffic(requests_per_s=0.0), Traffic(requests_per_s=5.0, isl=1000, osl=200)]),
    }
)
_FIELDS = st.sampled_from(
    sorted({*MEASURED_TRAFFIC, *QUALIFYING_TRAFFIC, *MEASURED_POOL, *QUALIFYING_POOL}),
)
