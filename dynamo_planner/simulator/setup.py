"""What a simulated cluster is made of, as data: pools, routing, what its metrics show, and what goes wrong in it."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import ConfigDict, Field, SkipValidation, model_validator

from dynamo_planner.core.snapshot import PoolSpec, Role
from dynamo_planner.core.values import Count, Frozen, FrozenMap, ReadOnly
from dynamo_planner.profiles.profile import Profile
from dynamo_planner.simulator.engine.engine import EngineLimits
from dynamo_planner.simulator.engine.step_time import ProfileTiming, StepTiming

Routing = Literal["least_loaded", "round_robin", "hash", "pull"]
"""How a pool's router chooses a worker: the one with the least to do (prompt tokens for prefill, otherwise requests),
each in turn, by a hash of the request, or (``pull``) by keeping requests until a worker would start on them at once."""


class PoolSetup(Frozen):
    """A pool: what a replica is, how many are ready at the start, and what its engine is like."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    spec: PoolSpec
    replicas: Count
    timing: SkipValidation[StepTiming]
    limits: EngineLimits = EngineLimits()
    routing: Routing = "least_loaded"


class MetricsSetup(Frozen):
    """What the source shows, and how old it is.

    Rates and means are over the last ``window_s``. What is shown was measured ``delay_s`` ago. At each observation, a
    pool is missing with probability ``missing_share``. During ``frozen`` (from, to; seconds of the trace) the source
    shows what it last did, with its age. ``quantiles`` of TTFT and ITL are those asked for, from buckets whose bounds
    are a quarter apart; ``workers`` shows each worker too.
    """

    window_s: float = Field(default=30.0, gt=0, allow_inf_nan=False)
    delay_s: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    missing_share: float = Field(default=0.0, ge=0, le=1)
    frozen: tuple[tuple[float, float], ...] = ()
    quantiles: tuple[float, ...] = ()
    workers: bool = False


class Outage(Frozen):
    """At ``at_s`` of the trace this share of the workers of every pool is lost at once, as when a zone fails."""

    at_s: float = Field(ge=0)
    share: float = Field(gt=0, le=1)


class Faults(Frozen):
    """What goes wrong.

    A start takes ``PoolSpec.startup_s``: always, or log-normally with that mean and the coefficient of variation
    ``startup_cv``. ``stuck_share`` of the starts never become ready; ``launch_failure_share`` fail after a random part
    of the time, and are tried again ``retry_s`` later. Ready workers crash at random, each every ``crash_mtbf_s`` on
    average; a new one is launched, and requests that were in the crashed one go back to the router with the tokens that
    they have. ``slow_share`` of the workers are slow: each of their steps takes ``slowness`` times as long.
    """

    startup_cv: float = Field(default=0.0, ge=0)
    stuck_share: float = Field(default=0.0, ge=0, le=1)
    launch_failure_share: float = Field(default=0.0, ge=0, lt=1)
    retry_s: float = Field(default=10.0, gt=0)
    crash_mtbf_s: float | None = Field(default=None, gt=0)
    outages: tuple[Outage, ...] = ()
    slow_share: float = Field(default=0.0, ge=0, le=1)
    slowness: float = Field(default=1.0 / 0.7, gt=0)


class ClusterSetup(Frozen):
    """A cluster: one pool of role ``aggregated``, or one ``prefill`` and one ``decode``.

    The KV cache of a prompt takes ``kv_transfer_s`` and ``kv_transfer_s_per_token`` from prefill to decode. Prompts of
    at most ``max_local_prefill`` tokens (less what is cached) go to the decode workers at once; 0 sends none. All
    workers together hold at most ``max_gpus``; a launch beyond that waits for its GPUs.

    A knob of a pool takes effect as with real engines: one worker after the other is replaced, by a successor that
    starts beside it or, without a free GPU, in its place. With ``live_knobs`` the workers take it at once.

    Raises ``ValueError`` for other combinations of pools.
    """

    pools: ReadOnly[str, PoolSetup]
    kv_transfer_s: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    kv_transfer_s_per_token: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    max_local_prefill: Count = 0
    max_gpus: Count | None = None
    live_knobs: bool = False
    metrics: MetricsSetup = MetricsSetup()
    faults: Faults = Faults()

    @model_validator(mode="after")
    def _one_model(self) -> Self:
        roles = sorted(pool.spec.role for pool in self.pools.values())
        if roles not in (["aggregated"], ["decode", "prefill"]):
            raise ValueError(
                f"pools have the roles {roles}; a cluster has one aggregated pool, or one prefill and one decode pool"
            )
        return self

    @classmethod
    def aggregated(cls, profile: Profile | StepTiming, replicas: int, **options: Any) -> Self:
        """A cluster of one pool, ``workers``, that does both.

        ``options`` are those of :class:`ClusterSetup`, and for the pool: ``startup_s``, ``max_replicas``,
        ``min_replicas``, ``gpus``, ``max_num_seqs``, ``max_num_batched_tokens``, ``kv_tokens``, ``routing``. GPUs and
        KV tokens are those of the profile unless given.
        """
        pool, rest = _pool("aggregated", profile, replicas, options)
        return cls(pools={"workers": pool}, **rest)

    @classmethod
    def disaggregated(cls, profile: Profile | StepTiming, prefill: int, decode: int, **options: Any) -> Self:
        """A cluster of two pools, ``prefill`` and ``decode``, of so many replicas; ``options`` as in
        :meth:`aggregated`, for both pools."""
        first, _ = _pool("prefill", profile, prefill, options)
        second, rest = _pool("decode", profile, decode, options)
        return cls(pools={"prefill": first, "decode": second}, **rest)

    def with_replicas(self, **replicas: int) -> Self:
        """The same cluster with so many replicas ready at the start."""
        pools = {name: pool.replace(replicas=replicas.get(name, pool.replicas)) for name, pool in self.pools.items()}
        return self.replace(pools=FrozenMap(pools))


SPEC_OPTIONS = ("startup_s", "min_replicas", "max_replicas", "gpus")
LIMIT_OPTIONS = ("max_num_seqs", "max_num_batched_tokens", "kv_tokens")


def _pool(
    role: Role, measured: Profile | StepTiming, replicas: int, options: dict[str, Any]
) -> tuple[PoolSetup, dict[str, Any]]:
    """A pool out of the options for it, and the options that are not for a pool."""
    of_spec = {name: options[name] for name in SPEC_OPTIONS if name in options}
    limits = {name: options[name] for name in LIMIT_OPTIONS if name in options}
    timing: StepTiming
    if isinstance(measured, Profile):
        points = measured.prefill_points if role == "prefill" else measured.decode_points
        of_spec = {"gpus": points.gpus, **of_spec}
        limits = {"kv_tokens": int(measured.decode.max_kv_tokens), **limits}
        timing = ProfileTiming(profile=measured)
    else:
        timing = measured
    pool = PoolSetup(
        spec=PoolSpec(role=role, **of_spec),
        replicas=replicas,
        timing=timing,
        limits=EngineLimits(**limits),
        routing=options.get("routing", "least_loaded"),
    )
    used = {*SPEC_OPTIONS, *LIMIT_OPTIONS, "routing"}
    return pool, {name: value for name, value in options.items() if name not in used}
