"""`dynamo-planner profile verify`: whether a profile predicts its engine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dynamo_planner.cli.options import AsJson, print_json
from dynamo_planner.cli.profile.endpoint import (
    Certificates,
    Headers,
    Model,
    TokenFile,
    Url,
    WithTraffic,
    access_of,
    base_of,
)
from dynamo_planner.config.problems import ConfigError

if TYPE_CHECKING:
    from dynamo_planner.profiles import Profile
    from dynamo_planner.profiling.engine import Burst, Limits
    from dynamo_planner.profiling.verification import Comparison

FAILED = 1


def verify(
    url: Url,
    profile: Annotated[str, typer.Argument(help="Its profile: a file, or a bundled name.")],
    seconds: Annotated[float, typer.Option(min=1, help="How long the load lasts.")] = 60.0,
    trace: Annotated[
        Path | None,
        typer.Option(
            "--trace",
            "-t",
            exists=True,
            help="The load: requests in a file, as `backtest` reads it.",
            show_default="drawn at random",
        ),
    ] = None,
    rate: Annotated[float | None, typer.Option(help="Scale the trace to this many requests/s.")] = None,
    within: Annotated[float, typer.Option(min=0, help="How far the medians may be off, as a share.")] = 0.15,
    max_concurrency: Annotated[
        int | None, typer.Option(min=1, help="max_num_seqs of the engine, where it does not tell it.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the random load.")] = 0,
    model: Model = None,
    token: TokenFile = None,
    header: Headers = None,
    ca: Certificates = None,
    with_traffic: WithTraffic = False,
    as_json: AsJson = False,
) -> None:
    """Check a profile against its engine: send a load that it was not measured with, and simulate the same load.

    Prints TTFT and ITL as predicted and as measured, of requests alone and under load, and exits with 1 where a median
    is further off than `--within`.

    Example: `dynamo-planner profile verify http://localhost:8000 engine.json`
    """
    from dynamo_planner.cli.backtest import load_profile  # noqa: PLC0415
    from dynamo_planner.cli.profile.live import used_by_others  # noqa: PLC0415
    from dynamo_planner.cli.profile.screen import warn  # noqa: PLC0415
    from dynamo_planner.profiling import verification  # noqa: PLC0415
    from dynamo_planner.profiling.discover import discover  # noqa: PLC0415
    from dynamo_planner.profiling.engine import Limits, ProfilingError  # noqa: PLC0415
    from dynamo_planner.profiling.prepare import connect  # noqa: PLC0415

    measured, access, base = load_profile(profile, "PROFILE"), access_of(token, header, ca), base_of(url)
    try:
        found = discover(base, access, model)
        if not with_traffic and (why := used_by_others(base, access)):
            raise ProfilingError(why)
        known = Limits(**{name: measured.about.get(name) for name in Limits.model_fields})
        limits = known.overlaid(found.limits).overlaid(Limits(max_num_seqs=max_concurrency))
        load = _load(measured, limits, seconds, trace, rate, seed)
        last_s = load.at_s[-1] - load.at_s[0]
        typer.echo(f"{base}: {len(load.together)} requests in {last_s:.0f} s, after some of them alone", err=True)
        engine = connect(base, access, found)
        try:
            rows = verification.verify(engine, measured, limits, load)
            warn(engine)
        finally:
            engine.close()
    except ProfilingError as problem:
        typer.echo(f"error: {problem}", err=True)
        raise typer.Exit(FAILED) from problem
    if as_json:
        print_json({"rows": [row._asdict() | {"ratio": row.ratio} for row in rows], "within": within})
    else:
        _print(rows)
    if off := [row for row in rows if row.quantile == 0.5 and abs(row.ratio - 1) > within]:
        typer.echo(f"error: {_advice(off, within)}", err=True)
        raise typer.Exit(FAILED)
    typer.echo(f"all medians are within {100 * within:g} %", err=as_json)


def _load(profile: Profile, limits: Limits, seconds: float, trace: Path | None, rate: float | None, seed: int) -> Burst:
    """The load of a trace, without requests that the engine cannot take; drawn at random where there is none."""
    from dynamo_planner.cli.backtest import choose_requests, load_trace  # noqa: PLC0415
    from dynamo_planner.profiling.engine import Burst, Prompt  # noqa: PLC0415
    from dynamo_planner.profiling.verification import drawn_load  # noqa: PLC0415

    if trace is None:
        if rate is not None:
            raise ConfigError(["--rate scales a trace: give --trace"])
        return drawn_load(profile, limits, seconds, seed)
    requests = choose_requests(load_trace(trace, None, allow_custom=False), None, 0.0, None, rate, seed)
    rows = zip(requests.arrival_s.tolist(), requests.isl.tolist(), requests.osl.tolist(), strict=True)
    early = [row for row in rows if row[0] <= seconds]
    most = limits.max_context
    fit = [row for row in early if most is None or row[1] + row[2] <= most]
    if len(fit) < len(early):
        typer.echo(f"note: left out {len(early) - len(fit)} requests of more than {most} tokens", err=True)
    if not fit:
        raise ConfigError([f"{trace}: no request of the first {seconds:g} s fits into {most} tokens"])
    return Burst(tuple(Prompt(isl, osl) for _, isl, osl in fit), at_s=tuple(at_s for at_s, _, _ in fit))


def _print(rows: Sequence[Comparison]) -> None:
    typer.echo(f"{'':24}{'predicted':>12}{'measured':>12}{'ratio':>8}")
    for row in rows:
        what = f"{row.what}, p{100 * row.quantile:.0f}"
        typer.echo(f"{what:24}{row.predicted_ms:>9.1f} ms{row.measured_ms:>9.1f} ms{row.ratio:>8.2f}")


def _advice(off: Sequence[Comparison], within: float) -> str:
    names = ", ".join(row.what for row in off)
    alone = any(row.what.endswith("alone") for row in off)
    return f"{names}: off by more than {100 * within:g} % in the median: " + (
        "the engine is not the one that was measured, or others disturb it: measure it again"
        if alone
        else "single requests agree, so a limit of the engine is another (max_num_seqs, max_num_batched_tokens, KV "
        "tokens), or it was measured too briefly to know full batches: give --max-concurrency, or measure on with "
        "`profile --resume`"
    )
