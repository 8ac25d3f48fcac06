"""`dynamo-planner tune`: which settings and which fleet cost least for the promise on one's own traffic."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from dynamo_planner.cli.backtest import choose_requests, load_profile, load_trace
from dynamo_planner.cli.options import AsJson, Attainment, ItlMs, TtftMs, print_json, targets
from dynamo_planner.config.problems import ConfigError


class Fleets(StrEnum):
    """Which fleets are tried."""

    ALL = "all"
    DISAGGREGATED = "disaggregated"
    AGGREGATED = "aggregated"


def tune(
    profile: Annotated[str, typer.Option("--profile", "-r", help="A profile: its path, or the name of a bundled one.")],
    trace: Annotated[
        Path | None,
        typer.Option("--trace", "-t", help="Requests: .npz, or as Azure, Mooncake, Qwen-Bailian, BurstGPT publish."),
    ] = None,
    history: Annotated[
        Path | None, typer.Option(help="Instead of a trace: recorded snapshots or a decision log, as JSON lines.")
    ] = None,
    fleets: Annotated[Fleets, typer.Option(help="Which fleets to try.")] = Fleets.ALL,
    ttft_ms: TtftMs = 2000.0,
    itl_ms: ItlMs = 50.0,
    attainment: Attainment = 0.99,
    blocks: Annotated[int, typer.Option(min=2, help="Blocks of time to judge by, each held out once.")] = 4,
    startup_s: Annotated[float, typer.Option(min=0, help="Seconds that a worker takes to start.")] = 120.0,
    max_replicas: Annotated[
        int | None, typer.Option(min=1, help="The most workers of a pool.", show_default="no limit")
    ] = None,
    from_s: Annotated[float, typer.Option(min=0, help="Start at this second of the trace.")] = 0.0,
    to_s: Annotated[float | None, typer.Option(help="End at this second of the trace.")] = None,
    rate: Annotated[float | None, typer.Option(help="Scale the load to this many requests/s on average.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the random numbers.")] = 0,
    processes: Annotated[
        int | None, typer.Option(min=1, help="Simulations at once.", show_default="one a core")
    ] = None,
    picture: Annotated[Path | None, typer.Option(help="Draw GPU-hours against missed requests, as PNG or SVG.")] = None,
    as_json: AsJson = False,
) -> None:
    """Find the settings of SlaPolicy and the fleet that keep a promise on your traffic for the fewest GPU-hours.

    The promise is a share of requests, `--attainment`, that meet both targets. Tries fleets with the default settings
    (aggregated with several chunks, disaggregated), then settings on the best fleet, all in the simulator. Prints a
    table, what to take, how sure that is by blocks of time that are held out, and the policy to paste.

    Example: `dynamo-planner tune --trace requests.npz --profile llama31-8b_h100_vllm_tp1 --ttft-ms 500 --itl-ms 25`
    """
    import yaml  # noqa: PLC0415

    from dynamo_planner.evaluation.tune import FLEETS  # noqa: PLC0415
    from dynamo_planner.evaluation.tune import tune as run_tune  # noqa: PLC0415

    measured = load_profile(profile)
    chosen = {name: options for name, options in FLEETS.items() if fleets in (Fleets.ALL, name.split(",")[0])}
    try:
        recorded = None if trace is None else load_trace(trace, None, allow_custom=False)
        tuned = run_tune(
            choose_requests(recorded, history, from_s, to_s, rate, seed),
            measured,
            targets(ttft_ms, itl_ms, attainment),
            fleets=chosen,
            blocks=blocks,
            startup_s=startup_s,
            max_replicas=max_replicas,
            seed=seed,
            processes=processes,
        )
    except ValueError as error:
        raise ConfigError([str(error)]) from error
    policy, *guards = tuned.recommended.policy
    to_paste = {"policy": [{**policy, "profile": profile}, *guards]}
    if as_json:
        print_json(tuned.as_data() | to_paste)
    else:
        typer.echo(tuned.table())
        typer.echo(tuned.says())
        typer.echo("")
        typer.echo(yaml.safe_dump(to_paste, sort_keys=False))
    if picture is not None:
        tuned.plot().savefig(picture, dpi=110)
        typer.echo(f"# picture: {picture}", err=as_json)
