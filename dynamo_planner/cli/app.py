"""The ``dynamo-planner`` commands, and how their errors are reported."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

import dynamo_planner
from dynamo_planner.cli.backtest import backtest
from dynamo_planner.cli.check import check
from dynamo_planner.cli.demo import demo
from dynamo_planner.cli.explain import explain
from dynamo_planner.cli.learned import learned
from dynamo_planner.cli.local import doctor, status, stop
from dynamo_planner.cli.logs import Format, Level, LogFormat, LogLevel, start_log
from dynamo_planner.cli.profile.files import compare, merge, show
from dynamo_planner.cli.profile.group import UrlMeasures
from dynamo_planner.cli.profile.measure import measure
from dynamo_planner.cli.profile.verify import verify
from dynamo_planner.cli.queries import queries
from dynamo_planner.cli.serve import serve
from dynamo_planner.cli.shadow import shadow
from dynamo_planner.cli.tune import tune
from dynamo_planner.config.files import read_data
from dynamo_planner.config.fleet import fleet_config, fleet_schema, is_fleet
from dynamo_planner.config.policies import load_policy, policy_schema
from dynamo_planner.config.problems import ConfigError, unknown_pools, validated
from dynamo_planner.config.run import config_schema, load_config
from dynamo_planner.core.decision import Decision
from dynamo_planner.core.snapshot import Snapshot
from dynamo_planner.executors import ExecutorError
from dynamo_planner.sources import SourceError

FAILED, WRONG_INPUT = 1, 2

app = typer.Typer(
    name="dynamo-planner",
    help="Scaling policies for LLM serving: try them, watch them decide, and run them.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)


@contextmanager
def reported_errors() -> Iterator[None]:
    """Errors that a user can mend go to standard error, without a traceback."""
    try:
        yield
    except ConfigError as error:
        for problem in error.problems:
            typer.echo(f"error: {problem}", err=True)
        raise typer.Exit(WRONG_INPUT) from error
    except (SourceError, ExecutorError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(FAILED) from error


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"dynamo-planner {dynamo_planner.__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Scaling policies for LLM serving: try them, watch them decide, and run them."""


CustomKinds = Annotated[
    bool, typer.Option("--allow-custom-kinds", help="Import kinds like `package.module:Name`. Runs their code.")
]


@app.command()
def decide(
    snapshot: Annotated[Path, typer.Argument(help="A snapshot in JSON; `-` reads standard input.", show_default=False)],
    policy: Annotated[Path, typer.Option("--policy", "-p", help="The policy, in JSON or YAML.", show_default=False)],
    state: Annotated[Path | None, typer.Option(help="The `state` of the decision before, in JSON.")] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Say why in words instead of JSON.")] = False,
    allow_custom_kinds: CustomKinds = False,
) -> None:
    """One pure decision: a snapshot in, a decision out.

    Example: `dynamo-planner decide --policy policy.json snapshot.json`
    """
    with reported_errors():
        built = load_policy(policy, allow_custom=allow_custom_kinds)
        observed = validated(Snapshot, _read_json(snapshot), "snapshot")
        for problem in unknown_pools({"policy": built}, None, observed.pools) if observed.pools else ():
            typer.echo(f"warning: {problem}", err=True)
        decision = built.decide(observed, read_data(state) if state else None)
    typer.echo(decision.explain() if explain else decision.model_dump_json(indent=2))


def _read_json(path: Path) -> Any:
    if str(path) != "-":
        return read_data(path)
    try:
        return json.load(sys.stdin)
    except ValueError as error:
        raise ConfigError([f"standard input: not JSON: {error}"]) from error


@app.command()
def validate(config: Annotated[Path, typer.Argument(help="A configuration of `run`.", show_default=False)]) -> None:
    """Check a configuration of `run`, and its overrides: name every field that is wrong, or show every field.

    What is shown is the whole effective configuration in YAML, with the defaults, and at each value where it comes
    from: the line of the file, an environment variable, or `default`.

    Example: `dynamo-planner validate planner.yaml`
    """
    from dynamo_planner.config.effective import effective_config  # noqa: PLC0415
    from dynamo_planner.config.overrides import load_overrides  # noqa: PLC0415
    from dynamo_planner.config.remarks import remarks  # noqa: PLC0415

    with reported_errors():
        data = read_data(config)
        if is_fleet(data):
            for model in fleet_config(data, config).models.values():
                if model.overrides is not None:
                    load_overrides(model.overrides, model.executor.specs)
            typer.echo(f"# {config}: ok")
            return
        loaded = load_config(config)
        if loaded.overrides is not None:
            load_overrides(loaded.overrides, loaded.executor.specs)
        shown = effective_config(config)
    for remark in remarks(loaded):
        typer.echo(f"warning: {config}: {remark}", err=True)
    typer.echo(f"{shown}# {config}: ok")


