"""A simulated cluster as data: its pools, their routing, what its metrics show, and its faults."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import ConfigDict, Field, SkipValidation, model_validator

from dynamo_planner.core.snapshot import PoolSpec, Role, Sla
from dynamo_planner.core.values import Count, Frozen, ReadOnly
from dynamo_planner.profiles.profile import Profile
from dynamo_planner.simulator.engine.engine import EngineLimits
from dynamo_planner.simulator.engine.step_time import ProfileTiming, StepTiming

Routing = Literal["least_loaded", "round_robin", "hash", "pull"]
"""How a pool's router chooses a worker: the one with the least to do (prompt tokens for prefill, otherwise requests),
each in turn, by a hash of the request, or (``pull``) by keeping requests until a worker would start on them at once."""


class PoolSetup(Frozen):
    """A pool of a simulated cluster.

    Args:
        spec: what a replica of the pool is.
        replicas: how many are ready at the start.
        timing: how long the steps of its engines take.
        limits: what bounds a batch of its engines.
        routing: how its router chooses a worker; ``least_loaded`` by default.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    spec: PoolSpec
    replicas: Count
    timing: SkipValidation[StepTiming]
    limits: EngineLimits = EngineLimits()
    routing: Routing = "least_loaded"


class MetricsSetup(Frozen):
    """Metrics that the source of a simulated cluster shows, and how old they are.

    Args:
        window_s: rates and means are over this many seconds; 30 by default.
        delay_s: the age of what is shown, in seconds; 0 by default.
        missing_share: the probability that a pool is missing from an observation; 0 by default.
        frozen: periods (from, to; seconds of the trace) in which the source shows what it last did, with its age.
        quantiles: which quantiles of TTFT and ITL are shown, from buckets whose bounds are a quarter apart; 0.5, 0.9
            and 0.99 by default.
        workers: whether each worker is shown too; no by default.
        sla: the targets for which the share of finished requests that met both is shown; none by default.
    """

    window_s: float = Field(default=30.0, gt=0, allow_inf_nan=False)
    delay_s: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    missing_share: float = Field(default=0.0, ge=0, le=1)
    frozen: tuple[tuple[float, float], ...] = ()
    quantiles: tuple[float, ...] = (0.5, 0.9, 0.99)
    workers: bool = False
    sla: Sla | None = None


class Outage(Frozen):
    """A share of the workers of every pool is lost at once, as when a zone fails.

    Args:
        at_s: when, in seconds of the trace.
        share: the share that is lost, above 0 and up to 1.
    """

    at_s: float = Field(ge=0)
    share: float = Field(gt=0, le=1)


class Faults(Frozen):
    """Faults of a simulated cluster; none by default.

    Args:
        startup_cv: the coefficient of variation of start-up times, which are log-normal with the mean
            ``PoolSpec.startup_s``; 0 (by default) makes them constant.
        stuck_share: the share of starts that never become ready.
        launch_failure_share: the share of starts that fail after a random part of their time.
        retry_s: seconds until a failed start is tried again; 10 by default.
        crash_mtbf_s: mean seconds until a ready worker crashes, at random. Another is launched for it, and its requests
            go back to the router with the tokens that they have.
        outages: when a share of all workers is lost at once.
        slow_share: the share of workers that are slow.
        slowness: how many times as long each step of a slow worker takes; 1 / 0.7 by default.
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
    """A simulated cluster: one pool of role ``aggregated``, or one ``prefill`` and one ``decode``.

    A knob of a pool takes effect as with real engines: one worker after the other is replaced, by a successor that
    starts beside it or, without a free GPU, in its place.

    Args:
        pools: the pools by name.
        kv_transfer_s: seconds that the KV cache of a prompt takes from prefill to decode; 0 by default.
        kv_transfer_s_per_token: seconds more for each token of the prompt; 0 by default.
        max_local_prefill: prompts of at most this many tokens (less what is cached) go to the decode workers at once;
            0, the default, sends none.
        max_gpus: what all workers together hold at most; a launch beyond that waits for its GPUs. No limit by default.
        live_knobs: whether workers take a new value of a knob at once; no by default.
        metrics: what the source shows.
        faults: what goes wrong; nothing by default.

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
        """A cluster of two pools, ``prefill`` and ``decode``, of ``prefill`` and ``decode`` replicas;
        ``options`` as in :meth:`aggregated`, for both pools."""
        first, _ = _pool("prefill", profile, prefill, options)
        second, rest = _pool("decode", profile, decode, options)
        return cls(pools={"prefill": first, "decode": second}, **rest)


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
