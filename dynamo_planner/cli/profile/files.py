"""`dynamo-planner profile show`, `compare` and `merge`: profiles as files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dynamo_planner.cli.options import AsJson, print_json
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
    as_json: AsJson = False,
) -> None:
    """Show a profile: where it comes from, how sure it is, and TTFT and ITL at round numbers.

    Example: `dynamo-planner profile show engine.json --picture engine.png`
    """
    measured = _loaded(profile)
    prefill, decode, mixed = measured.prefill_points, measured.decode_points, measured.mixed_points
    points = {
        "prompts": len(prefill.isl),
        "batches": len(decode.itl_ms),
        "mixed steps": len(mixed.step_ms) if mixed else 0,
    }
    times = _times(measured)
    if as_json:
        data = {"name": measured.name, "about": dict(measured.about), "points": points, "gpus": decode.gpus}
        print_json(data | {"kv_tokens": decode.max_kv_tokens, "times_ms": times})
    else:
        typer.echo(f"{measured.name}: {', '.join(f'{key} {value}' for key, value in measured.about.items())}")
        counts = ", ".join(f"{count} {what}" for what, count in points.items())
        typer.echo(f"{counts}; {decode.max_kv_tokens:,.0f} KV tokens, {decode.gpus} GPUs")
        for what, time_ms in times.items():
            typer.echo(f"{what:36}{time_ms:>10.2f} ms")
    if picture is not None:
        measured.plot().savefig(picture)
        typer.echo(f"picture: {picture}", err=as_json)


def compare(first: AnyProfile, second: AnyProfile, as_json: AsJson = False) -> None:
    """Compare two profiles: how many times as long the second one takes, wherever both were measured.

    Example: `dynamo-planner profile compare engine.json llama31-8b_h100_vllm_tp1`
    """
    one, other = _loaded(first), _loaded(second)
    of_other = _times(other)
    times = {what: (time_ms, of_other[what]) for what, time_ms in _times(one).items() if what in of_other}
    if not times:
        raise ConfigError([f"{first} and {second} were measured nowhere alike, so their times cannot be compared"])
    ratios = {what: second_ms / first_ms for what, (first_ms, second_ms) in times.items()}
    median = sorted(ratios.values())[len(ratios) // 2]
    capacities = one.decode.max_kv_tokens, other.decode.max_kv_tokens
    if as_json:
        print_json({"kv_tokens": capacities, "times_ms": times, "ratios": ratios, "median_ratio": median})
        return
    for what, (first_ms, second_ms) in times.items():
        typer.echo(f"{what:36}{first_ms:>10.2f}{second_ms:>10.2f} ms{ratios[what]:>8.2f} times")
    typer.echo(f"KV tokens {capacities[0]:,.0f} and {capacities[1]:,.0f}: {capacities[1] / capacities[0]:.2f} times")
    typer.echo(f"times of {min(ratios.values()):.2f} to {max(ratios.values()):.2f}, {median:.2f} in the median")


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


def _times(profile: Profile) -> dict[str, float]:
    """TTFT and ITL in ms at round numbers between the measured ones."""
    prefill, decode = profile.prefill, profile.decode
    times = {f"TTFT of {isl} tokens": prefill.ttft_ms(isl) for isl in ISLS if not prefill.extrapolated(isl)}
    for batch in BATCHES:
        for context in CONTEXTS:
            if not decode.extrapolated(batch * context / decode.max_kv_tokens, context):
                times[f"ITL of {batch} requests of {context} tokens"] = decode.step_ms(batch, context)
    return times
