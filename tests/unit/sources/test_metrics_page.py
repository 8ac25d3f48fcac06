"""The page about metrics says what is in the vocabularies, and its examples hold."""

from __future__ import annotations

import re

import pytest
import yaml

from dynamo_planner.engines.registry import frontend_vocabularies, worker_vocabularies
from dynamo_planner.engines.vocabulary import Vocabulary
from dynamo_planner.sources.scraping.config import ScrapeConfig
from tests.support.paths import DOCS

EVERY_VOCABULARY = [*worker_vocabularies().values(), *frontend_vocabularies().values()]
PAGE = (DOCS / "metrics.md").read_text()
OTHER_PREFIXES = {
    "trtllm:": ("trtllm_",),
    "nv_llm_http_service_": ("dynamo_frontend_",),
    **dict.fromkeys(
        ("llm_d_router_epp_", "inference_objective_", "inference_model_", "inference_extension_"),
        ("llm_d_epp_", "llm_d_router_epp_"),
    ),
}


OF_DYNAMOS_MOCKER = ("trtllm:kv_cache_usage_perc", "trtllm:inter_token_latency_seconds")


def said(name: str) -> bool:
    """Whether a metric stands on the page, by this name or, as the page says, by that with another prefix."""
    name = re.sub(r"_(sum|count|bucket)$", "", name).removeprefix("/metrics:").removeprefix("/slots:")
    names = [name]
    for prefix, others in OTHER_PREFIXES.items():
        if name.startswith(prefix):
            names += [other + name.removeprefix(prefix) for other in others]
    return any(f"`{each}`" in PAGE for each in names) or name in {"iter", ""}


@pytest.mark.parametrize("vocabulary", EVERY_VOCABULARY, ids=lambda each: str(each.engine))
def test_every_metric_that_is_read_stands_on_the_page(vocabulary: Vocabulary) -> None:
    missing = {name for name in vocabulary.own_names() if not said(name)}
    assert {name for name in missing if not name.startswith(OF_DYNAMOS_MOCKER)} == set()
    for switch in (vocabulary.start_with, *vocabulary.switches.values()):
        assert all(f"`{part}`" in PAGE for part in switch.split(" and ") if part)


def test_every_metric_on_the_page_is_read() -> None:
    every = frozenset[str]().union(*(each.own_names() for each in EVERY_VOCABULARY))
    bare = {re.sub(r"_(sum|count|bucket)$", "", name) for name in every} | every
    on_page = re.findall(r"`((?:vllm:|sglang:|trtllm[_:]|llamacpp:|dynamo_|llm_d_|ray_serve_)[a-z_0-9]+)`", PAGE)
    assert len(on_page) > 60
    assert [name for name in on_page if name not in bare and not name.endswith("_")] == []


@pytest.mark.parametrize("example", re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL))
def test_examples_hold(example: str) -> None:
    source = ScrapeConfig.model_validate(yaml.safe_load(example)["source"])
    assert source.frontend or isinstance(source.engine, Vocabulary)
