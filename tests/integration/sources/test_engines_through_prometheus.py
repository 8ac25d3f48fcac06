"""What a real Prometheus server has scraped of each engine means the same as its pages, which are worked out by hand.

The pages change once. Counters then have grown within the window, and by how much `increase` makes of that is good to
what its ends leave open; gauges, means, shares and quantiles are not concerned.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest

from dynamo_planner import Observation
from dynamo_planner.sources import PrometheusSource
from tests.support.prometheus_server import prometheus, until_scraped
from tests.support.sources.engine_cases import GAUGES, LLAMACPP, SECONDS, SGLANG, TRTLLM, Case, key_of, told
from tests.support.sources.farm import Farm

INTERVAL_S, WINDOW_S = 0.25, 3.0
RATES = ("requests_per_s", "rejected_per_s", "preemptions_per_s")
ENGINES = {"SGLang": SGLANG, "TensorRT-LLM": TRTLLM, "llama.cpp": LLAMACPP}
NOT_IN_PROMETHEUS = {"llama.cpp": {"kv_usage", "kv_capacity_tokens"}}
"""What stands only in JSON."""


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Observation]]:
    """What was seen of each engine, as a pool of its own."""
    names = {f"w{place}": case for place, case in enumerate(ENGINES.values())}
    with Farm() as farm:
        address = farm.url("").removeprefix("http://").rstrip("/")

        def serve(turn: str) -> None:
            farm.pages = {f"{name}{path}": text for name, case in names.items() for path, text in pages(case, turn)}

        def pages(case: Case, turn: str) -> Iterator[tuple[str, str]]:
            for path, text in getattr(case, turn).items():
                yield path, re.sub(r" # \{.*", "", text)  # the server reads exemplars in OpenMetrics only

        jobs = {}
        for name, case in names.items():
            path = next(path for path in case.before if path.endswith("/metrics"))
            jobs[name] = {address: {"instance": name, "__metrics_path__": f"/{name}{path}"}}
        serve("before")
        with prometheus(tmp_path_factory.mktemp("prometheus"), jobs, INTERVAL_S) as url:
            scrapes = round(WINDOW_S / INTERVAL_S)
            until_scraped(url, len(jobs), scrapes + 4)
            serve("after")
            until_scraped(url, len(jobs), scrapes + 8)
            at_s = time.time()
            yield {
                engine: PrometheusSource(
                    url, {"workers": "aggregated"}, labels={"job": name}, window_s=WINDOW_S
                ).observe(at_s)
                for engine, name in zip(ENGINES, names, strict=True)
            }


@pytest.mark.parametrize("engine", ENGINES)
def test_what_is_asked_equals_what_is_worked_out_by_hand(engine: str, seen: dict[str, Observation]) -> None:
    case, observation = ENGINES[engine], seen[engine]
    expected, found = case.means(case.before, case.after), told(observation)
    for name, value in expected.items():
        if name in NOT_IN_PROMETHEUS.get(engine, ()):
            assert found[name] is None
            assert "only in JSON" in observation.missing[key_of(name)]
        elif value is None:
            assert found[name] is None, name
            assert key_of(name) in observation.missing
        elif name in RATES:
            assert found[name] * WINDOW_S == pytest.approx(value * SECONDS, rel=2 * INTERVAL_S / WINDOW_S), name
        elif isinstance(value, dict):
            others = {key: number for key, number in value.items() if key != "count"}
            assert {key: found[name][key] for key in others} == pytest.approx(others), name
        else:
            assert found[name] == pytest.approx(value), name
    scraped = [name for name in GAUGES if name not in NOT_IN_PROMETHEUS.get(engine, ()) and name != "queued_tokens"]
    assert all(found[name] is not None for name in scraped)
