"""The ``demo`` command and its options."""

from __future__ import annotations

import math
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from dynamo_planner.core.extras import MissingExtraError, needs_extra
from dynamo_planner.executors import ExecutorError

with needs_extra("cli"):
    import typer
    from rich.console import Console


FAILED = 1


class EngineKind(StrEnum):
    """What the workers of a demo are."""

    SIMULATED = "simulated"
    LLAMACPP = "llama.cpp"


class PolicyKind(StrEnum):
    """The policy that scales a demo."""

    SLA = "sla"
    LOAD = "load"


def _finite(value: float | None) -> float | None:
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"must be a finite number, got {value}")
    return value


def demo(
    trace: Annotated[
        Path | None,
        typer.Option(
            help="Replay this trace (.npz, or as Azure, Mooncake, Qwen-Bailian, BurstGPT publish), not one generated.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    trace_format: Annotated[
        str | None, typer.Option(help="The format of the trace; recognised by its content by default.")
    ] = None,
    from_s: Annotated[
        float | None,
        typer.Option(
            min=0, callback=_finite, help="Where in the trace to begin.", show_default="20 s before its busiest moment"
        ),
    ] = None,
    to_s: Annotated[
        float | None, typer.Option(callback=_finite, help="Where in the trace to end.", show_default="60 s of replay")
    ] = None,
    speed: Annotated[
        float | None,
        typer.Option(
            min=0.01,
            callback=_finite,
            help="How many times as fast to replay it.",
            show_default="1, or more for a slow trace",
        ),
    ] = None,
    disaggregated: Annotated[
        bool, typer.Option("--disaggregated", help="Prefill and decode workers instead of aggregated ones.")
    ] = False,
    engine: Annotated[
        EngineKind, typer.Option(help="What the workers are: simulated, or real llama.cpp servers on this CPU.")
    ] = EngineKind.SIMULATED,
    out: Annotated[Path, typer.Option(file_okay=False, help="Where the picture, the summary and the logs go.")] = Path(
        "demo-out"
    ),
    seed: Annotated[int, typer.Option(min=0, help="Seed of the generated trace.")] = 0,
    max_workers: Annotated[int, typer.Option(min=2, max=8, help="The most workers of a pool.")] = 6,
    interval_s: Annotated[
        float, typer.Option(min=1, max=15, callback=_finite, help="Seconds between two adjustments.")
    ] = 3.0,
    ttft_ms: Annotated[
        float | None,
        typer.Option(min=1, callback=_finite, help="The TTFT target, in ms.", show_default="what fits the engines"),
    ] = None,
    itl_ms: Annotated[
        float | None,
        typer.Option(min=1, callback=_finite, help="The ITL target, in ms.", show_default="what fits the engines"),
    ] = None,
    policy: Annotated[
        PolicyKind | None, typer.Option(help="The policy that scales.", show_default="sla; with llama.cpp, load")
    ] = None,
    picture: Annotated[bool, typer.Option(help="Draw a picture of the run.")] = True,
) -> None:
    """See a planner scale workers on this machine: two minutes at most, no GPU.

    Replays a busy day in 90 seconds, or a trace, over HTTP against worker processes under a Circus arbiter. SlaPolicy
    scales them. At the end a table compares it with LoadPolicy and with constant workers on the same requests, in the
    simulator. Exits with 1 where a request was lost, or workers never came and went.

    Example: `dynamo-planner demo --trace requests.npz --from-s 600 --speed 2 --disaggregated`
    """
    if trace is None and (trace_format or not from_s is to_s is speed is None):
        raise typer.BadParameter(
            "--from-s, --to-s, --speed and --trace-format are about a trace: name its file", param_hint="--trace"
        )
    if engine is EngineKind.LLAMACPP and disaggregated:
        raise typer.BadParameter("llama.cpp has no prefill and decode workers", param_hint="--disaggregated")
    if engine is EngineKind.LLAMACPP and policy is PolicyKind.SLA:
        raise typer.BadParameter("llama.cpp tells no lengths and has no profile here: use load", param_hint="--policy")
    try:
        from dynamo_planner.demo.run import DemoOptions, run_demo  # noqa: PLC0415
        from dynamo_planner.demo.scenario import from_file, generated  # noqa: PLC0415
        from dynamo_planner.workloads.trace import TraceError  # noqa: PLC0415
    except MissingExtraError as error:
        raise MissingExtraError(f"{error}; all that a demo needs: pip install 'dynamo-planner[demo]'") from error
    try:
        scenario = generated(seed) if trace is None else from_file(trace, from_s, to_s, speed, seed, trace_format)
    except TraceError as error:
        raise typer.BadParameter(str(error), param_hint="--trace") from error
    options = DemoOptions(
        scenario=scenario,
        engine=engine.value,
        disaggregated=disaggregated,
        policy=(policy or (PolicyKind.SLA if engine is EngineKind.SIMULATED else PolicyKind.LOAD)).value,
        out=out,
        max_workers=max_workers,
        interval_s=interval_s,
        ttft_ms=ttft_ms,
        itl_ms=itl_ms,
        picture=picture,
    )
    try:
        code = run_demo(options, Console())
    except (ExecutorError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(FAILED) from error
    raise typer.Exit(code)
