"""``queries``, ``check`` and ``run`` with a real Prometheus server, and with workers that are asked themselves."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dynamo_planner.runtime.decision_log import read_log
from tests.support.cli import planner
from tests.support.prometheus_server import ask, prometheus, until_scraped
from tests.support.sources.farm import Farm, Vllm


@pytest.fixture(scope="module")
def farm() -> Iterator[Farm]:
    with Farm() as running:
        running.pages["a"] = Vllm(running=3, waiting=1, kv=0.5).page()
        running.pages["b"] = Vllm(running=5, waiting=0, kv=0.7).page()
        running.pages["sglang"] = "sglang:num_running_reqs 4\nsglang:num_queue_reqs 2\n"
        yield running


@pytest.fixture(scope="module")
def server(farm: Farm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that scrapes both vLLM workers every half second, and has done so for more than two seconds."""
    address = farm.url("").removeprefix("http://").rstrip("/")
    jobs = {
        pod: {address: {"namespace": "llm", "pod": pod, "instance": pod, "__metrics_path__": f"/{pod}/metrics"}}
        for pod in ("a", "b")
    }
    with prometheus(tmp_path_factory.mktemp("prometheus"), jobs, 0.5) as url:
        until_scraped(url, 2, scrapes=6)
        yield url


def written(directory: Path, **changes: Any) -> Path:
    path = directory / "planner.json"
    data = {
        "policy": [{"kind": "load", "adjustment_interval_s": 1}],
        "executor": {"kind": "dry_run", "pools": {"workers": {"role": "aggregated", "max_replicas": 8}}},
        "log": str(directory / "log.jsonl"),
    }
    path.write_text(json.dumps({**data, **changes}))
    return path


def test_queries_are_what_the_server_understands(server: str) -> None:
    done = planner("queries", "--prometheus", server, "--label", "pod=~a|b", "--worker-label", "pod", "--json")
    assert done.returncode == 0, done.stderr
    asked = json.loads(done.stdout)["workers"]
    values = {tuple(one["metric"].items()): one["value"][1] for one in ask(server, asked["running"])}
    assert values == {(("pod", "a"),): "3", (("pod", "b"),): "5"}
    shown = planner("queries", "--engine", "vllm", "--label", "pod=~a|b", "--worker-label", "pod").stdout
    for told, query in asked.items():
        assert f"\n# {told}\n{query}\n" in shown


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["queries"], "name its --prometheus, or the --engine"),
        (["check"], "there is nothing to inspect"),
        (["check", "--label", "a=b"], "--label is about a Prometheus server"),
        (["check", "--engine", "vllm"], "of scraped workers a configuration says it (source.engine)"),
        (["check", "--prometheus", "http://127.0.0.1:9", "--label", "a"], "'a' is none of NAME=VALUE"),
        (["queries", "--engine", "tgi"], "source.engine"),
        (["check", "--prometheus", "ftp://x"], "is not an http:// or https:// URL"),
    ],
)
def test_wrong_input_is_told(arguments: list[str], problem: str) -> None:
    done = planner(*arguments)
    assert done.returncode == 2, done.stderr
    assert problem in done.stderr
    assert "Traceback" not in done.stderr


def test_check_through_prometheus(server: str) -> None:
    options = ["--prometheus", server, "--label", "namespace=llm", "--worker-label", "pod", "--window-s", "2"]
    done = planner("check", *options)
    assert done.returncode == 0, done.stderr
    assert "workers: 2 workers, 100% of them observed" in done.stdout
    line = next(line for line in done.stdout.splitlines() if line.strip().startswith("a "))
    assert line.split()[:2] == ["a", "vLLM"]
    assert line.split()[4:] == ["3", "1", "50%", "16,000"]
    assert "requests_per_s 0" in done.stdout
    data = json.loads(planner("check", *options, "--json").stdout)
    assert {name: each["engine"] for name, each in data["workers"]["workers"].items()} == {"a": "vLLM", "b": "vLLM"}
    assert data["observation"]["pools"]["workers"]["running"] == 8


