"""The catalogue of knobs, and what their values must be."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from dynamo_planner.engines import ENGINES, Knob, KnobError, catalogue, check_knobs
from tests.support.paths import DOCS

EVERY = [knob for engine in ENGINES for knob in catalogue(engine).values()]


@pytest.mark.parametrize("engine", ["vllm", "sglang", "trtllm", "llamacpp"])
def test_every_engine_has_its_chunk_and_its_sequences(engine: str) -> None:
    knobs = catalogue(engine)
    for name in ("max_num_batched_tokens", "max_num_seqs"):
        assert knobs[name].roles == ("prefill", "decode", "aggregated")
        assert knobs[name].argument
        assert knobs[name].applied == "restart"


@given(knob=st.sampled_from(EVERY), value=st.floats(-1e6, 1e6))
def test_the_nearest_value_is_one_that_it_can_have(knob: Knob, value: float) -> None:
    for found in (knob.nearest(value), knob.below(value)):
        assert knob.check(found) == found
    assert knob.below(value) <= max(value, knob.minimum) + 1e-9


@given(knob=st.sampled_from(EVERY), value=st.floats(0, 2e5), up=st.booleans())
def test_turning_ends_at_the_ends(knob: Knob, value: float, up: bool) -> None:
    value = knob.nearest(value)
    seen = [value]
    while (turned := knob.neighbor(seen[-1], up=up)) is not None:
        assert (turned > seen[-1]) == up
        seen.append(turned)
        assert len(seen) < 2000
    if knob.minimum > 0 or knob.notch == 1 or up is False:
        assert seen[-1] == (knob.nearest(knob.maximum) if up else knob.nearest(knob.minimum))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (True, "max_num_seqs is True; it must be a number from 1 to 4096"),
        ("many", "max_num_seqs is 'many'; it must be a number from 1 to 4096"),
        (math.nan, "max_num_seqs is nan; it must be a number from 1 to 4096"),
        (0, "max_num_seqs is 0; it must be from 1 to 4096: take 1"),
        (5000, "max_num_seqs is 5000; it must be from 1 to 4096: take 4096"),
        (2.4, "max_num_seqs is 2.4; it goes in steps of 1: take 2"),
    ],
)
def test_a_value_that_it_cannot_have_is_named_with_the_mend(value: bool | float | str, message: str) -> None:
    with pytest.raises(KnobError, match=f"^{message.replace('.', '[.]')}$"):
        check_knobs(catalogue("vllm"), {"max_num_seqs": value})


def test_values_are_checked_against_each_other() -> None:
    with pytest.raises(KnobError, match=r"max_num_batched_tokens is 128, below max_num_ubatch_tokens, which is 512"):
        check_knobs(catalogue("llamacpp"), {"max_num_ubatch_tokens": 512, "max_num_batched_tokens": 128})
    check_knobs(catalogue("sglang"), {"max_num_seqs": 512, "max_num_batched_tokens": 128})
    with pytest.raises(KnobError, match=r"there is no knob 'max_seqs'; there are max_num_batched_tokens, max_num_seqs"):
        check_knobs(catalogue("vllm"), {"max_seqs": 8})


def test_users_add_knobs_as_data() -> None:
    mine = Knob.model_validate_json(
        '{"name": "spec_len", "own_name": "num_speculative_tokens", "variable": "SPEC_LEN", "roles": ["decode"],'
        ' "minimum": 0, "maximum": 8, "notch": 1, "applied": "live", "trades": "compute for ITL"}'
    )
    assert catalogue(None, [mine]) == {"spec_len": mine}
    assert [mine.neighbor(value, up=True) for value in (0, 7, 8)] == [1, 8, None]
    assert Knob.model_validate_json(mine.model_dump_json()) == mine


def test_what_cannot_be_a_knob_is_refused() -> None:
    with pytest.raises(ValueError, match="engine is 'tgi'; the engines with knobs are vllm, sglang"):
        catalogue("tgi")
    with pytest.raises(ValidationError, match=r"maximum \(1\) must be at least minimum \(2\)"):
        Knob(name="x", own_name="x", minimum=2, maximum=1, trades="nothing")
    with pytest.raises(ValidationError, match="argument"):
        Knob(name="x", own_name="x", argument="; rm -rf /", minimum=1, maximum=2, trades="nothing")


def test_the_table_of_the_documentation_is_the_catalogue() -> None:
    lines = (DOCS / "knobs.md").read_text().splitlines()
    rows = [line.split(" | ") for line in lines if line.startswith("| ") and "` | `" in line]
    told = [(row[0].removeprefix("| "), row[1], row[2], row[4], row[5], row[6].removesuffix(" |")) for row in rows]
    assert told == [
        (
            engine,
            f"`{knob.name}`",
            f"`{knob.own_name}`",
            f"{knob.minimum:g} to {knob.maximum:.10g}",
            knob.applied,
            knob.trades,
        )
        for engine in ENGINES
        for knob in catalogue(engine).values()
    ]
    assert all(
        (knob.argument or knob.variable or "key in etcd") in row[3] for knob, row in zip(EVERY, rows, strict=True)
    )
