"""The ``queries`` command: the PromQL that a Prometheus source sends."""

from __future__ import annotations

import time

import typer

from dynamo_planner.cli.options import AsJson, print_json
from dynamo_planner.cli.target import Config, EngineName, Labels, Model, Prometheus, WindowS, WorkerLabel, target_of
from dynamo_planner.config.problems import ConfigError, problems_at

NOWHERE = "http://127.0.0.1"
"""A server that gets no request, because the engine is given."""


def queries(
    config: Config = None,
    prometheus: Prometheus = None,
    label: Labels = None,
    model: Model = None,
    worker_label: WorkerLabel = None,
    engine: EngineName = None,
    window_s: WindowS = None,
    as_json: AsJson = False,
) -> None:
    """Print the queries that a Prometheus source sends, to try them there or put them on a dashboard.

    The server is contacted only to find out the engine; with `--engine`, or one in the configuration, it is not.

    Example: `dynamo-planner queries --engine vllm --label namespace=llm --label 'pod=~llama-.*'`
    """
    target = target_of(
        config, prometheus or (NOWHERE if engine else None), label, model, worker_label, engine, window_s
    )
    if target.prometheus is None:
        raise ConfigError(["queries are for Prometheus: name its --prometheus, or the --engine of the workers"])
    with problems_at("source"):
        source = target.prometheus.build(target.roles)
    by_pool = {
        pool: {".".join(filter(None, ask)): query for ask, query in queries.items()}
        for pool, queries in source.queries(None if target.prometheus.engine else time.time()).items()
    }
    if as_json:
        print_json(by_pool)
        return
    for pool, of_pool in by_pool.items():
        typer.echo(f"# {pool}")
        for quantity, query in of_pool.items():
            typer.echo(f"\n# {quantity}\n{query}")
        typer.echo()
