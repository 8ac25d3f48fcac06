"""The ``queries`` command: what is asked of Prometheus, to be tried there."""

from __future__ import annotations

import json
import time
from typing import Annotated

import typer

from dynamo_planner.cli.where import Config, EngineName, Labels, Model, Prometheus, WindowS, WorkerLabel, where
from dynamo_planner.config.problems import ConfigError, problems_at

NOWHERE = "http://127.0.0.1"
"""A server that is not asked anything, where the engine is given."""


def queries(
    config: Config = None,
    prometheus: Prometheus = None,
    label: Labels = None,
    model: Model = None,
    worker_label: WorkerLabel = None,
    engine: EngineName = None,
    window_s: WindowS = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object: by pool, and what is told.")] = False,
) -> None:
    """Print what is asked of Prometheus, in PromQL: to be tried there, or put on a dashboard.

    The server is asked only to find out the engine; with `--engine`, or one in the configuration, it is not.

    Example: `dynamo-planner queries --engine vllm --label namespace=llm --label 'pod=~llama-.*'`
    """
    looked = where(config, prometheus or (NOWHERE if engine else None), label, model, worker_label, engine, window_s)
    if looked.prometheus is None:
        raise ConfigError(["queries are for Prometheus: name its --prometheus, or the --engine of the workers"])
    with problems_at("source"):
        source = looked.prometheus.build(looked.roles)
    asked = {
        pool: {".".join(filter(None, ask)): query for ask, query in queries.items()}
        for pool, queries in source.queries(None if looked.prometheus.engine else time.time()).items()
    }
    if as_json:
        typer.echo(json.dumps(asked, indent=2, ensure_ascii=False))
        return
    for pool, of_pool in asked.items():
        typer.echo(f"# {pool}")
        for told, query in of_pool.items():
            typer.echo(f"\n# {told}\n{query}")
        typer.echo()
