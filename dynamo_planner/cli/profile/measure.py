"""`dynamo-planner profile URL`: measure a live engine."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Annotated

import typer

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
from dynamo_planner.cli.profile.screen import errors_of
from dynamo_planner.config.problems import ConfigError

FAILED, INTERRUPTED = 1, 130


def measure(
    url: Url,
    command: Annotated[
        list[str] | None,
        typer.Argument(help="After `--`: start the engine by this command, time the start, and end it afterwards."),
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="The profile to write.")] = Path("profile.json"),
    minutes: Annotated[float, typer.Option(min=0.05, help="Minutes that the engine is kept busy at most.")] = 5.0,
    error: Annotated[
        float, typer.Option(min=0, help="Stop early once 95 % of each curve's errors are below this share.")
    ] = 0.05,
    max_concurrency: Annotated[
        int, typer.Option(min=1, help="The most requests at once. Larger batches are not measured.")
    ] = 64,
    model: Model = None,
    role: Annotated[
        str, typer.Option(help="aggregated: it computes prompts and decodes; decode: prompts are computed elsewhere.")
    ] = "aggregated",
    api: Annotated[
        str | None,
        typer.Option(
            help="How prompts are sent: tokens (ids to /v1/completions), text or chat.",
            show_default="the first it takes",
        ),
    ] = None,
    max_isl: Annotated[
        int | None, typer.Option(min=64, help="The longest prompt, in tokens.", show_default="that of the context")
    ] = None,
    max_context: Annotated[
        int | None,
        typer.Option(
            min=256, help="The longest prompt and output, in tokens.", show_default="the engine's, up to 32,768"
        ),
    ] = None,
    kv_tokens: Annotated[
        int | None, typer.Option(min=256, help="KV capacity, in tokens.", show_default="reported, else measured")
    ] = None,
    step_tokens: Annotated[
        int | None,
        typer.Option(min=16, help="The engine's max_num_batched_tokens.", show_default="reported, else measured"),
    ] = None,
    gpus: Annotated[
        int | None, typer.Option(min=1, help="GPUs of the engine.", show_default="reported, else 1")
    ] = None,
    gpu: Annotated[str | None, typer.Option(help="The kind of GPU, for the record.")] = None,
    flags: Annotated[str | None, typer.Option(help="The engine's flags, for the record.")] = None,
    name: Annotated[str | None, typer.Option(help="The profile's name.", show_default="that of the file")] = None,
    token: TokenFile = None,
    header: Headers = None,
    ca: Certificates = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the session that the same --output left.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be measured, and send no prompt.")
    ] = False,
    with_traffic: WithTraffic = False,
    picture: Annotated[Path | None, typer.Option(help="Draw the curves, as PNG or SVG.")] = None,
) -> None:
    """Measure an engine until its curves are known well enough, and write its profile.

    What was measured is kept after each experiment, also at Ctrl-C, and `--resume` goes on with it.

    Example: `dynamo-planner profile http://localhost:8000 -o engine.json`

    Example: `dynamo-planner profile http://localhost:8000 -o engine.json -- vllm serve MODEL --port 8000`
    """
    from dynamo_planner.cli.profile.live import LiveSession  # noqa: PLC0415
    from dynamo_planner.cli.profile.start import started  # noqa: PLC0415
    from dynamo_planner.profiling.engine import Limits, ProfilingError  # noqa: PLC0415
    from dynamo_planner.profiling.measured import Measured  # noqa: PLC0415
    from dynamo_planner.profiling.prepare import Wanted  # noqa: PLC0415

    _one_of("--role", role, ("aggregated", "decode"))
    _one_of("--api", api, (None, "tokens", "text", "chat"))
    known = Limits(kv_tokens=kv_tokens, max_num_batched_tokens=step_tokens, max_context=max_context)
    wanted = Wanted(role=role, limits=known, max_batch=max_concurrency, api=api, max_isl=max_isl)
    if command and dry_run:
        raise ConfigError(["--dry-run asks a running engine: start it yourself, and leave out the command"])
    if not dry_run:
        output.parent.mkdir(parents=True, exist_ok=True)
    access, noted = access_of(token, header, ca), {"system": gpu, "flags": flags}
    live = LiveSession(base_of(url), access, wanted, output, minutes, error, others=with_traffic)
    try:
        with ExitStack() as running:
            if command:
                log = output.with_suffix(".log")
                live.startup_s = running.enter_context(started(command, base_of(url), access, log))
            live.discover(model)
            if dry_run:
                typer.echo(live.plan())
                return
            why = live.run(resume=resume)
    except ProfilingError as problem:
        typer.echo(f"error: {problem}", err=True)
        if live.has_points:
            typer.echo(f"what was measured is in {live.kept}: go on with --resume", err=True)
        raise typer.Exit(FAILED) from problem
    except KeyboardInterrupt:
        if live.has_points:
            typer.echo(f"interrupted: {live.kept} has what was measured, go on with --resume", err=True)
            with suppress(typer.Exit):  # too little for a profile, which it has said
                live.write(name, noted, gpus, picture)
        raise typer.Exit(INTERRUPTED) from None
    typer.echo(f"{why}; {errors_of(live.measured or Measured())}", err=True)
    live.write(name, noted, gpus, picture)


def _one_of(option: str, value: str | None, allowed: tuple[str | None, ...]) -> None:
    if value not in allowed:
        names = ", ".join(each for each in allowed if each)
        raise ConfigError([f"{option}: {value!r} is none of {names}"])
