"""Tuning: which settings of a policy and which fleet cost least for a promise on your traffic, and how sure that is.

Every candidate runs once over the whole trace, closed loop, and is scored by blocks of time. What is recommended is the
cheapest that keeps the promise. How much it saves is told by blocks that had no say: for each block, the candidate that
is cheapest on the others is compared with the default on this one. Only a saving that is larger than its error is
recommended; otherwise the default is as good.

>>> from dynamo_planner import Profile, Sla
>>> from dynamo_planner.workloads.generators import poisson
>>> trace = poisson(requests_per_s=4, duration_s=240, seed=1)
>>> profile, sla = Profile.bundled("llama31-8b_h100_vllm_tp1"), Sla(ttft_ms=1000, itl_ms=50)
>>> tuned = tune(trace, profile, sla, settings={"default": {}}, blocks=2, processes=1)
>>> tuned.best, len(tuned.trials[0].costs)
('aggregated, default', 2)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from dynamo_planner.core.policy import Policy
from dynamo_planner.core.snapshot import Role, Sla
from dynamo_planner.evaluation.backtest import backtest
from dynamo_planner.evaluation.progress import Progress, shown
from dynamo_planner.evaluation.run import Run
from dynamo_planner.evaluation.tuned import Floats, Trial, Tuned, cheapest, judged
from dynamo_planner.guards.spare import Spare
from dynamo_planner.policies.sla import SlaPolicy
from dynamo_planner.profiles import Profile
from dynamo_planner.simulator.setup import ClusterSetup
from dynamo_planner.sizing import Load, PercentileSizing
from dynamo_planner.workloads.trace import Trace

SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "default": {},
    "quantile 0.7": {"plan": {"kind": "ski_rental", "quantile": 0.7}},
    "quantile 0.97": {"plan": {"kind": "ski_rental", "quantile": 0.97}},
    "promise window 15 min": {"attainment": {"kind": "kept_promise", "promise_window_s": 900}},
    "promise window 4 h": {"attainment": {"kind": "kept_promise", "promise_window_s": 14_400}},
    "a spare replica": {"spare": 1},
}
"""Settings that are tried, by name: fields of ``SlaPolicy``, and ``spare``, the replicas of the guard."""

FLEETS: Mapping[str, Mapping[str, Any]] = {
    "disaggregated": {},
    "aggregated": {"max_num_batched_tokens": 2048},
    "aggregated, chunk 512": {"max_num_batched_tokens": 512},
    "aggregated, chunk 8192": {"max_num_batched_tokens": 8192},
    "aggregated, 64 sequences": {"max_num_batched_tokens": 2048, "max_num_seqs": 64},
}
"""Fleets that are tried, by name: the options of their engines."""

START_S = 120.0
"""A fleet starts with the replicas for the requests of this many seconds."""


def tune(
    trace: Trace,
    profile: Profile,
    sla: Sla,
    *,
    settings: Mapping[str, Mapping[str, Any]] = SETTINGS,
    fleets: Mapping[str, Mapping[str, Any]] = FLEETS,
    blocks: int = 4,
    startup_s: float = 120.0,
    max_replicas: int | None = None,
    interval_s: float = 10.0,
    seed: int = 0,
    processes: int | None = None,
    progress: Progress | bool = True,
) -> Tuned:
    """Try every fleet with the default settings, then every setting on the cheapest fleet that keeps the promise.

    Args:
        trace: The requests.
        profile: The engine; without mixed steps only disaggregated fleets are tried.
        sla: The targets and the promise.
        settings: The settings by name, the default first. Default :data:`SETTINGS`.
        fleets: The fleets by name. Default :data:`FLEETS`.
        blocks: Blocks of time, at least 2. Default 4.
        startup_s: Seconds that a start takes. Default 120.
        max_replicas: The most replicas of a pool. Default no limit.
        interval_s: Seconds between decisions. Default 10.
        seed: Decides all that is left to chance. Default 0.
        processes: Runs at once. Default one a core.
        progress: As for :func:`~dynamo_planner.evaluation.backtest.backtest`; the name is that of a candidate. Default
            bars on a terminal or in a notebook.

    Raises ``ValueError`` where there are fewer than 2 blocks or nothing to try.
    """
    if blocks < 2:
        raise ValueError(f"blocks must be at least 2, got {blocks}: one is held out")
    possible = {
        name: options for name, options in fleets.items() if profile.mixed is not None or name == "disaggregated"
    }
    if not possible or not settings:
        raise ValueError("there is nothing to try: give fleets that the profile knows, and settings")
    first, *others = settings
    run = partial(
        _trials,
        trace=trace,
        profile=profile,
        sla=sla,
        blocks=blocks,
        interval_s=interval_s,
        seed=seed,
        processes=processes,
        startup_s=startup_s,
        max_replicas=max_replicas,
    )
    of_fleets: list[Trial] = []
    with shown(progress) as update:
        for name, options in possible.items():
            of_fleets += run(name, options, {first: settings[first]}, update=update)
        default = of_fleets[cheapest(of_fleets, sla, np.arange(blocks))]
        rest = {name: settings[name] for name in others}
        of_settings = run(default.fleet, possible[default.fleet], rest, update=update)
    return judged(sla, (default, *[trial for trial in of_fleets if trial is not default], *of_settings), blocks)


def _trials(
    fleet: str,
    options: Mapping[str, Any],
    settings: Mapping[str, Mapping[str, Any]],
    *,
    trace: Trace,
    profile: Profile,
    sla: Sla,
    blocks: int,
    startup_s: float,
    max_replicas: int | None,
    update: Progress,
    **how: Any,
) -> list[Trial]:
    """The trials of some settings on one fleet."""
    if not settings:
        return []
    engine: dict[str, Any] = {"chunk_tokens": options["max_num_batched_tokens"]} if options else {}
    if "max_num_seqs" in options:
        engine["max_num_seqs"] = options["max_num_seqs"]
    policies = {name: _policy(sla, profile, {**engine, **own}) for name, own in settings.items()}
    cluster = _cluster(fleet, options, trace, profile, sla, startup_s, max_replicas)

    def told(name: str, share: float) -> None:
        update(f"{fleet}, {name}", share)

    report = backtest(policies, trace, cluster, sla=sla, progress=told, **how)
    return [
        Trial(
            f"{fleet}, {name}",
            fleet,
            _as_data(sla, {**engine, **own}),
            *_by_block(report[name], sla, blocks),
            report[name].score,
        )
        for name, own in settings.items()
    ]


def _policy(sla: Sla, profile: Profile, own: Mapping[str, Any]) -> Policy:
    fields = {name: value for name, value in own.items() if name != "spare"}
    policy: Policy = SlaPolicy.model_validate({"sla": sla, "profile": profile, **fields})
    return policy | Spare(replicas=own["spare"]) if own.get("spare") else policy


def _as_data(sla: Sla, own: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The policy as a configuration has it, but for its profile."""
    fields = {name: value for name, value in own.items() if name != "spare"}
    guards = [{"kind": "spare", "replicas": own["spare"]}] if own.get("spare") else []
    return [{"kind": "sla", "sla": sla.model_dump(), **fields}, *guards]


