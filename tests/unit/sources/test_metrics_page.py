"""The page about metrics says what is in the vocabularies, and its examples hold."""

from __future__ import annotations

import re

import pytest
import yaml

from dynamo_planner.engines.registry import frontend_vocabularies, setup_vocabularies, worker_vocabularies
from dynamo_planner.engines.vocabulary import QUANTITIES, Vocabulary
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


ROWS: dict[str, tuple[str, ...]] = {
    "arrivals": ("arrivals", "inside", "completions"),
    "running": ("running",),
    "waiting": ("waiting",),
    "waiting prompt tokens": ("waiting_tokens",),
    "queued": ("queued", "inside"),
    "queued prompt tokens": ("queued_tokens",),
    "prompt tokens at workers, not computed yet": ("prefill_tokens",),
    "KV usage": ("kv_usage",),
    "KV capacity": ("kv_capacity_tokens",),
    "awake": ("awake",),
    "completions": ("completions",),
    "given up": ("aborts", "cancellations"),
    "first tokens": ("first_tokens",),
    "rejections": ("rejections",),
    "preemptions": ("preemptions",),
    "prefix hits / queries": ("prefix_hits", "prefix_queries", "prefix_hit_rate"),
    "prefix hit rate": ("prefix_hit_rate",),
    "TTFT": ("ttft_ms",),
    "ITL": ("itl_ms",),
    "gap between tokens": ("token_gap_ms",),
    "ITL, gap between tokens": ("itl_ms", "token_gap_ms"),
    "ISL": ("isl",),
    "OSL": ("osl",),
    "answers a request": ("choices",),
    "duration": ("request_duration_s",),
    "time in queue": ("queue_ms",),
    "time in prefill": ("prefill_ms",),
    "time in transfer": ("transfer_ms",),
    "time to first token after prefill": ("first_token_ms",),
    "time in decode": ("decode_ms",),
}
"""The quantities of each row of the tables of names."""

COLUMNS = {
    **{vocabulary.engine: vocabulary for vocabulary in EVERY_VOCABULARY},
    **{vocabulary.engine: vocabulary for vocabulary in setup_vocabularies().values()},
}


def tables() -> list[list[list[str]]]:
    """The cells of each table of names, its header first."""
    blocks = re.findall(r"^\| quantity \|(?:.*\n\|)*.*$", PAGE, re.MULTILINE)
    return [[[cell.strip() for cell in line.split("|")[1:-1]] for line in each.splitlines()] for each in blocks]


def names_of(vocabulary: Vocabulary, quantity: str) -> set[str]:
    """What a cell may call a quantity."""
    every = (vocabulary.quantities, *vocabulary.by_role.values())
    metrics = [metric for quantities in every for metric in quantities.get(quantity, ())]  # type: ignore[call-overload]
    names = {name for metric in metrics for name in metric.samples()}
    return {re.sub(r"_(sum|count|bucket)$|^/.*:", "", name) for name in names} | names


def test_the_tables_have_every_quantity_that_an_engine_reports() -> None:
    """And no other: where an engine reports none of a row's quantities, none of its metrics stands in the cell."""
    engines = set()
    for header, _, *rows in tables():
        assert len({row[0] for row in rows}) == len(rows)
        for column, title in enumerate(header[1:], 1):
            engine = next(name for name in sorted(COLUMNS, key=len, reverse=True) if title.startswith(name))
            engines.add(engine)
            reported = {quantity for quantity in QUANTITIES if names_of(COLUMNS[engine], quantity)}
            found = set()
            for row in rows:
                cell = set(re.findall(r"`([^`]+)`", row[column]))
                own = reported.intersection(ROWS[row[0]])
                found |= {quantity for quantity in own if cell & names_of(COLUMNS[engine], quantity)}
                assert own or not cell & COLUMNS[engine].own_names(), (engine, row)
            assert reported - found <= {"inside"}, engine
    assert engines == set(COLUMNS)
    of_workers = [{row[0] for row in rows} for _, _, *rows in tables()[:2]]
    assert of_workers[0] == of_workers[1]


@pytest.mark.parametrize("example", re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL))
def test_examples_hold(example: str) -> None:
    source = ScrapeConfig.model_validate(yaml.safe_load(example)["source"])
    assert source.frontend or isinstance(source.engine, Vocabulary)
