"""The ``shadow`` command and its options."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from dynamo_planner.cli.options import AsJson, print_json
from dynamo_planner.cli.shadow.moments import moment, seconds
from dynamo_planner.cli.shadow.record import ReplayRecord, replay, summarize
from dynamo_planner.cli.shadow.tables import show
from dynamo_planner.cli.target import (
    Config,
    EngineName,
    Labels,
    Model,
    Prometheus,
    Target,
    WindowS,
    WorkerLabel,
    target_of,
)
from dynamo_planner.config.policies import load_policy
from dynamo_planner.config.problems import ConfigError, problems_at
from dynamo_planner.core.policy import Policy
from dynamo_planner.core.snapshot import Snapshot
from dynamo_planner.runtime.decision_log import DecisionLog, Step
from dynamo_planner.sources import SourceError
from dynamo_planner.sources.history import HistorySource

NUMBERS, PICTURE = "summary.json", "shadow.png"
"""The files that a replay leaves."""

WIDE = 120


def shadow(
    config: Config = None,
    policy: Annotated[
        Path | None,
        typer.Option("--policy", "-p", help="The policy, in JSON or YAML.", show_default="the configuration's"),
    ] = None,
    prometheus: Prometheus = None,
    since: Annotated[str, typer.Option(help="From when on: 7d, 12h, 1h30m ago, or a date.")] = "1d",
    until: Annotated[str, typer.Option(help="Until when: as `--since`.")] = "now",
    step: Annotated[str, typer.Option(help="Time between two decisions.")] = "30s",
    history: Annotated[
        Path | None,
        typer.Option(help="Instead of Prometheus: snapshots or a decision log, as JSON lines.", dir_okay=False),
    ] = None,
    label: Labels = None,
    model: Model = None,
    worker_label: WorkerLabel = None,
    engine: EngineName = None,
    window_s: WindowS = None,
    out: Annotated[Path, typer.Option(file_okay=False, help="Where the picture and the numbers go.")] = Path(
        "shadow-out"
    ),
    picture: Annotated[bool, typer.Option(help="Draw a picture.")] = True,
    as_json: AsJson = False,
    log: Annotated[
        Path | None, typer.Option(help="Write every decision here, for `explain` and `--history`.", dir_okay=False)
    ] = None,
    allow_custom_kinds: Annotated[
        bool, typer.Option("--allow-custom-kinds", help="Import kinds like `package.module:Name`. Runs their code.")
    ] = False,
) -> None:
    """What a policy would have recommended in the past, beside what was there. Acts on nothing.

    Each decision is about the state that was, not the one that the decision before would have led to; for that there is
    `backtest`. Without a configuration, all workers that match are one aggregated pool.

    Example: `dynamo-planner shadow --prometheus http://prometheus:9090 --since 7d --policy policy.yaml`
    """
    target = target_of(config, prometheus, label, model, worker_label, engine, window_s)
    built = _policy(target, policy, allow_custom_kinds)
    snapshots = HistorySource.recorded(history) if history is not None else _history_of(target, since, until, step)
    decisions = DecisionLog(log) if log is not None else None
    recording, missing = ReplayRecord(), dict[str, str]()
    with _progress(snapshots) as counted:
        for snapshot, decision in replay(built, counted):
            recording.add(snapshot, decision)
            missing = missing or dict(snapshot.missing)
            if decisions is not None:
                said = Step(at_s=snapshot.at_s, name="shadow", snapshot=snapshot, decision=decision, advisory=True)
                decisions.write(said)
    if not recording.observed:
        why = "; ".join(f"{field}: {reason}" for field, reason in list(missing.items())[:3])
        raise SourceError(f"it is not known of any moment how many replicas there were: {why or 'there is none'}")
    summaries = summarize(recording)
    console = Console(highlight=False)
    numbers = {name: asdict(each) for name, each in summaries.items()}
    if as_json:
        print_json(numbers)
    else:
        show(Console(highlight=False, width=max(WIDE, console.width)), recording, summaries)
    out.mkdir(parents=True, exist_ok=True)
    (out / NUMBERS).write_text(json.dumps(numbers, indent=2) + "\n")
    if picture:
        from dynamo_planner.cli.shadow.picture import draw  # noqa: PLC0415  # needs the extra plot

        draw(recording, f"What {built.kind!r} would have recommended, beside what was there", out / PICTURE)
    typer.echo(f"in {out}: {NUMBERS}{f', {PICTURE}' if picture else ''}", err=as_json)


def _policy(target: Target, path: Path | None, allow_custom: bool) -> Policy:
    if path is not None:
        return load_policy(path, allow_custom=allow_custom)
    if target.config is None:
        raise ConfigError(["there is no policy: name its --policy, or a configuration that has one"])
    return target.config.policy


def _history_of(target: Target, since: str, until: str, step: str) -> HistorySource:
    if target.prometheus is None:
        raise ConfigError(["there is no history to replay: name --prometheus or --history"])
    with problems_at("source"):
        source = target.prometheus.build(target.roles)
    now_s = time.time()
    try:
        start_s, end_s = moment(since, now_s), moment(until, now_s)
        return HistorySource.of(source, target.specs, start_s=start_s, end_s=end_s, step_s=seconds(step))
    except ValueError as error:
        raise ConfigError([f"--since, --until, --step: {error}"]) from error


@contextmanager
def _progress(history: HistorySource) -> Iterator[Iterable[Snapshot]]:
    """The snapshots, with a bar on standard error that shows how many of them are done."""
    columns = (TextColumn("replaying"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield progress.track(history, total=history.length)