def test_check_of_workers_says_who_cannot_be_seen_and_what_to_switch_on(farm: Farm) -> None:
    urls = [argument for name in ("a", "sglang") for argument in ("--worker", farm.url(name))]
    done = planner("check", *urls, "--watch-s", "0.2")
    assert done.returncode == 0, done.stderr
    assert "vLLM" in done.stdout
    assert "SGLang" in done.stdout
    assert "sglang:token_usage" in done.stdout, "the metric that is looked for is named"
    done = planner("check", *urls, "--worker", farm.url("none"), "--watch-s", "0.2")
    assert done.returncode == 1
    assert "67% of them observed" in done.stdout
    assert "it answered 404" in done.stdout
    farm.pages["bare"] = "# nothing is switched on here\n"
    done = planner("check", "--worker", farm.url("bare"), "--watch-s", "0.2")
    assert done.returncode == 1
    assert "--enable-metrics" in done.stderr


def llamacpp(tokens: float, seconds: float, average: float) -> str:
    return (
        f"llamacpp:requests_processing 1\nllamacpp:requests_deferred 0\nllamacpp:prompt_tokens_total {tokens}\n"
        f"llamacpp:prompt_seconds_total {seconds}\nllamacpp:prompt_tokens_seconds {average}\n"
    )


@pytest.mark.parametrize(
    ("average", "verdict"),
    [(200.0, "no other client read its metrics"), (50.0, "another client reads its metrics, too")],
)
def test_check_finds_out_whether_others_read_the_averages_of_llamacpp(farm: Farm, average: float, verdict: str) -> None:
    """From the fourth reading on it has done 200 tokens more in one second; the average says whether all were told."""

    class Pages(dict[str, str | bytes]):
        readings = 0

        def get(self, name: str, default: Any = None) -> Any:
            if name != "llama":
                return super().get(name, default)
            self.readings += 1
            return llamacpp(100, 1, 0) if self.readings < 4 else llamacpp(300, 2, average)

    farm.pages, before = Pages(farm.pages), farm.pages
    try:
        done = planner("check", "--worker", farm.url("llama"), "--watch-s", "0.2")
    finally:
        farm.pages = before
    assert verdict in done.stdout, done.stdout + done.stderr


def test_run_with_prometheus_as_the_source(server: str, tmp_path: Path) -> None:
    source = {
        "kind": "prometheus",
        "url": server,
        "labels": {"namespace": "llm"},
        "worker_label": "pod",
        "window_s": 2,
        "engine": "vllm",
    }
    time.sleep(0.5)
    done = planner("run", written(tmp_path, source=source), "--once")
    assert done.returncode == 0, done.stderr
    (step,) = read_log(tmp_path / "log.jsonl")
    pool = step.snapshot.pools["workers"]
    assert (pool.running, pool.queued, pool.coverage) == (8, 1, 1)
    assert step.snapshot.traffic.requests_per_s == 0


def test_a_source_that_does_not_fit_the_pools_is_wrong_input(tmp_path: Path) -> None:
    source = {"kind": "prometheus", "url": "http://127.0.0.1:9", "pools": {"no-such": {"a": "b"}}}
    done = planner("run", written(tmp_path, source=source), "--once")
    assert done.returncode == 2
    assert "source.pools: 'no-such' is not a pool; there are workers" in done.stderr
    access = {"bearer_token_file": "a", "parameters": {"query": "up"}}
    source = {"kind": "prometheus", "url": "http://127.0.0.1:9", "labels": {"a-b": "c"}, "access": access}
    done = planner("validate", written(tmp_path, source=source))
    assert done.returncode == 2
    assert "'a-b' is not the name of a label" in done.stderr
    assert "source.access: parameters: 'query' is part of every query" in done.stderr
