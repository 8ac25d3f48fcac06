"""The text format: what is read of it agrees with the parser of prometheus_client, and garbage is survived."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from dynamo_planner.engines.vllm import VLLM
from dynamo_planner.sources.scraping.exposition import parse_page
from tests.support.laws import examples
from tests.support.paths import DATA

CAPTURED = DATA / "metrics"


def read_by_library(text: str) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    page: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            page.setdefault(sample.name, {}).setdefault(tuple(sorted(sample.labels.items())), float(sample.value))
    return page


@pytest.mark.parametrize("name", ["vllm", "vllm_idle", "dynamo_mocker_worker", "sglang", "trtllm", "llamacpp"])
def test_captured_pages_are_read_as_by_the_library(name: str) -> None:
    text = (CAPTURED / f"{name}.prom").read_text()
    by_library = read_by_library(text)
    for counter in [
        sample for sample in by_library if sample not in text
    ]:  # the library adds _total to counters without it
        by_library[counter.removesuffix("_total")] = by_library.pop(counter)
    page = parse_page(text, by_library.keys())
    assert {name for name, series in page.items() if series} == by_library.keys()
    for sample, series in by_library.items():
        assert page[sample] == pytest.approx(series, rel=0, abs=0, nan_ok=True)
    assert parse_page(text, VLLM.names()).keys() <= VLLM.names()


NAMES = st.sampled_from(["vllm:a", "b_total", "c"])
VALUES = st.floats(allow_nan=False).map(repr) | st.integers().map(str) | st.sampled_from(["+Inf", "-Inf", "1e5"])


@st.composite
def lines(draw: st.DrawFn) -> str:
    labels = draw(st.dictionaries(st.sampled_from(["le", "engine", "x_1"]), st.text(max_size=8), max_size=3))
    escaped = {
        label: value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n").replace("\r", "")
        for label, value in labels.items()
    }
    inside = ",".join(f'{label}="{value}"' for label, value in escaped.items())
    stamp = draw(st.sampled_from(["", " 1700000000000"]))
    return f"{draw(NAMES)}{f'{{{inside}}}' if inside else ''} {draw(VALUES)}{stamp}"


@examples(300)
@given(st.lists(lines(), max_size=6))
def test_well_formed_pages_are_read_as_by_the_library(page: list[str]) -> None:
    text = "\n".join(line for line in page if len(line.splitlines()) == 1) + "\n"
    assert parse_page(text, {"vllm:a", "b_total", "c"}) == read_by_library(text)


def test_exemplars_timestamps_spaces_and_foreign_line_ends() -> None:
    text = (
        'c{le="1"} 3 # {trace_id="a b"} 0.5 1700000000.1\r\n'
        'c { le = "2" , x="}#{" , }\t4\t1700000000\r\n'
        '  c{le="3",} 5  \n'
        "cc 9\nc_created 7\n# c 8\n"
        "c 6"
    )
    assert parse_page(text, {"c"})["c"] == {
        (("le", "1"),): 3,
        (("le", "2"), ("x", "}#{")): 4,
        (("le", "3"),): 5,
        (): 6,
    }


def test_of_two_samples_of_a_series_the_first_counts() -> None:
    assert parse_page('c{a="1",b="2"} 1\nc{b="2",a="1"} 2\n', {"c"})["c"] == {(("a", "1"), ("b", "2")): 1}


@pytest.mark.parametrize(
    "line",
    [
        "c",
        "c{",
        'c{a="1"',
        'c{a="1} 2',
        "c{a=1} 2",
        'c{a="1"}',
        'c{a="1",a="2"} 1',
        "c one",
        "c 1_000",
        'c{a="1"}} 2',
        "c {} {}",
    ],
)
def test_what_does_not_read_is_not_a_number(line: str) -> None:
    (value,) = parse_page(f"{line}\n", {"c"})["c"].values()
    assert math.isnan(value)


def test_a_line_without_end_is_not_read() -> None:
    (value,) = parse_page('c{a="' + "x" * 5000 + '"} 1\n', {"c"})["c"].values()
    assert math.isnan(value)


@examples(300)
@given(st.text() | st.text(alphabet='c{}"\\=, \n\t#1', max_size=80))
def test_no_text_raises(text: str) -> None:
    parse_page(text, {"c"})


def test_braces_and_quotes_without_end_take_no_time() -> None:
    for text in ("c" + "{" * 4000, 'c{a="' + "\\" * 4000, "c{" + '""' * 2000, "c{" + 'a="1",' * 700):
        parse_page((text + "\n") * 200, {"c"})
