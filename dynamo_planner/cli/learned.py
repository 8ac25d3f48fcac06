"""`dynamo-planner profile learned`: the curves that a policy without a profile has learned, as a profile."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dynamo_planner.config.files import read_data
from dynamo_planner.config.problems import ConfigError


def learned(
    state: Annotated[
        Path, typer.Argument(help="The state file of `run`, or the `state` of a decision.", show_default=False)
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The file to write.")] = Path("learned.json"),
    name: Annotated[str, typer.Option(help="The profile's name.")] = "learned",
    gpus: Annotated[int, typer.Option(min=1, help="GPUs of a worker, which no metric tells.")] = 1,
) -> None:
    """Save the curves that SlaPolicy learned in production as a profile.

    For a policy that was started without a profile; see docs/sla-policy.md.

    Example: `dynamo-planner profile learned /var/lib/planner/state.json -o engine.json`
    """
    from dynamo_planner.policies.sla.learned_curves import profile_of  # noqa: PLC0415
    from dynamo_planner.profiles import ProfileError  # noqa: PLC0415

    try:
        profile = profile_of(read_data(state), name=name, gpus=gpus)
        profile.save(out)
    except ProfileError as error:
        raise ConfigError([f"{state}: {error}"]) from error
    costs, most = profile.costs, profile.max_batch
    typer.echo(
        f"{out}: {costs.base_ms:.3g} ms for a step, {1000 * costs.ms_per_prefill_token:.3g} ms more for 1000 prompt "
        f"tokens, {costs.ms_per_request:.2g} ms for a request and {1000 * costs.ms_per_kv_token:.2g} ms for 1000 KV "
        f"tokens; up to {most:.0f} requests"
    )
