"""From what a user asked for to an exit code: set a demo up, run it, and tell what came of it."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from textwrap import indent

from rich.console import Console

from dynamo_planner.core.snapshot import Sla
from dynamo_planner.demo.picture import draw
from dynamo_planner.demo.record import Recording
from dynamo_planner.demo.report import report
from dynamo_planner.demo.scenario import Scenario
from dynamo_planner.demo.screen import screen_for
from dynamo_planner.demo.show import Show
from dynamo_planner.demo.simulated import simulated_stage
from dynamo_planner.demo.stage import POLICIES, Stage
from dynamo_planner.demo.summary import Summary, summarize

DONE, FAILED, SIGNALLED = 0, 1, 128
"""Exit codes; ended by a signal, it is the last one plus the signal's number, as shells have it."""

DECISIONS, NUMBERS, PICTURE, LOG = "decisions.jsonl", "summary.json", "demo.png", "demo.log"
"""The files that a demo leaves."""

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class Asked:
    """What a user asked for; ``ttft_ms`` and ``itl_ms`` are ``None`` where the engines' own will do."""

    scenario: Scenario
    engine: str
    disaggregated: bool
    policy: str
    out: Path
    max_workers: int
    interval_s: float
    ttft_ms: float | None
    itl_ms: float | None
    picture: bool


def perform(asked: Asked, console: Console) -> int:
    """Run a demo and return its exit code. Raises :class:`ExecutorError` where its workers cannot be started."""
    with STAGES[asked.engine](asked) as stage:
        sla = Sla(
            ttft_ms=stage.sla.ttft_ms if asked.ttft_ms is None else asked.ttft_ms,
            itl_ms=stage.sla.itl_ms if asked.itl_ms is None else asked.itl_ms,
            attainment=stage.sla.attainment,
        )
        show = Show(
            recording=Recording(asked.scenario.title, sla, tuple(request.due_s for request in stage.requests)),
            requests=stage.requests,
            length_s=asked.scenario.length_s,
            pools=stage.pools,
            policy=POLICIES[asked.policy](asked.interval_s, stage),
            decision_log=asked.out / DECISIONS,
        )
        asked.out.mkdir(parents=True, exist_ok=True)
        for left_by_the_last in (DECISIONS, NUMBERS, PICTURE):
            (asked.out / left_by_the_last).unlink(missing_ok=True)
        console.print(_introduction(asked, stage, sla), markup=False, highlight=False, soft_wrap=True)
        with _logged_to(asked.out / LOG):
            return asyncio.run(_perform(show, asked, console))


def _simulated(asked: Asked) -> AbstractContextManager[Stage]:
    return nullcontext(simulated_stage(asked.scenario.requests, asked.max_workers, disaggregated=asked.disaggregated))


def _llamacpp(asked: Asked) -> AbstractContextManager[Stage]:
    from dynamo_planner.demo.llamacpp import llamacpp_stage  # noqa: PLC0415 - an extra that the others do not need

    return llamacpp_stage(asked.scenario.requests, asked.max_workers)


STAGES = {"simulated": _simulated, "llama.cpp": _llamacpp}
"""The engines that a demo can run, by name."""


def _introduction(asked: Asked, stage: Stage, sla: Sla) -> str:
    cut = f"           {stage.cut} requests that are too long for such engines are cut\n" if stage.cut else ""
    return (
        f"replaying  {asked.scenario.title}: {len(stage.requests)} requests, then silence until workers are gone\n"
        f"workers    {' and '.join(f'1 to {asked.max_workers} {name}' for name in stage.pools)}\n"
        f"engines    {indent(stage.engines, ' ' * 11).lstrip()}\n{cut}"
        f"SLA        TTFT {sla.ttft_ms:g} ms, ITL {sla.itl_ms:g} ms\n"
        f"policy     {asked.policy}, an adjustment every {asked.interval_s:g} s\n"
    )


@contextmanager
def _logged_to(path: Path) -> Iterator[None]:
    """Log lines of this package go to a file for this while, so that they leave the screen alone."""
    logger = logging.getLogger("dynamo_planner")
    handler = logging.FileHandler(path, mode="w", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        handler.close()
        logger.level, logger.propagate = before


async def _perform(show: Show, asked: Asked, console: Console) -> int:
    began_s = time.monotonic()
    stop, came = asyncio.Event(), list[int]()

    def end(number: int) -> None:
        came.append(number)
        stop.set()

    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup and shells set it for what is not to be ended
            asyncio.get_running_loop().add_signal_handler(number, end, number)
    screen = screen_for(console, show.recording.title, show.recording.sla, show.length_s)
    await show.run(screen, stop)
    if came:
        sys.stderr.write(f"ended by {signal.Signals(came[0]).name}; workers and arbiter are gone\n")
        return SIGNALLED + came[0]
    summary = summarize(show.recording, time.monotonic() - began_s)
    written = _write(summary, show, asked)
    console.print(f"\n{report(summary)}\n", markup=False, highlight=False, soft_wrap=True)
    console.print(f"see {', '.join(str(path) for path in written)}", markup=False, highlight=False, soft_wrap=True)
    for failure in summary.failures:
        sys.stderr.write(f"failed: {failure}\n")
    return FAILED if summary.failures else DONE


def _write(summary: Summary, show: Show, asked: Asked) -> list[Path]:
    """Write what is to be kept; the paths of what there is to see."""
    numbers = asked.out / NUMBERS
    numbers.write_text(summary.model_dump_json(indent=2) + "\n")
    picture = asked.out / PICTURE
    if asked.picture:
        draw(show.recording, summary, picture)
    return [*([picture] if asked.picture else []), numbers, show.decision_log]
