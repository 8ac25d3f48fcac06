"""What is shown of a run: the picture, the live table, and the plain lines."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread
from rich.console import Console

from dynamo_planner import Decision, Outcome, PoolSpec, PoolStatus, Reason, ScaleTo, Snapshot
from dynamo_planner.demo.picture import draw
from dynamo_planner.demo.record import Recording
from dynamo_planner.demo.run_status import run_status
from dynamo_planner.demo.screen import LiveTable, PlainLines, screen_for
from dynamo_planner.demo.summary import summarize
from dynamo_planner.demo.watch import moves
from dynamo_planner.runtime.decision_log import Step


def console(terminal: bool) -> tuple[Console, io.StringIO]:
    text = io.StringIO()
    return Console(file=text, force_terminal=terminal, width=140, height=40), text


def test_the_picture_has_a_panel_for_each_pool(short_run: Recording, tmp_path: Path) -> None:
    draw(short_run, summarize(short_run), tmp_path / "run.png")
    image = imread(tmp_path / "run.png")
    assert image.shape[1] == 1320
    assert image.shape[0] > 1000
    assert np.ptp(image[..., :3]) > 0.5


def test_a_run_without_anything_still_has_a_picture(short_run: Recording, tmp_path: Path) -> None:
    empty = Recording(title="nothing", sla=short_run.sla, due_s=())
    draw(empty, summarize(empty), tmp_path / "empty.png")
    assert imread(tmp_path / "empty.png").size


def test_a_view_is_of_the_last_five_seconds(short_run: Recording) -> None:
    view = run_status(short_run, None, at_s=10.0)
    assert view.requests_per_s == 2.0
    assert view.sent == 21
    assert view.in_flight == 3
    assert view.changes[-1] == "15 s  prefill 2 -> 1  QueueShort: idle"
    assert run_status(short_run, None, at_s=100.0).ttft_ms.p50 is None


def test_brackets_in_a_name_are_not_markup(short_run: Recording) -> None:
    where, text = console(terminal=True)
    with screen_for(where, "trace [/bold] [red]1", short_run.sla, 20.0) as screen:
        screen.show(run_status(short_run, None, at_s=20.0))
    assert "trace [/bold] [red]1" in text.getvalue()


@pytest.mark.parametrize("terminal", [True, False])
def test_the_table_and_the_lines_say_the_same(short_run: Recording, terminal: bool) -> None:
    where, text = console(terminal)
    pools = {"prefill": PoolStatus(spec=PoolSpec(role="prefill"), replicas=1, queued=7, kv_usage=0.42)}
    held = Reason(code="Collecting", pool="prefill", message="the next adjustment is in 2 s")
    decision = Decision(at_s=0, reasons=(held,))
    step = Step(at_s=0, name="demo", snapshot=Snapshot(at_s=0, pools=pools), decision=decision)
    with screen_for(where, short_run.title, short_run.sla, 20.0) as screen:
        assert isinstance(screen, LiveTable if terminal else PlainLines)
        screen.show(run_status(short_run, step, at_s=20.0))
    shown = text.getvalue()
    for fact in ("20 s", "prefill", "decode", "42%", "7", "lost", "150 ms", "QueueShort: idle"):
        assert fact in shown


def test_plain_lines_come_every_few_seconds_and_tell_each_change_once(short_run: Recording) -> None:
    where, text = console(terminal=False)
    with screen_for(where, short_run.title, short_run.sla, 20.0) as screen:
        for tenth in range(100):
            screen.show(run_status(short_run, None, at_s=tenth / 10))
    lines = text.getvalue().splitlines()
    assert len([line for line in lines if "req/s" in line]) == 4
    assert len([line for line in lines if "->" in line]) == 2


def test_a_move_tells_the_rule_that_set_the_target_and_not_what_it_was_worked_out_from() -> None:
    action = ScaleTo(pool="workers", replicas=3, expected=2)
    reasons = [
        Reason(code="DemandForecast", pool="workers", message="arrivals per second", values={"now": 4.0}),
        Reason(code="Sized", pool="workers", message="3 replicas for 4 requests/s", values={"replicas": 3}),
    ]
    step = Step(
        at_s=0,
        name="demo",
        snapshot=Snapshot(at_s=0, pools={"workers": PoolStatus(spec=PoolSpec(role="aggregated"), replicas=2)}),
        decision=Decision(at_s=0, targets={"workers": 3}, actions=[action], reasons=reasons),
        outcomes=[Outcome(action=action, status="applied")],
    )
    (move,) = moves(step, at_s=12)
    assert (move.before, move.after, move.why) == (2, 3, "3 replicas for 4 requests/s")
