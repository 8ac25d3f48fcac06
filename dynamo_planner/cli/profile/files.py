"""`dynamo-planner profile show`, `compare` and `merge`: profiles as files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dynamo_planner.config.problems import ConfigError

if TYPE_CHECKING:
    from dynamo_planner.profiles import Profile

AnyProfile = Annotated[
    str, typer.Argument(help="A profile: a file, a directory of Dynamo's profiler, or the name of a bundled one.")
]

ISLS = (128, 512, 2048, 8192, 32_768)
BATCHES, CONTEXTS = (1, 8, 64, 256), (500, 2000, 8000)
"""Where curves are shown and compared."""


def show(
    profile: AnyProfile,
    picture: Annotated[Path | None, typer.Option(help="Draw the curves, as PNG or SVG.")] = None,
) -> None:
    """Show a profile: where it comes from, how sure it is, and TTFT and ITL at round numbers.

    Example: `dynamo-planner profile show engine.json --picture engine.png`
    """
    measured = _loaded(profile)
    prefill, decode, mixed = measured.prefill_points, measured.decode_points, measured.mixed_points
    typer.echo(f"{measured.name}: {', '.join(f'{key} {value}' for key, value in measured.about.items())}")
    counts = (
        f"{len(prefill.isl)} prompts, {len(decode.itl_ms)} batches, {len(mixed.step_ms) if mixed else 0} mixed steps"
    )
    typer.echo(f"{counts}; {decode.max_kv_tokens:,.0f} KV tokens, {decode.gpus} GPUs")
    for isl in ISLS:
        if not measured.prefill.extrapolated(isl):
            typer.echo(f"TTFT of {isl:>6} tokens {measured.prefill.ttft_ms(isl):>9.1f} ms")
    for batch, context in _inside(measured):
        itl = measured.decode.step_ms(batch, context)
        typer.echo(f"ITL of {batch:>4} requests of {context:>5} tokens {itl:>9.2f} ms")
    if picture is not None:
        measured.plot().savefig(picture)
        typer.echo(f"picture: {picture}")


def compare(first: AnyProfile, second: AnyProfile) -> None:
    """Compare two profiles: how many times as long the second one takes, wherever both were measured.

    Example: `dynamo-planner profile compare engine.json llama31-8b_h100_vllm_tp1`
    """
    one, other = _loaded(first), _loaded(second)
    ratios = []
    for isl in ISLS:
        if not (one.prefill.extrapolated(isl) or other.prefill.extrapolated(isl)):
            ratios.append(_row(f"TTFT of {isl:>6} tokens", one.prefill.ttft_ms(isl), other.prefill.ttft_ms(isl)))
    places = set(_inside(other))
    for batch, context in _inside(one):
        if (batch, context) in places:
            itls = [each.decode.step_ms(batch, context) for each in (one, other)]
            ratios.append(_row(f"ITL of {batch:>4} requests of {context:>5} tokens", *itls))
    capacities = one.decode.max_kv_tokens, other.decode.max_kv_tokens
    typer.echo(f"KV tokens {capacities[0]:,.0f} and {capacities[1]:,.0f}: {capacities[1] / capacities[0]:.2f} times")
    if not ratios:
        raise ConfigError([f"{first} and {second} were measured nowhere alike, so their times cannot be compared"])
    typer.echo(f"times of {min(ratios):.2f} to {max(ratios):.2f}, {sorted(ratios)[len(ratios) // 2]:.2f} in the median")


def merge(
    files: Annotated[list[Path], typer.Argument(help="Two or more sessions, or the profiles of prefill and decode.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The profile to write.")] = Path("profile.json"),
    name: Annotated[str | None, typer.Option(help="Its name.", show_default="that of the file")] = None,
    gpus: Annotated[int, typer.Option(min=1, help="GPUs of a worker, where sessions are merged.")] = 1,
) -> None:
    """Merge sessions (`*.measured.json`) into one profile, or prefill of one profile with decode of another.

    Sessions add up: two of one engine, or a prefill and a decode worker's.

    Example: `dynamo-planner profile merge monday.measured.json tuesday.measured.json -o engine.json`
    """
    from dynamo_planner.cli.profile import session_files  # noqa: PLC0415
    from dynamo_planner.profiles import ProfileError  # noqa: PLC0415

    if len(files) < 2:
        raise ConfigError([f"merge takes two files at least, and got {len(files)}"])
    try:
        if all(file.name.endswith(".measured.json") for file in files):
            joined, *others = [session_files.load(file).measured for file in files]
            for each in others:
                joined = joined.joined(each)
            profile = joined.profile(name or output.stem, session_files.about(joined, {}), gpus)
        else:
            if len(files) > 2:
                raise ConfigError(["of profiles two are merged: the first gives prefill, the second decode"])
            prefill, decode = _loaded(str(files[0])), _loaded(str(files[1]))
            profile = decode.replace(name=name or output.stem, prefill_points=prefill.prefill_points, mixed_points=None)
        profile.save(output)
    except ProfileError as error:
        raise ConfigError([str(error)]) from error
    typer.echo(f"profile: {output}")


def _loaded(where: str) -> Profile:
    from dynamo_planner.profiles import Profile, ProfileError  # noqa: PLC0415

    try:
        return Profile.named(where)
    except ProfileError as error:
        raise ConfigError([str(error)]) from error


def _inside(profile: Profile) -> list[tuple[int, int]]:
    """Batches and contexts between the measured ones."""
    decode = profile.decode
    places = [(batch, context) for batch in BATCHES for context in CONTEXTS]
    return [
        (batch, context)
        for batch, context in places
        if not decode.extrapolated(batch * context / decode.max_kv_tokens, context)
    ]


def _row(what: str, first_ms: float, second_ms: float) -> float:
    ratio = second_ms / first_ms
    typer.echo(f"{what:36}{first_ms:>10.2f}{second_ms:>10.2f} ms{ratio:>8.2f} times")
    return ratio
