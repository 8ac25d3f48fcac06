"""What a notebook shows of a report, a run and a decision; and the worst minute of a run, worked by hand."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from matplotlib.figure import Figure

from dynamo_planner import Decision, Profile, Reason, ScaleTo, Sla, Snapshot
from dynamo_planner.evaluation import Report
from dynamo_planner.evaluation.run import Run
from dynamo_planner.evaluation.score import score
from dynamo_planner.forecasting import Forecast
from dynamo_planner.simulator.results import ReplicaCounts, Served

SLA = Sla(ttft_ms=500, itl_ms=25)


@pytest.fixture
def run() -> Run:
    """A request every 2 s for five minutes; the ten from 130 to 150 s wait for 2 s, two others for 1 s."""
    arrival = np.arange(0.0, 300.0, 2.0)
    ttft = np.where(
        (arrival >= 130) & (arrival < 150), 2000.0, np.where((arrival == 10) | (arrival == 200), 1000.0, 100.0)
    )
    tokens, none = np.full(len(arrival), 50), np.zeros(len(arrival), np.int64)
    served = Served(
        arrival, tokens, tokens, ttft, np.full(len(arrival), 10.0), arrival, arrival + 5, none, none > 0, none, none
    )
    rise = Decision(
        at_s=1100.0,
        targets={"decode": 3},
        actions=(ScaleTo(pool="decode", replicas=3, expected=2),),
        reasons=(Reason(code="KvUsageHigh", pool="decode", message="KV usage <over> the threshold"),),
    )
    return Run(
        name="mine",
        served=served,
        counts=(ReplicaCounts(0.0, "decode", 2, 0, 0, 0, 2), ReplicaCounts(100.0, "decode", 2, 1, 0, 0, 3)),
        workers=(),
        decisions=(rise,),
        start_s=1000.0,
        end_s=300.0,
        score=score(served, SLA, gpu_s=7200, starts=1, duration_s=300),
        sla=SLA,
    )


def test_the_worst_minute(run: Run) -> None:
    worst = run.worst()
    assert (worst.at_s, worst.requests, worst.missed, worst.ttft_ms) == (120.0, 30, 10, 2000.0)
    assert (worst.before_per_s, worst.replicas["decode"].starting) == (0.5, 1)
    assert str(worst).splitlines() == [
        "from 120 s: 10 of 30 requests missed a target (0.5/s, after 0.5/s in the five minutes before)",
        "TTFT p95 2000 ms, ITL p95 10.0 ms; decode 2 ready and 1 starting",
        "decided at 100 s:",
        "decode: 2 -> 3 replicas",
        "  KvUsageHigh: KV usage <over> the threshold",
    ]
    calm = replace(run, sla=Sla(ttft_ms=1e6, itl_ms=1e6)).worst()
    assert (calm.missed, calm._repr_html_()) == (0, "<pre>no request missed a target in any minute</pre>")


def test_the_page_names_a_worst_minute_only_where_requests_missed(run: Run, tmp_path: Path) -> None:
    calm = replace(run, name="calm", sla=Sla(ttft_ms=1e6, itl_ms=1e6))
    Report(trace="a trace", sla=SLA, runs={"mine": run, "calm": calm}).save(tmp_path / "out.html")
    page = (tmp_path / "out.html").read_text()
    assert "<h2>mine: what was decided before and in its worst minute</h2><p>from 120 s: 10 of 30 requests" in page
    assert "<h2>calm</h2><p>no request missed a target in any minute</p>" in page


def test_short_forms(run: Run) -> None:
    report = Report(trace="a trace", sla=SLA, runs={"mine": run})
    assert repr(report) == "Report('a trace': Run('mine': 92.00% in time, 2.0 GPU-hours, see .score))"
    assert "<td>mine</td><td>0.9200</td>" in report._repr_html_()
    with pytest.raises(KeyError, match="there is no run 'mind', did you mean 'mine'"):
        report["mind"]
    html = run.decisions[0]._repr_html_()
    assert html == "<pre>decode: 2 -&gt; 3 replicas\n  KvUsageHigh: KV usage &lt;over&gt; the threshold</pre>"


def test_a_frame_of_scores(run: Run) -> None:
    frame = Report(trace="a trace", sla=SLA, runs={"mine": run}).to_frame()
    assert frame.loc["mine", ["attainment", "ttft_ms_p50", "starts"]].tolist() == [0.92, 100.0, 1]


def test_a_figure_shows_itself(run: Run) -> None:
    figure: Any = Report(trace="a trace", sla=SLA, runs={"mine": run}).plot()
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_pictures_are_drawn_on_axes_that_are_given(run: Run) -> None:
    figure = Figure()
    halves: Any = figure.subfigures(2)
    above, below = halves
    report = Report(trace="a trace", sla=SLA, runs={"mine": run})
    assert report.plot(figure=above) is figure
    assert report.plot_panel("mine", "decode", ax=below.subplots()) is figure
    assert below.axes[0].get_ylabel() == "decode"
    with pytest.raises(ValueError, match=r"no panel 'decod', did you mean 'decode'\?"):
        report.plot_panel("mine", "decod")


def test_the_codes_of_every_run_fit_into_their_row(run: Run) -> None:
    codes = ["KvUsageHigh", "Sized", "ArrivalsBursty", "Idle"]
    many = replace(run, decisions=[Decision(at_s=1100.0, reasons=[Reason(code=each, message="") for each in codes])])
    for runs in ({"many": many, "few": run}, {"few": run, "many": many}):
        reasons = Report(trace="a trace", sla=SLA, runs=runs).plot().axes[-1]
        assert reasons.get_ylim()[1] > len(codes) - 1


def test_the_clock_of_a_trace_is_kept_to_the_axes_and_the_explanations(run: Run) -> None:
    """Half past one before the night of 30 March 2025, in which Berlin's clock goes from 2 to 3."""
    timed = replace(run, start=datetime(2025, 3, 30, 1, 58, tzinfo=ZoneInfo("Europe/Berlin")))
    lines = str(timed.worst()).splitlines()
    assert (lines[0].split(": ")[0], lines[2]) == (
        "from 2025-03-30 03:00:00 CEST",
        "decided at 2025-03-30 01:59:40 CET:",
    )
    assert timed.explain("2025-03-30 01:59", "2025-03-30 03:01").startswith("2025-03-30 01:59:40 CET\n  decode: 2 -> 3")
    panel = Report(trace="a trace", sla=SLA, runs={"mine": timed}).plot_panel("mine").axes[0]
    assert panel.get_xlabel() == "time in Europe/Berlin"
    first, last = panel.get_xlim()
    assert round((last - first) * 86_400) == 300
    ticks = [label.get_text() for label in panel.get_xticklabels()]
    assert "03:00" in ticks
    assert "02:00" not in ticks


def test_a_policy_that_held_throughout_is_marked(run: Run) -> None:
    held = replace(run, decisions=(Decision(at_s=1000.0),))
    rows = Report(trace="day", sla=SLA, runs={"mine": run, "keda": held}).table().splitlines()[2:]
    assert [row.split("|")[1].strip() for row in rows] == ["mine", "keda (held decode throughout)"]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (Snapshot(at_s=0, traffic={"requests_per_s": 4, "isl": 800}, pools={"d": {"spec": {"role": "decode"}}}), "800"),
        (Profile.bundled("llama31-8b_h100_vllm_tp1"), "llama31-8b_h100_vllm_tp1"),
        (Forecast(root=3.0, error=0.5, levels=(0.5, 0.9), scores=(0.0, 1.4)), "13.69"),
    ],
)
def test_values_are_short_tables(value: Any, shown: str) -> None:
    html = value._repr_html_()
    assert f"<td>{shown}</td>" in html
    assert len(html) < 2000
