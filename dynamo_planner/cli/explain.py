"""The ``explain`` command: a decision log read back, or followed as it grows."""

from __future__ import annotations

import time
from collections import deque
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from dynamo_planner.cli.shadow.moments import moment
from dynamo_planner.core.nearest import did_you_mean
from dynamo_planner.runtime.decision_log import Step, follow_log, read_log

LOOKS_EVERY_S = 0.5


def explain(
    log: Annotated[Path, typer.Argument(help="A decision log, as `run` and `demo` write it.", show_default=False)],
    last: Annotated[
        int | None, typer.Option(min=1, help="How many decisions, counted from the end.", show_default="10, or all")
    ] = None,
    since: Annotated[
        str | None, typer.Option(help="Since when: a date such as 2026-11-01T06:00 (UTC), or 2h, 7d ago.")
    ] = None,
    pool: Annotated[str | None, typer.Option(help="Only this pool.")] = None,
    changes: Annotated[bool, typer.Option("--changes", help="Only decisions that changed something.")] = False,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what is decided, until Ctrl-C.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One step in JSON a line, as in the log.")] = False,
) -> None:
    """Read a decision log back: what was decided, why, and what became of it.

    Without `--since` it is the last ten decisions.

    Example: `dynamo-planner explain --changes --since 2h decisions.jsonl`
    """
    try:
        since_s = None if since is None else moment(since, time.time())
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--since") from error
    newer = follow_log(log, LOOKS_EVERY_S) if follow else iter(())  # from where the log ends now

    def told(step: Step) -> str:
        return step.model_dump_json(exclude={"decision": {"state"}}) if as_json else explained(step, pool)

    chosen = (
        step for step in read_log(log) if _concerns(step, pool, changes) and (since_s is None or step.at_s >= since_s)
    )
    shown = deque(chosen, maxlen=last or (10 if since is None else None))
    for step in shown:
        typer.echo(told(step))
    if not shown:
        typer.echo(f"{log}: no decision to show{_unknown(log, pool)}", err=True)
    try:
        for step in newer:
            if _concerns(step, pool, changes):
                typer.echo(told(step))
    except KeyboardInterrupt:
        return


def _unknown(log: Path, pool: str | None) -> str:
    """The pools that there are, where the one that was named is none of them."""
    if pool is None:
        return ""
    pools = {name for step in read_log(log) for name in step.snapshot.pools}
    if pool in pools:
        return ""
    return f"; {pool!r} is not a pool{did_you_mean(pool, pools)} there are {', '.join(sorted(pools)) or 'none'}"


def _concerns(step: Step, pool: str | None, changes: bool) -> bool:
    actions = [action for action in step.decision.actions if pool in {None, action.pool}]
    return bool(actions) if changes else pool is None or pool in step.snapshot.pools


def explained(step: Step, pool: str | None = None) -> str:
    """A step for a reader: when, the decision explained, and the outcome of each action."""
    decision = step.decision
    if pool is not None:
        decision = decision.replace(
            targets={name: count for name, count in decision.targets.items() if name == pool},
            actions=tuple(action for action in decision.actions if action.pool == pool),
            reasons=tuple(reason for reason in decision.reasons if reason.pool in {None, pool}),
        )
    when = datetime.fromtimestamp(step.at_s, UTC).isoformat(sep=" ", timespec="seconds")
    when += "" if step.name == "planner" else f" {step.name}"
    lines = [f"{when}{' (advisory)' if step.advisory else ''}", *decision.explain().splitlines()]
    lines += [
        f"=> {outcome.action.pool or 'service'}: {outcome.status}{': ' if outcome.message else ''}{outcome.message}"
        for outcome in step.outcomes
        if pool in {None, outcome.action.pool}
    ]
    return "\n".join(lines)
