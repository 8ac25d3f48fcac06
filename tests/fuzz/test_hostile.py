"""No text and no JSON makes a source raise anything but its own error, tell a number that cannot be, or hang."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
import tracemalloc
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynamo_planner.core.snapshot import Role
from dynamo_planner.engines.llamacpp import LLAMACPP
from dynamo_planner.engines.vllm import VLLM
from dynamo_planner.sources.scraping.exposition import parse_page
from dynamo_planner.sources.scraping.json_page import looks_like_json, parse_json
from tests.support.laws import examples
from tests.support.paths import ROOT
from tests.support.sources.hostile import PAGES, ROLES, observe

NASTY = (
    *(
        "NaN",
        "+Inf",
        "-Inf",
        "-1",
        "1e308",
        "1e-320",
        "0",
        "9" * 400,
        "1_000",
        "0x10",
        "",
        "\x00",
        "\ud800",
        "\r",
        "\n",
    ),
    *(
        '"',
        "{",
        "}",
        "[",
        "]",
        ",",
        "\\",
        "#",
        "# TYPE ",
        "null",
        "true",
        '{"a":',
        "[[",
        'le="-1"',
        'le="NaN"',
        "\u2028",
    ),
)


@st.composite
def damaged(draw: st.DrawFn) -> str:
    """A page with a few pieces cut out, doubled, put elsewhere, or replaced."""
    text = draw(st.sampled_from(PAGES))
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.integers(0, 60)))
        piece = draw(st.sampled_from(["", text[start:end] * 2, *NASTY]) | st.text(max_size=5))
        text = text[:start] + piece + text[end:]
    return text


@examples(150)
@given(st.lists(damaged(), min_size=1, max_size=3), st.sampled_from(ROLES))
def test_damaged_pages(turns: list[str], role: Role) -> None:
    observe(turns, role)


@examples(150)
@given(
    st.lists(st.text(max_size=200) | st.binary(max_size=200).map(lambda raw: raw.decode(errors="replace")), max_size=3)
)
def test_any_text(turns: list[str]) -> None:
    observe(turns, "aggregated")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["n_ctx", "n_prompt_tokens", "is_processing", "iter", "numActiveRequests", "kvCacheStats"])
            | st.sampled_from(["numCompletedRequests", "numQueuedRequests", "usedNumBlocks", "maxNumBlocks"]),
            inner,
            max_size=8,
        )
    ),
    max_leaves=20,
)


@examples(150)
@given(st.lists(JSON.map(json.dumps), min_size=1, max_size=3))
def test_any_json(turns: list[str]) -> None:
    observe(turns, "aggregated")


@pytest.mark.parametrize(
    "text",
    [
        "[" * 200_000,
        '{"a":' * 200_000,
        "[" + "{}," * 200_000 + "{}]",
        "9" * 100_000,
        '[{"n_ctx": ' + "9" * 100_000 + "}]",
    ],
    ids=["deep lists", "deep objects", "many items", "no JSON", "a long number"],
)
def test_json_that_asks_for_much_is_refused_within_little_memory(text: str) -> None:
    tracemalloc.start()
    began_s = time.monotonic()
    try:
        page = parse_json(text, "/slots", LLAMACPP.names()) if looks_like_json(text) else parse_page(text, VLLM.names())
    except ValueError as error:
        assert "/slots" in str(error)
    else:
        assert not any(math.isfinite(value) for series in page.values() for value in series.values() if value != 1)
    assert time.monotonic() - began_s < 5
    assert tracemalloc.get_traced_memory()[1] < 64 * 2**20
    tracemalloc.stop()


def test_series_without_end_are_refused_within_little_memory() -> None:
    text = "".join(f'vllm:num_requests_running{{a="{number}"}} 1\n' for number in range(150_000))
    refused: set[str] = set()
    tracemalloc.start()
    page = parse_page(text, VLLM.names(), too_many=refused)
    assert refused == {"vllm:num_requests_running"}
    assert [math.isnan(value) for value in page["vllm:num_requests_running"].values()] == [True]
    assert tracemalloc.get_traced_memory()[1] < 96 * 2**20
    tracemalloc.stop()


@pytest.mark.skipif(find_spec("atheris") is None and not os.environ.get("CI"), reason="atheris is not installed")
@pytest.mark.parametrize("fuzzer", ["fuzz_sources", "fuzz_prometheus"])
def test_a_coverage_guided_fuzzer_finds_nothing(fuzzer: str, tmp_path: Path) -> None:
    corpus = str(tmp_path / "corpus")
    done = subprocess.run(
        [sys.executable, "-m", f"tests.fuzz.{fuzzer}", "--seconds", "10", "--corpus", corpus],
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert "Done" in done.stderr, done.stderr[-4000:]
