"""A demo from start to end: workers up, the trace replayed while the planner scales, workers down, a summary."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from textwrap import indent

from rich.console import Console

from dynamo_planner.core.policy import Policy
from dynamo_planner.demo.clients import WithClients
from dynamo_planner.demo.comparison import INTERVAL_S, Outcome, Simulation
from dynamo_planner.demo.load import LoadClient, TraceRequest
from dynamo_planner.demo.picture import draw
from dynamo_planner.demo.record import Recording
from dynamo_planner.demo.router import Router
from dynamo_planner.demo.scenario import Scenario
from dynamo_planner.demo.screen import Screen, screen_for
from dynamo_planner.demo.simulated import WINDOW_S, simulated_stage
from dynamo_planner.demo.stage import POLICIES, DemoStage
from dynamo_planner.demo.summary import Summary, measured_outcome, summarize, summary_text
from dynamo_planner.demo.watch import Watch
from dynamo_planner.engines.vocabulary import Vocabulary
from dynamo_planner.executors import ExecutorError
from dynamo_planner.executors.circus import CircusExecutor, CircusPool
from dynamo_planner.executors.circus.state_dir import TEMPORARY
from dynamo_planner.runtime.planner import Planner
from dynamo_planner.runtime.signals import SIGNALLED
from dynamo_planner.sources.scraping.source import ScrapeSource

DONE, FAILED = 0, 1
"""Exit codes, beside those of an end by a signal."""

DECISIONS, NUMBERS, PICTURE, LOG = "decisions.jsonl", "summary.json", "demo.png", "demo.log"
"""The files that a demo leaves."""

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


LOOKS_EVERY_S = 0.1
STARTS_WITHIN_S = 30.0
SETTLES_WITHIN_S = 20.0
"""How long the workers may take to go once the last request is answered."""

LASTS_AT_MOST_S = 110.0
"""From the start of the first worker; what is not answered by then is lost."""


@dataclass(frozen=True)
class DemoOptions:
    """The options of a demo; ``ttft_ms`` and ``itl_ms`` are ``None`` where the engines' own will do."""

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


def run_demo(options: DemoOptions, console: Console) -> int:
    """Run a demo and return its exit code. Raises :class:`ExecutorError` where its workers cannot be started."""
    with STAGES[options.engine](options) as fitted:
        stage = fitted.with_targets(options.ttft_ms, options.itl_ms)
        demo = Demo(
            recording=Recording(options.scenario.title, stage.sla, tuple(request.due_s for request in stage.requests)),
            requests=stage.requests,
            length_s=options.scenario.length_s,
            pools=stage.pools,
            vocabulary=stage.vocabulary,
            policy=POLICIES[options.policy](options.interval_s, stage),
            decision_log=options.out / DECISIONS,
        )
        options.out.mkdir(parents=True, exist_ok=True)
        for left_by_the_last in (DECISIONS, NUMBERS, PICTURE):
            (options.out / left_by_the_last).unlink(missing_ok=True)
        console.print(_introduction(options, stage), markup=False, highlight=False, soft_wrap=True)
        others = _others(stage, options)
        with _logged_to(options.out / LOG):
            return asyncio.run(_run(demo, options, others, console))


def _others(stage: DemoStage, options: DemoOptions) -> tuple[Outcome, ...]:
    """Other policies on the same requests, where the engines can be simulated."""
    return Simulation(stage, options.scenario.length_s).outcomes() if stage.cluster is not None else ()


def _simulated(options: DemoOptions) -> AbstractContextManager[DemoStage]:
    return nullcontext(
        simulated_stage(options.scenario.requests, options.max_workers, disaggregated=options.disaggregated)
    )


def _llamacpp(options: DemoOptions) -> AbstractContextManager[DemoStage]:
    from dynamo_planner.demo.llamacpp import llamacpp_stage  # noqa: PLC0415 - an extra that the others do not need

    return llamacpp_stage(options.scenario.requests, options.max_workers)


STAGES = {"simulated": _simulated, "llama.cpp": _llamacpp}
"""The engines that a demo can run, by name."""


