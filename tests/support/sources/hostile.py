"""What must hold whatever workers answer: a source tells numbers that can be, or why not, or raises its own error.

The pages do not go over HTTP here (``test_scrape_http`` has that): what is fetched is replaced, so that many can be
tried in little time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from unittest import mock

from dynamo_planner.core.snapshot import Observation, Role, Snapshot
from dynamo_planner.sources import FrontendSource, ScrapeSource, SourceError
from dynamo_planner.sources.fetch import FetchError
from tests.support.sources import engine_pages as pages
from tests.support.sources.farm import Vllm

NEED_NO_REASON = (
    *("observed_at_s", "coverage", "window_s"),
    "in_time",  # which no page has
    # of no pool anything is known of these
    *(f"pools.w.traffic.{field}" for field in ("queued", "queued_tokens", "prefill_tokens", "arrival_dispersion")),
)

PAGES = (
    Vllm(running=3, done=9, isl=(5, 50), ttft_s=(0.2, 3), queries=10, hits=5, started_s=3.0).page(),
    pages.sglang(3, 2, 0.2, 10, 1000, 1, (0.02, 0.3)),
    pages.trtllm(3, 1, 0.2, 8, 500, (0.02, 0.3)),
    pages.iterations((4, 3, 0, 1, 300), (5, 4, 1, 0, 400)),
    pages.llamacpp(1, 0, 100, 50, 1000, 9.0),
    pages.slots(7, None),
    pages.dynamo(20, 10, 15, 2, (0.3, 0.6), (0.5,)),
)
"""A page of every engine."""

ROLES: tuple[Role, ...] = ("aggregated", "prefill", "decode")


def observe(turns: Sequence[str], role: Role, step_s: float = 10.0) -> list[Observation]:
    """A worker and a frontend that answer every path of each turn with the same text."""
    turn = [0]

    def fetched(urls: Mapping[Any, str], read: Callable[[Any, str], Any], **_: Any) -> dict[Any, Any]:
        answers: dict[Any, Any] = {}
        for key in urls:
            try:
                answers[key] = read(key, turns[turn[0]])
            except ValueError as error:
                answers[key] = FetchError(str(error))
        return answers

    with mock.patch("dynamo_planner.sources.scraping.scraper.fetch_all", fetched):
        frontend = FrontendSource(["http://127.0.0.1:1"])
        source = ScrapeSource({"w": {"w0": "http://127.0.0.1:2"}}, {"w": role}, frontend=frontend)
        seen = []
        for turn[0] in range(len(turns)):
            try:
                seen.append(source.observe(turn[0] * step_s))
            except SourceError as error:
                assert "none of the workers could be scraped" in str(error)
    for observation in seen:
        check(observation)
    return seen


def check(observation: Observation) -> None:
    """Every number can be, every field that is unknown says why, and a snapshot of it survives JSON."""
    for path, value in _fields(observation):
        if value is None:
            if not path.endswith(NEED_NO_REASON):
                assert _explained(path, observation.missing), path
        else:
            assert math.isfinite(value), path
            assert value >= 0, path
            if path.endswith(("kv_usage", "kv_usage_max", "prefix_hit_rate", "coverage")):
                assert value <= 1, path
    again = Observation.model_validate_json(observation.model_dump_json())
    assert again == observation
    Snapshot(at_s=0.0, traffic=observation.traffic)


def _fields(observation: Observation) -> list[tuple[str, float | None]]:
    fields: list[tuple[str, float | None]] = []

    def walk(path: str, value: Any) -> None:
        if isinstance(value, Mapping):
            for name, part in value.items():
                walk(f"{path}.{name}" if path else str(name), part)
        elif isinstance(value, int | float) or (value is None and not path.endswith(("cv2", "count"))):
            fields.append((path, value))

    walk("", observation.model_dump(exclude={"missing": True, "pools": {"__all__": {"workers"}}}))
    return fields


def _explained(path: str, missing: Mapping[str, str]) -> bool:
    """Whether this field, or one that it is part of, says why it is unknown."""
    return any(path == field or path.startswith(f"{field}.") for field in missing)
