"""Traces out of CSV files and DataFrames, with their clock; and what each hour needs."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pandas
import pytest

from dynamo_planner import Sla
from dynamo_planner.workloads import Trace, TraceError

COLUMNS = {"time": "when", "isl": "prompt", "osl": "answer"}


def test_a_csv_keeps_its_clock(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("when,prompt,answer\n2025-03-30T01:30:00+01:00,900,60\n2025-03-30T03:30:00+02:00,800,50\n")
    trace = Trace.read_csv(path, **COLUMNS, zone="Europe/Berlin")
    assert trace.start == datetime(2025, 3, 30, 1, 30, tzinfo=ZoneInfo("Europe/Berlin"))
    assert trace.arrival_s.tolist() == [0, 3600]  # clocks go forward in between
    later = trace.between("2025-03-30 03:00", "2025-03-30 04:00")
    assert (len(later), str(later.start)) == (1, "2025-03-30 03:00:00+02:00")
    hours = trace.per_hour("llama31-8b_h100_vllm_tp1", Sla(ttft_ms=500, itl_ms=25))
    assert [str(row.hour) for row in hours] == ["2025-03-30 01:00:00+01:00", "2025-03-30 03:00:00+02:00"]


def test_seconds_unix_time_and_a_missing_column(tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_text("when,prompt,answer\n0.5,900,60\n2,800,50\n")
    trace = Trace.read_csv(tmp_path / "s.csv", **COLUMNS)
    assert (trace.start, trace.arrival_s.tolist()) == (None, [0, 1.5])
    with pytest.raises(TraceError, match="counts seconds from a start that is not known"):
        trace.between("2025-01-01", "2025-01-02")
    (tmp_path / "u.csv").write_text("when,prompt,answer\n1700000060,900,60\n1700000000,800,50\n")
    assert Trace.read_csv(tmp_path / "u.csv", **COLUMNS).start == datetime.fromtimestamp(1_700_000_000, UTC)
    with pytest.raises(TraceError, match=r"no column 'wen', did you mean 'when'\? there are when, prompt, answer"):
        Trace.read_csv(tmp_path / "s.csv", **{**COLUMNS, "time": "wen"})


def test_a_frame_by_the_hour() -> None:
    """40 requests/s of 3000 + 250 tokens in the first hour need what SlaPolicy says, and none in the second."""
    when = pandas.Timestamp("2025-03-01 08:00", tz="Europe/Berlin") + pandas.to_timedelta(
        [*(0.025 * n for n in range(2400)), 7300], unit="s"
    )
    trace = Trace.from_frame(pandas.DataFrame({"when": when, "prompt": 3000, "answer": 250}), **COLUMNS)
    hours = trace.per_hour("llama31-8b_h100_vllm_tp1", Sla(ttft_ms=500, itl_ms=25))
    assert [row.busiest_per_s for row in hours][:2] == [40, 0]
    assert (hours[0].replicas, hours[0].gpus, hours[1].gpus) == ({"prefill": 3, "decode": 2}, 5, 0)
    assert hours.gpu_hours == 7
    assert list(hours.to_frame().columns[-3:]) == ["decode", "prefill", "gpus"]
    assert "2025-03-01 08:00 CET" in hours._repr_html_()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "no such file"),
        ("t,i,o\n1,5,nan\n", r"osl\[0\] must be a whole number .* got nan"),
        ("t,i,o\n1,-5,4\n", r"isl\[0\] .* got -5"),
    ],
)
def test_an_error_names_the_file(tmp_path: Path, content: str | None, says: str) -> None:
    path = tmp_path / "requests.csv"
    if content is not None:
        path.write_text(content)
    with pytest.raises(TraceError, match=f"^{path}: {says}"):
        Trace.read_csv(path, time="t", isl="i", osl="o")


def test_a_saved_trace_keeps_its_clock(tmp_path: Path) -> None:
    table = tmp_path / "mine.csv"
    table.write_text("at,prompt,answer\n2025-03-01T09:00:00,20,5\n2025-03-01T08:00:00,10,5\n")
    trace = Trace.read_csv(table, time="at", isl="prompt", osl="answer", zone="Europe/Berlin")
    trace.save(tmp_path / "requests.npz")
    again = Trace.load(tmp_path / "requests.npz")
    assert str(again.start) == "2025-03-01 09:00:00+01:00"
    assert str(again.between("2025-03-01 09:30", "2025-03-01 10:30").start) == "2025-03-01 09:30:00+01:00"


def test_the_dates_of_a_published_format_are_its_clock(tmp_path: Path) -> None:
    path = tmp_path / "azure.csv"
    path.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n2024-05-10 00:00:02,10,5\n2024-05-10 00:00:01,10,5\n")
    assert str(Trace.load(path).start) == "2024-05-10 00:00:01+00:00"
