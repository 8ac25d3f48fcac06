"""`dynamo-planner backtest`: policies on a trace and a simulated cluster, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dynamo_planner.cli.options import AsJson, Attainment, ItlMs, TtftMs, print_json, targets
from dynamo_planner.config.kinds import loading_context
from dynamo_planner.config.policies import load_policy
from dynamo_planner.config.problems import ConfigError
from dynamo_planner.core.policy import Policy
from dynamo_planner.core.registry import KindError

if TYPE_CHECKING:
    from dynamo_planner.workloads.trace import Trace


class Mode(StrEnum):
    """What pools the cluster has."""

    DISAGGREGATED = "disaggregated"
    AGGREGATED = "aggregated"


def backtest(
    policy: Annotated[
        list[Path], typer.Option("--policy", "-p", help="A policy in JSON or YAML; may be given several times.")
    ],
    profile: Annotated[str, typer.Option("--profile", "-r", help="A profile: its path, or the name of a bundled one.")],
    trace: Annotated[
        Path | None,
        typer.Option("--trace", "-t", help="Requests: .npz, or as Azure, Mooncake, Qwen-Bailian, BurstGPT publish."),
    ] = None,
    history: Annotated[
        Path | None, typer.Option(help="Instead of a trace: recorded snapshots or a decision log, as JSON lines.")
    ] = None,
    mode: Annotated[Mode, typer.Option(help="Prefill and decode, or one pool for both.")] = Mode.DISAGGREGATED,
    prefill: Annotated[int, typer.Option(min=0, help="Prefill workers at the start.")] = 2,
    decode: Annotated[int, typer.Option(min=0, help="Decode workers at the start.")] = 2,
    workers: Annotated[int, typer.Option(min=0, help="Workers at the start (aggregated).")] = 2,
    max_replicas: Annotated[
        int | None, typer.Option(min=1, help="The most workers of a pool.", show_default="no limit")
    ] = None,
    ttft_ms: TtftMs = 2000.0,
    itl_ms: ItlMs = 50.0,
    attainment: Attainment = 0.99,
    startup_s: Annotated[float, typer.Option(min=0, help="Seconds from a launch to being ready.")] = 120.0,
    interval_s: Annotated[float, typer.Option(help="Seconds between two decisions.")] = 10.0,
    from_s: Annotated[float, typer.Option(min=0, help="Start at this second of the trace.")] = 0.0,
    to_s: Annotated[float | None, typer.Option(help="End at this second of the trace.")] = None,
    rate: Annotated[float | None, typer.Option(help="Scale the load to this many requests/s on average.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the random numbers.")] = 0,
    processes: Annotated[
        int | None, typer.Option(min=1, help="How many policies run at once; one per core by default.")
    ] = None,
    yardstick: Annotated[
        int,
        typer.Option(
            "--oracle", min=0, help="Simulate this many schedules, in search of the cheapest that holds the promise."
        ),
    ] = 0,
    report: Annotated[Path | None, typer.Option(help="Write a page of HTML with pictures and reasons.")] = None,
    as_json: AsJson = False,
    trace_format: Annotated[
        str | None, typer.Option(help="The format of the trace; recognised by its content by default.")
    ] = None,
    allow_custom_kinds: Annotated[
        bool, typer.Option("--allow-custom-kinds", help="Import kinds like `package.module:Name`. Runs their code.")
    ] = False,
) -> None:
    """Try policies on recorded traffic: the same requests, a simulated cluster, and the loop of production.

    Example: `dynamo-planner backtest --policy policy.json --trace requests.npz --profile llama31-8b_h100_vllm_tp1`
    """
    # numpy and scipy are imported only where they are needed
    from dynamo_planner.evaluation import backtest as run_backtest  # noqa: PLC0415
    from dynamo_planner.evaluation import oracle  # noqa: PLC0415
    from dynamo_planner.simulator import ClusterSetup  # noqa: PLC0415
    from dynamo_planner.workloads import TraceError  # noqa: PLC0415

    policies = _policies(policy, allow_custom_kinds)
    measured = load_profile(profile)
    try:
        recorded = None if trace is None else load_trace(trace, trace_format, allow_custom_kinds)
        requests = choose_requests(recorded, history, from_s, to_s, rate, seed)
    except TraceError as error:
        raise ConfigError([str(error)]) from error
    sla = targets(ttft_ms, itl_ms, attainment)
    options: dict[str, Any] = {"startup_s": startup_s, "max_replicas": max_replicas}
    if mode is Mode.AGGREGATED:
        cluster = ClusterSetup.aggregated(measured, workers, **options)
    else:
        cluster = ClusterSetup.disaggregated(measured, prefill, decode, **options)
    done = run_backtest(policies, requests, cluster, sla=sla, interval_s=interval_s, seed=seed, processes=processes)
    if yardstick:
        best = oracle(requests, cluster, sla, interval_s=interval_s, seed=seed, budget=yardstick)
        least = {"bound": best.bound_gpu_hours, "feasible": best.feasible_gpu_hours}
        done = replace(done, oracle=least)
    if as_json:
        print_json(done.as_data())
    else:
        typer.echo(done.table())
        if yardstick:
            typer.echo(", ".join(f"{name}: {_hours(hours)}" for name, hours in least.items()))
    if report is not None:
        done.save(report)
        typer.echo(f"report: {report}", err=as_json)


def _hours(hours: float | None) -> str:
    return "none" if hours is None else f"{hours:.2f} GPU-hours"


def _policies(paths: Sequence[Path], allow_custom: bool) -> dict[str, Policy]:
    policies: dict[str, Policy] = {}
    for path in paths:
        name = path.stem if path.stem not in policies else str(path)
        policies[name] = load_policy(path, allow_custom=allow_custom)
    return policies


def load_profile(where: str, argument: str = "--profile") -> Any:
    """A profile by its path or its bundled name; ``argument`` is where the user gave it."""
    from dynamo_planner.profiles import Profile, ProfileError  # noqa: PLC0415

    try:
        return Profile.named(where)
    except ProfileError as error:
        raise ConfigError([f"{argument}: {error}"]) from error


def load_trace(path: Path, trace_format: str | None, allow_custom: bool) -> Any:
    """A trace from its file, in the format that is named or recognised."""
    from dynamo_planner.workloads import TRACE_FORMATS, Trace  # noqa: PLC0415

    try:
        form = TRACE_FORMATS.find(trace_format, loading_context(allow_custom=allow_custom)) if trace_format else None
    except KindError as error:
        raise ConfigError([f"--trace-format: {error}"]) from error
    return Trace.load(path, trace_format=form)


def choose_requests(
    trace: Trace | None, history: Path | None, from_s: float, to_s: float | None, rate: float | None, seed: int
) -> Any:
    """The requests of a trace or of a history, cut and scaled."""
    from dynamo_planner.sources.history import HistorySource  # noqa: PLC0415
    from dynamo_planner.workloads.from_history import trace_of  # noqa: PLC0415

    if (trace is None) == (history is None):
        raise ConfigError(["requests come from --trace or from --history: give one of the two"])
    requests = trace or trace_of(HistorySource.recorded(history or ""), seed, name=str(history))
    if from_s or to_s is not None:
        requests = requests.between(from_s, requests.duration_s + 1 if to_s is None else to_s)
    return requests if rate is None else requests.at_rate(rate, seed)
