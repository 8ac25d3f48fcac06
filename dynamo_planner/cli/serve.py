"""The ``serve`` command: a policy as an HTTP service."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dynamo_planner.cli.logs import Format, Level, LogFormat, LogLevel, start_log
from dynamo_planner.config.policies import load_policy


def serve(
    policy: Annotated[Path, typer.Argument(help="The policy, in JSON or YAML.", show_default=False)],
    host: Annotated[
        str, typer.Option(help="The address to listen on. There is no authentication: think before you open it.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65_535, help="The port to listen on.")] = 8081,
    allow_custom_kinds: Annotated[
        bool, typer.Option("--allow-custom-kinds", help="Import kinds like `package.module:Name`. Runs their code.")
    ] = False,
    log_level: Level = LogLevel.INFO,
    log_format: Format = LogFormat.TEXT,
) -> None:
    """Serve a policy over HTTP, for programs in any language: `/v1/decide`, `/v1/explain`, `/openapi.json`.

    The service keeps no state: the caller hands the state of each decision back with the next snapshot.

    Example: `dynamo-planner serve policy.yaml`
    """
    from dynamo_planner.integrations.http_service import serve as serve_policy  # noqa: PLC0415  # needs the extra

    start_log(log_level, log_format)
    built = load_policy(policy, allow_custom=allow_custom_kinds)
    typer.echo(f"serving {policy} on http://{host}:{port}; what it takes: http://{host}:{port}/openapi.json")
    serve_policy(built, host, port)
