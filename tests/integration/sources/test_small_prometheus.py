"""The stand-in for Prometheus of the lying-metrics suite answers as a real server does, query by query."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from dynamo_planner.engines.llmd import LLMD_PICKER
from dynamo_planner.engines.sglang import SGLANG
from dynamo_planner.engines.vllm import VLLM
from dynamo_planner.sources.prometheus.api import PrometheusApi
from dynamo_planner.sources.prometheus.promql import queries_of
from dynamo_planner.sources.prometheus.query_keys import presence_names
from dynamo_planner.sources.prometheus.scope import Scope
from tests.support.prometheus_server import backfill, line, prometheus
from tests.support.sources.small_prometheus import Store

AT = 1_700_000_600
SCOPE = Scope(
    labels={"namespace": "llm"},
    metric_labels={"model_name": "=~(?i)m|none|"},
    worker_label="pod",
    copies=("job",),
    window_s=60,
)


def test_the_stand_in_answers_as_a_real_server_does(tmp_path: Path) -> None:
    draw = random.Random(5)
    store, lines = Store(), []
    for vocabulary in (VLLM, SGLANG, LLMD_PICKER):
        for name in sorted((*presence_names(vocabulary), "up", "process_start_time_seconds")):
            for pod, job in (("a", "one"), ("a", "two"), ("b", "one"), ("c", "one")):
                if draw.random() < 0.3:
                    continue
                labels = {"namespace": "llm", "pod": pod, "job": job, "instance": f"{pod}:80", "model_name": "M"}
                begin, value, points = draw.choice([-600, -600, -25]), draw.randint(0, 50), []
                for at_s in range(AT + begin, AT, 15):
                    value = draw.choice([value, value + draw.randint(0, 9), draw.randint(0, 5)])
                    points.append((at_s + {"one": 0, "two": 4}[job], float(value)))
                lines += line(name, {**labels, "engine": vocabulary.engine}, points)
                for at_s, each in points:
                    store.add(name, {**labels, "engine": vocabulary.engine}, at_s, each)
    backfill(tmp_path, iter(lines))
    queries = {
        (vocabulary.engine, key): query
        for vocabulary in (VLLM, SGLANG, LLMD_PICKER)
        for key, query in queries_of(vocabulary, SCOPE).items()
    }
    with prometheus(tmp_path) as url:
        answers = PrometheusApi(url, timeout_s=60).instant(queries, AT)
    compared = 0
    for key, query in queries.items():
        answer, own = answers[key], store.query(query, AT)
        assert isinstance(answer, dict), (query, answer)
        assert {
            tuple(sorted(labels)): pytest.approx(value, rel=1e-10, abs=1e-9) for labels, value in own.items()
        } == answer, query
        compared += len(own)
    assert compared > 200