def _introduction(options: DemoOptions, stage: DemoStage) -> str:
    sla = stage.sla
    cut = f"           {stage.cut} requests that are too long for such engines are cut\n" if stage.cut else ""
    return (
        f"replaying  {options.scenario.title}: {len(stage.requests)} requests, then silence until workers are gone\n"
        f"workers    {' and '.join(f'1 to {options.max_workers} {name}' for name in stage.pools)}\n"
        f"engines    {indent(stage.engines, ' ' * 11).lstrip()}\n{cut}"
        f"SLA        TTFT {sla.ttft_ms:g} ms and ITL {sla.itl_ms:g} ms, for {sla.attainment:.0%} of the requests\n"
        f"policy     {options.policy}, an adjustment every {options.interval_s:g} s\n"
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


async def _run(demo: Demo, options: DemoOptions, others: Sequence[Outcome], console: Console) -> int:
    began_s = time.monotonic()
    stop, came = asyncio.Event(), list[int]()

    def end(number: int) -> None:
        came.append(number)
        stop.set()

    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup and shells set it for what is not to be ended
            asyncio.get_running_loop().add_signal_handler(number, end, number)
    screen = screen_for(console, demo.recording.title, demo.recording.sla, demo.length_s)
    await demo.run(screen, stop)
    if came:
        sys.stderr.write(f"ended by {signal.Signals(came[0]).name}; workers and arbiter are gone\n")
        return SIGNALLED + came[0]
    measured = measured_outcome(options.policy, demo.recording, demo.length_s)
    summary = summarize(demo.recording, time.monotonic() - began_s, (measured, *others))
    written = _write(summary, demo, options)
    console.print(f"\n{summary_text(summary)}\n", markup=False, highlight=False, soft_wrap=True)
    console.print(_what_next(written, demo), markup=False, highlight=False, soft_wrap=True)
    for failure in summary.failures:
        sys.stderr.write(f"failed: {failure}\n")
    return FAILED if summary.failures else DONE


def _what_next(written: Sequence[Path], demo: Demo) -> str:
    """The last lines of a demo."""
    return (
        f"see       {', '.join(str(path) for path in written)}\n"
        f"why       dynamo-planner explain {demo.decision_log}\n"
        "yours     dynamo-planner demo --trace FILE: your own requests; docs/tutorial.md reads any CSV\n"
        "plan      docs/tutorial.md: how many workers your load needs, by the hour\n"
        "embed     examples/01_own_controller.py: the same policy in a loop of yours\n"
        "run       docs/running.md: dynamo-planner run, with your own workers"
    )


def _write(summary: Summary, demo: Demo, options: DemoOptions) -> list[Path]:
    """Write what is to be kept; the paths of what there is to see."""
    numbers = options.out / NUMBERS
    numbers.write_text(summary.model_dump_json(indent=2) + "\n")
    picture = options.out / PICTURE
    if options.picture:
        draw(demo.recording, summary, picture)
    return [*([picture] if options.picture else []), numbers, demo.decision_log]


@dataclass(frozen=True)
class Demo:
    """A demo that is set up: requests to replay within ``length_s``, the pools that serve them, and who scales those.

    The pools are in the order in which a request passes them.
    """

    recording: Recording
    requests: tuple[TraceRequest, ...]
    length_s: float
    pools: Mapping[str, CircusPool]
    policy: Policy
    decision_log: Path
    vocabulary: Vocabulary | None = None

    async def run(self, screen: Screen, stop: asyncio.Event) -> None:
        """Fill the recording; end early when ``stop`` is set. However it ends, it leaves no process behind.

        Raises :class:`ExecutorError` where the workers do not start.
        """
        ends_s = asyncio.get_running_loop().time() + LASTS_AT_MOST_S
        namespace = f"demo-{os.getpid()}"
        with tempfile.TemporaryDirectory(prefix=f"{TEMPORARY}{namespace}-") as directory:
            executor = CircusExecutor(namespace, self.pools, state_dir=Path(directory), gpus=())
            try:
                await asyncio.to_thread(executor.start)
                await _ready(executor, stop)
                await self._replay(executor, screen, stop, ends_s)
            finally:
                await asyncio.to_thread(executor.close)

    async def _replay(self, executor: CircusExecutor, screen: Screen, stop: asyncio.Event, ends_s: float) -> None:
        roles = {name: pool.spec.role for name, pool in self.pools.items()}
        workers = ScrapeSource(executor.endpoints, roles, vocabulary=self.vocabulary, window_s=WINDOW_S)
        async with Router(executor.endpoints, tuple(self.pools)) as router:
            loop = asyncio.get_running_loop()
            began_s = loop.time()
            client = LoadClient(router.url, self.recording, began_s)
            source = WithClients(workers, self.recording, lambda: loop.time() - began_s, WINDOW_S)
            planner = Planner(self.policy, source, executor, interval_s=INTERVAL_S, log=self.decision_log)
            watch = Watch(self.recording, executor, planner, router, client, screen)
            replay = asyncio.create_task(client.replay(self.requests))
            answered_s = self.length_s
            try:
                with screen:
                    while not stop.is_set() and client.now_s() < min(ends_s - began_s, answered_s + SETTLES_WITHIN_S):
                        await watch.turn()
                        if not replay.done():
                            answered_s = max(answered_s, client.now_s())
                        elif client.now_s() >= self.length_s and watch.settled():
                            break
            finally:
                replay.cancel()
                with suppress(asyncio.CancelledError):
                    await replay


async def _ready(executor: CircusExecutor, stop: asyncio.Event) -> None:
    """Wait until each pool has a ready worker, or until it is not worth the wait any more."""
    clock = asyncio.get_running_loop().time
    gives_up_s = clock() + STARTS_WITHIN_S
    while not stop.is_set():
        pools = await asyncio.to_thread(executor.observe)
        if all(replicas is not None and replicas.ready for replicas in pools.values()):
            return
        problems = "\n".join(f"{worker.name}: {worker.message}" for worker in executor.workers() if worker.message)
        if problems or clock() > gives_up_s:
            raise ExecutorError(
                f"the workers did not start within {STARTS_WITHIN_S:g} s: {problems or 'they say nothing'}"
            )
        await asyncio.sleep(LOOKS_EVERY_S)