class SchemaOf(StrEnum):
    """What there is a schema of."""

    POLICY = "policy"
    CONFIG = "config"
    FLEET = "fleet"
    SNAPSHOT = "snapshot"
    DECISION = "decision"


@app.command()
def schema(of: Annotated[SchemaOf, typer.Argument(help="What to describe.")] = SchemaOf.POLICY) -> None:
    """Print the JSON Schema of a policy file, of a configuration of `run` for one model or several (`fleet`), of a
    snapshot, or of a decision.

    Example: `dynamo-planner schema config > planner.schema.json`
    """
    described = {
        SchemaOf.POLICY: policy_schema,
        SchemaOf.CONFIG: config_schema,
        SchemaOf.FLEET: fleet_schema,
        SchemaOf.SNAPSHOT: Snapshot.model_json_schema,
        SchemaOf.DECISION: Decision.model_json_schema,
    }
    typer.echo(json.dumps(described[of](), indent=2))


@app.command()
def run(
    config: Annotated[Path, typer.Argument(help="The configuration, in YAML or JSON.", show_default=False)],
    advisory: Annotated[bool, typer.Option("--advisory", help="Decide and record without acting.")] = False,
    once: Annotated[bool, typer.Option("--once", help="One step, and out.")] = False,
    log_level: Level = LogLevel.INFO,
    log_format: Format = LogFormat.TEXT,
) -> None:
    """Run the planner until SIGTERM or Ctrl-C: observe, decide, apply, record.

    The file, and that of the overrides, are read again when they change and at SIGHUP: the policy, `advisory` and the
    overrides take effect, a bad file is refused and the old one stays. A closed terminal ends it in good order.

    Example: `dynamo-planner run planner.yaml`
    """
    from dynamo_planner.config.assemble import running_service  # noqa: PLC0415
    from dynamo_planner.config.reload import Reloader  # noqa: PLC0415  # loads what only `run` needs
    from dynamo_planner.runtime.signals import exit_on_signals  # noqa: PLC0415

    start_log(log_level, log_format)
    with reported_errors():
        data = read_data(config)
        if is_fleet(data):
            _run_fleet(config, data, advisory=advisory, once=once)
            return
        running = load_config(config)
        with exit_on_signals() as around, running_service(running) as service:
            service.planner.advisory = advisory or running.advisory
            if once:
                typer.echo(service.planner.step().decision.explain())
            else:
                reloader = Reloader(config, running, service, always_advisory=advisory)
                if around.hung_up:
                    reloader.reload()
                service.run(between=reloader.poll, reload=reloader.reload)
            around.end_begun()


def _run_fleet(config: Path, data: Any, *, advisory: bool, once: bool) -> None:
    """Run several models."""
    from dynamo_planner.config.fleet_service import running_fleet  # noqa: PLC0415  # loads what only this needs
    from dynamo_planner.runtime.signals import exit_on_signals  # noqa: PLC0415

    loaded = fleet_config(data, config)
    with exit_on_signals() as around, running_fleet(config, loaded, always_advisory=advisory) as service:
        if once:
            for name, step in service.planner.step().items():
                typer.echo(f"{name}:\n{textwrap.indent(step.decision.explain(), '  ')}")
        else:
            service.run(reload_first=around.hung_up)
        around.end_begun()


def _add(command: Callable[..., None], group: typer.Typer = app) -> None:
    """Register a command of another file, with its errors reported as those of the others."""

    @wraps(command)
    def reporting(*args: Any, **kwargs: Any) -> None:
        with reported_errors():
            command(*args, **kwargs)

    group.command()(reporting)


app.command()(demo)
for command in (backtest, check, explain, queries, serve, shadow, status, stop, doctor, tune):
    _add(command)

profiles = typer.Typer(cls=UrlMeasures, no_args_is_help=True)
app.add_typer(profiles, name="profile")
for each in (measure, verify, show, compare, merge, learned):
    _add(each, profiles)


@profiles.callback()
def profile() -> None:
    """Measure an engine by its URL, and check, show, compare and merge profiles.

    A profile says how fast an engine is: TTFT over prompt length, ITL over batch and context, and its KV capacity.

    Example: `dynamo-planner profile http://localhost:8000 -o engine.json`
    """