def _cluster(
    fleet: str, options: Mapping[str, Any], trace: Trace, profile: Profile, sla: Sla, startup_s: float, most: int | None
) -> ClusterSetup:
    """The fleet, with the replicas that its first minutes need."""
    first_s = min(START_S, trace.duration_s)
    rate = max(int((trace.arrival_s < first_s).sum()), 1) / first_s
    load = Load.of(rate, float(trace.isl.mean()), float(trace.osl.mean()))
    roles: tuple[Role, ...] = ("prefill", "decode") if fleet == "disaggregated" else ("aggregated",)
    chunk = {"chunk_tokens": options["max_num_batched_tokens"]} if options else {}
    needed = PercentileSizing(profile, **chunk).replicas_for(load, sla, roles)
    start = [min(needed[role].replicas, most or needed[role].replicas) for role in roles]
    build = ClusterSetup.disaggregated if len(roles) == 2 else ClusterSetup.aggregated
    return build(profile, *start, startup_s=startup_s, max_replicas=most, **options)


def _by_block(run: Run, sla: Sla, blocks: int) -> tuple[Floats, Floats]:
    """GPU-hours and the share of requests in time, in each block."""
    edges = np.linspace(0.0, run.end_s, blocks + 1)
    costs = np.zeros(blocks)
    for worker in run.workers:
        released_s = run.end_s if math.isnan(worker.released_s) else worker.released_s
        inside = np.minimum(released_s, edges[1:]) - np.maximum(worker.launched_s, edges[:-1])
        costs += worker.gpus * np.maximum(np.nan_to_num(inside), 0.0) / 3600
    block = np.minimum(np.searchsorted(edges, run.served.arrival_s, side="right") - 1, blocks - 1)
    came = np.bincount(block, minlength=blocks)
    met = np.bincount(block, run.served.meets(sla), minlength=blocks)
    return costs, np.divide(met, came, out=np.full(blocks, np.nan), where=came > 0)
