"""Traces: the formats they come in, what is done with them, and what is made of files that are none."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from dynamo_planner.config.kinds import loading_context
from dynamo_planner.core.registry import KindError
from dynamo_planner.workloads.formats import npz
from dynamo_planner.workloads.formats.csv_table import CsvTable
from dynamo_planner.workloads.formats.registry import TRACE_FORMATS
from dynamo_planner.workloads.generators import AZURE_CONVERSATION_ISL, LogNormalLengths, burst_and_lull, poisson
from dynamo_planner.workloads.trace import Trace, TraceError
from tests.support.laws import examples
from tests.support.paths import DATA, shared

BURSTGPT = "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type\n"


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "mine.txt"
    path.write_text(text)
    return path


def test_azure_counts_from_the_first_row_and_is_sorted(tmp_path: Path) -> None:
    trace = Trace.load(
        written(
            tmp_path,
            "TIMESTAMP,ContextTokens,GeneratedTokens\n"
            "2023-11-16 18:15:46.6805900,374,44\n"
            "2023-11-16 18:15:47.6805900,396,109\n"
            "2023-11-16 18:15:46.1805900,879,55\r\n",
        )
    )
    assert trace.arrival_s.tolist() == [0.0, 0.5, 1.5]
    assert trace.isl.tolist() == [879, 374, 396]
    assert trace.osl.tolist() == [55, 44, 109]
    assert (trace.name, trace.prefix_hit, trace.duration_s) == ("mine", None, 1.5)


def test_azure_of_2024_has_time_zones(tmp_path: Path) -> None:
    rows = "2024-05-10 00:00:00.009930+00:00,10,1\n2024-05-10 02:00:01.009930+02:00,20,2\n"
    trace = Trace.load(written(tmp_path, f"TIMESTAMP,ContextTokens,GeneratedTokens\n{rows}"), name="day")
    assert (trace.arrival_s.tolist(), trace.name) == ([0.0, 1.0], "day")


def test_mooncake_batches_are_spread_and_prefixes_found(tmp_path: Path) -> None:
    """The second shares its two first blocks with the first; the third all three, but is only 1500 tokens long."""
    lines = [
        {"timestamp": 0, "input_length": 1500, "output_length": 5, "hash_ids": [1, 2, 3]},
        {"timestamp": 0, "input_length": 2000, "output_length": 6, "hash_ids": [1, 2, 9, 3]},
        {"timestamp": 3000, "input_length": 1500, "output_length": 7, "hash_ids": [1, 2, 3]},
    ]
    trace = Trace.load(written(tmp_path, "\n".join(map(json.dumps, lines)) + "\n\n"))
    assert trace.arrival_s.tolist() == [0.0, 1.5, 3.0]
    assert trace.prefix_hit is not None
    assert trace.prefix_hit.tolist() == [0, 1024, 1500]


def test_mooncake_without_hashes_has_no_prefix_hits(tmp_path: Path) -> None:
    rows = [{"timestamp": at, "input_length": 1, "output_length": 2} for at in (27, 50)]
    trace = Trace.load(written(tmp_path, "\n".join(map(json.dumps, rows))))
    assert (trace.arrival_s.tolist(), trace.prefix_hit) == (pytest.approx([0.0, 0.023]), None)


def test_burstgpt_failures_are_left_out_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    rows = "5,,1.5,ChatGPT,472,18,490,Conversation log\n45.5,,0,ChatGPT,1087,0,1087,API log\n"
    trace = Trace.load(written(tmp_path, BURSTGPT + rows))
    assert (trace.arrival_s.tolist(), trace.isl.tolist(), trace.osl.tolist()) == ([0.0], [472], [18])
    assert "left out 1 requests without tokens" in caplog.text


def test_npz_round_trip(tmp_path: Path) -> None:
    trace = Trace([0.0, 1.0, 2.5], [10, 20, 30], [1, 2, 3], [0, 5, 30], duration_s=9.0)  # type: ignore[arg-type]
    trace.save(tmp_path / "saved")
    again = Trace.load(tmp_path / "saved")
    for column in ("arrival_s", "isl", "osl", "prefix_hit"):
        assert getattr(again, column).tolist() == getattr(trace, column).tolist()
    assert (again.duration_s, again.name) == (9.0, "saved")


def test_npz_prefers_spread_arrivals(tmp_path: Path) -> None:
    path = tmp_path / "spread.npz"
    np.savez(path, arrival_s=[0.0, 0.0], arrival_s_spread=[0.5, 2.0], isl=[1, 1], osl=[1, 1])
    assert Trace.load(path).arrival_s.tolist() == [0.5, 2.0]


MINE = CsvTable("my CSV", arrival="At", isl="Prompt", osl="Answer")


def test_a_format_of_ones_own_is_a_column_map(tmp_path: Path) -> None:
    path = written(tmp_path, "answer, prompt ,at\n5,100,0.5\n7,200,2.0\n")
    with pytest.raises(TraceError, match=r"not a trace format that is known: .* It begins with 'answer, prompt"):
        Trace.load(path)
    trace = Trace.load(path, trace_format=MINE)
    assert (trace.arrival_s.tolist(), trace.isl.tolist(), trace.osl.tolist()) == ([0.0, 1.5], [100, 200], [5, 7])


def test_a_format_is_found_by_its_name_and_one_of_another_package_where_that_is_allowed(tmp_path: Path) -> None:
    path = written(tmp_path, "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46,1,2\n")
    assert len(Trace.load(path, trace_format="azure")) == 1
    with pytest.raises(TraceError, match=r"not a BurstGPT CSV .*; its columns are \['TIMESTAMP'"):
        Trace.load(path, trace_format="burstgpt")
    with pytest.raises(
        TraceError,
        match=r"'parquet' is no trace format; there are npz, azure, mooncake, bailian, json_seconds, burstgpt\. Give",
    ):
        Trace.load(path, trace_format="parquet")
    mine = f"{__name__}:MINE"
    with pytest.raises(KindError, match="a kind of your own, which is not allowed here"):
        TRACE_FORMATS.find(mine)
    assert TRACE_FORMATS.find(mine, loading_context(allow_custom=True)) == MINE


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        (" \n", "the file is empty"),
        ("a,b\n1,2\n", "not a trace format that is known: an npz with arrival_s"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n", "there is no request in it"),
        (
            "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46,1,2\nyesterday,3,4\n",
            r"line 3: .*'yesterday,3,4'",
        ),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46,1\n", r"line 2: too few fields: '2023"),
        (
            "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46,-1,2\n",
            r"line 2: lengths must be from 0 to .* -1",
        ),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46,1.5,2\n", r"line 2: invalid literal .* '1.5'"),
        (BURSTGPT + "nan,,1,ChatGPT,1,1,2,API log\n", "line 2: the time must be a finite number, got nan"),
        (BURSTGPT + "1,,1,ChatGPT,1,99999999999,2,API log\n", "line 2: lengths must be from 0 to 2147483647 tokens"),
        (BURSTGPT + "1,,1,ChatGPT,1,0,2,API log\n", "no request with prompt and output tokens among 1"),
        (
            '{"timestamp": 0, "input_length": 1, "output_length": 1}\n{"timestamp": 0}\n',
            "line 2: input_length must be a num",
        ),
        (
            '{"timestamp": 0, "input_length": 1.5, "output_length": 1}',
            "line 1: input_length must be a whole number, got 1.5",
        ),
        ('{"timestamp": NaN, "input_length": 1, "output_length": 1}', "line 1: the time must be a finite number"),
        ('{"timestamp": true, "input_length": 1, "output_length": 1}', "line 1: timestamp must be a number, got True"),
        (
            '{"timestamp": 0, "input_length": 1, "output_length": 1, "hash_ids": [[]]}',
            "line 1: hash_ids must be a list",
        ),
        ('{"timestamp": 0,\n', "line 1: Expecting property name"),
        ('{"timestamp": ' + "[" * 100_000, "line 1: "),
        ('{"x":' + "1" * (1 << 21), "line 1: the line is longer than 1048576 characters"),
        ("PK\x03\x04 no archive", "not a readable npz file"),
    ],
)
def test_a_bad_file_is_refused_with_its_name_line_and_content(tmp_path: Path, text: str, message: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(TraceError, match=message) as caught:
        Trace.load(path)
    assert str(caught.value).startswith(str(path))
    assert len(str(caught.value)) < 1000


def test_a_missing_file_and_a_directory_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match=r"none\.csv: no such file"):
        Trace.load(tmp_path / "none.csv")
    with pytest.raises(TraceError, match="cannot be read: Is a directory"):
        Trace.load(tmp_path)
    with pytest.raises(TraceError, match="cannot be written: No such file or directory"):
        poisson(10, 10, seed=1).save(tmp_path / "none" / "x.npz")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"arrival_s": [0.0], "isl": [1]}, r"array 'osl' is missing; there are \['arrival_s', 'isl'\]"),
        ({"arrival_s": [], "isl": [], "osl": []}, "there is no request in it"),
        ({"arrival_s": [0.0], "isl": [1, 2], "osl": [1]}, "isl has 2 entries and arrival_s has 1"),
        (
            {"arrival_s": [[0.0]], "isl": [1], "osl": [1]},
            r"arrival_s must be numbers in one dimension, got .* \(1, 1\)",
        ),
        ({"arrival_s": ["now"], "isl": [1], "osl": [1]}, "arrival_s must be numbers in one dimension"),
        ({"arrival_s": [math.inf], "isl": [1], "osl": [1]}, r"arrival_s\[0\] must be a finite number of at least 0"),
        ({"arrival_s": [-1.0], "isl": [1], "osl": [1]}, r"arrival_s\[0\] must be .* got -1"),
        ({"arrival_s": [0.0], "isl": [1.5], "osl": [1]}, r"isl\[0\] must be a whole number from 0"),
        ({"arrival_s": [0.0], "isl": [math.nan], "osl": [1]}, r"isl\[0\] must be a whole number from 0"),
        (
            {"arrival_s": [0.0], "isl": [1], "osl": [1], "prefix_hit": [2]},
            r"prefix_hit\[0\] must be at most isl, got 2",
        ),
        ({"arrival_s": [0.0], "isl": [1], "osl": [1], "duration_s": [1, 2]}, "duration_s must be a single number"),
        ({"arrival_s": [0.0], "isl": [1], "osl": [1], "duration_s": math.nan}, "duration_s must be a finite number"),
    ],
)
def test_a_bad_npz_is_refused(tmp_path: Path, arrays: dict[str, object], message: str) -> None:
    path = tmp_path / "bad.npz"
    np.savez(path, **{name: np.array(values) for name, values in arrays.items()})  # type: ignore[arg-type]
    with pytest.raises(TraceError, match=message):
        Trace.load(path)


def test_npz_neither_unpickles_nor_unpacks_without_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "hostile.npz"
    np.savez(path, arrival_s=np.array([{"pickled": 1}], dtype=object), isl=[1], osl=[1])
    with pytest.raises(TraceError, match="not a readable npz file: Object arrays cannot be loaded"):
        Trace.load(path)
    np.savez_compressed(path, arrival_s=np.zeros(10_000), isl=[1], osl=[1])
    monkeypatch.setattr(npz, "MAX_NPZ_BYTES", 5000)
    with pytest.raises(TraceError, match="bytes when unpacked; at most 5000 are allowed"):
        Trace.load(path)


FUZZ = examples(150, suppress=[HealthCheck.function_scoped_fixture])
HEADERS = st.sampled_from(
    ["TIMESTAMP,ContextTokens,GeneratedTokens\n", BURSTGPT, '{"timestamp": 0, "input_length": 1, ', ""]
)


@FUZZ
@given(
    head=HEADERS, body=st.binary(max_size=200) | st.text(',.0123456789"-+eE:\n{}[]nul ', max_size=200).map(str.encode)
)
def test_random_bytes_raise_nothing_but_trace_errors(tmp_path: Path, head: str, body: bytes) -> None:
    path = tmp_path / "fuzz"
    path.write_bytes(head.encode() + body)
    try:
        assert len(Trace.load(path)) > 0
    except TraceError as error:
        assert str(path) in str(error)


@FUZZ
@given(data=st.data())
def test_a_damaged_npz_raises_nothing_but_trace_errors(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "damaged.npz"
    np.savez_compressed(path, arrival_s=np.arange(50.0), isl=np.arange(50), osl=np.arange(50))
    whole = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(0, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole)))])
    try:
        assert len(Trace.load(path)) > 0
    except TraceError as error:
        assert str(path) in str(error)


def test_between_starts_anew() -> None:
    trace = Trace([0.0, 1.0, 2.0, 3.0], [1, 2, 3, 4], [1, 1, 1, 1])  # type: ignore[arg-type]
    part = trace.between(1, 3)
    assert (part.arrival_s.tolist(), part.isl.tolist(), part.duration_s) == ([0.0, 1.0], [2, 3], 2.0)
    assert trace.between(2.5, 100).duration_s == 0.5
    with pytest.raises(TraceError, match=r"no request from 5 to 6; it is 3 s long"):
        trace.between(5, 6)


def test_speed_up_compresses_time() -> None:
    trace = poisson(5, 100, seed=1)
    fast = trace.speed_up(4)
    assert fast.duration_s == 25
    np.testing.assert_allclose(fast.arrival_s * 4, trace.arrival_s)
    for factor in (0, -1, math.inf, math.nan):
        with pytest.raises(TraceError, match="speed-up must be a finite number above 0"):
            trace.speed_up(factor)


@pytest.mark.parametrize("factor", [0.1, 0.5, 1.0, 2.0, 3.7])
def test_at_rate_keeps_time_and_the_rate_curve(factor: float) -> None:
    trace = burst_and_lull(20, 100, seed=5, duration_s=600)
    before = trace.stats().requests_per_s
    scaled = trace.at_rate(before * factor, seed=2)
    assert scaled.duration_s == trace.duration_s
    assert scaled.stats().requests_per_s == pytest.approx(before * factor, rel=0.03)
    bins = np.arange(0, 601, 60)
    was, now = (np.histogram(each.arrival_s, bins)[0] for each in (trace, scaled))
    np.testing.assert_allclose(now / len(scaled), was / len(trace), atol=0.03)
    assert set(scaled.isl) <= set(trace.isl)
    assert len(np.unique(scaled.arrival_s)) == len(scaled)


def test_at_rate_is_seeded_and_refuses_what_cannot_be() -> None:
    trace = poisson(5, 100, seed=1)
    first, second, third = (trace.at_rate(8, seed=seed).arrival_s for seed in (1, 1, 2))
    assert np.array_equal(first, second) and not np.array_equal(first[:50], third[:50])
    with pytest.raises(TraceError, match="requests_per_s must be a finite number above 0"):
        trace.at_rate(0, seed=1)
    with pytest.raises(TraceError, match="no request is left"):
        trace.at_rate(1e-9, seed=1)
    with pytest.raises(TraceError, match="it has no length"):
        Trace([0.0], [1], [1]).at_rate(1, seed=1)  # type: ignore[arg-type]


def test_traces_are_immutable() -> None:
    trace = poisson(5, 10, seed=1)
    with pytest.raises(ValueError, match="read-only"):
        trace.isl[0] = 1
    mine = np.array([1, 2])
    Trace(np.array([0.0, 1.0]), mine, mine)
    mine[0] = 5  # what was given stays writable


def test_poisson_counts_have_their_mean_as_variance() -> None:
    stats = poisson(5, 200_000, seed=3).stats()
    assert stats.requests_per_s == pytest.approx(5, rel=0.01)
    assert stats.dispersion == pytest.approx(1, abs=0.1)
    assert stats.isl_p50 == pytest.approx(AZURE_CONVERSATION_ISL.median, rel=0.02)
    assert stats.isl_mean == pytest.approx(AZURE_CONVERSATION_ISL.mean, rel=0.02)


def test_burst_and_lull_has_both_and_is_more_uneven_than_poisson() -> None:
    trace = burst_and_lull(5, 50, seed=3, duration_s=90, length_scale=0.25)
    counts = np.histogram(trace.arrival_s, [0, 18, 49.5, 90])[0] / [18, 31.5, 40.5]
    assert counts == pytest.approx([5, 50, 5], rel=0.35)
    assert trace.duration_s == 90
    assert np.median(trace.isl) == pytest.approx(255, rel=0.1)
    busy = np.histogram(burst_and_lull(50, 50, seed=1, duration_s=5000).arrival_s, np.arange(5001))[0]
    assert busy.var() / busy.mean() == pytest.approx(1 + 50 * 0.1, rel=0.15)
    same = burst_and_lull(5, 50, seed=3, duration_s=90, length_scale=0.25)
    assert np.array_equal(same.arrival_s, trace.arrival_s) and np.array_equal(same.osl, trace.osl)


def test_lengths_refuse_a_mean_below_the_median() -> None:
    with pytest.raises(ValueError, match=r"mean \(5.0\) must be at least median \(6.0\)"):
        LogNormalLengths(median=6, mean=5)
    assert LogNormalLengths(median=4, mean=5).scaled(0.01) == LogNormalLengths(median=1, mean=1, maximum=328)


@pytest.mark.parametrize(
    ("name", "requests", "isl_mean", "osl_mean", "dispersion"),
    [
        ("azure2023_conv_10min", 2867, 1147, 260, 7.26),
        ("mooncake_conversation_10min", 1750, 13_992, 354, 2.59),
    ],
)
def test_recorded_traces(name: str, requests: int, isl_mean: float, osl_mean: float, dispersion: float) -> None:
    """Expected numbers: by numpy alone; the dispersion is that of whole minutes, of the spread arrivals."""
    check_stats(DATA / "traces" / f"{name}.npz", requests, isl_mean, osl_mean, dispersion)


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "requests", "isl_mean", "osl_mean", "dispersion"),
    [
        ("azure2023_conv", 19_366, 1155, 211, 16),
        ("mooncake_conversation", 12_031, 12_035, 343, 2.9),
        ("servegen_mlarge_day0_x0.03", 723_892, 648, 155, 45),
    ],
)
def test_whole_traces(name: str, requests: int, isl_mean: float, osl_mean: float, dispersion: float) -> None:
    """Expected numbers: the table that comes with the files."""
    check_stats(shared("traces", f"{name}.npz"), requests, isl_mean, osl_mean, dispersion)


def check_stats(path: Path, requests: int, isl_mean: float, osl_mean: float, dispersion: float) -> None:
    stats = Trace.load(path).stats()
    assert stats.requests == requests
    assert (stats.isl_mean, stats.osl_mean) == pytest.approx((isl_mean, osl_mean), abs=1)
    assert stats.dispersion == pytest.approx(dispersion, rel=0.02)
