"""The same process under several labels counts once, and several processes behind one address count each."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pytest

from dynamo_planner.sources import PrometheusSource
from tests.support.sources.asked import observed, scraped_pages
from tests.support.sources.farm import Vllm

AT_S = 1_000_600.0
PODS = ("a", "b")

BY_ADDRESS = {pod: {"namespace": "llm", "pod": pod, "instance": f"10.0.0.{n}:8000"} for n, pod in enumerate(PODS)}
BY_NAME = {pod: {"namespace": "llm", "pod": pod, "instance": f"{pod}.llm:8000", "job": "name"} for pod in PODS}
WITHOUT_POD = {pod: {"instance": labels["instance"], "job": "static"} for pod, labels in BY_ADDRESS.items()}
FEDERATED = {pod: {"instance": "child:9090", "exported_instance": f"{pod}:8000"} for pod in PODS}
TWO_CLUSTERS = {pod: {"cluster": pod, "pod": "llm-0", "instance": "10.0.0.1:8000"} for pod in PODS}
PROXIED = {pod: {"instance": "gateway:80", "pod": pod} for pod in PODS}


def page_of(target: Mapping[str, str], at_s: float) -> str:
    """5 requests in a second, since long ago."""
    return Vllm(running=4, kv=0.5, done=5 * (at_s - 999_000), started_s=900_000.5).page()


@pytest.mark.parametrize(
    ("targets", "copied"),
    [
        ((BY_ADDRESS,), ""),
        ((BY_ADDRESS, BY_NAME), "its series 2 times (instance '10.0.0.0:8000' and 'a.llm:8000', job '' and 'name')"),
        ((BY_ADDRESS, WITHOUT_POD), "its series 2 times (job '' and 'static'"),
        ((FEDERATED,), ""),
        ((PROXIED,), ""),
        ((TWO_CLUSTERS,), ""),
    ],
    ids=[
        "each once",
        "an address and a name",
        "with and without its pod",
        "federated",
        "behind a proxy",
        "of two clusters",
    ],
)
def test_two_workers_are_two_workers_however_they_are_labelled(
    targets: tuple[Mapping[str, Mapping[str, str]], ...], copied: str
) -> None:
    every = [labels for each in targets for labels in each.values()]
    store = scraped_pages(every, page_of, [AT_S - 15 * number for number in reversed(range(41))])
    observation = observed(PrometheusSource("http://127.0.0.1:1", {"chat": "aggregated"}), store, AT_S)
    pool = observation.pools["chat"]
    assert observation.traffic.requests_per_s == pytest.approx(10)
    assert (pool.running, pool.kv_usage, pool.coverage) == (8, 0.5, 1)
    remarks = [why for field, why in observation.missing.items() if field.startswith("pools.chat.workers.")]
    assert len(remarks) == (2 if copied else 0)
    assert all("they are counted once" in why for why in remarks)
    assert copied in "".join(remarks)


def test_addresses_of_a_pod_of_which_nothing_shows_whether_they_are_one_process() -> None:
    every = [*BY_ADDRESS.values(), *BY_NAME.values()]
    times = [AT_S - 15 * number for number in reversed(range(9))]
    store = scraped_pages(every, lambda *of: page_of(*of).replace("process_start_time_seconds", "began"), times)
    observation = observed(PrometheusSource("http://127.0.0.1:1", {"chat": "aggregated"}), store, AT_S)
    assert observation.traffic.requests_per_s is None
    assert re.search(r"'a' is scraped at 10.* and a.llm.*worker_label: pod", observation.missing["pools.chat"])
    named = PrometheusSource("http://127.0.0.1:1", {"chat": "aggregated"}, worker_label="pod")
    assert observed(named, store, AT_S).traffic.requests_per_s == pytest.approx(10)
